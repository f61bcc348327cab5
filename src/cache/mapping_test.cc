// The index of a mapping and the stability of its folios: every transition, with flags, marks and counts together.
#include "cache/mapping.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "base/random.h"
#include "cache/cache_for_test.h"
#include "ram/ram_disk_for_test.h"
#include "sync/rcu.h"

namespace quire {
namespace {

using namespace testing_support;

class MappingTest : public ::testing::Test {
 protected:
  // Flags and marks agree; these are the flags.
  std::uint32_t state(Folio& folio) {
    const std::uint32_t flags = folio.flags.load(memory_order_acquire) & kUnstable;
    const std::uint64_t page = folio.index.load(memory_order_relaxed);
    EXPECT_EQ(m.pages.get_mark(page, kMarkDirty), (flags & kDirty) != 0);
    EXPECT_EQ(m.pages.get_mark(page, kMarkWriteback), (flags & kWriteback) != 0);
    EXPECT_EQ(m.pages.get_mark(page, kMarkUnflushed), (flags & kUnflushed) != 0);
    return flags;
  }
  std::uint64_t unstable() {
    EXPECT_EQ(m.unstable_count.load(memory_order_relaxed), cache.cache.dirty.unstable());
    return m.unstable_count.load(memory_order_relaxed);
  }
  bool begin(Folio& folio) {
    lock_folio(folio);
    const bool begun = begin_writeback(m, folio);
    unlock_folio(folio);
    return begun;
  }

