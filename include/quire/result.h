// Errno-valued results: what every fallible function of quire returns. No allocation, no exception.
// Thread safety: plain values.
#pragma once

#include <utility>

namespace quire {

// A value or a positive errno. T is default-constructible; an error carries no value.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  static Result error(int errnum) {
    Result r;
    r.errnum_ = errnum;
    return r;
  }
  bool ok() const { return errnum_ == 0; }
  explicit operator bool() const { return ok(); }
  int errnum() const { return errnum_; }  // 0 when ok
  T& value() { return value_; }
  const T& value() const { return value_; }
  T& operator*() { return value_; }
  T* operator->() { return &value_; }
  T take() { return std::move(value_); }

 private:
  Result() = default;
  T value_{};
  int errnum_ = 0;
};

// Success or a positive errno.
template <>
class [[nodiscard]] Result<void> {
 public:
  constexpr Result() = default;
  static constexpr Result error(int errnum) {
    Result r;
    r.errnum_ = errnum;
    return r;
  }
  constexpr bool ok() const { return errnum_ == 0; }
  constexpr explicit operator bool() const { return ok(); }
  constexpr int errnum() const { return errnum_; }

 private:
  int errnum_ = 0;
};

using Status = Result<void>;

// Converts to any Result: `return fail(EIO);`
class Failure {
 public:
  constexpr explicit Failure(int errnum) : errnum_(errnum) {}
  template <typename T>
  operator Result<T>() const {
    return Result<T>::error(errnum_);
  }

 private:
  int errnum_;
};
constexpr Failure fail(int errnum) { return Failure(errnum); }

}  // namespace quire
