// Fair reader-writer lock: whoever has to wait queues up, and while somebody waits every newcomer queues behind, so a
// waiting writer stops new readers and neither side starves.
//
// State word: writer bit, count of readers, and `queued`, set exactly while the queue is not empty.
//   free/readers -> lock, lock_shared -> held                    one compare-exchange, while not queued
//   held -> lock_slow -> held | queued                           under mutex_, appends a waiter
//   last holder leaves while queued -> hand_over                 under mutex_: passes the lock to the first waiter (and
//                                                                to the readers right behind it, if that is a reader)
// Only the last holder hands over and it touches nothing of the lock once it has granted, so that whoever gets the lock
// may destroy it after unlocking.
//
// Orders, named at their places:
//   O1  Leaving releases state_, taking it acquires. Between hand-overs every change is a read-modify-write, which
//       carries earlier releases on: a writer sees every reader that has left, not only the last.
//   O2  hand_over's plain store ends those releases, so the last holder must have acquired them itself: a writer did
//       when it took the lock, a reader does as it leaves. The store's release passes them on to newcomers, Grant to
//       whoever waited.
//   O3  kQueued changes under mutex_ alone, like the queue, so there a relaxed load of it is exact. Who sees it set
//       outside and then locks mutex_ comes after the thread that set it (locked before that thread, it would have read
//       the bit before it was written): hand_over finds the queue filled.
//   O4  The rest of a relaxed load, or of a compare-exchange that fails, is a guess: the next one confirms or corrects.
#pragma once

#include <cstdint>

#include "sync/annotations.h"
#include "sync/atomic.h"
#include "sync/lock_class.h"
#include "sync/mutex.h"

namespace quire {

class CAPABILITY("rw_lock") RwLock {
 public:
  explicit RwLock(LockClass& lock_class, LockKey key = {});
  ~RwLock();  // nobody holds or waits
  RwLock(const RwLock&) = delete;
  RwLock& operator=(const RwLock&) = delete;

  void lock() ACQUIRE() {
    lock_will_acquire(class_, this, key_);
    if (!take()) lock_slow(true);
    lock_acquired(class_, this, key_);
  }
  bool try_lock() TRY_ACQUIRE(true) {
    if (!take()) return false;
    lock_acquired(class_, this, key_);
    return true;
  }
  void unlock() RELEASE() {
    lock_released(this);
    std::uint32_t expected = kWriter;
    if (!state_.compare_exchange(expected, 0, memory_order_release, memory_order_acquire)) hand_over();  // O1, O3
  }

  // Not recursive: a second lock_shared may wait behind a writer that waits for the first.
  void lock_shared() ACQUIRE_SHARED() {
    lock_will_acquire(class_, this, key_);
    if (!take_shared()) lock_slow(false);
    lock_acquired(class_, this, key_);
  }
  bool try_lock_shared() QUIRE_TSA(try_acquire_shared_capability(true)) {
    if (!take_shared()) return false;
    lock_acquired(class_, this, key_);
    return true;
  }
  void unlock_shared() RELEASE_SHARED() {
    lock_released(this);
    if (state_.fetch_sub(1, memory_order_acq_rel) == (kQueued | 1)) hand_over();  // O1, O2, O3
  }

 private:
  struct Waiter;
  static constexpr std::uint32_t kWriter = 1u << 31, kQueued = 1u << 30;

  bool take() {
    std::uint32_t expected = 0;
    return state_.compare_exchange(expected, kWriter, memory_order_acquire, memory_order_relaxed);  // O1
  }
  bool take_shared() {
    std::uint32_t state = state_.load(memory_order_relaxed);  // O4
    while ((state & (kWriter | kQueued)) == 0) {
      if (state_.compare_exchange(state, state + 1, memory_order_acquire, memory_order_relaxed)) return true;  // O1, O4
    }
    return false;
  }
  void lock_slow(bool exclusive);
  void hand_over();

  Atomic<std::uint32_t> state_;
  Mutex mutex_;
  Waiter* first_ GUARDED_BY(mutex_) = nullptr;  // queue in order of arrival, on the waiters' stacks
  Waiter* last_ GUARDED_BY(mutex_) = nullptr;
  LockClass& class_;
  LockKey key_;
};

class SCOPED_CAPABILITY ReadLock {
 public:
  explicit ReadLock(RwLock& lock) ACQUIRE_SHARED(lock) : lock_(lock) { lock_.lock_shared(); }
  ~ReadLock() RELEASE() { lock_.unlock_shared(); }
  ReadLock(const ReadLock&) = delete;
  ReadLock& operator=(const ReadLock&) = delete;

 private:
  RwLock& lock_;
};

class SCOPED_CAPABILITY WriteLock {
 public:
  explicit WriteLock(RwLock& lock) ACQUIRE(lock) : lock_(lock) { lock_.lock(); }
  ~WriteLock() RELEASE() { lock_.unlock(); }
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

 private:
  RwLock& lock_;
};

}  // namespace quire
