// Ranged lock: holders take [first, last] (inclusive, any units) in one of up to four modes; which modes of overlapping
// holders go together stands in a compatibility table, so that the same type is the per-file range lock (shared,
// exclusive) and the three-mode invalidate lock (instantiate, direct, remove).
//
// Fairness: requests are granted in arrival order as far as they conflict: a request waits behind every earlier waiter
// that it conflicts with, so nobody starves and disjoint ranges never wait for each other.
// States of a request: idle -> (lock) waiting -> held -> (unlock) idle; try_lock goes idle -> held or stays idle.
// All of it under the lock's own mutex; a waiter sleeps on its own word, set by whoever grants it.
// A held request may be passed to a completion (detach): any thread may then unlock it. One thread must not hold two
// overlapping requests, not even compatible ones: the second may wait behind a stranger who waits for the first.
#pragma once

#include <cstdint>

#include "base/check.h"
#include "sync/annotations.h"
#include "sync/atomic.h"
#include "sync/grant.h"
#include "sync/lock_class.h"
#include "sync/mutex.h"

namespace quire {

class RangeLock;

// One acquisition: lives on the holder's stack or inside an asynchronous request, at a fixed address while not idle.
class RangeRequest {
 public:
  RangeRequest() = default;
  ~RangeRequest() { CHECK(lock_ == nullptr); }  // must be idle
  RangeRequest(const RangeRequest&) = delete;
  RangeRequest& operator=(const RangeRequest&) = delete;

  bool held() const { return lock_ != nullptr; }
  std::uint64_t first() const { return first_; }
  std::uint64_t last() const { return last_; }
  std::uint8_t mode() const { return mode_; }
  bool covers(std::uint64_t first, std::uint64_t last) const { return held() && first_ <= first && last <= last_; }

 private:
  friend class RangeLock;
  RangeLock* lock_ = nullptr;             // non-null while held; the owner's
  RangeRequest* next_ = nullptr;          // in the list of holders or of waiters, under the lock's mutex
  RangeRequest* previous_ = nullptr;      // so too
  RangeRequest* next_granted_ = nullptr;  // of those that one unlock grants; the granter's until it tells this one
  std::uint64_t first_ = 0, last_ = 0;
  std::uint8_t mode_ = 0;
  bool detached_ = false;  // the owner's
  Grant grant_;
};

// compatible[a] has bit b set when a holder in mode a and an overlapping one in mode b may coexist (symmetric).
struct RangeModes {
  std::uint8_t compatible[4];
};

class RangeLock {
 public:
  RangeLock(LockClass& lock_class, const RangeModes& modes, std::uint64_t inode_id);
  ~RangeLock();  // nobody holds or waits
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;

  // first <= last. Waits until granted.
  void lock(RangeRequest& request, std::uint64_t first, std::uint64_t last, std::uint8_t mode);
  bool try_lock(RangeRequest& request, std::uint64_t first, std::uint64_t last, std::uint8_t mode);
  void unlock(RangeRequest& request);  // any thread if detached, else the one that locked
  void detach(RangeRequest& request);  // ownership passes to a completion

 private:
  // Intrusive, in order of arrival.
  struct List {
    RangeRequest* first = nullptr;
    RangeRequest* last = nullptr;
    void push_back(RangeRequest& request);
    void remove(RangeRequest& request);
  };

  bool compatible(const RangeRequest& a, const RangeRequest& b) const;
  bool must_wait_locked(const RangeRequest& request, const RangeRequest* waiters_end) const REQUIRES(mutex_);
  RangeRequest* grant_waiters_locked() REQUIRES(mutex_);
  static void tell(RangeRequest* granted);
  void begin(RangeRequest& request, std::uint64_t first, std::uint64_t last, std::uint8_t mode);

  LockClass& class_;
  const RangeModes modes_;
  const std::uint64_t inode_id_;
  Mutex mutex_;
  List held_ GUARDED_BY(mutex_);
  List waiting_ GUARDED_BY(mutex_);
};

inline constexpr std::uint64_t kRangeEnd = UINT64_MAX;

// Unlocks at the end of the scope, if held.
class RangeGuard {
 public:
  explicit RangeGuard(RangeLock& lock) : lock_(lock) {}
  ~RangeGuard() { release(); }
  RangeGuard(const RangeGuard&) = delete;
  RangeGuard& operator=(const RangeGuard&) = delete;
  void acquire(std::uint64_t first, std::uint64_t last, std::uint8_t mode) { lock_.lock(request_, first, last, mode); }
  bool try_acquire(std::uint64_t first, std::uint64_t last, std::uint8_t mode) {
    return lock_.try_lock(request_, first, last, mode);
  }
  void release() {
    if (request_.held()) lock_.unlock(request_);
  }
  RangeRequest& request() { return request_; }

 private:
  RangeLock& lock_;
  RangeRequest request_;
};

}  // namespace quire