  RamDisk disk{4096};
  TestCache cache;
  std::unique_ptr<RamBacking> backing = disk.make_file();
  TestMapping test{cache.cache, *backing};
  Mapping& m = test.mapping;
};

TEST_F(MappingTest, InsertsOnce) {
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve(frames, 2);
  Folio* first = frames.take();
  Folio* second = frames.take();
  ASSERT_TRUE(insert_new(m, *first, 7).ok());
  EXPECT_TRUE(first->has(kLocked));
  EXPECT_TRUE(first->has(kEvictable));
  EXPECT_TRUE(first->sequence.odd());
  EXPECT_FALSE(first->has(kUptodate));
  EXPECT_EQ(insert_new(m, *second, 7).errnum(), EEXIST);
  EXPECT_EQ(second->refs.load(memory_order_relaxed), 0U);
  EXPECT_EQ(second->mapping.load(memory_order_relaxed), nullptr);
  EXPECT_EQ(m.page_count.load(memory_order_relaxed), 1U);
  ASSERT_TRUE(insert_new(m, *second, 8).ok()) << "the frame was still the caller's";
  EXPECT_EQ(get_folio(m, 8), second);
  EXPECT_EQ(get_folio(m, 9), nullptr);
  cache.cache.put_folio(*second);
  for (Folio* folio : {first, second}) {
    unlock_folio(*folio);
    cache.cache.put_folio(*folio);
  }
}

TEST_F(MappingTest, NoMemoryForTheIndex) {
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve(frames, 1);
  Folio* frame = frames.take();
  m.pages.fail_allocation_after(0);
  EXPECT_EQ(insert_new(m, *frame, 1000).errnum(), ENOMEM);
  EXPECT_EQ(m.page_count.load(memory_order_relaxed), 0U);
  EXPECT_FALSE(frame->has(kLocked));
  frames.put(*frame);
  EXPECT_EQ(frames.count(), 1U);
}

TEST_F(MappingTest, RemovedFoliosAreOddAndNobodys) {
  Folio& folio = test.add(3);
  const std::uint64_t before = folio.sequence.read_begin();
  lock_folio(folio);
  set_dirty(m, folio);
  EXPECT_EQ(unstable(), 1U);
  remove_folio(m, folio);
  unlock_folio(folio);
  EXPECT_EQ(unstable(), 0U);
  EXPECT_EQ(get_folio(m, 3), nullptr);
  EXPECT_TRUE(folio.sequence.odd());
  EXPECT_FALSE(folio.sequence.unchanged(before));
  EXPECT_FALSE(folio_is(folio, &m, 3));
  EXPECT_FALSE(m.pages.marked(kMarkDirty));
  EXPECT_EQ(cache.cache.eviction.size(), 0U);
  EXPECT_EQ(cache.cache.pool.retired_frames(), 0U) << "we still hold a reference";
  cache.cache.put_folio(folio);
  EXPECT_EQ(cache.cache.pool.retired_frames(), 1U);
}

TEST_F(MappingTest, D1_EveryTransition) {
  Folio& folio = test.add(5);
  EXPECT_EQ(state(folio), 0U);
  EXPECT_FALSE(begin(folio)) << "clean";
  test.dirty(folio);
  test.dirty(folio);
  EXPECT_EQ(state(folio), kDirty);
  EXPECT_EQ(unstable(), 1U);
  EXPECT_TRUE(begin(folio));
  EXPECT_EQ(state(folio), kWriteback);
  EXPECT_FALSE(begin(folio)) << "in writeback";
  test.dirty(folio);
  EXPECT_EQ(state(folio), kDirty | kWriteback);
  EXPECT_FALSE(begin(folio)) << "in writeback and dirty again";
  end_writeback(m, folio, true);
  EXPECT_EQ(state(folio), kDirty) << "what was written is old";
  EXPECT_TRUE(begin(folio));
  end_writeback(m, folio, false);
  EXPECT_EQ(state(folio), kDirty) << "the write failed";
  EXPECT_TRUE(begin(folio));
  test.dirty(folio);
  end_writeback(m, folio, false);
  EXPECT_EQ(state(folio), kDirty);
  EXPECT_TRUE(begin(folio));
  end_writeback(m, folio, true);
  EXPECT_EQ(state(folio), kUnflushed);
  EXPECT_FALSE(begin(folio)) << "written already";
  EXPECT_EQ(unstable(), 1U) << "as good as dirty";
  end_flush(m, begin_flush_epoch(m), false);
  EXPECT_EQ(state(folio), kDirty) << "the flush failed: to be written again";
  EXPECT_TRUE(begin(folio));
  end_writeback(m, folio, true);
  test.dirty(folio);
  EXPECT_EQ(state(folio), kDirty) << "written and dirtied";
  end_flush(m, begin_flush_epoch(m), true);
  EXPECT_EQ(state(folio), kDirty) << "no flush cleans what is dirty";
  EXPECT_TRUE(begin(folio));
  const std::uint32_t epoch = begin_flush_epoch(m);
  end_writeback(m, folio, true);
  end_flush(m, epoch, true);
  EXPECT_EQ(state(folio), kUnflushed) << "its write ended after that flush had begun";
  end_flush(m, epoch, false);
  EXPECT_EQ(state(folio), kDirty)
      << "had it failed, the host might have lost it: it was on its way before the host began";
  EXPECT_EQ(unstable(), 1U);
  EXPECT_TRUE(begin(folio));
  end_flush(m, begin_flush_epoch(m), false);
  EXPECT_EQ(state(folio), kDirty | kWriteback) << "the same while it is being written";
  end_writeback(m, folio, true);
  EXPECT_EQ(state(folio), kDirty);
  EXPECT_TRUE(begin(folio));
  end_writeback(m, folio, true);
  end_flush(m, begin_flush_epoch(m), true);
  EXPECT_EQ(state(folio), 0U);
  EXPECT_EQ(unstable(), 0U);
  cache.cache.put_folio(folio);
}

// A random walk of many folios beside a model of each.
class ManyFolios : public MappingTest {
 protected:
  struct Model {
    Folio* folio;
    std::uint32_t flags = 0;
    std::uint32_t epoch = 0;
  };

  void dirty(Model& p) {
    test.dirty(*p.folio);
    p.flags = (p.flags | kDirty) & ~kUnflushed;
  }
  void write(Model& p) {
    if (begin(*p.folio)) {
      ASSERT_EQ(p.flags & (kDirty | kWriteback), std::uint32_t{kDirty});
      p.flags = kWriteback;
    } else {
      ASSERT_NE(p.flags & (kDirty | kWriteback), kDirty);
    }
  }
  void end_write(Model& p, bool ok) {
    if ((p.flags & kWriteback) == 0) return;
    end_writeback(m, *p.folio, ok);
    p.flags = !ok ? kDirty : (p.flags & kDirty) != 0 ? kDirty : kUnflushed;
    p.epoch = epoch;
  }
  void begin_a_flush() {
    const std::uint32_t begun = begin_flush_epoch(m);
    ASSERT_EQ(begun, epoch);
    ++epoch;
  }
  void end_a_flush(std::uint32_t ended, bool ok) {
    end_flush(m, ended, ok);
    for (Model& p : pages) {
      // A flush that failed may have lost whatever had reached the device, counted or not.
      if (!ok && (p.flags & kWriteback) != 0) p.flags |= kDirty;
      if ((p.flags & kUnflushed) != 0 && (!ok || p.epoch <= ended)) p.flags = ok ? 0U : std::uint32_t{kDirty};
    }
  }

