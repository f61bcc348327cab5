// The readahead window: when it starts, how it grows, where its mark stands, and what it saves.
#include "cache/readahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "base/random.h"
#include "cache/buffered_read.h"
#include "cache/cache_for_test.h"
#include "cache/verifier.h"
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
  // In sequence from where it was.
  void read_to(std::uint64_t page) {
    for (; at <= page; ++at) read(at);
  }
  TestMapping& test_mapping() {
    if (!test) test = std::make_unique<TestMapping>(cache.cache, *backing);
    return *test;
  }
  Mapping& m() { return test_mapping().mapping; }
  std::uint64_t page_count() { return m().page_count.load(memory_order_relaxed); }

  RamDisk disk{4096};
  TestCache cache{2048};
  std::unique_ptr<RamBacking> backing = disk.make_file();
  std::unique_ptr<TestMapping> test;
  ReadaheadState state;
  int slow_reads = 0;
  std::uint64_t at = 0;
};

TEST_F(Readahead, StartsOnTheSecondSequentialMiss) {
  ReadaheadPlan plan = plan_miss(m(), &state, 10, 10, kFilePages);
  EXPECT_EQ(plan.last, 10U);
  EXPECT_EQ(plan.mark, UINT64_MAX);
  plan = plan_miss(m(), &state, 11, 11, kFilePages);
  EXPECT_EQ(plan.last, 15U) << "four pages more";
  EXPECT_EQ(plan.mark, 12U) << "right after what was wanted";
  plan_miss(m(), &state, 100, 115, kFilePages);
  plan = plan_miss(m(), &state, 116, 131, kFilePages);
  EXPECT_EQ(plan.last, 147U) << "as much again as was asked for";
  EXPECT_EQ(plan.mark, 132U);
}

// Windows grow only as they are used: by their marks.
TEST_F(Readahead, DoublesAtEachMarkUpToALimit) {
  std::uint64_t window = 4;
  read_to(1);
  for (std::uint64_t start = 2, next = 6; next < kFilePages;) {
    EXPECT_EQ(page_count(), next) << "all up to the window's end";
    Folio* marked = get_folio(m(), start);
    ASSERT_NE(marked, nullptr);
    EXPECT_TRUE(marked->has(kReadahead)) << start;
    cache.cache.put_folio(*marked);
    read_to(start);
    drain_ahead(m());
    start = next;
    window = std::min<std::uint64_t>(window * 2, cache.cache.frames() / 16);
    next += window;
  }
  EXPECT_EQ(page_count(), kFilePages);
}

TEST_F(Readahead, SmallCachesReadLessAhead) {
  TestCache small;
  TestMapping other(small.cache, *backing, 2);
  ReadaheadState fresh;
  plan_miss(other.mapping, &fresh, 0, 0, kFilePages);
  EXPECT_EQ(plan_miss(other.mapping, &fresh, 1, 1, kFilePages).last, 4U);
}

TEST_F(Readahead, StopsAtTheEndOfTheFile) {
  plan_miss(m(), &state, 95, 95, 99);
  const ReadaheadPlan plan = plan_miss(m(), &state, 96, 96, 99);
  EXPECT_EQ(plan.last, 98U);
  EXPECT_EQ(plan.mark, 97U);
  Folio& marked = test->add(97, 2);
  start_next_window(m(), &state, marked, 99, 0);
  cache.cache.put_folio(marked);
  EXPECT_EQ(disk.reads(), 0U);
  read_to(kFilePages - 1);
  drain_ahead(m());
  EXPECT_EQ(page_count(), kFilePages);
}

TEST_F(Readahead, RandomMissesReadNothingAhead) {
  Random random(1);
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t page = 2 * random.below(kFilePages / 2);
    const ReadaheadPlan plan = plan_miss(m(), &state, page, page, kFilePages);
    EXPECT_EQ(plan.last, page);
    EXPECT_EQ(plan.mark, UINT64_MAX);
  }
  EXPECT_EQ(plan_miss(m(), nullptr, 7, 9, kFilePages).last, 9U) << "nor where no handle reads";
}

