// The readahead window: when it starts, how it grows, where its mark stands, and what it saves.
#include "cache/readahead.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "cache/buffered_read.h"
#include "cache/cache_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::uint64_t kFilePages = 400;

class Readahead : public ::testing::Test {
 protected:
  Readahead() { disk.put(*backing, 0, words(kFilePages * kPageSize, 2, 1, 0), UINT64_MAX); }

  // One page, as the slow path reads it after a miss of the fast one.
  void read(std::uint64_t page) {
    std::vector<char> bytes(kPageSize);
    if (read_fast(m(), bytes.data(), kPageSize, page * kPageSize) == kSlow) {
      const iovec v{bytes.data(), kPageSize};
      UserBuffer to(std::span(&v, 1));
      FrameReservation frames(cache.cache.pool);
      const auto got = read_locked(m(), to, page * kPageSize, kPageSize, frames, &state, {});
      ASSERT_TRUE(got.ok());
      ASSERT_EQ(got.value(), kPageSize);
      ++slow_reads;
    }
    ASSERT_TRUE(all_of_file(bytes, 2, page * kPageSize));
  }
  Mapping& m() {
    if (!test) test = std::make_unique<TestMapping>(cache.cache, *backing);
    return test->mapping;
  }

  RamDisk disk{4096};
  TestCache cache{2048};
  std::unique_ptr<RamBacking> backing = disk.make_file();
  std::unique_ptr<TestMapping> test;
  ReadaheadState state;
  int slow_reads = 0;
};

TEST_F(Readahead, StartsOnTheSecondSequentialMiss) {
  ReadaheadPlan plan = plan_miss(m(), &state, 10, 10, kFilePages);
  EXPECT_EQ(plan.last, 10U);
  EXPECT_EQ(plan.mark, UINT64_MAX);
  plan = plan_miss(m(), &state, 11, 11, kFilePages);
  EXPECT_EQ(plan.last, 18U) << "eight pages";
  EXPECT_EQ(plan.mark, 12U) << "right after what was wanted";
}

TEST_F(Readahead, DoublesUpToALimit) {
  plan_miss(m(), &state, 0, 0, kFilePages);
  std::uint64_t at = 1, window = 8;
  for (int i = 0; i < 8; ++i) {
    const ReadaheadPlan plan = plan_miss(m(), &state, at, at, 100'000);
    EXPECT_EQ(plan.last - at + 1, window);
    at = plan.last + 1;
    window = std::min<std::uint64_t>(window * 2, FillBatch::kMaxFolios);
  }
  TestCache small;
  TestMapping other(small.cache, *backing, 2);
  ReadaheadState fresh;
  plan_miss(other.mapping, &fresh, 0, 0, kFilePages);
  EXPECT_EQ(plan_miss(other.mapping, &fresh, 1, 1, kFilePages).last, 4U) << "a small cache reads less ahead";
}

TEST_F(Readahead, StopsAtTheEndOfTheFile) {
  plan_miss(m(), &state, 95, 95, 100);
  const ReadaheadPlan plan = plan_miss(m(), &state, 96, 96, 100);
  EXPECT_EQ(plan.last, 99U);
  EXPECT_EQ(plan.mark, 97U);
  start_next_window(m(), &state, 100);
  EXPECT_EQ(disk.reads(), 0U);
}

TEST_F(Readahead, RandomMissesReadNothingAhead) {
  Random random(1);
  for (int i = 0; i < 100; ++i) {
    const std::uint64_t page = 2 * random.below(kFilePages / 2);
    const ReadaheadPlan plan = plan_miss(m(), &state, page, page, kFilePages);
    EXPECT_EQ(plan.last, page);
    EXPECT_EQ(plan.mark, UINT64_MAX);
  }
  EXPECT_EQ(plan_miss(m(), nullptr, 7, 9, kFilePages).last, 9U) << "nor where no handle reads";
}

TEST_F(Readahead, SequentialReadsMeetResidentPages) {
  for (std::uint64_t page = 0; page < kFilePages; ++page) {
    read(page);
    if (page % 5 == 0) drain_ahead(m());
  }
  drain_ahead(m());
  EXPECT_EQ(cache.sum(Counter::fills), kFilePages) << "each page is read once";
  EXPECT_GT(cache.sum(Counter::readahead_windows), 2U);
  EXPECT_LT(disk.reads(), kFilePages / 8);
  EXPECT_LT(slow_reads, static_cast<int>(kFilePages / 4));
}

TEST_F(Readahead, TheMarkStartsTheNextWindow) {
  read(0);
  read(1);  // fills 1 to 8, the mark at 2
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 9U);
  EXPECT_EQ(cache.sum(Counter::readahead_windows), 0U);
  read(2);
  EXPECT_EQ(cache.sum(Counter::miss_readahead_mark), 1U);
  EXPECT_EQ(cache.sum(Counter::readahead_windows), 1U);
  drain_ahead(m());
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 25U) << "16 more";
  const int before = slow_reads;
  for (std::uint64_t page = 3; page <= 8; ++page) read(page);
  EXPECT_EQ(slow_reads, before) << "no mark, no slow read";
  read(9);
  EXPECT_EQ(slow_reads, before + 1) << "the next mark";
  drain_ahead(m());
}

TEST_F(Readahead, RandomReadsFillOnlyWhatTheyRead) {
  Random random(5);
  for (int i = 0; i < 50; ++i) read(2 * random.below(kFilePages / 2));
  drain_ahead(m());
  EXPECT_EQ(cache.sum(Counter::readahead_windows), 0U);
  EXPECT_EQ(cache.sum(Counter::fills), m().page_count.load(memory_order_relaxed));
  EXPECT_LE(cache.sum(Counter::fills), 50U);
}

// A window whose device fails costs the reader nothing but the pages that really fail.
TEST_F(Readahead, ErrorsAheadAreNotTheReaders) {
  read(0);
  const std::uint64_t address = backing->map(6 * kPageSize, 1).value().address;
  disk.device.set_plan({.rules = {{.kind = FaultKind::error, .first = address, .last = address}}});
  for (std::uint64_t page = 1; page <= 5; ++page) read(page);
  std::vector<char> bytes(kPageSize);
  const iovec v{bytes.data(), kPageSize};
  UserBuffer to(std::span(&v, 1));
  FrameReservation frames(cache.cache.pool);
  EXPECT_EQ(read_locked(m(), to, 6 * kPageSize, kPageSize, frames, &state, {}).errnum(), EIO);
  read(7);
  disk.heal();
  read(6);
  drain_ahead(m());
}

}  // namespace
}  // namespace quire
