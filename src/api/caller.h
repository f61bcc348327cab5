// What callers' pointers lead to, other than the buffers of reads and writes: it may lie in a mapped view as well. So
// it is copied in before a call does anything else, and out when it has done all, with nothing held. Guarantees: R4. In
// ordinary memory it costs one compare, and vectors and strings are used where they are. Locks: those of bounce.h,
// before and after the call's own.
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "fs/bounce.h"
#include "quire/result.h"
#include "sync/view_region.h"

namespace quire {

// All of it or EFAULT.
Status copy_in_from_view(void* to, const void* from, std::size_t count);
inline Status copy_in(void* to, const void* from, std::size_t count) {
  if (__builtin_expect(touches_views(from, count), 0)) return copy_in_from_view(to, from, count);
  if (count != 0) std::memcpy(to, from, count);
  return {};
}
// How many bytes there was room for; EFAULT where it is none.
inline Result<std::size_t> copy_out(void* to, const void* from, std::size_t count) {
  if (__builtin_expect(touches_views(to, count), 0)) {
    return view_store(to, std::span(static_cast<const char*>(from), count));
  }
  if (count != 0) std::memcpy(to, from, count);
  return count;
}
// All of it or EFAULT, which may come after a part.
Status copy_out_whole(void* to, const void* from, std::size_t count);

// Of an answer as snprintf gives it: what fits into `size` bytes with its NUL. Returns the text's length.
Result<std::size_t> copy_out_text(char* buffer, std::size_t size, const std::string& text);

// A vector of plain structs that a caller passes to be read. bad_alloc is the caller's to catch.
template <typename T>
class CallerArray {
 public:
  Status get(const T* given, std::size_t count) {
    if (__builtin_expect(!touches_views(given, count * sizeof(T)), 1)) {
      items_ = std::span(given, count);
      return {};
    }
    if (count > PTRDIFF_MAX / sizeof(T)) return fail(EFAULT);
    copy_.resize(count);
    items_ = copy_;
    return copy_in_from_view(copy_.data(), given, count * sizeof(T));
  }
  std::span<const T> items() const { return items_; }

 private:
  std::span<const T> items_;
  std::vector<T> copy_;
};

// A string that a caller passes. EFAULT where its view ends before it does. bad_alloc is the caller's to catch.
class CallerString {
 public:
  Status get(const char* given);
  const char* c_str() const { return text_; }

 private:
  const char* text_ = "";
  std::string copy_;
};

}  // namespace quire