// Of a file of any size some random misses follow another by accident.
TEST_F(Readahead, AccidentalPairsCostLittle) {
  constexpr std::uint64_t kPages = 10'000;
  Random random(7);
  std::uint64_t planned = 0;
  for (int i = 0; i < 100'000; ++i) {
    const std::uint64_t page = random.below(kPages);
    planned += plan_miss(m(), &state, page, page, kPages).last - page + 1;
  }
  EXPECT_LE(planned, 102'000U);
}

// Streams that grew large before the random misses came do not cost more than others.
TEST_F(Readahead, RandomMissesAfterLargeWindowsReadLittle) {
  read_to(kFilePages / 2);
  drain_ahead(m());
  const std::uint64_t next = kFilePages * 3 / 4;
  for (int i = 0; i < 100; ++i) plan_miss(m(), &state, 10'000 + 2 * i, 10'000 + 2 * i, 100'000);
  state.streams[0].next.store(next, memory_order_relaxed);
  EXPECT_LE(plan_miss(m(), &state, next, next, 100'000).last, next + 4) << "starts small again";
}

TEST_F(Readahead, StridesAndBackwardReadNothingAhead) {
  for (std::uint64_t page = 0; page < 10'000; page += 8) {
    EXPECT_EQ(plan_miss(m(), &state, page, page + 3, 10'000).last, page + 3);
  }
  ReadaheadState backward;
  for (std::uint64_t page = 10'000; page >= 4; page -= 4) {
    EXPECT_EQ(plan_miss(m(), &backward, page - 4, page - 1, 10'000).last, page - 1);
  }
}

TEST_F(Readahead, FollowsInterleavedStreams) {
  constexpr std::uint64_t kThird = 130;
  Random random(3);
  for (std::uint64_t page = 0; page < kThird; ++page) {
    for (const std::uint64_t start : {0, 130, 260}) read(start + page);
    // Misses anywhere between do not end them.
    for (int i = 0; i < 2; ++i) plan_miss(m(), &state, 10'000 + 2 * random.below(1'000), 10'000 + 2'000, 100'000);
  }
  drain_ahead(m());
  EXPECT_LT(slow_reads, static_cast<int>(kFilePages / 4));
  EXPECT_GT(cache.sum(Counter::readahead_windows), 8U);
  EXPECT_EQ(cache.sum(Counter::fills), page_count()) << "each page is read once";
}

TEST_F(Readahead, ModesOfAdvice) {
  state.mode.store(ReadaheadMode::random, memory_order_relaxed);
  for (std::uint64_t page = 0; page < 50; ++page) EXPECT_EQ(plan_miss(m(), &state, page, page, kFilePages).last, page);
  state.mode.store(ReadaheadMode::sequential, memory_order_relaxed);
  const ReadaheadPlan plan = plan_miss(m(), &state, 50, 50, kFilePages);
  EXPECT_EQ(plan.last, 82U) << "32 pages with the first miss";
  EXPECT_EQ(plan.mark, 51U);
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
  read(1);  // fills 1 to 5, the mark at 2
  EXPECT_EQ(page_count(), 6U);
  EXPECT_EQ(cache.sum(Counter::readahead_windows), 0U);
  read(2);
  EXPECT_EQ(cache.sum(Counter::miss_readahead_mark), 1U);
  EXPECT_EQ(cache.sum(Counter::readahead_windows), 1U);
  drain_ahead(m());
  EXPECT_EQ(page_count(), 14U) << "8 more";
  const int before = slow_reads;
  for (std::uint64_t page = 3; page <= 5; ++page) read(page);
  EXPECT_EQ(slow_reads, before) << "no mark, no slow read";
  read(6);
  EXPECT_EQ(slow_reads, before + 1) << "the next mark";
  drain_ahead(m());
}

// What is there already carries no mark: the window goes on behind it.
TEST_F(Readahead, PassesOverWhatIsThere) {
  for (std::uint64_t page = 6; page < 30; ++page) cache.cache.put_folio(test_mapping().add(page, 2));
  read_to(2);
  drain_ahead(m());
  EXPECT_EQ(cache.sum(Counter::readahead_windows), 1U);
  Folio* next = get_folio(m(), 30);
  ASSERT_NE(next, nullptr);
  EXPECT_TRUE(next->has(kReadahead));
  cache.cache.put_folio(*next);
}

TEST_F(Readahead, RandomReadsFillOnlyWhatTheyRead) {
  Random random(5);
  for (int i = 0; i < 50; ++i) read(2 * random.below(kFilePages / 2));
  drain_ahead(m());
  EXPECT_EQ(cache.sum(Counter::readahead_windows), 0U);
  EXPECT_EQ(cache.sum(Counter::fills), page_count());
  EXPECT_LE(cache.sum(Counter::fills), 50U);
}

// Pages read ahead that are gone when their reader comes halve the window.
TEST_F(Readahead, ShrinksWherePagesAreEvictedBeforeTheirUse) {
  read_to(6);
  drain_ahead(m());
  const std::uint32_t before = state.streams[0].pages.load(memory_order_relaxed);
  ASSERT_GE(before, 16U);
  const std::uint64_t next = state.streams[0].next.load(memory_order_relaxed);
  remove_folios(m(), next - 4, UINT64_MAX);
  read(next - 4);
  EXPECT_EQ(state.streams[0].pages.load(memory_order_relaxed), before / 2);
  read(next - 3);
  drain_ahead(m());
  EXPECT_EQ(state.streams[0].pages.load(memory_order_relaxed), before / 2) << "goes on from there";
}

TEST_F(Readahead, ShrinksWhereFramesAreShort) {
  read_to(6);
  drain_ahead(m());
  const std::uint32_t before = state.streams[0].pages.load(memory_order_relaxed);
  FrameReservation all(cache.cache.pool);
  cache.cache.try_reserve(all, cache.cache.frames());  // and what is read ahead goes with it
  const std::uint64_t mark = state.streams[0].mark.load(memory_order_relaxed);
  Folio marked;
  marked.index.store(mark, memory_order_relaxed);
  start_next_window(m(), &state, marked, kFilePages, 0);
  EXPECT_EQ(state.streams[0].pages.load(memory_order_relaxed), before / 2);
  EXPECT_EQ(cache.sum(Counter::readahead_skipped), 1U);
}

// A window whose device fails costs the reader nothing but the pages that really fail.
TEST_F(Readahead, ErrorsAheadAreNotTheReaders) {
  read(0);
  const std::uint64_t address = backing->map(6 * kPageSize, 1).value().address;
  disk.device.set_plan({.rules = {{.kind = FaultKind::error, .first = address, .last = address}}});
  for (std::uint64_t page = 1; page <= 5; ++page) read(page);
  drain_ahead(m());
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

// Finds everything good, at once.
struct AllGood final : FillVerifier {
  struct Check final : FillCheck {
    void detach_locks() override {}
    bool has_reads() const override { return false; }
    void send(void (*)(void*), void*) override {}
    bool verify(FillBatch&, bool) override { return true; }
    bool good(std::size_t) const override { return true; }
    int errnum() const override { return 0; }
  };
  unsigned unit_pages() const override { return 1; }
  Result<std::unique_ptr<FillCheck>> begin(FillBatch&) override {
    return std::unique_ptr<FillCheck>(std::make_unique<Check>());
  }
  void run_later(PendingFill& fill, std::size_t) override { EXPECT_TRUE(fill.try_to_end()); }
  void help(const Folio&) override {}
};

// Of a file that is verified two windows are on their way while one is read, and no more: the device reads on while
// there is hashing to be done. They are half as large here, where they do not reach their limit.
TEST_F(Readahead, TwoWindowsAreOnTheirWayWhereBytesAreVerified) {
  constexpr std::uint64_t kPages = 2000;
  disk.put(*backing, 0, words(kPages * kPageSize, 2, 1, 0), UINT64_MAX);
  AllGood verifier;
  m().verifier = &verifier;
  const std::uint64_t window = cache.cache.frames() / 32;
  std::uint64_t least = UINT64_MAX, most = 0;  // pages ahead of the reader
  for (std::uint64_t page = 0; page < kPages; ++page) {
    read(page);
    const std::uint64_t next = state.streams[0].next.load(memory_order_relaxed);
    if (page < kPages / 2 || next >= kPages) continue;
    least = std::min(least, next - page);
    most = std::max(most, next - page);
  }
  EXPECT_GE(least, 2 * window);
  EXPECT_LE(most, 3 * window);
  EXPECT_LE(cache.sum(Counter::miss_absent), 8U);
  drain_ahead(m());
  test.reset();  // before its verifier
}

}  // namespace
}  // namespace quire
