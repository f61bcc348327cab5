// Memory of the cache: reservations, reclaim, the dirty limit and the budget.
#include "cache/page_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>

#include "base/error.h"
#include "base/random.h"
#include "cache/cache_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

class PageCacheTest : public ::testing::Test {
 protected:
  void add_clean(std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t page = first; page < first + count; ++page) cache.put_folio(test.add(page));
  }
  bool resident(std::uint64_t page) {
    Folio* folio = get_folio(test.mapping, page);
    if (folio != nullptr) cache.put_folio(*folio);
    return folio != nullptr;
  }

  RamDisk disk{4096};
  TestCache made;
  PageCache& cache = made.cache;
  std::unique_ptr<RamBacking> backing = disk.make_file();
  TestMapping test{cache, *backing};
};

TEST(PageCacheSize, TooSmallSaysHowMuchIsNeeded) {
  PageCache cache;
  PageCacheOptions options;
  options.memory = PageCache::min_memory() - 1;
  EXPECT_EQ(cache.create(options).errnum(), EINVAL);
  report_error(EINVAL, "test");
  EXPECT_NE(std::string(error_message()).find(std::to_string(PageCache::min_memory())), std::string::npos)
      << error_message();
}

TEST(PageCacheSize, LargestOperation) {
  TestCache smallest;
  EXPECT_EQ(smallest.cache.frames(), PageCache::kMinFrames);
  EXPECT_EQ(smallest.cache.max_operation_bytes(), smallest.cache.memory() / 4);
  TestCache large(1 << 16);
  EXPECT_EQ(large.cache.max_operation_bytes(), 16U << 20);
  EXPECT_LE(std::uint64_t{large.cache.frames()} * (kPageSize + sizeof(Folio)), large.cache.memory());
}

// The index and files take a little more than there was: what the flusher lets be, no resize waits for.
TEST(PageCacheSize, M1_ResizeWaitsForNoMoreThanIsTrimmed) {
  RamDisk disk(4096);
  TestCache made(256);
  PageCache& cache = made.cache;
  const std::unique_ptr<RamBacking> backing = disk.make_file();
  TestMapping test{cache, *backing};
  for (std::uint64_t page = 0; page < cache.usable(); ++page) cache.put_folio(test.add(page));
  constexpr int kRounds = 40;
  for (int i = 0; i < kRounds; ++i) {
    cache.charge_files(1024);
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_TRUE(cache.resize(cache.memory()).ok());
    ASSERT_TRUE(cache.resize(cache.memory() - 1).ok());
    ASSERT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5)) << i;
  }
  cache.charge_files(-kRounds * 1024);
}

// Of a folio much larger than what is wanted only a part goes, and of many large ones no more than are wanted.
TEST(PageCacheSize, ReclaimsNoMoreThanIsWanted) {
  RamDisk disk(4096);
  TestCache made(2048);
  PageCache& cache = made.cache;
  cache.set_max_order(5);
  const std::unique_ptr<RamBacking> backing = disk.make_file();
  ASSERT_TRUE(backing->set_size(40 << 17).ok());
  TestMapping test{cache, *backing};
  for (std::uint64_t page = 0; page < 40 * 32; page += 32) {
    FrameReservation frames(cache.pool);
    cache.reserve(frames, 32, 5);
    const auto filled = fill_range(test.mapping, page, page + 31, frames, CacheContext{}, 5);
    ASSERT_TRUE(filled.ok());
    ASSERT_EQ(filled.value().first->pages(), 32U);
    cache.put_folio(*filled.value().first);
  }
  FrameReservation all(cache.pool);
  while (cache.pool.free_frames() != 0) ASSERT_NE(cache.pool.take(all, cache.pool.free_frames()), 0U);
  const std::uint64_t before = cache.resident_pages();
  FrameReservation one(cache.pool);
  while (one.count() == 0) cache.try_reserve(one, 1);
  EXPECT_GE(cache.resident_pages() + 64, before);
  EXPECT_LT(cache.resident_pages(), before);
}

