// Migration: the new folio is what the old one was, nobody who uses a folio loses it, and blocks come together again.
#include "cache/migrate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/random.h"
#include "cache/buffered_read.h"
#include "cache/buffered_write.h"
#include "cache/cache_for_test.h"
#include "cache/eviction.h"
#include "cache/read_hit.h"
#include "cache/writeback.h"
#include "ram/ram_disk_for_test.h"
#include "sync/rcu.h"

namespace quire {
namespace {

using namespace testing_support;

class Migrate : public ::testing::Test {
 protected:
  Migrate() { c.set_max_order(9); }
  Mapping& m() { return test.mapping; }
  void set_pages(std::uint64_t pages) { m().size.store(pages * kPageSize, memory_order_release); }

  Folio* at(std::uint64_t page) {
    RcuReadLock rcu;
    return folio_of(m().pages.load(page));
  }
  bool migrate(std::uint64_t page) {
    Folio* folio = at(page);
    const unsigned order = folio->order.load(memory_order_relaxed);
    FrameReservation frames(c.pool);
    c.pool.take(frames, 1u << order, order);
    Folio* frame = frames.take(order);
    if (frame == nullptr) return false;
    const bool moved = migrate_folio(c, *folio, *frame);
    if (moved) {
      EXPECT_EQ(at(page), frame);
      rcu_synchronize();
    }
    frames.put(moved ? *folio : *frame);
    return moved;
  }
  void expect_words(std::uint64_t first_page, std::uint64_t pages) {
    std::vector<char> bytes(kPageSize);
    for (std::uint64_t page = first_page; page < first_page + pages; ++page) {
      ASSERT_EQ(read_fast(m(), bytes.data(), kPageSize, page * kPageSize), ssize_t{kPageSize}) << page;
      EXPECT_TRUE(all_of_file(bytes, 1, page * kPageSize));
    }
  }
  // Pages of a file in the cache one by one, and three of four gone again: free frames, and nearly none together.
  void fragment(std::uint64_t pages) {
    set_pages(pages);
    for (std::uint64_t page = 0; page < pages; ++page) c.put_folio(test.add(page));
    RangeGuard remove(m().invalidate);
    remove.acquire(0, kRangeEnd, kRemove);
    for (std::uint64_t page = 0; page < pages; page += 4) remove_folios(m(), page + 1, page + 3);
    c.pool.collect_retired();
    c.pool.drain_fronts();
  }
  bool has_block(unsigned order) {
    FrameReservation frames(c.pool);
    c.pool.take(frames, 1u << order, order);
    return frames.max_order() == order;
  }

