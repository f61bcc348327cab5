// How the judge's threads meet: spinning, since a wake-up takes longer than most operations, but giving the core
// away soon (there may be fewer cores than threads), and asleep when it lasts.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>

namespace quire::judge {

inline void spin_once(unsigned turn) {
  if (turn < 200) {
    __builtin_ia32_pause();
  } else {
    sched_yield();
  }
}

// A counter that one side raises and the other waits for.
class Meeting {
 public:
  void reset() { count_.store(0, std::memory_order_relaxed); }  // nobody waits; published by what starts the next

  void arrive() {
    count_.fetch_add(1, std::memory_order_acq_rel);
    count_.notify_all();
  }

  // Keeps the core, but not for ever: for threads that were all running a moment ago.
  void spin_shortly(uint32_t count) const {
    for (unsigned turn = 0; turn < 5000 && this->count() < count; ++turn) __builtin_ia32_pause();
  }

  // Never sleeps: for meetings after which operations are to start together.
  void spin_until(uint32_t count) const {
    for (unsigned turn = 0; count_.load(std::memory_order_acquire) < count; ++turn) spin_once(turn);
  }

  void wait_until(uint32_t count) const {
    unsigned turn = 0;
    for (;;) {
      const uint32_t now = count_.load(std::memory_order_acquire);
      if (now >= count) return;
      if (++turn < 400) {
        spin_once(turn);
      } else {
        count_.wait(now, std::memory_order_acquire);
      }
    }
  }

  uint32_t count() const { return count_.load(std::memory_order_acquire); }

 private:
  std::atomic<uint32_t> count_{0};
};

}  // namespace quire::judge