TEST_F(PageCacheTest, ReclaimsAsManyAsAreWanted) {
  add_clean(0, 60);
  EXPECT_EQ(cache.resident_folios(), 60U);
  FrameReservation frames(cache.pool);
  EXPECT_TRUE(cache.try_reserve(frames, 20));
  EXPECT_EQ(frames.count(), 20U);
  std::uint64_t left = 0;
  for (std::uint64_t page = 0; page < 60; ++page) left += resident(page);
  EXPECT_EQ(left, cache.resident_folios());
  EXPECT_LE(left, 44U);
  EXPECT_GE(made.sum(Counter::evictions), 16U);
}

TEST_F(PageCacheTest, WhatWasReadGetsASecondChance) {
  add_clean(0, 60);
  for (std::uint64_t page = 0; page < 10; ++page) {
    Folio* folio = get_folio(test.mapping, page);
    set_referenced(*folio);
    cache.put_folio(*folio);
  }
  FrameReservation frames(cache.pool);
  EXPECT_TRUE(cache.try_reserve(frames, 20));
  for (std::uint64_t page = 0; page < 10; ++page) EXPECT_TRUE(resident(page)) << page;
  EXPECT_LE(cache.resident_folios(), 44U);
}

TEST_F(PageCacheTest, D1_NeverReclaimsWhatIsNotStable) {
  for (std::uint64_t page = 0; page < 6; ++page) {  // few, so that the flusher leaves them alone
    Folio& folio = test.add(page);
    test.dirty(folio);
    if (page % 3 != 0) {
      lock_folio(folio);
      EXPECT_TRUE(begin_writeback(test.mapping, folio));
      unlock_folio(folio);
      if (page % 3 == 1) end_writeback(test.mapping, folio, true);
    }
    cache.put_folio(folio);
  }
  add_clean(100, 54);
  Folio& used = test.add(200);
  FrameReservation frames(cache.pool);
  EXPECT_FALSE(cache.try_reserve(frames, cache.frames()));
  EXPECT_LE(frames.count(), cache.frames() - 7);
  EXPECT_GE(frames.count(), cache.frames() - 10) << "the index costs a frame or two";
  for (std::uint64_t page = 0; page < 6; ++page) EXPECT_TRUE(resident(page)) << page;
  EXPECT_TRUE(resident(200)) << "somebody holds a reference";
  cache.put_folio(used);
  frames.release();
  for (std::uint64_t page = 2; page < 6; page += 3) {
    Folio* folio = get_folio(test.mapping, page);
    end_writeback(test.mapping, *folio, true);
    cache.put_folio(*folio);
  }
}