  RamDisk disk{512};
  std::unique_ptr<RamBacking> file = disk.make_file();
  TestCache cache{4096};
  PageCache& c = cache.cache;
  TestMapping test{c, *file};
  Atomic<bool> never;
};

TEST_F(Migrate, TheNewFolioIsWhatTheOldOneWas) {
  set_pages(8);
  for (std::uint64_t page = 0; page < 8; ++page) c.put_folio(test.add(page));
  expect_words(0, 8);
  Folio& old = *at(3);
  const std::uint64_t sequence = old.sequence.read_begin();
  const std::uint32_t free_before = c.pool.free_frames();
  ASSERT_TRUE(migrate(3));
  EXPECT_NE(at(3), &old);
  EXPECT_TRUE(old.sequence.odd());
  EXPECT_EQ(old.sequence.read_begin(), sequence + 1);
  EXPECT_EQ(old.mapping.load(memory_order_relaxed), nullptr);
  EXPECT_EQ(at(3)->refs.load(memory_order_relaxed), 1U);
  EXPECT_TRUE(referenced(*at(3)));
  expect_words(0, 8);
  EXPECT_EQ(c.pool.free_frames(), free_before);
  EXPECT_EQ(c.resident_pages(), 8U);
  EXPECT_EQ(c.resident_folios(), 8U);
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 8U);
  EXPECT_EQ(cache.sum(Counter::migrations), 1U);
  char byte[8];
  EXPECT_EQ(read_hit(m(), byte, 8, 3 * kPageSize), kSlow) << "a stale guess is refused";
}

TEST_F(Migrate, LargeFoliosAsAWhole) {
  set_pages(64);
  c.put_folio(test.add_large(32, 5));
  ASSERT_TRUE(migrate(40));
  EXPECT_EQ(at(32), at(63));
  EXPECT_EQ(at(32)->pages(), 32U);
  expect_words(32, 32);
  EXPECT_EQ(c.resident_pages(), 32U);
  test.drop_cached();
  c.pool.collect_retired();
  EXPECT_EQ(c.pool.free_frames(), c.frames());
}

TEST_F(Migrate, D1_AsDirtyAndUnflushedAsBefore) {
  for (std::uint64_t page = 0; page < 4; ++page) test.add_dirty(page);
  ASSERT_TRUE(migrate(1));
  EXPECT_TRUE(at(1)->has(kDirty));
  EXPECT_TRUE(m().pages.get_mark(1, kMarkDirty));
  EXPECT_EQ(c.dirty.unstable(), 4U);
  ASSERT_TRUE(write_back(m(), 0, 3, CacheContext{}).ok());
  ASSERT_TRUE(migrate(2));
  EXPECT_TRUE(at(2)->has(kUnflushed));
  EXPECT_TRUE(m().pages.get_mark(2, kMarkUnflushed));
  EXPECT_NE(at(2)->written_epoch, 0U);
  EXPECT_EQ(c.dirty.unstable(), 4U);
  ASSERT_TRUE(flush(m(), true).ok());
  EXPECT_EQ(c.dirty.unstable(), 0U);
  EXPECT_FALSE(at(2)->has(kUnstable));
  expect_words(0, 4);
  test.drop_cached();
  EXPECT_EQ(file->size(), 4 * kPageSize);
}

TEST_F(Migrate, NotUnderWhoeverUsesIt) {
  set_pages(4);
  Folio& held = test.add(0);
  EXPECT_FALSE(migrate(0)) << "referenced";
  lock_folio(held);
  c.put_folio(held);
  EXPECT_FALSE(migrate(0)) << "locked";
  set_dirty(m(), held);
  ASSERT_TRUE(begin_writeback(m(), held));
  unlock_folio(held);
  EXPECT_FALSE(migrate(0)) << "being written";
  end_writeback(m(), held, true);
  EXPECT_TRUE(migrate(0));
  EXPECT_EQ(cache.sum(Counter::migrations), 1U);
  FrameReservation frames(c.pool);
  ASSERT_EQ(c.pool.take(frames, 3), 3U);
  Folio* frame = frames.take();
  Folio* unfilled = frames.take();
  ASSERT_TRUE(insert_new(m(), *unfilled, 3).ok());
  unlock_folio(*unfilled);
  c.put_folio(*unfilled);
  EXPECT_FALSE(migrate_folio(c, *unfilled, *frame)) << "its fill failed";
  Folio* free_one = frames.take();
  EXPECT_FALSE(migrate_folio(c, *free_one, *frame)) << "nobody's";
  frames.put(*frame);
  frames.put(*free_one);
}

TEST_F(Migrate, ReclaimFindsTheNewOnes) {
  set_pages(50);
  for (std::uint64_t page = 0; page < 50; ++page) c.put_folio(test.add(page));
  for (std::uint64_t page = 0; page < 50; page += 3) ASSERT_TRUE(migrate(page));
  EXPECT_EQ(c.resident_folios(), 50U);
  FrameReservation all(c.pool);
  EXPECT_TRUE(c.try_reserve(all, c.frames()));
  EXPECT_EQ(c.resident_folios(), 0U);
}

TEST_F(Migrate, TheReadaheadChargeGoesWithTheFolio) {
  set_pages(16);
  ASSERT_EQ(fill_ahead(m(), 0, 15, 0, 4).end, 16U);
  EXPECT_EQ(c.ahead.used(), 16U);
  ASSERT_TRUE(migrate(4));
  ASSERT_TRUE(migrate(9));
  EXPECT_EQ(c.ahead.used(), 16U);
  EXPECT_TRUE(at(4)->has(kReadahead));
  EXPECT_TRUE(at(9)->has(kAhead));
  test.drop_cached();
  EXPECT_EQ(c.ahead.used(), 0U);
}

TEST_F(Migrate, RebuildsBlocks) {
  fragment(3500);
  for (const unsigned order : {2U, 4U, 9U}) {
    FrameReservation rest(c.pool);  // of frames never used, and of blocks that there are
    while (has_block(order)) ASSERT_NE(c.pool.take(rest, 1u << order, order), 0U);
    const std::uint64_t before = cache.sum(Counter::migrations);
    const std::uint32_t rebuilt = migrate_to_rebuild(c, order, never);
    EXPECT_GE(rebuilt, order == 9 ? 1U : 8U) << order;
    EXPECT_LE(cache.sum(Counter::migrations) - before, rebuilt << (order - 1)) << "half a block for each at most";
    EXPECT_TRUE(has_block(order)) << order;
    for (std::uint64_t page = 0; page < 3500; page += 4) expect_words(page, 1);
  }
  EXPECT_EQ(c.pool.free_frames() + c.resident_pages(), c.frames());
}

TEST_F(Migrate, RebuildsNothingWhereItCannot) {
  fragment(3500);
  Folio* held[16];
  for (std::uint64_t i = 0; i < 16; ++i) held[i] = get_folio(m(), i * 256);  // in use: one in every block of that size
  const std::uint64_t before = cache.sum(Counter::migrations);
  EXPECT_EQ(migrate_to_rebuild(c, 9, never), 0U);
  EXPECT_EQ(cache.sum(Counter::migrations), before);
  for (Folio* folio : held) {
    if (folio != nullptr) c.put_folio(*folio);
  }
  never.store(true, memory_order_relaxed);
  EXPECT_EQ(migrate_to_rebuild(c, 2, never), 0U) << "told to stop";
  EXPECT_EQ(c.pool.free_frames() + c.resident_pages(), c.frames());
}

TEST_F(Migrate, TheFlusherRebuildsWhatWasWanted) {
  Watchdog watchdog("the flusher rebuilding blocks");
  fragment(3500);
  FrameReservation rest(c.pool);
  while (has_block(4)) ASSERT_NE(c.pool.take(rest, 16, 4), 0U);
  for (bool there = false; !there; std::this_thread::sleep_for(std::chrono::milliseconds(5))) {
    FrameReservation wanted(c.pool);
    ASSERT_TRUE(c.try_reserve(wanted, 16, 4));
    there = wanted.max_order() == 4;
    if (!there) {
      EXPECT_GE(cache.sum(Counter::order_misses), 1U);
    }
  }
  EXPECT_GE(cache.sum(Counter::migrations), 1U);
}

// One cache whose folios change frames beside one whose do not: the same pages go, in the same order.
TEST(MigrateInEviction, AMovedFolioKeepsItsPlace) {
  constexpr std::uint32_t kFrames = 64, kPages = 48;
  Eviction still, moving;
  ASSERT_TRUE(still.create(kFrames).ok());
  ASSERT_TRUE(moving.create(kFrames).ok());
  std::vector<std::uint32_t> frame_of(kPages), page_in(kFrames, Eviction::kNone);
  for (std::uint32_t page = 0; page < kPages; ++page) {
    still.admit(page, 0);
    moving.admit(page, 0);
    page_in[frame_of[page] = page] = page;
  }
  Random random(1);
  for (int i = 0; i < 500; ++i) {
    const auto page = static_cast<std::uint32_t>(random.below(kPages));
    const auto to = static_cast<std::uint32_t>(random.below(kFrames));
    if (page_in[to] != Eviction::kNone) continue;
    moving.move(frame_of[page], to);
    page_in[frame_of[page]] = Eviction::kNone;
    page_in[frame_of[page] = to] = page;
    moving.check();
  }
  struct Idle {
    bool test_and_clear_referenced(std::uint32_t) { return false; }
    bool try_take(std::uint32_t) { return true; }
  } frames;
  for (std::uint32_t i = 0; i < kPages; ++i) {
    std::uint32_t scanned = 0;
    std::uint64_t ghost = 0, other_ghost = 0;
    const std::uint32_t page = still.evict(frames, kFrames, &scanned, &ghost);
    const std::uint32_t frame = moving.evict(frames, kFrames, &scanned, &other_ghost);
    ASSERT_NE(frame, Eviction::kNone);
    EXPECT_EQ(page_in[frame], page);
    EXPECT_EQ(ghost, other_ghost);
  }
  EXPECT_EQ(moving.frames(), 0U);
}

// Readers, and writers in place, beside somebody who migrates all the time: every byte is the file's, and no write is
// lost.
TEST_F(Migrate, R1_ReadersAndWritersBesideMigration) {
  Watchdog watchdog("readers and writers beside migration");
  constexpr std::uint64_t kPages = 64;
  set_pages(kPages);
  for (std::uint64_t page = 0; page < kPages; ++page) c.put_folio(test.add(page));
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> moved{0};
  std::thread migrator([&] {
    Random random(1);
    while (!stop) moved += migrate(random.below(kPages));
  });
  std::thread reader([&] {
    Random random(2);
    std::vector<char> bytes(20'000);
    while (!stop) {
      const std::uint64_t offset = random.below(kPages * kPageSize - bytes.size()) & ~std::uint64_t{7};
      const std::size_t count = random.one_in(2) ? 64 : 8 * (1 + random.below(bytes.size() / 8));
      ssize_t n = count == 64 ? read_hit(m(), bytes.data(), count, offset) : kSlow;
      if (n == kSlow) n = read_fast(m(), bytes.data(), count, offset);
      if (n != kSlow) {
        ASSERT_TRUE(all_of_file({bytes.begin(), bytes.begin() + n}, 1, offset));
      }
    }
  });
  Random random(3);
  std::vector<unsigned> generations(kPages, 1);
  for (int i = 0; i < 20'000 || moved < 200; ++i) {
    const std::uint64_t page = random.below(kPages);
    const std::vector<char> image = words(kPageSize, 1, generations[page] + 1, page * kPageSize);
    if (write_fast(m(), image.data(), kPageSize, page * kPageSize, true)) ++generations[page];
  }
  stop = true;
  migrator.join();
  reader.join();
  std::vector<char> bytes(kPageSize);
  for (std::uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(read_fast(m(), bytes.data(), kPageSize, page * kPageSize), ssize_t{kPageSize});
    EXPECT_EQ(bytes, words(kPageSize, 1, generations[page], page * kPageSize)) << page;
  }
}

}  // namespace
}  // namespace quire
