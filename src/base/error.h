// The calling thread's last error as a sentence, and the early-return helper.
// Thread safety: per thread. Who knows the cause says it (fail_with); the API adds the call, the file and the offset
// (report_error) and sets errno.
#pragma once

#include "quire/result.h"

namespace quire {

// Records the cause, "what went wrong and what to do", and returns fail(errnum). Until report_error takes it up.
[[gnu::format(printf, 2, 3), gnu::cold]] Failure fail_with(int errnum, const char* format, ...);

// Forgets a recorded cause: its error was dealt with.
void clear_cause();

// Ends a failed call: the thread's message becomes "CALL: CAUSE", CALL being the formatted text and CAUSE what was
// recorded for this errnum, else strerror's. Sets errno.
[[gnu::format(printf, 2, 3), gnu::cold]] void report_error(int errnum, const char* format, ...);

// The same with a message that another thread's report_error made.
[[gnu::cold]] void report_again(int errnum, const char* message);

// From a signal handler: what error_message() says until this thread's next call that fails. A string literal.
void note_fault(const char* sentence) noexcept;

// The thread's last message. Never null.
const char* error_message();

}  // namespace quire

#define QUIRE_TRY(expression)                                        \
  do {                                                               \
    if (auto&& quire_try_result = (expression); !quire_try_result) { \
      return ::quire::fail(quire_try_result.errnum());               \
    }                                                                \
  } while (0)
