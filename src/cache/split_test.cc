// Splitting: the parts hold what the whole held, are as dirty as it was, and nobody who uses the whole is split under.
#include "cache/split.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/random.h"
#include "cache/buffered_read.h"
#include "cache/cache_for_test.h"
#include "cache/invalidate.h"
#include "cache/writeback.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

class Split : public ::testing::Test {
 protected:
  Split() { cache.cache.set_max_order(9); }
  Mapping& m() { return test.mapping; }
  Status split(Folio& folio, std::uint64_t page, unsigned order) {
    lock_folio(folio);
    const Status done = split_folio(m(), folio, page, order);
    unlock_folio(folio);
    return done;
  }
  void expect_words(std::uint64_t first_page, std::uint64_t pages) {
    for (std::uint64_t page = first_page; page < first_page + pages; ++page) {
      Folio* folio = get_folio(m(), page);
      ASSERT_NE(folio, nullptr) << page;
      EXPECT_FALSE(folio->sequence.odd());
      const std::uint64_t inside = (page - folio->index.load(memory_order_relaxed)) * kPageSize;
      EXPECT_TRUE(all_of_file({folio->bytes() + inside, folio->bytes() + inside + kPageSize}, 1, page * kPageSize));
      cache.cache.put_folio(*folio);
    }
  }
  std::vector<std::uint64_t> folios() {
    std::vector<std::uint64_t> first;
    RcuReadLock rcu;
    m().pages.for_each(0, UINT64_MAX, [&](std::uint64_t index, XEntry entry) {
      EXPECT_EQ(folio_of(entry)->index.load(memory_order_relaxed), index);
      first.push_back(index);
      return true;
    });
    return first;
  }

  RamDisk disk{512};
  std::unique_ptr<RamBacking> file = disk.make_file();
  TestCache cache{4096};
  TestMapping test{cache.cache, *file};
};

TEST_F(Split, PartsHoldWhatTheWholeHeld) {
  Folio& folio = test.add_large(512, 9);
  m().size.store(1024 * kPageSize, memory_order_release);
  const std::uint64_t sequence = folio.sequence.read_begin();
  ASSERT_TRUE(split(folio, 700, 0).ok());
  EXPECT_GT(folio.sequence.read_begin(), sequence) << "who found it before looks again";
  EXPECT_EQ(folios(), (std::vector<std::uint64_t>{512, 640, 672, 688, 696, 700, 701, 702, 704, 768}));
  EXPECT_EQ(folio.pages(), 128U);
  expect_words(512, 512);
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 512U);
  EXPECT_EQ(cache.cache.resident_pages(), 512U);
  cache.cache.put_folio(folio);
  for (std::uint64_t page = 512; page < 1024; page += 7) {
    char byte[8];
    ASSERT_EQ(read_fast(m(), byte, 8, page * kPageSize + 16), 8);
    EXPECT_TRUE(word_fits(load_word(byte), 1, page * kPageSize + 16));
  }
  const std::uint32_t before = cache.cache.pool.free_frames();
  test.drop_cached();
  cache.cache.pool.collect_retired();
  EXPECT_EQ(cache.cache.pool.free_frames(), before + 512);
}

TEST_F(Split, EveryPageAndOrder) {
  for (std::uint64_t page = 0; page < 16; ++page) {
    for (unsigned order = 0; order < 4; ++order) {
      Folio& folio = test.add_large(16, 4);
      ASSERT_TRUE(split(folio, 16 + page, order).ok());
      expect_words(16, 16);
      Folio* part = get_folio(m(), 16 + page);
      EXPECT_EQ(part->order.load(memory_order_relaxed), order);
      cache.cache.put_folio(*part);
      cache.cache.put_folio(folio);
      test.drop_cached();
    }
  }
}

TEST_F(Split, PartsAreAsDirtyAsTheWhole) {
  Folio& folio = test.add_large(0, 5);
  m().size.store(32 * kPageSize, memory_order_release);
  test.dirty(folio);
  EXPECT_EQ(m().unstable_count.load(memory_order_relaxed), 32U);
  ASSERT_TRUE(split(folio, 9, 0).ok());
  EXPECT_EQ(m().unstable_count.load(memory_order_relaxed), 32U);
  EXPECT_EQ(cache.cache.dirty.unstable(), 32U);
  for (const std::uint64_t first : folios()) {
    EXPECT_TRUE(m().pages.get_mark(first, kMarkDirty)) << first;
  }
  ASSERT_TRUE(write_back(m(), 0, 31, CacheContext{}).ok());
  EXPECT_EQ(m().unstable_count.load(memory_order_relaxed), 32U) << "not flushed yet";
  Folio* part = get_folio(m(), 16);
  ASSERT_TRUE(split(*part, 17, 0).ok());
  cache.cache.put_folio(*part);
  ASSERT_TRUE(flush(m(), true).ok());
  EXPECT_EQ(m().unstable_count.load(memory_order_relaxed), 0U);
  EXPECT_EQ(cache.cache.dirty.unstable(), 0U);
  EXPECT_EQ(file->size(), 32U * kPageSize);
  cache.cache.put_folio(folio);
  expect_words(0, 32);
}

