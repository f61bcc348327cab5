// Grant: how one waiter of a queued lock (rw_lock, range_lock) learns that it has been given the lock.
//
// States: pending -> granted (the waiter was still spinning), or pending -> asleep -> granted (woken).
// The word lies in the waiter, which may return and vanish as soon as it reads `granted`: give() touches nothing but
// the address afterwards, and whoever gives reads what it needs of the waiter before.
//
// Orders, named at their places:
//   O1  give() stores `granted` with release, wait() leaves only on an acquire load of it: the new holder sees what the
//       giver did, and with it all that the giver saw of earlier holders.
//   O2  `pending` and `asleep` carry no data, so they may be relaxed. The giver finds the word by way of the lock's
//       mutex, after reset(); and one word's changes have one order: either give() replaces `asleep` and wakes, or the
//       compare-exchange finds `granted`.
#pragma once

#include <cstdint>

#include "sync/atomic.h"
#include "sync/futex.h"

namespace quire {

class Grant {
 public:
  // By the waiter, before anybody can find it.
  void reset() noexcept { word_.store(kPending, memory_order_relaxed); }  // O2

  // By the waiter. A wake-up costs far more than a short section lasts, so it spins a little before it sleeps.
  void wait() noexcept {
    for (int i = 0; i < kSpins; ++i) {
      if (word_.load(memory_order_acquire) == kGranted) return;  // O1
      cpu_relax();
    }
    std::uint32_t expected = kPending;
    word_.compare_exchange(expected, kAsleep, memory_order_relaxed, memory_order_relaxed);  // O2
    while (word_.load(memory_order_acquire) != kGranted) futex_wait(word_, kAsleep);        // O1
  }

  // By the one that took the waiter off its queue.
  void give() noexcept {
    Atomic<std::uint32_t>& word = word_;
    if (word.exchange(kGranted, memory_order_acq_rel) == kAsleep) futex_wake(word, 1);  // O1
  }

 private:
  static constexpr std::uint32_t kPending = 0, kAsleep = 1, kGranted = 2;
  static constexpr int kSpins = spins(150);
  Atomic<std::uint32_t> word_;
};

}  // namespace quire
