// The budget of readahead: what is granted, when it comes back, and that no end of a folio keeps it.
#include "cache/ahead_budget.h"

#include <gtest/gtest.h>

#include "cache/buffered_read.h"
#include "cache/cache_for_test.h"
#include "cache/split.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::uint64_t kFilePages = 2000;

class Budget : public ::testing::Test {
 protected:
  Budget() {
    disk.put(*backing, 0, words(kFilePages * kPageSize, 2, 1, 0), UINT64_MAX);
    test = std::make_unique<TestMapping>(cache.cache, *backing);
  }

  Mapping& m() { return test->mapping; }
  AheadBudget& budget() { return cache.cache.ahead; }
  std::uint64_t fill(std::uint64_t first, std::uint64_t last, unsigned order = 0) {
    const std::uint64_t end = fill_ahead(m(), first, last, order, UINT64_MAX).end;
    drain_ahead(m());
    return end;
  }
  void read(std::uint64_t page) {
    std::vector<char> bytes(kPageSize);
    ASSERT_EQ(read_fast(m(), bytes.data(), kPageSize, page * kPageSize), static_cast<ssize_t>(kPageSize));
  }

  RamDisk disk{4096};
  TestCache cache{1024};  // a budget of 256 pages
  std::unique_ptr<RamBacking> backing = disk.make_file();
  std::unique_ptr<TestMapping> test;
};

TEST_F(Budget, AQuarterOfTheFramesHalfOfWhatIsLeft) {
  EXPECT_EQ(budget().limit(), 256U);
  EXPECT_EQ(budget().take(1000), 128U);
  EXPECT_EQ(budget().take(1000), 64U);
  EXPECT_EQ(budget().take(10), 10U);
  EXPECT_EQ(budget().room_for(1000), 27U);
  EXPECT_EQ(budget().used(), 202U);
  for (int i = 0; i < 10; ++i) budget().take(1000);
  EXPECT_EQ(budget().take(4), 0U) << "rather nothing than next to nothing";
  EXPECT_EQ(budget().room_for(4), 0U);
  EXPECT_LE(budget().used(), 256U);
  budget().give_back(budget().used());
}

TEST_F(Budget, ChargedUntilRemoval) {
  EXPECT_EQ(fill(0, 99), 100U);
  EXPECT_EQ(budget().used(), 100U);
  test->drop_cached();
  EXPECT_EQ(budget().used(), 0U);
}

TEST_F(Budget, WhatIsThereAlreadyCostsNothing) {
  for (std::uint64_t page = 0; page < 50; ++page) cache.cache.put_folio(test->add(page, 2));
  EXPECT_EQ(fill(0, 59), 60U);
  EXPECT_EQ(budget().used(), 10U);
  EXPECT_EQ(fill(0, 59), 60U);
  EXPECT_EQ(budget().used(), 10U);
}

TEST_F(Budget, FailuresGiveBack) {
  disk.device.set_plan({.rules = {{.kind = FaultKind::error}}});
  fill(0, 63, 2);
  EXPECT_EQ(budget().used(), 64U) << "the folios are there, unfilled";
  test->drop_cached();
  EXPECT_EQ(budget().used(), 0U);
  disk.heal();
  {
    RangeGuard remove(m().invalidate);
    remove.acquire(10, 10, kRemove);
    EXPECT_EQ(fill_ahead(m(), 0, 63, 0, UINT64_MAX).end, 0U);
  }
  EXPECT_EQ(budget().used(), 0U);
  FrameReservation all(cache.cache.pool);
  cache.cache.try_reserve(all, cache.cache.frames());
  EXPECT_EQ(fill(0, 63), 0U);
  EXPECT_EQ(budget().used(), 0U);
}

// Hits do not tell: the sweep finds out when room is short.
TEST_F(Budget, TheSweepFindsWhatWasUsed) {
  for (std::uint64_t page = 0; page < 832;) {  // as far as frames go without reclaim
    const std::uint64_t end = fill(page, page + 63, 2);
    ASSERT_EQ(end, page + 64) << "a reader that keeps up always gets its window";
    for (; page < end; ++page) read(page);
  }
  EXPECT_LE(budget().used(), budget().limit());
}

