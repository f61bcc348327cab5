// The gate of a file: {sequence, low, high}, odd while an operation changes the cache over the bytes [low, high).
// Guarantees: R1.
//
// Taken exclusively (a mutex, below the folio locks in the lock order); never held across I/O or any wait. A fast
// reader notes the sequence first: odd and overlapping sends it to the slow path, odd and disjoint does not concern it;
// at its end it asks whether the sequence still is the same. So publishing a change of any number of folios costs one
// store, and a reader that overlapped any part of the change retries.
//
// Orders, named at their places (the sequence's own: sequence.h):
//   O1  low and high are stored before the odd value (release fence), and the reader loads them after an acquire load
//       of it: an odd value never comes with an older range.
//   O2  It may come with a newer one, or half of one, of a later operation: then unchanged() fails. low and high are
//       stored with release, behind the earlier operation's even value (the mutex), and loaded with acquire: who sees
//       any of the newer range loads a newer sequence from then on.
#pragma once

#include <cstdint>

#include "sync/annotations.h"
#include "sync/atomic.h"
#include "sync/mutex.h"
#include "sync/sequence.h"

namespace quire {

extern LockClass gate_lock_class;

class CAPABILITY("gate") Gate {
 public:
  explicit Gate(std::uint64_t inode_id) : mutex_(gate_lock_class, LockKey{inode_id, 0}) {}

  // False: an operation over some byte of [first, end) is under way.
  bool read_begin(std::uint64_t first, std::uint64_t end, std::uint64_t* begin) const noexcept {
    *begin = sequence_.read_begin();
    if (!Sequence::is_odd(*begin)) return true;
    return end <= low_.load(memory_order_acquire) || high_.load(memory_order_acquire) <= first;  // O2
  }
  // The same with less to compute: false too while an operation over other bytes is under way.
  bool read_begin_idle(std::uint64_t* begin) const noexcept {
    *begin = sequence_.read_begin();
    return !Sequence::is_odd(*begin);
  }
  // After validate_fence().
  std::uint64_t read_again() const noexcept { return sequence_.read_again(); }
  bool unchanged(std::uint64_t begin) const noexcept { return sequence_.unchanged(begin); }

  void close(std::uint64_t low, std::uint64_t high) ACQUIRE() {
    mutex_.lock();
    low_.store(low, memory_order_release);           // O2
    high_.store(high, memory_order_release);         // O2
    std::atomic_thread_fence(memory_order_release);  // O1: pairs with read_begin's acquire
    sequence_.write_begin();
  }
  void open() RELEASE() {
    sequence_.write_end();
    mutex_.unlock();
  }

  // In the child of a fork: closed for ever, so that every read leaves the fast path and meets the error.
  void poison() noexcept {
    low_.store(0, memory_order_relaxed);  // both relaxed: the child's only thread is the one that may read them
    high_.store(UINT64_MAX, memory_order_relaxed);
    if (!sequence_.odd()) sequence_.write_begin();
  }

 private:
  Sequence sequence_;
  Atomic<std::uint64_t> low_, high_;
  Mutex mutex_;
};

// Closes the gate for a scope.
class SCOPED_CAPABILITY ClosedGate {
 public:
  ClosedGate(Gate& gate, std::uint64_t low, std::uint64_t high) ACQUIRE(gate) : gate_(gate) { gate_.close(low, high); }
  ~ClosedGate() RELEASE() { gate_.open(); }
  ClosedGate(const ClosedGate&) = delete;
  ClosedGate& operator=(const ClosedGate&) = delete;

 private:
  Gate& gate_;
};

}  // namespace quire
