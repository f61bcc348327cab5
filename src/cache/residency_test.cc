// The walk over what is cached: states, merging, slices, and entries that are no folio of one page.
#include "cache/residency.h"

#include <vector>

#include "cache/cache_for_test.h"
#include "cache/writeback.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using testing_support::RamDisk;
using testing_support::TestCache;
using testing_support::TestMapping;

struct Part {
  std::uint64_t page, pages;
  std::uint32_t state, order;
  bool operator==(const Part&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Part& run) {
  return out << "{page " << run.page << ", pages " << run.pages << ", state " << run.state << ", order " << run.order
             << "}";
}

class Residency : public ::testing::Test {
 protected:
  // All of it, through a window of so many runs and entries a call.
  std::vector<Part> runs(std::size_t window = 100, std::uint64_t max_entries = UINT64_MAX) {
    std::vector<quire_residency_run> some(window);
    std::vector<Part> all;
    ResidencyCursor at;
    while (!at.done) {
      const std::size_t count = find_residency(test_.mapping, at, some, max_entries);
      for (std::size_t i = 0; i < count; ++i) {
        all.push_back({some[i].offset >> kPageShift, some[i].length >> kPageShift, some[i].state, some[i].order});
      }
    }
    return all;
  }
  void add_clean(std::uint64_t page) { cache_.cache.put_folio(test_.add(page)); }

  RamDisk disk_{512};
  TestCache cache_{16'384};  // the flusher leaves alone what these tests dirty
  std::unique_ptr<Backing> backing_{disk_.make_file()};
  TestMapping test_{cache_.cache, *backing_};
};

TEST_F(Residency, NothingCached) { EXPECT_EQ(runs(), std::vector<Part>{}); }

TEST_F(Residency, NeighboursAlikeAreOneRun) {
  for (const std::uint64_t page : {0, 1, 2, 5, 100'000, 100'001}) add_clean(page);
  test_.add_dirty(3);
  const std::vector<Part> wanted{{0, 3, QUIRE_RUN_CLEAN, 0},
                                 {3, 1, QUIRE_RUN_DIRTY, 0},
                                 {5, 1, QUIRE_RUN_CLEAN, 0},
                                 {100'000, 2, QUIRE_RUN_CLEAN, 0}};
  EXPECT_EQ(runs(), wanted);
  EXPECT_EQ(runs(1), wanted) << "a call for each";
}

TEST_F(Residency, SlicesGoOnWhereTheLastEnded) {
  for (std::uint64_t page = 0; page < 1500; ++page) add_clean(page);
  EXPECT_EQ(runs(), (std::vector<Part>{{0, 1500, QUIRE_RUN_CLEAN, 0}})) << "over several read sections";
  const std::vector<Part> sliced = runs(100, 700);
  EXPECT_EQ(sliced,
            (std::vector<Part>{
                {0, 700, QUIRE_RUN_CLEAN, 0}, {700, 700, QUIRE_RUN_CLEAN, 0}, {1400, 100, QUIRE_RUN_CLEAN, 0}}));
}

TEST_F(Residency, WritebackAndFlushInTurn) {
  Folio& folio = test_.add(7);
  test_.mapping.size.store(8 * kPageSize, memory_order_release);
  test_.dirty(folio);
  lock_folio(folio);
  ASSERT_TRUE(begin_writeback(test_.mapping, folio));
  unlock_folio(folio);
  EXPECT_EQ(runs(), (std::vector<Part>{{7, 1, QUIRE_RUN_WRITEBACK, 0}}));
  test_.dirty(folio);
  EXPECT_EQ(runs(), (std::vector<Part>{{7, 1, QUIRE_RUN_WRITEBACK, 0}})) << "dirty again, and still being written";
  end_writeback(test_.mapping, folio, true);
  EXPECT_EQ(runs(), (std::vector<Part>{{7, 1, QUIRE_RUN_DIRTY, 0}}));
  ASSERT_TRUE(write_back(test_.mapping, 0, UINT64_MAX, {}).ok());
  EXPECT_EQ(runs(), (std::vector<Part>{{7, 1, QUIRE_RUN_UNFLUSHED, 0}}));
  ASSERT_TRUE(flush(test_.mapping, true).ok());
  EXPECT_EQ(runs(), (std::vector<Part>{{7, 1, QUIRE_RUN_CLEAN, 0}}));
  cache_.cache.put_folio(folio);
}

TEST_F(Residency, FillingUntilUptodate) {
  FrameReservation frames(cache_.cache.pool);
  cache_.cache.reserve(frames, 1);
  Folio& folio = *frames.take();
  ASSERT_TRUE(insert_new(test_.mapping, folio, 2).ok());
  EXPECT_EQ(runs(), (std::vector<Part>{{2, 1, QUIRE_RUN_FILLING, 0}}));
  racy_zero_folio(folio.bytes(), kPageSize);
  make_uptodate(folio);
  unlock_folio(folio);
  EXPECT_EQ(runs(), (std::vector<Part>{{2, 1, QUIRE_RUN_CLEAN, 0}}));
  cache_.cache.put_folio(folio);
}

TEST_F(Residency, ValueEntriesAreGhosts) {
  add_clean(10);
  ASSERT_TRUE(test_.mapping.pages.store(11, XEntry::from_value(77)).ok());
  ASSERT_TRUE(test_.mapping.pages.store(12, XEntry::from_value(78)).ok());
  EXPECT_EQ(runs(), (std::vector<Part>{{10, 1, QUIRE_RUN_CLEAN, 0}, {11, 2, QUIRE_RUN_GHOST, 0}}));
  test_.mapping.pages.erase(11);
  test_.mapping.pages.erase(12);
}

TEST_F(Residency, FoliosOfSeveralPages) {
  Folio& folio = test_.add_large(8, 2);
  add_clean(12);
  EXPECT_EQ(runs(), (std::vector<Part>{{8, 4, QUIRE_RUN_CLEAN, 2}, {12, 1, QUIRE_RUN_CLEAN, 0}}));
  ResidencyCursor inside{10, false};
  quire_residency_run run{};
  ASSERT_EQ(find_residency(test_.mapping, inside, std::span(&run, 1), 1), 1U);
  EXPECT_EQ(run.offset, 10 * kPageSize) << "from where was asked";
  EXPECT_EQ(run.length, 2 * kPageSize);
  cache_.cache.put_folio(folio);
}

// Readers of residency beside fills, writes, writeback and removal: what they are told is in order, and of the file.
TEST_F(Residency, BesideChanges) {
  Atomic<bool> stop;
  testing_support::run_threads(2, [&](int thread) {
    if (thread == 0) {
      for (int round = 0; round < 200; ++round) {
        for (std::uint64_t page = 0; page < 40; ++page) test_.add_dirty(page);
        (void)write_back(test_.mapping, 0, UINT64_MAX, {});
        (void)flush(test_.mapping, true);
        test_.drop_cached();
      }
      stop.store(true, memory_order_release);
    }
    while (!stop.load(memory_order_acquire)) {
      std::uint64_t end = 0;
      for (const Part& run : runs(3)) {
        ASSERT_GE(run.page, end);
        ASSERT_LE(run.page + run.pages, 40U);
        ASSERT_LT(run.state, static_cast<std::uint32_t>(QUIRE_RUN_GHOST));
        end = run.page + run.pages;
      }
    }
  });
}

}  // namespace
}  // namespace quire
