// The paths of a write, each reached and counted, and what is left of a write that fails: nothing.
#include <gtest/gtest.h>

#include <thread>

#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr unsigned kFile = 6;

class FileWrite : public ::testing::Test {
 protected:
  void lay(std::uint64_t size) {
    for (std::uint64_t at = 0; at < size; at += 16'384) {
      const std::size_t n = std::min<std::uint64_t>(16'384, size - at);
      ASSERT_EQ(file.write(words(n, kFile, 1, at), at), static_cast<ssize_t>(n));
    }
    ASSERT_EQ(file.sync(), 0);
    file.drop_cached();
  }
  // How often each path was taken since the last call.
  struct Paths {
    std::uint64_t fast, few, gate;
    bool operator==(const Paths&) const = default;
  };
  Paths taken() {
    const Paths now{cache.sum(Counter::writes_fast), cache.sum(Counter::writes_few), cache.sum(Counter::writes_gate)};
    const Paths since{now.fast - before_.fast, now.few - before_.few, now.gate - before_.gate};
    before_ = now;
    return since;
  }

  RamDisk disk{512};
  TestCache cache{512};
  std::unique_ptr<OddBacking> made = std::make_unique<OddBacking>(disk.make_file());
  OddBacking& backing = *made;
  TestFile file{cache.cache, std::move(made)};

 private:
  Paths before_{0, 0, 0};
};

TEST_F(FileWrite, ReachesEachPath) {
  lay(400'000);
  taken();
  const auto write = [&](std::uint64_t offset, std::size_t count) {
    ASSERT_EQ(file.write(words(count, kFile, 2, offset), offset), static_cast<ssize_t>(count));
    ASSERT_EQ(file.range(offset, count), words(count, kFile, 2, offset));
  };
  write(100, 50);
  EXPECT_EQ(taken(), (Paths{0, 1, 0})) << "not resident";
  write(120, 500);
  EXPECT_EQ(taken(), (Paths{1, 0, 0})) << "resident";
  write(0, kPageSize);
  EXPECT_EQ(taken(), (Paths{1, 0, 0})) << "a whole page";
  write(4000, 200);
  EXPECT_EQ(taken(), (Paths{0, 1, 0})) << "two folios";
  write(8192, 64 * kPageSize);
  EXPECT_EQ(taken(), (Paths{0, 1, 0})) << "the most that are changed together";
  write(8200, 64 * kPageSize);
  EXPECT_EQ(taken(), (Paths{0, 0, 1})) << "one more";
  const std::uint64_t reads = disk.reads();
  write(12'288, 20 * kPageSize);
  EXPECT_EQ(disk.reads(), reads) << "nothing is read that is overwritten whole";
}

TEST_F(FileWrite, WholePagesAreNotRead) {
  lay(100'000);
  const std::uint64_t reads = disk.reads();
  ASSERT_EQ(file.write(words(8 * kPageSize, kFile, 2, kPageSize), kPageSize), ssize_t{8 * kPageSize});
  EXPECT_EQ(disk.reads(), reads);
  ASSERT_EQ(file.write(words(4096, kFile, 3, 50'000), 50'000), 4096);
  EXPECT_EQ(disk.reads(), reads + 2) << "two edges";
}

TEST_F(FileWrite, PastTheEndLeavesZeros) {
  ASSERT_EQ(file.write(words(10, kFile, 1, 100), 100), 10);  // within the page of the end
  ASSERT_EQ(file.write(words(10, kFile, 1, 20'000), 20'000), 10);
  ASSERT_EQ(file.write(words(10, kFile, 1, 20'500), 20'500), 10);
  EXPECT_EQ(file.size(), 20'510U);
  for (int pass = 0; pass < 2; ++pass) {
    EXPECT_TRUE(all_zero(file.range(0, 100)));
    EXPECT_TRUE(all_zero(file.range(110, 20'000 - 110)));
    EXPECT_TRUE(all_zero(file.range(20'010, 490)));
    EXPECT_EQ(file.range(20'500, 100), words(10, kFile, 1, 20'500));
    ASSERT_EQ(file.sync(), 0);
    file.drop_cached();
  }
}

// The last edge cannot be read: size, bytes, folios and marks are as before.
TEST_F(FileWrite, FailedEdgeChangesNothing) {
  lay(100'000);
  for (const std::size_t count : {std::size_t{5000}, std::size_t{40'000}}) {
    file.drop_cached();
    const std::uint64_t offset = 4096 + 100;
    const std::uint64_t last = round_down(offset + count, kPageSize);
    const auto extent = backing.map(last, 512);
    ASSERT_TRUE(extent.ok());
    disk.device.set_plan({.rules = {{.kind = FaultKind::error,
                                     .writes = false,
                                     .first = extent.value().address,
                                     .last = extent.value().address}}});
    EXPECT_EQ(file.write(words(count, kFile, 2, offset), offset), -EIO);
    EXPECT_EQ(file.mapping().unstable_count.load(memory_order_relaxed), 0U);
    EXPECT_LE(file.mapping().page_count.load(memory_order_relaxed), 2U) << "the edges at most";
    EXPECT_EQ(file.size(), 100'000U);
    disk.heal();
    EXPECT_EQ(file.content(), words(100'000, kFile, 1, 0));
    EXPECT_EQ(file.write(words(count, kFile, 2, offset), offset), static_cast<ssize_t>(count));
    EXPECT_EQ(file.range(offset, count), words(count, kFile, 2, offset));
    EXPECT_EQ(file.truncate(0), 0);
    lay(100'000);
  }
}

TEST_F(FileWrite, NoMemoryForTheIndexChangesNothing) {
  ASSERT_EQ(file.write(words(10, kFile, 1, 0), 0), 10);
  const std::vector<char> bytes = words(100 * kPageSize, kFile, 2, 0);  // needs more than one node
  file.mapping().pages.fail_allocation_after(1);
  EXPECT_EQ(file.write(bytes, 0), -ENOMEM);
  EXPECT_EQ(file.size(), 10U);
  EXPECT_EQ(file.content(), words(10, kFile, 1, 0));
  EXPECT_EQ(file.mapping().page_count.load(memory_order_relaxed), 1U);
  EXPECT_EQ(file.mapping().unstable_count.load(memory_order_relaxed), 1U);
  EXPECT_EQ(file.write(bytes, 0), static_cast<ssize_t>(bytes.size()));
  EXPECT_EQ(file.content(), bytes);
}

// What was not written stays clean; the edges, in one folio or in several, keep their other bytes.
TEST_F(FileWrite, SmallWritesSplitLargeFolios) {
  std::vector<char> model = words(16 * kPageSize, kFile, 1, 0);
  const auto expect_unstable = [&](std::uint64_t offset, std::size_t count, std::uint64_t pages, bool split = true) {
    file.drop_cached();
    ASSERT_EQ(file.write(model, 0), static_cast<ssize_t>(model.size()));  // in folios of four pages
    ASSERT_EQ(file.sync(), 0);
    const std::uint64_t splits = cache.sum(Counter::folio_splits);
    const std::vector<char> bytes = words(count, kFile, 2, offset);
    ASSERT_EQ(file.write(bytes, offset), static_cast<ssize_t>(count));
    std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<std::ptrdiff_t>(offset));
    EXPECT_EQ(file.mapping().unstable_count.load(memory_order_relaxed), pages) << offset << " " << count;
    EXPECT_EQ(cache.sum(Counter::folio_splits) != splits, split);
    EXPECT_EQ(file.content(), model);
    ASSERT_EQ(file.sync(), 0);
    file.drop_cached();
    EXPECT_EQ(file.content(), model);
  };
  expect_unstable(5 * kPageSize + 100, 8, 1);
  expect_unstable(8 * kPageSize, 2 * kPageSize, 4, false);  // half of a folio: as one
  expect_unstable(3 * kPageSize + 4000, 200, 2);
  expect_unstable(2 * kPageSize + 100, 12 * kPageSize, 14);
  expect_unstable(15 * kPageSize + 4000, 96, 1);
}

TEST_F(FileWrite, FailedClaimsAreGivenBack) {
  const std::uint32_t free_before = cache.cache.pool.free_frames();
  for (int i = 0; i < 300; ++i) {
    file.mapping().pages.fail_allocation_after(0);
    ASSERT_EQ(file.write(words(40'000, kFile, 1, 0), 0), -ENOMEM);
  }
  cache.cache.pool.collect_retired();
  EXPECT_EQ(cache.cache.pool.free_frames(), free_before);
  EXPECT_EQ(cache.cache.dirty.unstable(), 0U);
  ASSERT_EQ(file.write(words(400'000, kFile, 1, 0), 0), 400'000);
}

TEST_F(FileWrite, RefusesWhatCannotBe) {
  EXPECT_EQ(file.write(words(0, kFile, 1, 0), 77), 0);
  EXPECT_EQ(file.size(), 0U);
  backing.limit.store(10'000, memory_order_release);
  EXPECT_EQ(file.write(words(10, kFile, 1, 10'000), 10'000), -EFBIG);
  EXPECT_EQ(file.write(words(100, kFile, 1, 9950), 9950), 50) << "as much as fits";
  EXPECT_EQ(file.size(), 10'000U);
  EXPECT_EQ(file.append(words(1, kFile, 1, 0)), -EFBIG);
  EXPECT_EQ(file.size(), 10'000U);
  file.handle().writable = false;
  EXPECT_EQ(file.write(words(10, kFile, 1, 0), 0), -EBADF);
  file.handle().readable = false;
  char byte;
  EXPECT_EQ(file.read(&byte, 1, 0), -EBADF);
}

TEST_F(FileWrite, BlockDevicesNeitherGrowNorShrink) {
  lay(20'000);
  backing.is_fixed.store(true, memory_order_release);
  EXPECT_EQ(file.append(words(10, kFile, 2, 0)), -ENOSPC);
  EXPECT_EQ(file.write(words(10, kFile, 2, 20'000), 20'000), -ENOSPC);
  EXPECT_EQ(file.write(words(100, kFile, 2, 19'960), 19'960), 40);
  EXPECT_EQ(file.size(), 20'000U);
  EXPECT_EQ(file.range(19'960, 100), words(40, kFile, 2, 19'960));
}

TEST_F(FileWrite, LargerThanOneOperation) {
  const std::size_t count = 3 * cache.cache.max_operation_bytes() + 1000;
  ASSERT_EQ(file.write(words(count, kFile, 1, 5), 5), static_cast<ssize_t>(count));
  EXPECT_EQ(file.range(5, count), words(count, kFile, 1, 5));
  const std::vector<char> bytes = words(count, kFile, 1, count + 5);
  ASSERT_EQ(file.append(bytes), static_cast<ssize_t>(count));
  EXPECT_EQ(file.range(5, 2 * count), words(2 * count, kFile, 1, 5));
}

TEST_F(FileWrite, SeveralBuffers) {
  const std::vector<char> bytes = words(9000, kFile, 1, 300);
  char* p = const_cast<char*>(bytes.data());
  const iovec parts[] = {{p, 0}, {p, 1}, {p + 1, 4999}, {p + 5000, 0}, {p + 5000, 4000}};
  const auto written = file_write(file.handle(), parts, 300, 0);
  ASSERT_TRUE(written.ok());
  EXPECT_EQ(written.value(), 9000U);
  EXPECT_EQ(file.range(300, 9000), bytes);
  const iovec wrong[] = {{p, SSIZE_MAX}, {p, 1}};
  EXPECT_EQ(file_write(file.handle(), wrong, 0, 0).errnum(), EINVAL);
  EXPECT_EQ(file_read(file.handle(), wrong, 0, 0).errnum(), EINVAL);
}

TEST_F(FileWrite, StatTellsTheCachesSize) {
  struct stat st;
  ASSERT_EQ(file.write(words(12'345, kFile, 1, 0), 0), 12'345);
  ASSERT_TRUE(file_stat(file.handle(), &st).ok());
  EXPECT_EQ(st.st_size, 12'345);
  EXPECT_GT(st.st_mtim.tv_sec, 0) << "dirtied just now";
}

// --- RWF_NOWAIT ---

class NoWait : public FileWrite {};

TEST_F(NoWait, ReadsOnlyWhatIsResident) {
  lay(40'000);
  std::vector<char> bytes(40'000);
  const std::size_t reads = disk.reads();
  EXPECT_EQ(file.read(bytes.data(), 100, 0, kIoNoWait), -EAGAIN);
  EXPECT_EQ(disk.reads(), reads) << "no I/O";
  EXPECT_EQ(file.mapping().page_count.load(memory_order_relaxed), 0U);
  ASSERT_EQ(file.range(0, 8192).size(), 8192U);
  EXPECT_EQ(file.read(bytes.data(), 100, 0, kIoNoWait), 100);
  const std::uint64_t resident = file.mapping().page_count.load(memory_order_relaxed) * kPageSize;
  EXPECT_EQ(file.read(bytes.data(), 40'000, 0, kIoNoWait),
            static_cast<ssize_t>(std::min<std::uint64_t>(resident, 40'000)))
      << "as far as it is resident";
  EXPECT_EQ(file.read(bytes.data(), 100, 40'000, kIoNoWait), 0) << "the end is no wait";
  EXPECT_EQ(file.read(bytes.data(), 100, 1 << 30, kIoNoWait), 0);
}

TEST_F(NoWait, ReadsDoNotWaitForLocks) {
  lay(20'000);
  std::vector<char> bytes(20'000);
  RangeGuard range(file.inode().range);
  range.acquire(0, 100, kExclusive);
  EXPECT_EQ(file.read(bytes.data(), 20'000, 0, kIoNoWait), -EAGAIN);
}

TEST_F(NoWait, WritesOnlyWhatIsResident) {
  lay(40'000);
  const std::size_t reads = disk.reads();
  EXPECT_EQ(file.write(words(10, kFile, 2, 0), 0, kIoNoWait), -EAGAIN);
  EXPECT_EQ(disk.reads(), reads);
  ASSERT_EQ(file.range(0, 8192).size(), 8192U);
  EXPECT_EQ(file.write(words(10, kFile, 2, 8), 8, kIoNoWait), 10);
  EXPECT_EQ(file.range(8, 10), words(10, kFile, 2, 8));
  EXPECT_EQ(file.write(words(8192, kFile, 2, 0), 0, kIoNoWait), -EAGAIN) << "more than one folio";
  EXPECT_EQ(file.write(words(8, kFile, 2, 40'000), 0, kIoNoWait | kIoAppend), -EAGAIN);
  EXPECT_EQ(file.size(), 40'000U);
  std::thread holder([&] {
    RangeGuard range(file.inode().range);
    range.acquire(0, 100, kShared);
    EXPECT_EQ(file.write(words(10, kFile, 3, 50), 50, kIoNoWait), -EAGAIN) << "the range is in use";
  });
  holder.join();
  EXPECT_EQ(file.range(50, 10), words(10, kFile, 1, 50));
}

// A page whose fill is under way is not resident, and is not waited for.
TEST_F(NoWait, FillsInFlightAreNotWaitedFor) {
  Watchdog watchdog("a read that may not wait");
  lay(20'000);
  disk.device.set_plan({.rules = {{.kind = FaultKind::hold, .writes = false, .times = 1}}});
  std::thread reader([&] { EXPECT_EQ(file.range(0, 100), words(100, kFile, 1, 0)); });
  ASSERT_TRUE(disk.device.wait_for_held(1, 20'000'000'000));
  char bytes[100];
  EXPECT_EQ(file.read(bytes, 100, 0, kIoNoWait), -EAGAIN);
  EXPECT_EQ(file.write(words(10, kFile, 2, 8), 8, kIoNoWait), -EAGAIN);
  disk.device.release_held();
  reader.join();
  EXPECT_EQ(file.read(bytes, 100, 0, kIoNoWait), 100);
}

}  // namespace
}  // namespace quire