TEST_F(Split, NotUnderWhoeverUsesIt) {
  Folio& folio = test.add_large(8, 3);
  Folio* reader = get_folio(m(), 10);
  EXPECT_EQ(split(folio, 10, 0).errnum(), EBUSY);
  EXPECT_EQ(folios(), std::vector<std::uint64_t>{8});
  cache.cache.put_folio(*reader);
  EXPECT_TRUE(split(folio, 10, 0).ok());
  cache.cache.put_folio(folio);
}

TEST_F(Split, WithoutMemoryNothingChanges) {
  Folio& folio = test.add_large(512, 9);
  m().pages.fail_allocation_after(0);
  EXPECT_EQ(split(folio, 600, 0).errnum(), ENOMEM);
  EXPECT_EQ(folios(), std::vector<std::uint64_t>{512});
  expect_words(512, 512);
  EXPECT_TRUE(split(folio, 600, 0).ok());
  cache.cache.put_folio(folio);
  expect_words(512, 512);
}

TEST_F(Split, PunchCutsOut) {
  cache.cache.put_folio(test.add_large(0, 6));
  m().size.store(64 * kPageSize, memory_order_release);
  {
    RangeGuard remove(m().invalidate);
    remove.acquire(0, 511, kRemove);
    zero_cache(m(), 10 * kPageSize + 100, 20 * kPageSize + 100, 0);
  }
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 64U - 9);
  std::vector<char> bytes(64 * kPageSize);
  ASSERT_EQ(read_fast(m(), bytes.data(), 10 * kPageSize + 100, 0), ssize_t{10 * kPageSize + 100});
  ASSERT_EQ(read_fast(m(), bytes.data(), kPageSize, 20 * kPageSize), ssize_t{kPageSize});
  EXPECT_EQ(bytes[99], 0);
  EXPECT_EQ(read_fast(m(), bytes.data(), 8, 15 * kPageSize), kSlow) << "removed";
  ASSERT_EQ(read_fast(m(), bytes.data(), 8, 10 * kPageSize + 104), 8);
  EXPECT_EQ(load_word(bytes.data()), 0U);
}

// A dirty folio that cannot be split for lack of memory keeps what lies outside, and is zeroed in place.
TEST_F(Split, PunchWithoutMemoryZeroesInPlace) {
  Folio& folio = test.add_large(512, 9);
  m().size.store(1024 * kPageSize, memory_order_release);
  test.dirty(folio);
  cache.cache.put_folio(folio);
  m().pages.fail_allocation_after(0);
  {
    RangeGuard remove(m().invalidate);
    remove.acquire(512, 1023, kRemove);
    zero_cache(m(), 600 * kPageSize, 610 * kPageSize, 0);
  }
  EXPECT_EQ(folios(), std::vector<std::uint64_t>{512});
  std::vector<char> bytes(12 * kPageSize);
  ASSERT_EQ(read_fast(m(), bytes.data(), bytes.size(), 599 * kPageSize), static_cast<ssize_t>(bytes.size()));
  EXPECT_TRUE(all_of_file({bytes.begin(), bytes.begin() + kPageSize}, 1, 599 * kPageSize));
  EXPECT_TRUE(all_zero({bytes.begin() + kPageSize, bytes.end() - kPageSize}));
  EXPECT_TRUE(all_of_file({bytes.end() - kPageSize, bytes.end()}, 1, 610 * kPageSize));
}

// Readers of every page beside somebody who splits, drops and brings back: every byte is the file's.
TEST_F(Split, R1_ReadersBesideSplits) {
  Watchdog watchdog("readers beside splits");
  m().size.store(64 * kPageSize, memory_order_release);
  std::atomic<bool> stop{false};
  std::thread splitter([&] {
    Random random(1);
    for (int round = 0; round < 400; ++round) {
      Folio& folio = test.add_large(0, 6);
      for (int i = 0; i < 6; ++i) {
        Folio* part = get_folio(m(), random.below(64));
        static_cast<void>(split(*part, part->index.load(memory_order_relaxed) + random.below(part->pages()),
                                static_cast<unsigned>(random.below(3))));
        cache.cache.put_folio(*part);
      }
      cache.cache.put_folio(folio);
      test.drop_cached();
      cache.cache.pool.collect_retired();
    }
    stop = true;
  });
  Random random(2);
  std::vector<char> bytes(20'000);
  while (!stop) {
    const std::uint64_t offset = random.below(64 * kPageSize - bytes.size()) & ~std::uint64_t{7};
    const std::size_t count = random.one_in(2) ? 64 : 8 * (1 + random.below(bytes.size() / 8));
    const ssize_t n = read_fast(m(), bytes.data(), count, offset);
    if (n != kSlow) {
      ASSERT_TRUE(all_of_file({bytes.begin(), bytes.begin() + n}, 1, offset));
    }
  }
  splitter.join();
}

}  // namespace
}  // namespace quire