TEST_F(PageCacheTest, ReservationsWaitForFrames) {
  Watchdog watchdog("a reservation");
  FrameReservation held(cache.pool);
  ASSERT_TRUE(cache.try_reserve(held, cache.frames()));
  FrameReservation other(cache.pool);
  EXPECT_FALSE(cache.try_reserve(other, 1)) << "which never waits";
  std::atomic<bool> got{false};
  std::thread waiter([&] {
    FrameReservation frames(cache.pool);
    cache.reserve(frames, 20);
    EXPECT_EQ(frames.count(), 20U);
    got = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(got);
  held.release();
  waiter.join();
  EXPECT_GT(made.sum(Counter::reservation_waits), 0U);
}

// Waiters hold nothing but for one: large reservations beside each other all come through.
TEST_F(PageCacheTest, ManyLargeReservations) {
  Watchdog watchdog("large reservations");
  add_clean(0, 40);
  run_threads(6, [&](int thread) {
    for (int round = 0; round < 60; ++round) {
      FrameReservation frames(cache.pool);
      if (thread == 0) {
        cache.reserve_for_read(frames, 8);
        ASSERT_GE(frames.count(), 1U);
      } else {
        cache.reserve(frames, cache.frames() / 2 - static_cast<std::uint32_t>(thread));
        ASSERT_EQ(frames.count(), cache.frames() / 2 - static_cast<std::uint32_t>(thread));
      }
      if (round % 8 == 0) std::this_thread::yield();
    }
  });
  EXPECT_EQ(cache.pool.free_frames() + cache.resident_folios() + cache.pool.retired_frames(), cache.frames());
}

// Waiting for memory sets the flusher to work.
TEST_F(PageCacheTest, ReservationsWaitForWriteback) {
  Watchdog watchdog("a reservation that needs writeback");
  for (std::uint64_t page = 0; page < 50; ++page) test.add_dirty(page);
  FrameReservation frames(cache.pool);
  cache.reserve(frames, 32);
  EXPECT_EQ(frames.count(), 32U);
  EXPECT_GT(made.sum(Counter::writeback_folios), 0U);
  EXPECT_GT(made.sum(Counter::flushes), 0U);
}

TEST_F(PageCacheTest, ClaimsOverTheLimitWait) {
  Watchdog watchdog("a claim");
  const auto half = static_cast<std::uint32_t>(cache.dirty.hard());
  ASSERT_TRUE(cache.dirty.claim(test.mapping, half).ok());
  EXPECT_TRUE(cache.dirty.near(test.mapping));
  std::atomic<bool> claimed{false};
  std::thread writer([&] {
    EXPECT_TRUE(cache.dirty.claim(test.mapping, 1).ok());
    claimed = true;
    cache.dirty.unclaim(1);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_FALSE(claimed);
  cache.dirty.unclaim(half);
  writer.join();
  EXPECT_GT(made.sum(Counter::throttled), 0U);
  EXPECT_FALSE(cache.dirty.near(test.mapping));
}

TEST_F(PageCacheTest, DirtyFoliosCountAgainstTheLimit) {
  Watchdog watchdog("a claim beside dirty folios");
  for (std::uint64_t page = 0; page < cache.dirty.hard(); ++page) test.add_dirty(page);
  ASSERT_TRUE(cache.dirty.claim(test.mapping, 8).ok());
  EXPECT_LE(cache.dirty.unstable(), cache.dirty.hard() - 8) << "the flusher has made room";
  cache.dirty.unclaim(8);
}

// What the index costs comes out of the frames; some are always left.
TEST_F(PageCacheTest, M1_IndexComesOutOfTheFrames) {
  const auto take_all = [&] {
    FrameReservation frames(cache.pool);
    cache.try_reserve(frames, cache.frames());
    return frames.count();
  };
  const std::uint32_t at_first = take_all();
  EXPECT_GE(at_first, cache.frames() - 2);
  constexpr std::int64_t kIndex = 20 * 4096;
  cache.nodes.keep(0);
  void* index = cache.nodes.take(kIndex);
  const std::uint32_t beside_index = take_all();
  EXPECT_LE(beside_index, at_first - 18);
  EXPECT_LE(beside_index * kPageSize + static_cast<std::uint64_t>(cache.metadata_bytes()), cache.memory());
  void* huge = cache.nodes.take(std::size_t{1} << 30);  // never touched
  EXPECT_EQ(take_all(), cache.frames() / 4) << "progress comes first";
  cache.nodes.give(huge, std::size_t{1} << 30);
  cache.nodes.give(index, kIndex);
  std::uint32_t at_last = take_all();
  for (int i = 0; i < 1000 && at_last + 2 < at_first; ++i) {  // the flusher may still be giving memory back
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    at_last = take_all();
  }
  EXPECT_GE(at_last + 2, at_first);
}

TEST_F(PageCacheTest, M1_MetadataPerFolio) {
  TestCache large(4096);
  std::unique_ptr<RamBacking> file = disk.make_file();
  TestMapping dense(large.cache, *file, 2);
  for (std::uint64_t page = 0; page < 4000; ++page) large.cache.put_folio(dense.add(page));
  EXPECT_LE(static_cast<double>(large.cache.metadata_bytes()), 96.0 * 4000);
}

}  // namespace
}  // namespace quire
