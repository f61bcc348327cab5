// Ghosts: left by reclaim, taken up by who comes back, dropped with their range, and swept when nobody comes.
#include "cache/ghosts.h"

#include <gtest/gtest.h>

#include <memory>

#include "cache/cache_for_test.h"
#include "cache/invalidate.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

class Ghosts : public ::testing::Test {
 protected:
  Mapping& m() { return test->mapping; }
  PageCache& pages() { return cache.cache; }
  void read_once(std::uint64_t page) { pages().put_folio(test->add(page)); }
  XEntry entry(std::uint64_t page) {
    RcuReadLock rcu;
    return m().pages.load(page);
  }
  void evict_all() {
    FrameReservation frames(pages().pool);
    static_cast<void>(pages().try_reserve(frames, pages().frames()));
  }
  std::uint64_t in_index() {
    RcuReadLock rcu;
    std::uint64_t count = 0;
    m().pages.for_each(0, UINT64_MAX, [&](std::uint64_t, XEntry e) {
      count += e.is_value();
      return true;
    });
    return count;
  }

  RamDisk disk{512};
  std::unique_ptr<RamBacking> file = disk.make_file();
  TestCache cache{256};
  std::unique_ptr<TestMapping> test = std::make_unique<TestMapping>(cache.cache, *file);
};

TEST_F(Ghosts, LeftByReclaimAndTakenUpAgain) {
  for (std::uint64_t page = 0; page < 100; ++page) read_once(page);
  evict_all();
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 0U);
  EXPECT_EQ(in_index(), 100U);
  EXPECT_EQ(pages().ghosts.count(), 100U);
  EXPECT_EQ(get_folio(m(), 50), nullptr);
  read_once(50);
  EXPECT_EQ(cache.sum(Counter::refaults), 1U);
  EXPECT_TRUE(entry(50).is_pointer());
  EXPECT_EQ(pages().ghosts.count(), 99U);
  read_once(1000);
  EXPECT_EQ(cache.sum(Counter::refaults), 1U);
}

TEST_F(Ghosts, OfLargeFolios) {
  pages().put_folio(test->add_large(16, 3));
  evict_all();
  EXPECT_EQ(pages().ghosts.count(), 1U);
  EXPECT_TRUE(entry(23).is_value());
  read_once(20);  // one of its pages alone: the ghost stays for the others
  EXPECT_EQ(cache.sum(Counter::refaults), 1U);
  EXPECT_TRUE(entry(20).is_pointer());
  EXPECT_TRUE(entry(19).is_value());
  EXPECT_TRUE(entry(23).is_value());
  EXPECT_EQ(in_index(), pages().ghosts.count());
  pages().put_folio(test->add_large(16, 2));
  EXPECT_EQ(in_index(), pages().ghosts.count());
  EXPECT_EQ(cache.sum(Counter::refaults), 2U);
}

TEST_F(Ghosts, GoWithTheirRange) {
  m().size.store(100 * kPageSize, memory_order_release);
  for (std::uint64_t page = 0; page < 100; ++page) read_once(page);
  evict_all();
  {
    RangeGuard remove(m().invalidate);
    remove.acquire(0, kRangeEnd, kRemove);
    remove_folios(m(), 40, 59);
  }
  EXPECT_EQ(pages().ghosts.count(), 80U);
  EXPECT_TRUE(entry(45).empty());
  test.reset();
  EXPECT_EQ(pages().ghosts.count(), 0U);
}

// A stream far larger than the cache: what it leaves in the index is bounded.
TEST_F(Ghosts, AreSwept) {
  Watchdog watchdog("the sweep of ghosts");
  for (std::uint64_t page = 0; page < 5000; ++page) read_once(page * 3);
  while (pages().ghosts.due()) std::this_thread::yield();
  EXPECT_LE(pages().ghosts.count(), 3 * pages().frames());
  EXPECT_EQ(in_index(), pages().ghosts.count());
}

TEST_F(Ghosts, MappingsEndBesideTheSweep) {
  Watchdog watchdog("mappings that end");
  for (unsigned round = 0; round < 50; ++round) {
    for (std::uint64_t page = 0; page < 1000; ++page) read_once(page * 5);
    test = std::make_unique<TestMapping>(cache.cache, *file, round + 2);
  }
  test.reset();
  EXPECT_EQ(pages().ghosts.count(), 0U);
}

}  // namespace
}  // namespace quire
