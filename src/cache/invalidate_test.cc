// Removal of folios and the move of the end, in the cache alone.
#include "cache/invalidate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "cache/buffered_read.h"
#include "cache/cache_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

class Invalidate : public ::testing::Test {
 protected:
  bool resident(std::uint64_t page) {
    Folio* folio = get_folio(m, page);
    if (folio != nullptr) cache.cache.put_folio(*folio);
    return folio != nullptr;
  }

  RamDisk disk{4096};
  TestCache cache;
  std::unique_ptr<RamBacking> backing = disk.make_file();
  TestMapping test{cache.cache, *backing};
  Mapping& m = test.mapping;
};

TEST_F(Invalidate, RemovesTheRangeOnly) {
  for (const std::uint64_t page : {0, 1, 5, 6, 7, 30}) test.add_dirty(page);
  remove_folios(m, 1, 6);
  EXPECT_TRUE(resident(0));
  for (const std::uint64_t page : {1, 5, 6}) EXPECT_FALSE(resident(page));
  EXPECT_TRUE(resident(7));
  EXPECT_TRUE(resident(30));
  EXPECT_EQ(m.unstable_count.load(memory_order_relaxed), 3U);
  EXPECT_EQ(cache.cache.dirty.unstable(), 3U);
  EXPECT_EQ(cache.cache.eviction.size(), 3U);
}

TEST_F(Invalidate, ShrinkingZeroesTheEdgeAndDropsTheRest) {
  for (std::uint64_t page = 0; page < 4; ++page) test.add_dirty(page);
  truncate_cache(m, kPageSize + 96);
  EXPECT_EQ(m.size.load(memory_order_relaxed), kPageSize + 96);
  EXPECT_EQ(m.page_count.load(memory_order_relaxed), 2U);
  Folio* edge = get_folio(m, 1);
  ASSERT_NE(edge, nullptr);
  std::vector<char> expected(kPageSize, 0);
  fill_words(expected.data(), 96, 1, 1, kPageSize);
  EXPECT_EQ(std::vector<char>(edge->bytes(), edge->bytes() + kPageSize), expected);
  EXPECT_TRUE(edge->has(kDirty));
  EXPECT_FALSE(edge->sequence.odd());
  cache.cache.put_folio(*edge);
}

TEST_F(Invalidate, GrowingMovesTheEndOnly) {
  test.add_dirty(0);
  std::uint64_t gate, after;
  ASSERT_TRUE(m.gate.read_begin(0, 1, &gate));
  truncate_cache(m, 10 * kPageSize);
  EXPECT_EQ(m.size.load(memory_order_relaxed), 10 * kPageSize);
  EXPECT_TRUE(resident(0));
  ASSERT_TRUE(m.gate.read_begin(0, 1, &after));
  EXPECT_NE(gate, after) << "readers that were clipped to the old end notice";
}

// Folios in the way of reclaim, of readers and of other removals.
TEST_F(Invalidate, RemovesBesideReclaimAndLookups) {
  Watchdog watchdog("removals beside reclaim");
  std::atomic<bool> stop{false};
  run_threads(3, [&](int thread) {
    if (thread == 0) {
      for (int round = 0; round < 1500; ++round) {
        for (std::uint64_t page = 0; page < 12; ++page) {
          if (!resident(page)) cache.cache.put_folio(test.add(page));
        }
        RangeGuard remove(m.invalidate);
        remove.acquire(4, 9, kRemove);
        remove_folios(m, 4, 9);
        for (std::uint64_t page = 4; page < 9; ++page) ASSERT_FALSE(resident(page));
      }
      stop = true;
    }
    while (!stop && thread == 1) {
      FrameReservation frames(cache.cache.pool);
      cache.cache.try_reserve(frames, cache.cache.frames() - 4);
    }
    while (!stop && thread == 2) {
      for (std::uint64_t page = 0; page < 12; ++page) {
        char byte[64];
        const ssize_t n = read_fast(m, byte, sizeof byte, page * kPageSize);
        ASSERT_TRUE(n == kSlow || n == 0) << "the size is 0";
        resident(page);
      }
    }
  });
}

}  // namespace
}  // namespace quire
