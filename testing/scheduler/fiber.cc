// Stacks and contexts. See fiber.h.
#include "testing/scheduler/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace quire::scheduling {

std::vector<void*>& Fiber::spare_stacks() {
  static std::vector<void*> stacks;
  return stacks;
}

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)) {
  if (spare_stacks().empty()) {
    constexpr std::size_t kGuard = 4096;  // an overflow faults instead of writing into a neighbour
    void* mapped = mmap(nullptr, kStackBytes + kGuard, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped, kGuard, PROT_NONE) != 0) {
      std::perror("no memory for a fiber's stack");
      std::abort();
    }
    spare_stacks().push_back(static_cast<char*>(mapped) + kGuard);
  }
  stack_ = spare_stacks().back();
  spare_stacks().pop_back();
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  const auto self = reinterpret_cast<std::uintptr_t>(this);
  makecontext(&context_, reinterpret_cast<void (*)()>(&Fiber::entry), 2, static_cast<unsigned>(self),
              static_cast<unsigned>(self >> 32));
}

Fiber::~Fiber() { spare_stacks().push_back(stack_); }

void Fiber::entry(unsigned low, unsigned high) {
  auto* self = reinterpret_cast<Fiber*>(static_cast<std::uintptr_t>(high) << 32 | low);
  self->body_();
  std::abort();  // a body ends by leaving
}

}  // namespace quire::scheduling
