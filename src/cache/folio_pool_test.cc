// Frames: reserved, taken, given back, retired, and not used again before a grace period has passed.
#include "cache/folio_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "base/random.h"
#include "cache/cache_for_test.h"
#include "sync/rcu.h"

namespace quire {
namespace {

using namespace testing_support;

TEST(FolioPool, TakesWhatThereIs) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(16).ok());
  EXPECT_EQ(pool.free_frames(), 16U);
  EXPECT_EQ(pool.touched_frames(), 0U);
  FrameReservation a(pool), b(pool);
  EXPECT_EQ(pool.take(a, 10), 10U);
  EXPECT_EQ(pool.take(b, 10), 6U);
  EXPECT_EQ(pool.take(b, 1), 0U);
  EXPECT_EQ(a.count(), 10U);
  EXPECT_EQ(b.count(), 6U);
  EXPECT_EQ(pool.free_frames(), 0U);
  a.release();
  EXPECT_EQ(a.count(), 0U);
  EXPECT_EQ(pool.free_frames(), 10U);
  EXPECT_EQ(pool.take(b, 4), 4U);
  EXPECT_EQ(b.count(), 10U);
}

TEST(FolioPool, ReservationsGiveBackAtTheirEnd) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(16).ok());
  {
    FrameReservation reservation(pool);
    pool.take(reservation, 16);
    Folio* taken = reservation.take();
    ASSERT_NE(taken, nullptr);
    EXPECT_EQ(reservation.count(), 15U);
    reservation.put(*taken);
  }
  EXPECT_EQ(pool.free_frames(), 16U);
  EXPECT_EQ(pool.touched_frames(), 16U);
}

TEST(FolioPool, TouchesNoMoreThanIsUsed) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(1 << 20).ok());  // 4 GiB, on paper
  for (int i = 0; i < 10; ++i) {
    FrameReservation reservation(pool);
    pool.take(reservation, 8);
  }
  EXPECT_EQ(pool.touched_frames(), 8U) << "used frames come first";
}

TEST(FolioPool, FramesAreApartAndBornOdd) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(16).ok());
  FrameReservation reservation(pool);
  pool.take(reservation, 16);
  std::set<char*> addresses;
  while (Folio* folio = reservation.take()) {
    EXPECT_TRUE(folio->sequence.odd());
    EXPECT_EQ(folio->refs.load(memory_order_relaxed), 0U);
    EXPECT_EQ(folio->size_bytes(), kPageSize);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(folio->bytes()) % kPageSize, 0U);
    std::memset(folio->bytes(), 0x5a, kPageSize);
    addresses.insert(folio->bytes());
    EXPECT_EQ(&pool.folio(pool.id(*folio)), folio);
  }
  EXPECT_EQ(addresses.size(), 16U);
}

// A reader that found a folio before it was retired sees its old bytes until it leaves its section.
TEST(FolioPool, R2_RetiredFramesWaitForAGracePeriod) {
  Watchdog watchdog("a grace period");
  FolioPool pool;
  ASSERT_TRUE(pool.create(4).ok());
  FrameReservation reservation(pool);
  pool.take(reservation, 4);
  Folio* folio = reservation.take();
  std::memset(folio->bytes(), 0x77, kPageSize);

  std::atomic<bool> inside{false}, leave{false}, freed{false};
  std::thread reader([&] {
    RcuReadLock rcu;
    inside = true;
    while (!leave) std::this_thread::yield();
    EXPECT_FALSE(freed);
    EXPECT_EQ(folio->bytes()[100], 0x77);
  });
  while (!inside) std::this_thread::yield();
  pool.retire(*folio);
  EXPECT_EQ(pool.retired_frames(), 1U);
  EXPECT_EQ(pool.free_frames(), 0U);
  std::thread collector([&] {
    EXPECT_EQ(pool.collect_retired(), 1U);
    freed = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(freed) << "the section is still open";
  EXPECT_EQ(pool.free_frames(), 0U);
  leave = true;
  reader.join();
  collector.join();
  EXPECT_EQ(pool.free_frames(), 1U);
  EXPECT_EQ(pool.retired_frames(), 0U);
  EXPECT_EQ(pool.collect_retired(), 0U);
}

// Frames go round between threads; nobody is ever given one that somebody else has.
TEST(FolioPool, NoFrameHasTwoOwners) {
  Watchdog watchdog("frames going round");
  FolioPool pool;
  ASSERT_TRUE(pool.create(32).ok());
  std::vector<std::atomic<int>> owner(32);
  run_threads(4, [&](int thread) {
    Random random(static_cast<std::uint64_t>(thread));
    for (int round = 0; round < 300; ++round) {
      FrameReservation reservation(pool);
      pool.take(reservation, static_cast<std::uint32_t>(1 + random.below(10)));
      std::vector<Folio*> taken;
      while (Folio* folio = reservation.take()) {
        ASSERT_EQ(owner[pool.id(*folio)].exchange(thread + 1), 0);
        taken.push_back(folio);
      }
      for (Folio* folio : taken) {
        ASSERT_EQ(owner[pool.id(*folio)].exchange(0), thread + 1);
        if (random.one_in(2)) {
          pool.retire(*folio);
        } else {
          reservation.put(*folio);
        }
      }
      reservation.release();
      if (round % 8 == 0) pool.collect_retired();
    }
  });
  pool.collect_retired();
  EXPECT_EQ(pool.free_frames(), 32U);
}

// Frames without memory are nobody's, and come back where no other is free.
TEST(FolioPool, WithholdsWhatIsFree) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(4096, 1024).ok());
  const auto fill_all = [&](std::uint32_t count, char with) {
    FrameReservation reservation(pool);
    ASSERT_EQ(pool.take(reservation, count), count);
    std::vector<Folio*> taken;
    while (Folio* folio = reservation.take()) taken.push_back(folio);
    for (Folio* folio : taken) {
      std::memset(folio->bytes(), with, kPageSize);
      reservation.put(*folio);
    }
  };
  fill_all(1024, 1);
  const std::uint32_t populated = pool.populated_frames();
  ASSERT_GE(populated, 1024U);
  EXPECT_EQ(pool.withhold(700), 700U);
  EXPECT_EQ(pool.withheld(), 700U);
  EXPECT_EQ(pool.populated_frames(), populated - 700);
  const std::uint32_t touched = pool.touched_frames();
  fill_all(touched, 2);
  EXPECT_EQ(pool.withheld(), 0U);
  EXPECT_EQ(pool.touched_frames(), touched) << "no frame that was never used before";
  EXPECT_EQ(pool.free_frames(), 4096U);
  EXPECT_EQ(pool.withhold(UINT32_MAX), touched) << "only what has memory";
  EXPECT_EQ(pool.populated_frames(), 0U);
}

// Several may give memory back at once; what they count on its way is right at the end.
TEST(FolioPool, WithholdsOnSeveralThreads) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(4096, 4096).ok());
  for (int round = 0; round < 20; ++round) {
    {
      FrameReservation all(pool);
      ASSERT_EQ(pool.take(all, 4096), 4096U);
    }
    Atomic<std::uint32_t> withheld{0};
    run_threads(3, [&](int) { withheld.fetch_add(pool.withhold(500), memory_order_relaxed); });
    EXPECT_EQ(pool.withheld(), withheld.load(memory_order_relaxed));
    EXPECT_EQ(pool.populated_frames(), 4096 - pool.withheld());
  }
}

}  // namespace
}  // namespace quire
