#include "sync/rw_lock.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "base/random.h"

namespace quire {
namespace {

LockClass test_class("rw_lock_test");

// Tries for a shared hold and gives it back.
bool can_share(RwLock& lock) {
  if (!lock.try_lock_shared()) return false;
  lock.unlock_shared();
  return true;
}

TEST(RwLock, ManyReadersOneWriter) {
  constexpr int kThreads = 4, kTurns = 10'000;
  RwLock lock(test_class);
  std::uint64_t low = 0, high = 0;
  Atomic<int> readers, writers, broken;
  Atomic<std::uint64_t> written;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Random random(static_cast<std::uint64_t>(t));
      for (int i = 0; i < kTurns; ++i) {
        if (random.one_in(4)) {
          WriteLock guard(lock);
          if (writers.fetch_add(1, memory_order_relaxed) != 0) broken.store(1, memory_order_relaxed);
          if (readers.load(memory_order_relaxed) != 0) broken.store(2, memory_order_relaxed);
          ++low;
          if (random.one_in(32)) std::this_thread::yield();
          ++high;
          written.fetch_add(1, memory_order_relaxed);
          writers.fetch_sub(1, memory_order_relaxed);
        } else {
          ReadLock guard(lock);
          readers.fetch_add(1, memory_order_relaxed);
          if (writers.load(memory_order_relaxed) != 0) broken.store(3, memory_order_relaxed);
          if (low != high) broken.store(4, memory_order_relaxed);
          readers.fetch_sub(1, memory_order_relaxed);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(broken.load(memory_order_relaxed), 0);
  EXPECT_EQ(low, written.load(memory_order_relaxed));
}

TEST(RwLock, TryVariants) {
  RwLock lock(test_class);
  if (!lock.try_lock_shared()) FAIL();
  std::thread([&] {
    EXPECT_TRUE(can_share(lock));
    if (lock.try_lock()) {
      ADD_FAILURE() << "writer beside a reader";
      lock.unlock();
    }
  }).join();
  lock.unlock_shared();
  if (!lock.try_lock()) FAIL();
  std::thread([&] { EXPECT_FALSE(can_share(lock)); }).join();
  lock.unlock();
}

// Order of arrival reader A, writer, reader B: B gets it after the writer, though A still reads when B arrives.
TEST(RwLock, WaitingWriterStopsNewReaders) {
  RwLock lock(test_class);
  Atomic<int> stage;
  lock.lock_shared();
  std::thread writer([&] {
    WriteLock guard(lock);
    EXPECT_EQ(stage.exchange(1, memory_order_relaxed), 0);
  });
  // In a thread of its own: this one already holds the lock.
  std::thread([&] {
    while (can_share(lock)) std::this_thread::yield();  // until the writer waits
  }).join();
  std::thread reader([&] {
    ReadLock guard(lock);
    EXPECT_EQ(stage.load(memory_order_relaxed), 1);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(stage.load(memory_order_relaxed), 0);
  lock.unlock_shared();
  writer.join();
  reader.join();
}

// Readers that overlap without a gap do not starve a writer, nor writers a reader.
TEST(RwLock, NobodyStarves) {
  RwLock lock(test_class);
  Atomic<bool> stop;
  Atomic<int> taken;
  std::vector<std::thread> crowd;
  for (int t = 0; t < 3; ++t) {
    crowd.emplace_back([&, t] {
      while (!stop.load(memory_order_relaxed)) {
        if (t == 0) {
          WriteLock guard(lock);
        } else {
          ReadLock guard(lock);
          std::this_thread::yield();
        }
        taken.fetch_add(1, memory_order_relaxed);
      }
    });
  }
  for (int i = 0; i < 200 || taken.load(memory_order_relaxed) < 600; ++i) {
    { WriteLock guard(lock); }
    { ReadLock guard(lock); }
  }
  stop.store(true, memory_order_relaxed);
  for (auto& thread : crowd) thread.join();
}

// The next owner may free the lock: the one that unlocked before touches it no more (asan).
template <typename Guard>
void free_by_next_owner() {
  for (int i = 0; i < 250; ++i) {
    auto* lock = new RwLock(test_class);
    auto guard = std::make_unique<Guard>(*lock);
    std::thread next([lock] {
      { WriteLock last(*lock); }
      delete lock;
    });
    guard.reset();
    next.join();
  }
}

TEST(RwLock, MayBeFreedAfterReader) { free_by_next_owner<ReadLock>(); }
TEST(RwLock, MayBeFreedAfterWriter) { free_by_next_owner<WriteLock>(); }

}  // namespace
}  // namespace quire
