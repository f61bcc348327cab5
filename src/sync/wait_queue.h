// Wait queue: threads sleep until a condition, guarded by the caller's mutex or by atomics, may have changed.
//
//   auto ticket = queue.prepare();   // before the condition is looked at
//   if (condition()) queue.cancel(); else queue.wait(ticket);
//
// wake_all() after the change: a waiter that prepared before it does not sleep through it (the ticket is stale). The
// waker pays a fence and a load when nobody waits. No lock may be held across wait() that the waker needs; the queue
// outlives every wake_all().
//
// Orders, named at their places (what the condition publishes, its own atomics or mutex must order):
//   O1  The waker changes the condition, fences, and loads waiters_; the waiter adds itself, fences, and looks at the
//       condition. One fence comes first, so either the waker sees the waiter or the waiter sees the change. The fences
//       order, the accesses may be relaxed; and waiters_ is a sum, never 0 between a waiter's addition and subtraction.
//   O2  A wake bumps epoch_ with release, tickets and wait() load it with acquire: who sees the bump sees the change.
//       So a ticket that already has the bump finds the condition changed; an older one only ends wait() at once. Every
//       change of epoch_ is a read-modify-write, so a later wake's value still carries the earlier ones' release.
//   O3  Who leaves needs no wake-up any more: its subtraction, seen late, costs a wake of nobody.
//   O4  Who sleeps elsewhere (at a descriptor, say) says so, fences, and looks whether its ticket is stale; the waker
//       bumps, fences, and looks whether somebody sleeps there. As O1.
#pragma once

#include <cstdint>

#include "sync/atomic.h"

namespace quire {

class WaitQueue {
 public:
  std::uint32_t prepare() noexcept;                                        // registers a waiter
  void cancel() noexcept;                                                  // prepared, but need not wait
  bool is_stale(std::uint32_t ticket) const noexcept;                      // woken since; fences first (O4)
  bool wait(std::uint32_t ticket, std::int64_t timeout_ns = -1) noexcept;  // unregisters; false on timeout
  // True: somebody had prepared.
  bool wake_all() noexcept {
    std::atomic_thread_fence(memory_order_seq_cst);
    if (waiters_.load(memory_order_relaxed) == 0) return false;  // O1
    wake_waiters();
    return true;
  }

 private:
  void wake_waiters() noexcept;

  Atomic<std::uint32_t> epoch_;    // the futex word: bumped by each wake that finds waiters
  Atomic<std::uint32_t> waiters_;  // prepared and not yet returned
};

}  // namespace quire
