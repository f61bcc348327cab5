// The contended side of Mutex. O1, O2: mutex.h.
#include "sync/mutex.h"

#include "base/check.h"
#include "sync/futex.h"

namespace quire {

void Mutex::lock_slow() {
  constexpr int kSpins = spins(100);
  for (int i = 0; i < kSpins; ++i) {
    cpu_relax();
    if (state_.load(memory_order_relaxed) != kFree) continue;  // a guess: the exchange decides
    std::uint32_t expected = kFree;
    if (state_.compare_exchange(expected, kHeld, memory_order_acquire, memory_order_relaxed)) return;  // O1
  }
  // From here on it is taken as contended: this thread cannot know whether others sleep, so its unlock wakes one.
  while (state_.exchange(kContended, memory_order_acquire) != kFree) futex_wait(state_, kContended);  // O1, O2
}

void Mutex::wake_one() { futex_wake(state_, 1); }

void Mutex::assert_held() const {
  CHECK(state_.load(memory_order_relaxed) != kFree);  // relaxed: the holder reads nothing older than its own taking
  CHECK(lock_held_by_me(this));
}

}  // namespace quire
