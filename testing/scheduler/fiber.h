// A fiber: a stack and the place where it goes on. All fibers of a schedule share one thread of the system.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <vector>

namespace quire::scheduling {

class Fiber {
 public:
  static constexpr std::size_t kStackBytes = 256 * 1024;

  // body never returns: it ends by switching away for good.
  explicit Fiber(std::function<void()> body);
  ~Fiber();  // its stack goes to the next one
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void switch_to(Fiber& other) { swapcontext(&context_, &other.context_); }
  // From the thread's own stack, and back to it.
  void enter(ucontext_t& from) { swapcontext(&from, &context_); }
  void leave(ucontext_t& to) { swapcontext(&context_, &to); }

 private:
  static void entry(unsigned low, unsigned high);
  static std::vector<void*>& spare_stacks();

  ucontext_t context_;
  void* stack_;
  std::function<void()> body_;
};

}  // namespace quire::scheduling
