// For the tests of mapped views: a view that unmaps itself, and loads that may end in SIGBUS or SIGSEGV of their
// thread.
#pragma once

#include <setjmp.h>
#include <signal.h>

#include "api/api_test_util.h"

namespace quire::api_testing {

// With the mask saved: ThreadSanitizer calls handlers with all signals blocked, SA_NODEFER or not.
inline thread_local sigjmp_buf load_failed;
inline thread_local volatile sig_atomic_t loading = 0;

// While it lives, a load by load_or_signal that ends in a signal is answered with that.
class CatchFaults {
 public:
  CatchFaults() {
    struct sigaction action = {};
    action.sa_handler = [](int signal) {
      if (loading == 0) {
        ::signal(signal, SIG_DFL);
        return;
      }
      siglongjmp(load_failed, signal);
    };
    action.sa_flags = SA_NODEFER;
    sigaction(SIGBUS, &action, &old_bus_);
    sigaction(SIGSEGV, &action, &old_segv_);
  }
  ~CatchFaults() {
    sigaction(SIGBUS, &old_bus_, nullptr);
    sigaction(SIGSEGV, &old_segv_, nullptr);
  }

 private:
  struct sigaction old_bus_, old_segv_;
};

// The byte, or minus the signal's number.
inline int load_or_signal(const char* address) {
  const int signal = sigsetjmp(load_failed, 1);
  if (signal != 0) {
    loading = 0;
    return -signal;
  }
  loading = 1;
  const int byte = static_cast<unsigned char>(*static_cast<const volatile char*>(address));
  loading = 0;
  return byte;
}

// 0, or minus the signal's number.
inline int store_or_signal(char* address, char byte) {
  const int signal = sigsetjmp(load_failed, 1);
  if (signal != 0) {
    loading = 0;
    return -signal;
  }
  loading = 1;
  *static_cast<volatile char*>(address) = byte;
  loading = 0;
  return 0;
}

// As a string, by loads alone.
inline std::string load_all(const char* address, std::size_t count) {
  std::string bytes(count, '?');
  std::memcpy(bytes.data(), address, count);
  return bytes;
}

class TestView {
 public:
  TestView(const CachePtr& cache, const FilePtr& file, off_t offset, std::size_t length, int prot = PROT_READ,
           unsigned flags = 0)
      : cache_(cache.get()), length_(length) {
    void* const base = quire_mmap2(file.get(), offset, length, prot, flags);
    EXPECT_NE(base, MAP_FAILED) << quire_error_message();
    base_ = static_cast<char*>(base);
  }
  ~TestView() { unmap(); }
  TestView(const TestView&) = delete;
  TestView& operator=(const TestView&) = delete;
  void unmap() {
    if (base_ == nullptr) return;
    EXPECT_EQ(quire_munmap(cache_, base_, length_), 0) << quire_error_message();
    base_ = nullptr;
  }
  char* base() const { return base_; }
  std::string bytes(std::size_t offset, std::size_t count) const { return load_all(base_ + offset, count); }

 private:
  quire_cache* cache_;
  char* base_ = nullptr;
  std::size_t length_;
};

}  // namespace quire::api_testing
