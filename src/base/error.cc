// Two buffers per thread, on the heap, so that a thread that never fails costs no TLS beyond a pointer.
#include "base/error.h"

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

namespace quire {
namespace {

constexpr int kCauseBytes = 512;
constexpr int kMessageBytes = 1024 + kCauseBytes;

struct ErrorText {
  char cause[kCauseBytes] = "";
  char message[kMessageBytes] = "no error";
  int cause_errnum = 0;  // 0: no cause is recorded
};

constinit thread_local const char* fault_text = nullptr;

ErrorText* error_text() {
  static thread_local std::unique_ptr<ErrorText> text;
  if (!text) text.reset(new (std::nothrow) ErrorText);
  return text.get();
}

}  // namespace

Failure fail_with(int errnum, const char* format, ...) {
  if (ErrorText* text = error_text()) {
    errno = errnum;  // for %m
    va_list args;
    va_start(args, format);
    std::vsnprintf(text->cause, kCauseBytes, format, args);
    va_end(args);
    text->cause_errnum = errnum;
  }
  return fail(errnum);
}

void clear_cause() {
  if (ErrorText* text = error_text()) text->cause_errnum = 0;
}

void report_error(int errnum, const char* format, ...) {
  if (ErrorText* text = error_text()) {
    va_list args;
    va_start(args, format);
    int used = std::vsnprintf(text->message, kMessageBytes - kCauseBytes, format, args);
    va_end(args);
    if (used > kMessageBytes - kCauseBytes - 1) used = kMessageBytes - kCauseBytes - 1;
    if (used < 0) used = 0;
    char unnamed[64];
    const char* cause = text->cause_errnum == errnum ? text->cause : strerror_r(errnum, unnamed, sizeof unnamed);
    std::snprintf(text->message + used, static_cast<std::size_t>(kMessageBytes - used), ": %s", cause);
    text->cause_errnum = 0;
  }
  fault_text = nullptr;
  errno = errnum;
}

void report_again(int errnum, const char* message) {
  if (ErrorText* text = error_text()) std::snprintf(text->message, kMessageBytes, "%s", message);
  errno = errnum;
}

void note_fault(const char* sentence) noexcept { fault_text = sentence; }

const char* error_message() {
  if (fault_text != nullptr) return fault_text;
  const ErrorText* text = error_text();
  return text != nullptr ? text->message : "out of memory for an error message";
}

}  // namespace quire
