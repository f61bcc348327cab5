// Tickets and wake-ups; the fences that keep a wake-up from being lost. O1 to O4: wait_queue.h.
#include "sync/wait_queue.h"

#include "sync/clock.h"
#include "sync/futex.h"

namespace quire {

std::uint32_t WaitQueue::prepare() noexcept {
  waiters_.fetch_add(1, memory_order_relaxed);  // O1
  std::atomic_thread_fence(memory_order_seq_cst);
  return epoch_.load(memory_order_acquire);  // O2
}

void WaitQueue::cancel() noexcept { waiters_.fetch_sub(1, memory_order_relaxed); }  // O3

bool WaitQueue::wait(std::uint32_t ticket, std::int64_t timeout_ns) noexcept {
  const std::int64_t deadline = timeout_ns < 0 ? 0 : clock_ns(CLOCK_MONOTONIC) + timeout_ns;
  bool woken = true;
  while (epoch_.load(memory_order_acquire) == ticket) {  // O2
    std::int64_t left = -1;
    if (timeout_ns >= 0) {
      left = deadline - clock_ns(CLOCK_MONOTONIC);
      if (left <= 0) {
        woken = false;
        break;
      }
    }
    futex_wait(epoch_, ticket, left);
  }
  waiters_.fetch_sub(1, memory_order_relaxed);  // O3
  return woken;
}

bool WaitQueue::is_stale(std::uint32_t ticket) const noexcept {
  std::atomic_thread_fence(memory_order_seq_cst);  // O4
  return epoch_.load(memory_order_acquire) != ticket;
}

void WaitQueue::wake_waiters() noexcept {
  epoch_.fetch_add(1, memory_order_release);  // O2
  futex_wake(epoch_, kWakeAll);
  std::atomic_thread_fence(memory_order_seq_cst);  // O4
}

}  // namespace quire
