// Direct I/O and fillers of holes: apart, in turns, and with holders that end on another thread.
#include "sync/hole_lock.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "base/random.h"
#include "sync/atomic.h"

namespace quire {
namespace {

TEST(HoleLock, FillersAloneDirectTogether) {
  HoleLock lock;
  DirectHold a, b;
  EXPECT_TRUE(lock.begin_direct(a, true));
  EXPECT_TRUE(lock.begin_direct(b, false)) << "together";
  lock.end_direct(a);
  lock.end_direct(b);
  lock.lock();
  EXPECT_FALSE(lock.begin_direct(a, false));
  EXPECT_FALSE(a.held);
  lock.unlock();
  EXPECT_TRUE(lock.begin_direct(a, false));
  lock.end_direct(a);
}

TEST(HoleLock, NeverBothAtOnce) {
  constexpr int kThreads = 4, kTurns = 5'000;
  HoleLock lock;
  Atomic<int> direct, fillers, broken;
  std::uint64_t low = 0, high = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Random random(static_cast<std::uint64_t>(t));
      for (int i = 0; i < kTurns; ++i) {
        if (random.one_in(3)) {
          lock.lock();
          if (fillers.fetch_add(1, memory_order_relaxed) != 0) broken.store(1, memory_order_relaxed);
          if (direct.load(memory_order_relaxed) != 0) broken.store(2, memory_order_relaxed);
          ++low;
          if (random.one_in(32)) std::this_thread::yield();
          ++high;
          fillers.fetch_sub(1, memory_order_relaxed);
          lock.unlock();
          continue;
        }
        DirectHold hold;
        if (!lock.begin_direct(hold, random.one_in(2))) continue;
        direct.fetch_add(1, memory_order_relaxed);
        if (fillers.load(memory_order_relaxed) != 0) broken.store(3, memory_order_relaxed);
        if (low != high) broken.store(4, memory_order_relaxed);
        direct.fetch_sub(1, memory_order_relaxed);
        lock.end_direct(hold);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(broken.load(memory_order_relaxed), 0);
}

// Neither a stream of fillers nor one of overlapping direct holders keeps the others out.
TEST(HoleLock, NobodyStarves) {
  HoleLock lock;
  Atomic<bool> stop;
  Atomic<int> direct_turns, filler_turns;
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      DirectHold holds[2];  // one of them at least, but where it has to wait
      std::size_t mine = 0;
      lock.begin_direct(holds[mine], true);
      while (!stop.load(memory_order_acquire)) {
        const std::size_t next = 1 - mine;
        const bool at_once = lock.begin_direct(holds[next], false);
        lock.end_direct(holds[mine]);
        if (!at_once) lock.begin_direct(holds[next], true);
        mine = next;
        direct_turns.fetch_add(1, memory_order_relaxed);
      }
      lock.end_direct(holds[mine]);
    });
    threads.emplace_back([&] {
      while (!stop.load(memory_order_acquire)) {
        lock.lock();
        filler_turns.fetch_add(1, memory_order_relaxed);
        lock.unlock();
      }
    });
  }
  for (int tries = 0; tries < 2000; ++tries) {
    const int direct = direct_turns.load(memory_order_relaxed), filler = filler_turns.load(memory_order_relaxed);
    if (direct > 200 && filler > 200) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GT(direct_turns.load(memory_order_relaxed), 200);
  EXPECT_GT(filler_turns.load(memory_order_relaxed), 200);
  stop.store(true, memory_order_release);
  for (std::thread& thread : threads) thread.join();
}

TEST(HoleLock, EndsOnAnotherThreadAndAFillerComesBeforeNewcomers) {
  HoleLock lock;
  DirectHold first, second;
  lock.begin_direct(first, true);
  Atomic<bool> filled;
  std::thread filler([&] {
    lock.lock();
    filled.store(true, memory_order_release);
    lock.unlock();
  });
  while (lock.begin_direct(second, false)) {  // until the filler waits
    lock.end_direct(second);
    std::this_thread::yield();
  }
  EXPECT_FALSE(filled.load(memory_order_acquire));
  std::thread newcomer([&] {
    lock.begin_direct(second, true);
    EXPECT_TRUE(filled.load(memory_order_acquire));
    lock.end_direct(second);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::thread other([&] { lock.end_direct(first); });
  other.join();
  filler.join();
  newcomer.join();
  EXPECT_TRUE(filled.load(memory_order_acquire));
}

}  // namespace
}  // namespace quire
