// Fills: what the device, the holes and the end of the file give; one I/O for many waiters; failures and who is told.
#include "cache/fill.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "cache/cache_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr unsigned kFile = 3;
constexpr std::int64_t kTimeout = 20'000'000'000;

class Fill : public ::testing::TestWithParam<unsigned> {
 protected:
  explicit Fill(std::uint64_t pages = 40) {
    disk.put(backing, 0, words(pages * kPageSize, kFile, 1, 0), UINT64_MAX);
    start();
  }
  // A mapping of what the backing holds now.
  void start() {
    test.reset();
    test = std::make_unique<TestMapping>(cache.cache, backing);
    disk.device.clear_records();
  }
  Mapping& m() { return test->mapping; }

  // Fills [first, last] with as many frames as it takes; the reference to the first is dropped.
  Result<Filled> fill(std::uint64_t first, std::uint64_t last, const CacheContext& context = {}) {
    FrameReservation frames(cache.cache.pool);
    cache.cache.reserve(frames, static_cast<std::uint32_t>(last - first + 1));
    auto filled = fill_range(m(), first, last, frames, context);
    if (filled.ok() && filled.value().first != nullptr) cache.cache.put_folio(*filled.value().first);
    return filled;
  }
  // The page's bytes if it is resident and uptodate.
  std::vector<char> page(std::uint64_t index) {
    Folio* folio = get_folio(m(), index);
    if (folio == nullptr) return {};
    std::vector<char> bytes;
    if (folio->has(kUptodate)) bytes.assign(folio->bytes(), folio->bytes() + kPageSize);
    EXPECT_EQ(folio->sequence.odd(), !folio->has(kUptodate));
    cache.cache.put_folio(*folio);
    return bytes;
  }
  static std::vector<char> due(std::uint64_t index) { return words(kPageSize, kFile, 1, index * kPageSize); }
  // What a reader of the page is told.
  int wait_for(std::uint64_t index) {
    Folio* folio = get_folio(m(), index);
    if (folio == nullptr) return ENOENT;
    const Status status = wait_uptodate(m(), *folio, index, {});
    cache.cache.put_folio(*folio);
    return status.errnum();
  }
  void fail_page(std::uint64_t index) {
    const std::uint64_t address = backing.map(index * kPageSize, 1).value().address;
    disk.device.set_plan({.rules = {{.kind = FaultKind::error, .first = address, .last = address}}});
  }

  RamDisk disk{GetParam()};
  TestCache cache{256};
  OddBacking backing{disk.make_file()};
  std::unique_ptr<TestMapping> test;
};

TEST_P(Fill, ReadsARangeAtOnce) {
  const auto filled = fill(2, 9);
  ASSERT_TRUE(filled.ok());
  EXPECT_EQ(filled.value().end, 10U);
  for (std::uint64_t index = 2; index <= 9; ++index) EXPECT_EQ(page(index), due(index));
  EXPECT_EQ(page(1), std::vector<char>());
  EXPECT_EQ(disk.reads(), 1U) << "contiguous on the device: one request";
  EXPECT_EQ(cache.sum(Counter::fills), 8U);
  EXPECT_EQ(cache.sum(Counter::fill_requests), 1U);
}

TEST_P(Fill, PassesOverWhatIsThere) {
  ASSERT_TRUE(fill(4, 5).ok());
  const auto filled = fill(2, 8);
  ASSERT_TRUE(filled.ok());
  EXPECT_EQ(filled.value().end, 9U);
  for (std::uint64_t index = 2; index <= 8; ++index) EXPECT_EQ(page(index), due(index));
  EXPECT_EQ(disk.reads(), 3U);
  const auto none = fill(2, 8);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none.value().first, nullptr);
  EXPECT_EQ(disk.reads(), 3U);
}

TEST_P(Fill, AsFarAsTheFramesGo) {
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve(frames, 2);
  const auto filled = fill_range(m(), 0, 9, frames, {});
  ASSERT_TRUE(filled.ok());
  EXPECT_EQ(filled.value().end, 2U);
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 2U);
  cache.cache.put_folio(*filled.value().first);
}

