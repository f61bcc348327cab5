// Assertions. CHECK holds in every build, DCHECK where NDEBUG is not set: one fact a line, never the result of I/O.
#pragma once

namespace quire {

[[noreturn]] void check_failed(const char* what, const char* file, int line);

}  // namespace quire

#define CHECK(condition) \
  (__builtin_expect(!!(condition), 1) ? (void)0 : ::quire::check_failed(#condition, __FILE__, __LINE__))
#ifdef NDEBUG
#define DCHECK(condition) ((void)sizeof(!!(condition)))
#else
#define DCHECK(condition) CHECK(condition)
#endif
