#include "sync/wait_queue.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

namespace quire {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(WaitQueue, TimesOut) {
  WaitQueue queue;
  const auto start = steady_clock::now();
  EXPECT_FALSE(queue.wait(queue.prepare(), 20'000'000));
  EXPECT_GE(steady_clock::now() - start, milliseconds(20));
}

TEST(WaitQueue, WakeBeforeWaitIsNotLost) {
  WaitQueue queue;
  const std::uint32_t ticket = queue.prepare();
  queue.wake_all();
  EXPECT_TRUE(queue.wait(ticket));
}

TEST(WaitQueue, CancelledWaiterIsNotWaitedFor) {
  WaitQueue queue;
  const std::uint32_t ticket = queue.prepare();
  queue.cancel();
  queue.wake_all();  // nobody waits: the epoch stays
  EXPECT_EQ(queue.prepare(), ticket);
  queue.cancel();
}

TEST(WaitQueue, WakesAll) {
  WaitQueue queue;
  Atomic<bool> ready;
  Atomic<int> woken;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (;;) {
        const std::uint32_t ticket = queue.prepare();
        if (ready.load(memory_order_acquire)) {
          queue.cancel();
          break;
        }
        queue.wait(ticket);
      }
      woken.fetch_add(1, memory_order_relaxed);
    });
  }
  std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(woken.load(memory_order_relaxed), 0);
  ready.store(true, memory_order_release);
  queue.wake_all();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(woken.load(memory_order_relaxed), 4);
}

// Ping-pong over one atomic, changed by release stores only: a single lost wake-up hangs it.
TEST(WaitQueue, NoWakeUpIsLost) {
  constexpr int kTurns = 5'000;
  WaitQueue queue;
  Atomic<int> turn;
  const auto play = [&](int parity) {
    for (int i = parity; i < kTurns; i += 2) {
      for (;;) {
        const std::uint32_t ticket = queue.prepare();
        if (turn.load(memory_order_acquire) == i) {
          queue.cancel();
          break;
        }
        ASSERT_TRUE(queue.wait(ticket, 20'000'000'000)) << "lost at " << i;
      }
      turn.store(i + 1, memory_order_release);
      queue.wake_all();
    }
  };
  std::thread odd([&] { play(1); });
  play(0);
  odd.join();
  EXPECT_EQ(turn.load(memory_order_relaxed), kTurns);
}

// The waker's store and the waiter's look race anew in each round, from a common start: without the fence between the
// store and the look for waiters, a waiter now and then sleeps through it.
TEST(WaitQueue, WakeUpRacesWithPrepare) {
  constexpr int kRounds = 20'000;
  WaitQueue queue;
  alignas(64) Atomic<int> condition;
  alignas(64) Atomic<int> ready;
  std::thread waiter([&] {
    for (int i = 1; i <= kRounds; ++i) {
      ready.store(i, memory_order_release);
      for (int delay = i / 64 % 64; delay > 0; --delay) asm volatile("");
      while (condition.load(memory_order_acquire) != i) {
        const std::uint32_t ticket = queue.prepare();
        if (condition.load(memory_order_acquire) == i) {
          queue.cancel();
        } else if (!queue.wait(ticket, 20'000'000'000)) {
          ADD_FAILURE() << "lost in round " << i;
          ready.store(kRounds, memory_order_release);  // lets the waker run to its end
          return;
        }
      }
    }
  });
  for (int i = 1; i <= kRounds; ++i) {
    while (ready.load(memory_order_acquire) < i) cpu_relax();
    for (int delay = i % 64; delay > 0; --delay) asm volatile("");
    condition.store(i, memory_order_release);
    queue.wake_all();
  }
  waiter.join();
}

}  // namespace
}  // namespace quire