TEST_P(Fill, HolesAndUnwrittenAreZeros) {
  ASSERT_TRUE(backing.set_size(100 * kPageSize).ok());
  backing.unwritten_first.store(10 * kPageSize, memory_order_release);
  backing.unwritten_last.store(12 * kPageSize - 1, memory_order_release);
  start();
  ASSERT_TRUE(fill(9, 12).ok());
  EXPECT_EQ(page(9), due(9));
  EXPECT_TRUE(all_zero(page(10))) << "never an unwritten block's bytes";
  EXPECT_TRUE(all_zero(page(11)));
  EXPECT_EQ(page(12), due(12));
  disk.device.clear_records();
  ASSERT_TRUE(fill(50, 60).ok());
  for (std::uint64_t index = 50; index <= 60; ++index) {
    ASSERT_EQ(page(index).size(), kPageSize);
    EXPECT_TRUE(all_zero(page(index)));
  }
  EXPECT_EQ(disk.reads(), 0U) << "a hole is never read";
}

// Blocks smaller than a page: data, hole and data in one.
TEST_P(Fill, HolesInsideAPage) {
  if (GetParam() == kPageSize) GTEST_SKIP() << "a block is a page";
  OddBacking sparse(disk.make_file());
  const std::uint64_t block = GetParam();
  disk.put(sparse, kPageSize, words(block, kFile, 1, kPageSize), UINT64_MAX);
  disk.put(sparse, kPageSize + 3 * block, words(block, kFile, 1, kPageSize + 3 * block), 3 * kPageSize);
  ASSERT_TRUE(sparse.set_size(3 * kPageSize).ok());
  TestMapping other(cache.cache, sparse, 2);
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve(frames, 3);
  const auto filled = fill_range(other.mapping, 0, 2, frames, {});
  ASSERT_TRUE(filled.ok());
  cache.cache.put_folio(*filled.value().first);
  Folio* folio = get_folio(other.mapping, 1);
  ASSERT_TRUE(folio != nullptr && folio->has(kUptodate));
  std::vector<char> expected(kPageSize, 0);
  fill_words(expected.data(), block, kFile, 1, kPageSize);
  fill_words(expected.data() + 3 * block, block, kFile, 1, kPageSize + 3 * block);
  EXPECT_EQ(std::vector<char>(folio->bytes(), folio->bytes() + kPageSize), expected);
  cache.cache.put_folio(*folio);
}

TEST_P(Fill, R2_ZerosPastTheEndWhateverTheBlockHolds) {
  OddBacking odd(disk.make_file());
  disk.put(odd, 0, words(3 * kPageSize, kFile, 1, 0), 2 * kPageSize + 100);  // the rest of the block is full, too
  ASSERT_EQ(odd.size(), 2 * kPageSize + 100);
  TestMapping other(cache.cache, odd, 2);
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve(frames, 1);
  const auto filled = fill_range(other.mapping, 2, 2, frames, {});
  ASSERT_TRUE(filled.ok());
  std::vector<char> expected(kPageSize, 0);
  fill_words(expected.data(), 100, kFile, 1, 2 * kPageSize);
  const Folio& folio = *filled.value().first;
  EXPECT_EQ(std::vector<char>(folio.bytes(), folio.bytes() + kPageSize), expected);
  cache.cache.put_folio(*filled.value().first);
}

// More extents than one batch has requests for: the rest is filled by who wants it.
TEST_P(Fill, ScatteredBlocks) {
  OddBacking a(disk.make_file()), b(disk.make_file());
  const std::uint64_t block = GetParam();
  constexpr std::uint64_t kPages = 40;
  for (std::uint64_t at = 0; at < kPages * kPageSize; at += block) {  // by turns, so that no two blocks are neighbours
    disk.put(a, at, words(block, kFile, 1, at), UINT64_MAX);
    disk.put(b, at, words(block, kFile + 1, 1, at), UINT64_MAX);
  }
  TestMapping other(cache.cache, a, 2);
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve(frames, kPages);
  const auto filled = fill_range(other.mapping, 0, kPages - 1, frames, {});
  ASSERT_TRUE(filled.ok());
  cache.cache.put_folio(*filled.value().first);
  for (std::uint64_t index = 0; index < kPages; ++index) {
    Folio* folio = get_folio(other.mapping, index);
    ASSERT_NE(folio, nullptr);
    ASSERT_TRUE(wait_uptodate(other.mapping, *folio, index, {}).ok());
    EXPECT_EQ(std::vector<char>(folio->bytes(), folio->bytes() + kPageSize), due(index)) << index;
    cache.cache.put_folio(*folio);
  }
}

