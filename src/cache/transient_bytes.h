// Memory that comes and goes with single pieces of work (fills in flight, private buffers). What it came to of late
// counts for longer than it is there: else frames would be given back to the host for each piece of work, and be made
// anew after it. Thread safety: every call from any thread; races make it forget early, at most, but never what is
// there.  Locks: none.
#pragma once

#include <algorithm>
#include <cstdint>

#include "sync/atomic.h"

namespace quire {

class TransientBytes {
 public:
  void add(std::int64_t bytes) {  // less than 0: they are gone
    const std::int64_t now = now_.fetch_add(bytes, memory_order_relaxed) + bytes;
    std::int64_t most = most_.load(memory_order_relaxed);
    while (now > most && !most_.compare_exchange(most, now, memory_order_relaxed, memory_order_relaxed)) {
    }
  }
  std::int64_t now() const { return now_.load(memory_order_relaxed); }
  // Not less than now(): fade() may have overwritten what was added beside it.
  std::int64_t of_late() const { return std::max(now(), most_.load(memory_order_relaxed)); }
  // Now and then: half of what was not wanted since counts no more.
  void fade() {
    const std::int64_t now = now_.load(memory_order_relaxed);
    most_.store(std::max(now, now + (most_.load(memory_order_relaxed) - now) / 2), memory_order_relaxed);
  }

 private:
  Atomic<std::int64_t> now_, most_;
};

}  // namespace quire
