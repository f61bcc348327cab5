#include "sync/mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace quire {
namespace {

LockClass test_class("mutex_test");

TEST(Mutex, ExcludesAndPublishes) {
  constexpr int kThreads = 4, kTurns = 20'000;
  Mutex mutex(test_class);
  std::uint64_t low = 0, high = 0;  // equal whenever the mutex is free
  int broken = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kTurns; ++i) {
        MutexLock guard(mutex);
        if (low != high) ++broken;
        ++low;
        if (i % 512 == 0) std::this_thread::yield();  // others find it held
        ++high;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(low, std::uint64_t{kThreads} * kTurns);
  EXPECT_EQ(high, low);
  EXPECT_EQ(broken, 0);
}

TEST(Mutex, SleeperIsWoken) {
  Mutex mutex(test_class);
  Atomic<int> order;
  mutex.lock();
  std::thread sleeper([&] {
    MutexLock guard(mutex);
    EXPECT_EQ(order.load(memory_order_relaxed), 1);  // ordered by the mutex
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long past its spinning
  order.store(1, memory_order_relaxed);
  mutex.unlock();
  sleeper.join();
}

TEST(Mutex, TryLockFailsWhileHeld) {
  Mutex mutex(test_class);
  if (!mutex.try_lock()) FAIL();
  mutex.assert_held();
  std::thread([&] {
    if (mutex.try_lock()) {
      ADD_FAILURE() << "taken twice";
      mutex.unlock();
    }
  }).join();
  mutex.unlock();
  if (!mutex.try_lock()) FAIL();
  mutex.unlock();
}

// An owner that has got the mutex may free it at once: the one that unlocked before touches it no more (asan).
TEST(Mutex, MayBeFreedByTheNextOwner) {
  for (int i = 0; i < 500; ++i) {
    auto* mutex = new Mutex(test_class);
    mutex->lock();
    std::thread next([mutex] {
      mutex->lock();
      mutex->unlock();
      delete mutex;
    });
    mutex->unlock();
    next.join();
  }
}

}  // namespace
}  // namespace quire