TEST_P(Fill, ErrorOfOnePageLeavesItsNeighbours) {
  fail_page(5);
  ASSERT_TRUE(fill(2, 9).ok()) << "errors are told by who wants the page";
  EXPECT_EQ(wait_for(5), EIO);
  EXPECT_EQ(page(5), std::vector<char>());
  for (const std::uint64_t index : {2, 3, 4, 6, 7, 8, 9}) {
    EXPECT_EQ(wait_for(index), 0);
    EXPECT_EQ(page(index), due(index));
  }
  EXPECT_EQ(wait_for(5), EIO) << "still";
  disk.heal();
  EXPECT_EQ(wait_for(5), 0);
  EXPECT_EQ(page(5), due(5));
}

TEST_P(Fill, BackingThatCannotMap) {
  backing.map_errnum.store(ENOMEM, memory_order_release);
  ASSERT_TRUE(fill(2, 4).ok());
  EXPECT_EQ(wait_for(3), ENOMEM);
  backing.map_errnum.store(0, memory_order_release);
  EXPECT_EQ(wait_for(3), 0);
  EXPECT_EQ(page(3), due(3));
}

TEST_P(Fill, NoMemoryForTheIndex) {
  m().pages.fail_allocation_after(0);
  EXPECT_EQ(fill(2, 4).errnum(), ENOMEM);
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 0U);
  ASSERT_TRUE(fill(2, 4).ok());
  EXPECT_EQ(page(2), due(2));
}

// The host cut the file: the device ends before the size that the backing knows.
TEST_P(Fill, ShortReadIsAnError) {
  backing.phantom_first.store(6 * kPageSize, memory_order_release);
  ASSERT_TRUE(fill(4, 7).ok());
  EXPECT_EQ(wait_for(4), 0);
  EXPECT_EQ(wait_for(5), 0);
  EXPECT_EQ(wait_for(6), EIO);
  EXPECT_EQ(wait_for(7), EIO);
  backing.phantom_first.store(UINT64_MAX, memory_order_release);
  EXPECT_EQ(wait_for(7), 0);
  EXPECT_EQ(page(7), due(7));
}

TEST_P(Fill, OneIoForManyWaiters) {
  Watchdog watchdog("waiters of one fill");
  disk.device.set_plan({.rules = {{.kind = FaultKind::hold}}});
  std::thread filler([&] { EXPECT_TRUE(fill(7, 7).ok()); });
  ASSERT_TRUE(disk.device.wait_for_held(1, kTimeout));
  std::atomic<int> done{0};
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] {
      EXPECT_EQ(wait_for(7), 0);
      EXPECT_EQ(page(7), due(7));
      ++done;
    });
  }
  while (cache.sum(Counter::fills_joined) < 4) std::this_thread::yield();
  EXPECT_EQ(done, 0);
  disk.device.release_held();
  filler.join();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(disk.reads(), 1U);
}

// Those who waited for a fill that failed fill the page themselves, one after the other.
TEST_P(Fill, WaitersOfAFailedFillTryAgain) {
  Watchdog watchdog("waiters of a failed fill");
  disk.device.set_plan({.rules = {{.kind = FaultKind::hold, .times = 1}, {.kind = FaultKind::error, .times = 1}}});
  backing.phantom_first.store(0, memory_order_release);  // the held one comes back short
  std::thread filler([&] { EXPECT_TRUE(fill(7, 7).ok()); });
  ASSERT_TRUE(disk.device.wait_for_held(1, kTimeout));
  backing.phantom_first.store(UINT64_MAX, memory_order_release);
  std::atomic<int> failed{0};
  std::vector<std::thread> waiters;
  for (int i = 0; i < 4; ++i) {
    waiters.emplace_back([&] {
      const int errnum = wait_for(7);
      EXPECT_TRUE(errnum == 0 || errnum == EIO);
      failed += errnum != 0;
    });
  }
  while (cache.sum(Counter::fills_joined) < 4) std::this_thread::yield();
  disk.device.release_held();
  filler.join();
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(failed, 1) << "the one whose own read failed";
  EXPECT_EQ(disk.reads(), 3U);
  EXPECT_EQ(page(7), due(7));
}

