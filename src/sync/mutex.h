// Mutex over futex.h, annotated for -Wthread-safety and known to the order validator. For short sections: it spins a
// little before it sleeps.
//
// Orders, named at their places:
//   O1  Whoever takes the lock replaces `free` with acquire, and unlock alone stores `free`, with release: each section
//       sees those before it. Who finds the lock taken needs nothing of what it guards: relaxed.
//   O2  Sleeping depends on state_ alone, whose changes have one order, and futex_wait looks at it again: the unlock
//       that replaces `contended` wakes one, who stores `contended` anew for those that still sleep.
#pragma once

#include <cstdint>

#include "sync/annotations.h"
#include "sync/atomic.h"
#include "sync/lock_class.h"

namespace quire {

class CAPABILITY("mutex") Mutex {
 public:
  constexpr explicit Mutex(LockClass& lock_class, LockKey key = {}) : class_(lock_class), key_(key) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() ACQUIRE() {
    lock_will_acquire(class_, this, key_);
    std::uint32_t expected = kFree;
    if (!state_.compare_exchange(expected, kHeld, memory_order_acquire, memory_order_relaxed)) lock_slow();  // O1
    lock_acquired(class_, this, key_);
  }
  bool try_lock() TRY_ACQUIRE(true) {
    std::uint32_t expected = kFree;
    if (!state_.compare_exchange(expected, kHeld, memory_order_acquire, memory_order_relaxed)) return false;  // O1
    lock_acquired(class_, this, key_);
    return true;
  }
  void unlock() RELEASE() {
    lock_released(this);
    if (state_.exchange(kFree, memory_order_release) == kContended) wake_one();  // O1, O2
  }
  void assert_held() const ASSERT_CAPABILITY(this);

 private:
  static constexpr std::uint32_t kFree = 0, kHeld = 1, kContended = 2;  // contended: held, and somebody may sleep
  void lock_slow();
  void wake_one();

  Atomic<std::uint32_t> state_;
  LockClass& class_;
  LockKey key_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace quire
