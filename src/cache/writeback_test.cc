// Writeback and flush of a mapping, step by step.
#include "cache/writeback.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "cache/cache_for_test.h"
#include "cache/flusher.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::int64_t kTimeout = 20'000'000'000;

class Writeback : public ::testing::Test {
 protected:
  std::uint32_t state(std::uint64_t page) {
    Folio* folio = get_folio(m, page);
    if (folio == nullptr) return UINT32_MAX;
    const std::uint32_t flags = folio->flags.load(memory_order_acquire) & kUnstable;
    cache.cache.put_folio(*folio);
    return flags;
  }
  void dirty_again(std::uint64_t page) {
    Folio* folio = get_folio(m, page);
    ASSERT_NE(folio, nullptr);
    test.dirty(*folio);
    cache.cache.put_folio(*folio);
  }
  std::vector<char> stored(std::uint64_t offset, std::size_t count) {
    std::vector<char> bytes(count, 0);
    for (std::size_t done = 0; done < count;) {
      const auto extent = backing.map(offset + done, count - done);
      if (extent.value().kind == ExtentKind::written) {
        disk.store.memory().peek(extent.value().address, &bytes[done], extent.value().length);
      }
      done += extent.value().length;
    }
    return bytes;
  }

  RamDisk disk{512};
  TestCache cache{16'384};  // the flusher leaves what these tests dirty alone
  OddBacking backing{disk.make_file()};
  TestMapping test{cache.cache, backing};
  Mapping& m = test.mapping;
};

TEST_F(Writeback, WritesTheRangeOnly) {
  for (std::uint64_t page = 0; page < 20; ++page) test.add_dirty(page);
  ASSERT_TRUE(write_back(m, 5, 9, {}).ok());
  for (std::uint64_t page = 0; page < 20; ++page) EXPECT_EQ(state(page), page >= 5 && page <= 9 ? kUnflushed : kDirty);
  EXPECT_EQ(disk.operations(FaultOp::write), 1U) << "neighbours in one request";
  EXPECT_EQ(stored(5 * kPageSize, 5 * kPageSize), words(5 * kPageSize, 1, 1, 5 * kPageSize));
  EXPECT_EQ(backing.size(), 10 * kPageSize);
  ASSERT_TRUE(write_back(m, 0, UINT64_MAX, {}).ok());
  EXPECT_EQ(stored(0, 20 * kPageSize), words(20 * kPageSize, 1, 1, 0));
  EXPECT_EQ(cache.sum(Counter::writeback_folios), 20U);
}

// More folios, requests and extents than a batch holds.
TEST_F(Writeback, ManyBatches) {
  OddBacking neighbour(disk.make_file());
  for (std::uint64_t page = 0; page < 400; ++page) {  // every block apart from the next: eight extents a page
    for (std::uint64_t at = page * kPageSize; page < 100 && at < (page + 1) * kPageSize; at += 512) {
      disk.put(backing, at, std::vector<char>(512), UINT64_MAX);
      disk.put(neighbour, at, std::vector<char>(512), UINT64_MAX);
    }
    test.add_dirty(page);
    test.add_dirty(1000 + 2 * page);
  }
  ASSERT_TRUE(write_back(m, 0, UINT64_MAX, {}).ok());
  ASSERT_TRUE(flush(m, false).ok());
  EXPECT_EQ(m.unstable_count.load(memory_order_relaxed), 0U);
  EXPECT_EQ(stored(0, 400 * kPageSize), words(400 * kPageSize, 1, 1, 0));
  for (std::uint64_t page = 1000; page < 1800; page += 2) {
    ASSERT_EQ(stored(page * kPageSize, kPageSize), words(kPageSize, 1, 1, page * kPageSize));
  }
  EXPECT_TRUE(all_zero(stored(1001 * kPageSize, kPageSize)));
}

TEST_F(Writeback, PartialLastPage) {
  test.add_dirty(0);
  Folio* folio = get_folio(m, 0);
  std::memset(folio->bytes() + 1000, 0, kPageSize - 1000);
  cache.cache.put_folio(*folio);
  m.size.store(1000, memory_order_release);
  ASSERT_TRUE(write_back(m, 0, UINT64_MAX, {}).ok());
  EXPECT_EQ(backing.size(), 1000U) << "to the byte";
  EXPECT_EQ(disk.store.blocks_in_use(), 2U) << "and no further block than it needs";
  EXPECT_EQ(stored(0, 1000), words(1000, 1, 1, 0));
}

TEST_F(Writeback, SomeAtATime) {
  for (std::uint64_t page = 0; page < 1000; ++page) test.add_dirty(page);
  WritebackCursor at;
  int turns = 0;
  while (!write_back_some(m, &at, UINT64_MAX, 100, false, {})) ++turns;
  EXPECT_EQ(at.error, 0);
  EXPECT_EQ(at.pages, 1000U);
  EXPECT_GE(turns, 2);
  for (std::uint64_t index = 0; index < 1000; ++index) ASSERT_EQ(state(index), kUnflushed);
}

TEST_F(Writeback, D1_DirtyAgainDuringWriteback) {
  Watchdog watchdog("a page dirtied in writeback");
  test.add_dirty(3);
  disk.device.set_plan({.rules = {{.kind = FaultKind::hold, .times = 1}}});
  std::thread writer([&] { EXPECT_TRUE(write_back(m, 0, UINT64_MAX, {}).ok()); });
  ASSERT_TRUE(disk.device.wait_for_held(1, kTimeout));
  EXPECT_EQ(state(3), kWriteback);
  dirty_again(3);
  EXPECT_EQ(state(3), kDirty | kWriteback);
  disk.device.release_held();
  writer.join();
  while ((state(3) & kWriteback) != 0) std::this_thread::yield();
  const std::uint32_t after = state(3);
  EXPECT_TRUE(after == kDirty || after == kUnflushed) << "written twice, or still dirty; never clean";
  ASSERT_TRUE(sync_range(m, 0, UINT64_MAX, false).ok());
  EXPECT_EQ(state(3), 0U);
  EXPECT_EQ(disk.operations(FaultOp::write), 2U);
}

// What is written while the flush runs is not covered by it.
TEST_F(Writeback, D1_FlushCleansWhatWasWrittenBefore) {
  test.add_dirty(1);
  test.add_dirty(2);
  test.add_dirty(3);
  ASSERT_TRUE(write_back(m, 1, 2, {}).ok());
  backing.during_sync = [&] {
    dirty_again(2);
    EXPECT_TRUE(write_back(m, 2, 3, {}).ok());
    EXPECT_EQ(state(2), kUnflushed);
  };
  ASSERT_TRUE(flush(m, false).ok());
  EXPECT_EQ(state(1), 0U);
  EXPECT_EQ(state(2), kUnflushed);
  EXPECT_EQ(state(3), kUnflushed);
  EXPECT_EQ(m.unstable_count.load(memory_order_relaxed), 2U);
  backing.during_sync = nullptr;
  ASSERT_TRUE(flush(m, true).ok());
  EXPECT_EQ(m.unstable_count.load(memory_order_relaxed), 0U);
}

// A sync that finds pages in somebody else's writeback waits for them and goes on with the rest, the first page of the
// file included.
TEST_F(Writeback, D1_WaitsForOthersAndGoesOn) {
  Watchdog watchdog("a sync beside another's writeback");
  for (const std::uint64_t busy : {0, 1, 4}) {
    for (std::uint64_t page = 0; page < 6; ++page) {
      if (state(page) == UINT32_MAX) test.add_dirty(page);
    }
    dirty_again(busy);
    disk.device.set_plan({.rules = {{.kind = FaultKind::hold, .times = 1}}});
    std::thread first([&] { EXPECT_TRUE(write_back(m, busy, busy, {}).ok()); });
    ASSERT_TRUE(disk.device.wait_for_held(1, kTimeout));
    for (std::uint64_t page = 0; page < 6; ++page) {
      if (page != busy) dirty_again(page);
    }
    WritebackCursor at;
    EXPECT_TRUE(write_back_some(m, &at, UINT64_MAX, UINT64_MAX, false, {})) << "without waiting: passed over";
    EXPECT_EQ(state(busy), kWriteback);
    for (std::uint64_t page = 0; page < 6; ++page) {
      if (page != busy) dirty_again(page);
    }
    std::atomic<bool> ended{false};
    std::thread second([&] {
      EXPECT_TRUE(write_back(m, 0, UINT64_MAX, {}).ok());
      ended = true;
      for (std::uint64_t page = 0; page < 6; ++page) EXPECT_EQ(state(page), kUnflushed) << page << " beside " << busy;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(ended);
    disk.device.release_held();
    first.join();
    second.join();
    ASSERT_TRUE(flush(m, false).ok());
  }
}

// A page whose every write fails goes to and fro between dirty and in writeback: no sync may overlook it.
TEST_F(Writeback, D1_FailingPagesAreNeverOverlooked) {
  Watchdog watchdog("syncs of a failing page");
  for (const std::uint64_t page : {0, 3, 700}) test.add_dirty(page);
  disk.fail_writes();
  run_threads(3, [&](int) {
    for (int round = 0; round < 3000 && !HasFailure(); ++round) {
      EXPECT_EQ(write_back(m, 0, UINT64_MAX, {}).errnum(), EIO) << round;
      if (round % 500 == 0) disk.device.clear_records();
    }
  });
  disk.heal();
  EXPECT_TRUE(sync_range(m, 0, UINT64_MAX, false).ok());
  for (const std::uint64_t page : {0, 3, 700}) EXPECT_EQ(state(page), 0U);
}

TEST_F(Writeback, D1_FailedCommitStaysDirty) {
  test.add_dirty(1);
  backing.commit_errnum.store(EIO, memory_order_release);
  EXPECT_EQ(sync_range(m, 0, UINT64_MAX, false).errnum(), EIO);
  EXPECT_EQ(state(1), kDirty);
  backing.commit_errnum.store(0, memory_order_release);
  EXPECT_TRUE(sync_range(m, 0, UINT64_MAX, false).ok());
  EXPECT_EQ(stored(kPageSize, kPageSize), words(kPageSize, 1, 1, kPageSize));
}

// Somebody else's failed flush, after our write: our own flush succeeds and means nothing.
TEST_F(Writeback, D1_AnothersFailedFlushIsNotOurs) {
  test.add_dirty(1);
  disk.fail_flushes(1);
  bool once = false;
  backing.during_sync = [&] { once = true; };
  ASSERT_TRUE(write_back(m, 0, UINT64_MAX, {}).ok());
  EXPECT_EQ(flush(m, false).errnum(), EIO);
  EXPECT_TRUE(once);
  EXPECT_EQ(state(1), kDirty);
  const std::size_t writes = disk.operations(FaultOp::write);
  ASSERT_TRUE(sync_range(m, 0, UINT64_MAX, false).ok());
  EXPECT_EQ(disk.operations(FaultOp::write), writes + 1);
  EXPECT_EQ(state(1), 0U);
}

TEST_F(Writeback, D1_ErrorSequence) {
  Atomic<std::uint64_t> old_handle{sample_error(m)};
  EXPECT_EQ(check_error(m, old_handle), 0);
  record_error(m, EIO);
  Atomic<std::uint64_t> before_anybody_was_told{sample_error(m)};
  EXPECT_EQ(check_error(m, old_handle), EIO);
  EXPECT_EQ(check_error(m, old_handle), 0);
  EXPECT_EQ(check_error(m, before_anybody_was_told), EIO);
  Atomic<std::uint64_t> afterwards{sample_error(m)};
  EXPECT_EQ(check_error(m, afterwards), 0);
  record_error(m, EIO);
  record_error(m, ENOSPC);
  EXPECT_EQ(check_error(m, old_handle), ENOSPC) << "the last";
  EXPECT_EQ(check_error(m, old_handle), 0);
  EXPECT_EQ(check_error(m, afterwards), ENOSPC);
  // Many threads with one handle: one of them is told.
  for (int round = 0; round < 50; ++round) {
    record_error(m, EIO);
    std::atomic<int> told{0};
    run_threads(4, [&](int) { told += check_error(m, old_handle) != 0; });
    ASSERT_EQ(told, 1);
  }
}

// Past the background limit the flusher writes and flushes by itself.
TEST_F(Writeback, FlusherKeepsUnderTheBackgroundLimit) {
  Watchdog watchdog("the flusher");
  const std::uint64_t count = cache.cache.dirty.background() + 10;
  for (std::uint64_t page = 0; page < count; ++page) test.add_dirty(page);
  cache.cache.flusher().kick_background();
  while (cache.cache.dirty.unstable() * 2 >= cache.cache.dirty.background()) std::this_thread::yield();
  EXPECT_GT(cache.sum(Counter::flushes), 0U);
}

TEST_F(Writeback, FlusherLeavesFewDirtyFoliosAlone) {
  test.add_dirty(0);
  cache.cache.flusher().kick_background();
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(state(0), kDirty);
}

}  // namespace
}  // namespace quire