  std::vector<Model> pages;
  std::uint32_t epoch = 0;
};

TEST_F(ManyFolios, D1_ManySteps) {
  constexpr std::size_t kPages = 7;  // few, so that the flusher leaves them alone
  for (std::size_t i = 0; i < kPages; ++i) pages.push_back({&test.add(i * 37)});
  epoch = m.flush_epoch;
  Random random(4);
  for (int step = 0; step < 20'000 && !HasFatalFailure(); ++step) {
    Model& p = pages[random.below(kPages)];
    const std::uint64_t choice = random.below(5);
    if (choice == 0) {
      dirty(p);
    } else if (choice == 1) {
      write(p);
    } else if (choice < 4) {
      end_write(p, !random.one_in(4));
    } else if (random.one_in(3)) {
      begin_a_flush();
    } else {
      const std::uint32_t ended = epoch - 1 - static_cast<std::uint32_t>(random.below(2));
      end_a_flush(ended, !random.one_in(3));
    }
    std::uint64_t due = 0;
    for (const Model& q : pages) due += q.flags != 0;
    ASSERT_EQ(unstable(), due) << step;
    ASSERT_EQ(state(*p.folio), p.flags) << step;
  }
  for (Model& p : pages) {
    ASSERT_EQ(state(*p.folio), p.flags);
    if ((p.flags & kWriteback) != 0) end_writeback(m, *p.folio, true);
    cache.cache.put_folio(*p.folio);
  }
}

// Flushes that fail, beside reclaim: at no instant may a folio look clean.
TEST_F(MappingTest, D1_FailedFlushNeverLooksClean) {
  std::vector<std::uint64_t> pages;  // few, so that the flusher leaves them alone
  for (std::uint64_t page = 0; page + 1 < cache.cache.dirty.background(); ++page) pages.push_back(page);
  for (const std::uint64_t page : pages) test.add_dirty(page);
  std::atomic<bool> stop{false};
  run_threads(2, [&](int thread) {
    while (thread == 1 && !stop) {
      FrameReservation frames(cache.cache.pool);
      cache.cache.try_reserve(frames, cache.cache.frames());
    }
    if (thread == 1) return;
    for (int round = 0; round < 10'000 && !HasFailure(); ++round) {
      for (const std::uint64_t page : pages) {
        Folio* folio = get_folio(m, page);
        EXPECT_NE(folio, nullptr) << "dropped in round " << round;
        if (folio == nullptr) break;
        if (round % 3 == 0) {
          EXPECT_TRUE(begin(*folio));
          end_writeback(m, *folio, false);
        }
        EXPECT_TRUE(begin(*folio));
        end_writeback(m, *folio, true);
        cache.cache.put_folio(*folio);
      }
      end_flush(m, begin_flush_epoch(m), false);
      EXPECT_EQ(unstable(), pages.size());
    }
    stop = true;
  });
  EXPECT_EQ(m.page_count.load(memory_order_relaxed), pages.size());
}

// Lookups beside reclaim and new insertions: whoever gets a folio has this page, and keeps it.
TEST_F(MappingTest, R2_GetFolioBesideReclaim) {
  Watchdog watchdog("lookups beside reclaim");
  constexpr std::uint64_t kPages = 100;  // more than there are frames
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> found{0};
  run_threads(4, [&](int thread) {
    Random random(static_cast<std::uint64_t>(thread) + 8);
    if (thread == 0) {
      for (int i = 0; i < 20'000; ++i) {
        const std::uint64_t page = random.below(kPages);
        if (Folio* there = get_folio(m, page)) {
          cache.cache.put_folio(*there);
          continue;
        }
        cache.cache.put_folio(test.add(page));
      }
      stop = true;
    }
    while (!stop) {
      const std::uint64_t page = random.below(kPages);
      Folio* folio = get_folio(m, page);
      if (folio == nullptr) continue;
      if (folio->has(kUptodate)) {
        for (int i = 0; i < 4; ++i) {
          std::uint64_t word;
          racy_copy_from_folio(&word, folio->bytes() + 8 * random.below(512) / 8 * 8, 8);
          ASSERT_EQ(word >> 9 & 0x7fffff, page & 0x7fffff) << std::hex << word;
        }
        ASSERT_TRUE(folio_is(*folio, &m, page));
        ++found;
      }
      cache.cache.put_folio(*folio);
    }
  });
  EXPECT_GT(found, 0U);
  EXPECT_GT(cache.sum(Counter::evictions), 100U);
}

}  // namespace
}  // namespace quire
