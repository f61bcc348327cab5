// Fronts: single frames come and go through the thread's own, nobody is refused what lies in another's, and all merges.
#include "cache/frame_front.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/random.h"
#include "cache/cache_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::uint32_t kFrames = 2048;  // four fronts

// Every frame is used once, so that none is taken as never touched.
void use_all(FolioPool& pool) {
  FrameReservation all(pool);
  ASSERT_EQ(pool.take(all, pool.frames()), pool.frames());
}

void take_and_give_back(FolioPool& pool, std::uint32_t want) {
  FrameReservation some(pool);
  ASSERT_EQ(pool.take(some, want), want);
}

TEST(FrameFront, SmallPoolsHaveNone) {
  for (const std::uint32_t frames : {64U, FrameFronts::kShare * FrameFront::kFrames - 1}) {
    FolioPool pool;
    ASSERT_TRUE(pool.create(frames).ok());
    use_all(pool);
    take_and_give_back(pool, 1);
    EXPECT_EQ(pool.free_outside_fronts(), frames);
  }
}

TEST(FrameFront, SinglesComeAndGoThroughIt) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(kFrames).ok());
  use_all(pool);
  take_and_give_back(pool, 1);
  EXPECT_EQ(pool.free_outside_fronts(), kFrames - FrameFront::kBatch);
  EXPECT_EQ(pool.free_frames(), kFrames);
  for (int i = 0; i < 100; ++i) take_and_give_back(pool, 1 + static_cast<std::uint32_t>(i) % FrameFront::kBatch);
  EXPECT_EQ(pool.free_outside_fronts(), kFrames - FrameFront::kBatch) << "the pool was not asked again";
  take_and_give_back(pool, FrameFront::kBatch + 1);
  EXPECT_EQ(pool.free_outside_fronts(), kFrames - FrameFront::kBatch) << "nor given more than it gave";
}

TEST(FrameFront, HoldsNoMoreThanItsShare) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(kFrames).ok());
  use_all(pool);
  run_threads(12, [&](int) {
    FrameReservation some(pool);
    ASSERT_EQ(pool.take(some, 100), 100U);
    while (Folio* folio = some.take()) {
      FrameReservation one(pool);
      one.put(*folio);
    }
  });
  EXPECT_EQ(pool.free_frames(), kFrames);
  EXPECT_GE(pool.free_outside_fronts(), kFrames - kFrames / FrameFronts::kShare);
  EXPECT_LT(pool.free_outside_fronts(), kFrames);
}

TEST(FrameFront, UntouchedFramesStaySo) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(kFrames).ok());
  for (int i = 0; i < 10; ++i) take_and_give_back(pool, 1);
  EXPECT_EQ(pool.touched_frames(), 1U);
}

TEST(FrameFront, AnotherThreadsFramesAreToBeHad) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(kFrames).ok());
  use_all(pool);
  std::atomic<int> filled{0};
  std::atomic<bool> leave{false};
  std::vector<std::thread> others;
  for (int i = 0; i < 3; ++i) {
    others.emplace_back([&] {
      take_and_give_back(pool, 1);
      ++filled;
      while (!leave) std::this_thread::yield();
    });
  }
  while (filled != 3) std::this_thread::yield();
  EXPECT_LT(pool.free_outside_fronts(), kFrames);
  {
    FrameReservation all(pool);
    EXPECT_EQ(pool.take(all, kFrames), kFrames) << "of threads that live";
    EXPECT_EQ(pool.free_frames(), 0U);
  }
  leave = true;
  for (std::thread& other : others) other.join();
  std::thread([&] { take_and_give_back(pool, 1); }).join();
  FrameReservation all(pool);
  for (std::uint32_t i = 0; i < kFrames; ++i) ASSERT_EQ(pool.take(all, 1), 1U) << "of one that has ended, one by one";
}

TEST(FrameFront, AWaiterGetsWhatLiesInAnother) {
  Watchdog watchdog("a reservation that needs the frames of another thread's front");
  TestCache cache{kFrames};
  PageCache& c = cache.cache;
  FrameReservation held(c.pool);
  ASSERT_EQ(c.pool.take(held, c.frames()), c.frames());
  std::thread([&] {
    FrameReservation some(c.pool);
    for (std::uint32_t i = 0; i < FrameFront::kBatch; ++i) some.put(*held.take());
  }).join();
  EXPECT_EQ(c.pool.free_outside_fronts(), 0U);
  EXPECT_EQ(c.pool.free_frames(), FrameFront::kBatch);
  FrameReservation waiter(c.pool);
  c.reserve(waiter, FrameFront::kBatch);
  EXPECT_EQ(waiter.count(), FrameFront::kBatch);
}

TEST(FrameFront, DrainedFramesMerge) {
  FolioPool pool;
  ASSERT_TRUE(pool.create(kFrames).ok());
  {
    FrameReservation all(pool);
    ASSERT_EQ(pool.take(all, kFrames), kFrames);
    while (Folio* folio = all.take()) {
      FrameReservation one(pool);
      one.put(*folio);
    }
  }
  const std::uint32_t in_fronts = kFrames - pool.free_outside_fronts();
  EXPECT_GT(in_fronts, 0U);
  EXPECT_EQ(pool.drain_fronts(), in_fronts);
  EXPECT_EQ(pool.drain_fronts(), 0U);
  FrameReservation blocks(pool);
  ASSERT_EQ(pool.take(blocks, kFrames, kMaxOrder), kFrames);
  for (std::uint32_t i = 0; i < kFrames >> kMaxOrder; ++i) EXPECT_NE(blocks.take(kMaxOrder), nullptr);
}

// As FolioPool.NoFrameHasTwoOwners, with frames that go through fronts, and takers that empty each other's.
TEST(FrameFront, NoFrameHasTwoOwners) {
  Watchdog watchdog("frames going round through fronts");
  constexpr std::uint32_t kFew = 1024;
  FolioPool pool;
  ASSERT_TRUE(pool.create(kFew).ok());
  std::vector<std::atomic<int>> owner(kFew);
  FrameReservation most(pool);
  ASSERT_EQ(pool.take(most, kFew - 40), kFew - 40);
  run_threads(4, [&](int thread) {
    Random random(static_cast<std::uint64_t>(thread));
    for (int round = 0; round < 2000; ++round) {
      FrameReservation reservation(pool);
      pool.take(reservation, static_cast<std::uint32_t>(1 + random.below(random.one_in(8) ? 30 : 3)));
      std::vector<Folio*> taken;
      while (Folio* folio = reservation.take()) {
        ASSERT_EQ(owner[pool.id(*folio)].exchange(thread + 1), 0);
        taken.push_back(folio);
      }
      for (Folio* folio : taken) {
        ASSERT_EQ(owner[pool.id(*folio)].exchange(0), thread + 1);
        reservation.put(*folio);
      }
    }
  });
  most.release();
  EXPECT_EQ(pool.free_frames(), kFew);
  use_all(pool);
}

}  // namespace
}  // namespace quire