TEST_P(Fill, RemovedWhileWaitedFor) {
  Watchdog watchdog("a waiter of a removed folio");
  fail_page(7);
  ASSERT_TRUE(fill(7, 7).ok());
  disk.heal();
  Folio* folio = get_folio(m(), 7);
  ASSERT_NE(folio, nullptr);
  lock_folio(*folio);
  std::thread waiter([&] { EXPECT_EQ(wait_for(7), ESTALE); });
  while (cache.sum(Counter::fills_joined) == 0) std::this_thread::yield();
  remove_folio(m(), *folio);
  unlock_folio(*folio);
  waiter.join();
  cache.cache.put_folio(*folio);
  EXPECT_EQ(disk.reads(), 1U);
}

// Nested work is told what is held, and does not take it again.
TEST_P(Fill, R5_ContextCoversTheRange) {
  Watchdog watchdog("a fill under the invalidate lock");
  RangeGuard remove(m().invalidate);
  remove.acquire(0, 20, kRemove);
  const CacheContext context{&remove.request()};
  ASSERT_TRUE(fill(3, 4, context).ok());
  EXPECT_EQ(page(3), due(3));
  EXPECT_FALSE(context.covers(15, 25));
}

// --- readahead's fills ---

TEST_P(Fill, AheadIsAsynchronous) {
  Watchdog watchdog("a window in flight");
  disk.device.set_plan({.rules = {{.kind = FaultKind::hold}}});
  EXPECT_TRUE(fill_ahead(m(), 10, 17, 0, 12).submitted);
  EXPECT_EQ(m().ahead.load(memory_order_acquire), 1U);
  EXPECT_EQ(page(10), std::vector<char>()) << "in flight";
  EXPECT_EQ(cache.sum(Counter::readahead_windows), 1U);
  RangeRequest request;
  EXPECT_FALSE(m().invalidate.try_lock(request, 10, 10, kRemove)) << "held to its end";
  ASSERT_TRUE(disk.device.wait_for_held(1, kTimeout));
  disk.device.release_held();
  drain_ahead(m());
  EXPECT_EQ(m().ahead.load(memory_order_acquire), 0U);
  for (std::uint64_t index = 10; index <= 17; ++index) {
    EXPECT_EQ(page(index), due(index));
    Folio* folio = get_folio(m(), index);
    EXPECT_EQ(folio->has(kReadahead), index == 12);
    cache.cache.put_folio(*folio);
  }
  ASSERT_TRUE(m().invalidate.try_lock(request, 10, 10, kRemove));
  m().invalidate.unlock(request);
}

TEST_P(Fill, AheadIsSkippedUnderRemove) {
  RangeGuard remove(m().invalidate);
  remove.acquire(12, 12, kRemove);
  EXPECT_FALSE(fill_ahead(m(), 10, 17, 0, 10).submitted);
  EXPECT_EQ(cache.sum(Counter::readahead_skipped), 1U);
  EXPECT_EQ(m().page_count.load(memory_order_relaxed), 0U);
  EXPECT_EQ(disk.reads(), 0U);
}

TEST_P(Fill, AheadThatFailsIsReadAgain) {
  fail_page(11);
  EXPECT_TRUE(fill_ahead(m(), 10, 13, 0, UINT64_MAX).submitted);
  drain_ahead(m());
  EXPECT_EQ(wait_for(11), EIO);
  EXPECT_EQ(wait_for(12), 0);
  disk.heal();
  EXPECT_EQ(wait_for(11), 0);
  EXPECT_EQ(page(11), due(11));
}

TEST_P(Fill, AheadOfHolesNeedsNoIo) {
  ASSERT_TRUE(backing.set_size(100 * kPageSize).ok());
  EXPECT_FALSE(fill_ahead(m(), 50, 57, 0, UINT64_MAX).submitted);
  EXPECT_TRUE(all_zero(page(50)));
  EXPECT_EQ(page(57).size(), kPageSize);
  EXPECT_FALSE(fill_ahead(m(), 50, 57, 0, UINT64_MAX).submitted) << "all there";
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, Fill, ::testing::Values(512U, 1024U, 4096U));

}  // namespace
}  // namespace quire
