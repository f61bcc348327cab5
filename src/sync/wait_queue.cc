// Tickets and wake-ups; the fences that keep a wake-up from being lost.
#include "sync/wait_queue.h"

#include <ctime>

#include "sync/futex.h"

namespace quire {

namespace {
std::int64_t now_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}
}  // namespace

std::uint32_t WaitQueue::prepare() noexcept {
  waiters_.fetch_add(1, memory_order_relaxed);  // ordered by the fence
  std::atomic_thread_fence(memory_order_seq_cst);
  // Acquire: with the epoch of a wake-up comes the change that it announced. An older one only ends wait() at once.
  return epoch_.load(memory_order_acquire);
}

void WaitQueue::cancel() noexcept { waiters_.fetch_sub(1, memory_order_relaxed); }

bool WaitQueue::wait(std::uint32_t ticket, std::int64_t timeout_ns) noexcept {
  const std::int64_t deadline = timeout_ns < 0 ? 0 : now_ns() + timeout_ns;
  bool woken = true;
  while (epoch_.load(memory_order_acquire) == ticket) {
    std::int64_t left = -1;
    if (timeout_ns >= 0) {
      left = deadline - now_ns();
      if (left <= 0) {
        woken = false;
        break;
      }
    }
    futex_wait(epoch_, ticket, left);
  }
  waiters_.fetch_sub(1, memory_order_relaxed);
  return woken;
}

void WaitQueue::wake_waiters() noexcept {
  epoch_.fetch_add(1, memory_order_release);  // pairs with wait(): the change is seen by whoever is woken
  futex_wake(epoch_, kWakeAll);
}

}  // namespace quire