TEST_F(Budget, AbandonedWindowsAreForgottenInTime) {
  std::uint64_t page = 0;
  for (int i = 0; i < 10; ++i) page = fill(page, page + 255, 2) + 10;
  for (int i = 0; i < 100; ++i) EXPECT_LT(budget().take(64), 64U) << "not yet";
  budget().set_patience_ns(0);
  std::uint32_t granted = 0;
  for (int i = 0; i < 100 && granted < 64; ++i) {
    granted = budget().take(64);
    budget().give_back(granted);
  }
  EXPECT_EQ(granted, 64U);
}

TEST_F(Budget, ReclaimGivesBack) {
  fill(0, 127, 2);
  FrameReservation all(cache.cache.pool);
  cache.cache.try_reserve(all, cache.cache.frames());
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 0U);
  EXPECT_EQ(budget().used(), 0U);
}

TEST_F(Budget, ASplitGivesBackTheWhole) {
  fill(0, 3, 2);
  EXPECT_EQ(budget().used(), 4U);
  Folio* folio = get_folio(m(), 0);
  ASSERT_EQ(folio->pages(), 4U);
  lock_folio(*folio);
  ASSERT_TRUE(split_folio(m(), *folio, 0, 0).ok());
  unlock_folio(*folio);
  cache.cache.put_folio(*folio);
  EXPECT_EQ(budget().used(), 0U);
  test->drop_cached();
  EXPECT_EQ(budget().used(), 0U);
}

// Ten thousand handles that read in sequence, none of which has used what was read for it.
TEST_F(Budget, ManyHandlesShareIt) {
  constexpr int kHandles = 10'000;
  std::vector<ReadaheadState> states(kHandles);
  std::uint64_t largest = 0, smallest = UINT64_MAX;
  for (int i = 0; i < kHandles; ++i) {
    ReadaheadState& state = states[static_cast<std::size_t>(i)];
    const std::uint64_t page = static_cast<std::uint64_t>(i) % (kFilePages - 1);
    plan_miss(m(), &state, page, page, kFilePages);
    const ReadaheadPlan plan = plan_miss(m(), &state, page + 1, page + 1, kFilePages);
    const std::uint64_t window = plan.last - page;
    largest = std::max(largest, window);
    smallest = std::min(smallest, window);
    fill_ahead(m(), plan.last + 1, std::min(plan.last + 64, kFilePages), 0, UINT64_MAX);
    ASSERT_LE(budget().used(), budget().limit());
    if (i % 100 == 0) drain_ahead(m());
  }
  drain_ahead(m());
  EXPECT_EQ(largest, 5U);
  EXPECT_EQ(smallest, 1U) << "nothing is left: just what was asked for";
  EXPECT_LE(m().page_count.load(memory_order_relaxed), budget().limit());
}

TEST_F(Budget, ManyThreads) {
  Watchdog watchdog("threads that read ahead");
  run_threads(4, [this](int thread) {
    ReadaheadState state;
    std::vector<char> bytes(kPageSize);
    for (std::uint64_t page = 0; page < kFilePages; ++page) {
      const std::uint64_t at = (page + static_cast<std::uint64_t>(thread) * 500) % kFilePages;
      if (read_fast(m(), bytes.data(), kPageSize, at * kPageSize) == kSlow) {
        const iovec v{bytes.data(), kPageSize};
        UserBuffer to(std::span(&v, 1));
        FrameReservation frames(cache.cache.pool);
        ASSERT_TRUE(read_locked(m(), to, at * kPageSize, kPageSize, frames, &state, {}).ok());
      }
      ASSERT_TRUE(all_of_file(bytes, 2, at * kPageSize));
    }
  });
  test->drop_cached();
  EXPECT_EQ(budget().used(), 0U);
}

}  // namespace
}  // namespace quire
