// Direct reads and writes over files in memory: what goes past the cache and what does not, and what each sees.
#include "fs/direct.h"

#include <gtest/gtest.h>

#include <latch>
#include <thread>

#include "base/random.h"
#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

class Direct : public ::testing::TestWithParam<unsigned> {
 protected:
  static constexpr std::size_t kFile = 64 * kPageSize;

  void SetUp() override {
    auto backing = disk_.make_file();
    disk_.put(*backing, 0, words(kFile, 1, 1, 0), kFile);
    file_.emplace(cache_.cache, std::move(backing));
  }
  std::uint64_t sum(Counter counter) { return cache_.sum(counter); }
  std::vector<char> read_direct(std::uint64_t offset, std::size_t count) {
    std::memset(memory_.data(), 'x', count);
    const ssize_t got = file_->read(memory_.data(), count, offset, kIoDirect);
    EXPECT_GE(got, 0);
    for (std::size_t i = static_cast<std::size_t>(std::max<ssize_t>(got, 0)); i < count; ++i) {
      if (memory_.data()[i] == 'x') continue;
      ADD_FAILURE() << "byte " << i << " past the count of " << got;
      break;
    }
    return {memory_.data(), memory_.data() + std::max<ssize_t>(got, 0)};
  }
  ssize_t write_direct(const std::vector<char>& bytes, std::uint64_t offset, unsigned flags = 0) {
    std::memcpy(memory_.data(), bytes.data(), bytes.size());
    return file_->write(memory_.data(), bytes.size(), offset, kIoDirect | flags);
  }
  std::size_t resident() { return cache_.cache.resident_pages(); }

  RamDisk disk_{GetParam()};
  TestCache cache_;
  std::optional<TestFile> file_;
  AlignedBytes memory_{kFile + kPageSize};
};

INSTANTIATE_TEST_SUITE_P(BlockSizes, Direct, ::testing::Values(512U, 1024U, 4096U));

TEST_P(Direct, R3_ReadsPastTheCacheWhatIsNotInIt) {
  EXPECT_EQ(read_direct(0, kFile), words(kFile, 1, 1, 0));
  EXPECT_EQ(resident(), 0U);
  EXPECT_GE(sum(Counter::direct_reads), 1U);
}

// Any alignment of offset, count and memory.
TEST_P(Direct, R2_ReadsExactlyWhatWasAskedFor) {
  Random random(3);
  file_->truncate(kFile - 700);
  file_->sync_and_drop();
  for (int i = 0; i < 2'000; ++i) {
    const std::uint64_t offset = random.below(kFile + 100);
    const std::size_t count = 1 + random.below(i % 4 == 0 ? 9 * kPageSize : 1500);
    const std::size_t due = offset < kFile - 700 ? std::min<std::size_t>(count, kFile - 700 - offset) : 0;
    std::vector<char> bytes(count + 128, 'x');
    const std::size_t at = random.below(64);
    ASSERT_EQ(file_->read(bytes.data() + at, count, offset, kIoDirect), static_cast<ssize_t>(due));
    std::vector<char> wanted(count + 128, 'x');
    fill_words(wanted.data() + at, due, 1, 1, offset);
    ASSERT_EQ(bytes, wanted) << count << " at " << offset;
  }
  EXPECT_EQ(resident(), 0U);
}

TEST_P(Direct, R3_ReadsWhatOnlyTheCacheHas) {
  const auto fresh = words(3 * kPageSize, 1, 2, 5 * kPageSize + 100);
  ASSERT_GT(file_->write(fresh, 5 * kPageSize + 100), 0);
  auto wanted = words(kFile, 1, 1, 0);
  std::copy(fresh.begin(), fresh.end(), wanted.begin() + 5 * kPageSize + 100);
  EXPECT_EQ(read_direct(0, kFile), wanted);
  EXPECT_EQ(read_direct(5 * kPageSize, kPageSize),
            std::vector<char>(wanted.begin() + 5 * kPageSize, wanted.begin() + 6 * kPageSize));
}

TEST_P(Direct, R2_HolesAndUnwrittenBlocksReadAsZeros) {
  ASSERT_EQ(file_->punch(4 * kPageSize, 3 * kPageSize), 0);
  ASSERT_EQ(file_->allocate(FALLOC_FL_KEEP_SIZE, 4 * kPageSize, kPageSize), 0);
  file_->sync_and_drop();
  auto wanted = words(kFile, 1, 1, 0);
  std::fill_n(wanted.begin() + 4 * kPageSize, 3 * kPageSize, 0);
  EXPECT_EQ(read_direct(0, kFile), wanted);
  ASSERT_EQ(file_->truncate(kFile + 10 * kPageSize), 0);  // a hole past what the backing holds
  ASSERT_EQ(file_->truncate(kFile + 10 * kPageSize + 5), 0);
  std::vector<char> tail(11 * kPageSize, 'x');
  EXPECT_EQ(file_->read(tail.data(), tail.size(), kFile, kIoDirect), static_cast<ssize_t>(10 * kPageSize + 5));
  tail.resize(10 * kPageSize + 5);
  EXPECT_TRUE(all_zero(tail));
}

TEST_P(Direct, R3_WritesPastTheCache) {
  const auto fresh = words(8 * kPageSize, 1, 2, 8 * kPageSize);
  const std::size_t writes = disk_.operations(FaultOp::write);
  ASSERT_EQ(write_direct(fresh, 8 * kPageSize), static_cast<ssize_t>(fresh.size()));
  EXPECT_GT(disk_.operations(FaultOp::write), writes) << "it is on the device when the call returns";
  EXPECT_EQ(resident(), 0U);
  EXPECT_EQ(sum(Counter::direct_writes), 1U);
  EXPECT_EQ(file_->range(8 * kPageSize, fresh.size()), fresh);
  EXPECT_EQ(file_->range(0, 8 * kPageSize), words(8 * kPageSize, 1, 1, 0));
}

// Over resident folios, clean or dirty, and where edges are not whole blocks.
TEST_P(Direct, R3_WritesThroughTheCacheAreOnTheDeviceToo) {
  ASSERT_EQ(file_->range(0, kPageSize), words(kPageSize, 1, 1, 0));  // resident
  const auto fresh = words(2 * kPageSize, 1, 2, 0);
  ASSERT_EQ(write_direct(fresh, 0), static_cast<ssize_t>(fresh.size()));
  const auto odd = words(300, 1, 3, 20 * kPageSize + 10);
  ASSERT_EQ(write_direct(odd, 20 * kPageSize + 10), 300);
  EXPECT_EQ(sum(Counter::direct_cached), 2U);
  EXPECT_EQ(sum(Counter::direct_writes), 0U);
  std::vector<char> wanted = words(kFile, 1, 1, 0);
  std::copy(fresh.begin(), fresh.end(), wanted.begin());
  std::copy(odd.begin(), odd.end(), wanted.begin() + 20 * kPageSize + 10);
  file_->drop_cached();  // without a sync: what a direct write said is written is on the device
  EXPECT_EQ(file_->content(), wanted);
}

TEST_P(Direct, R1_WritesGrowTheFileAtOneInstant) {
  const auto more = words(4 * kPageSize, 1, 2, kFile);
  ASSERT_EQ(write_direct(more, kFile), static_cast<ssize_t>(more.size()));
  EXPECT_EQ(file_->size(), kFile + 4 * kPageSize);
  ASSERT_EQ(write_direct(more, 0, kIoAppend), static_cast<ssize_t>(more.size()));
  EXPECT_EQ(file_->size(), kFile + 8 * kPageSize);
  EXPECT_EQ(sum(Counter::direct_writes), 2U);
  const auto far = words(kPageSize, 1, 3, kFile + 20 * kPageSize);
  ASSERT_EQ(write_direct(far, kFile + 20 * kPageSize), static_cast<ssize_t>(far.size()));
  EXPECT_TRUE(all_zero(file_->range(kFile + 8 * kPageSize, 12 * kPageSize)));
  EXPECT_EQ(file_->range(kFile + 20 * kPageSize, kPageSize), far);
  file_->truncate(kFile + 21 * kPageSize - 100);  // an odd end: the next append goes through the cache
  ASSERT_EQ(write_direct(words(100, 1, 3, kFile + 21 * kPageSize - 100), 0, kIoAppend), 100);
  EXPECT_EQ(file_->range(kFile + 20 * kPageSize, kPageSize), far);
}

// Sectors of blocks that hold data, and of such that hold nothing yet: nothing of the block's neighbours is lost, and
// nothing foreign is shown.
TEST_P(Direct, R2_SectorsOfBlocksThatHoldNothing) {
  Random random(12);
  std::vector<char> wanted = words(kFile, 1, 1, 0);
  ASSERT_EQ(file_->punch(8 * kPageSize, 40 * kPageSize), 0);
  ASSERT_EQ(file_->allocate(FALLOC_FL_KEEP_SIZE, 20 * kPageSize, 10 * kPageSize), 0);
  std::fill_n(wanted.begin() + 8 * kPageSize, 40 * kPageSize, 0);
  file_->sync_and_drop();
  for (unsigned i = 2; i < 400; ++i) {
    const std::uint64_t offset = random.below(kFile / 512) * 512;
    const std::size_t count = std::min<std::size_t>((1 + random.below(12)) * 512, kFile - offset);
    const auto bytes = words(count, 1, i, offset);
    ASSERT_EQ(write_direct(bytes, offset), static_cast<ssize_t>(count));
    std::copy(bytes.begin(), bytes.end(), wanted.begin() + static_cast<std::ptrdiff_t>(offset));
    if (i % 16 == 0) {
      ASSERT_EQ(read_direct(0, kFile), wanted);
    }
  }
  EXPECT_EQ(sum(Counter::direct_cached), 0U);
  EXPECT_EQ(sum(Counter::direct_grown) != 0, GetParam() != 512);
  EXPECT_EQ(resident(), 0U);
  ASSERT_EQ(file_->content(), wanted);
}

// The end of the file lies inside a block: that one goes through the cache, and the file keeps its size.
TEST_P(Direct, R2_SectorsBesideTheEndOfTheFile) {
  const std::uint64_t size = kFile - kPageSize + 700;
  ASSERT_EQ(file_->truncate(size), 0);
  file_->sync_and_drop();
  const auto bytes = words(512, 1, 2, kFile - kPageSize);
  ASSERT_EQ(write_direct(bytes, kFile - kPageSize), 512);
  EXPECT_EQ(file_->size(), size);
  file_->sync_and_drop();
  EXPECT_EQ(file_->inode().backing->size(), size);
  EXPECT_EQ(file_->range(kFile - kPageSize, 512), bytes);
  EXPECT_EQ(file_->range(kFile - kPageSize + 512, 188), words(188, 1, 1, kFile - kPageSize + 512));
}

// A failed write may leave blocks prepared; what is written in their place later is what counts.
TEST_P(Direct, R3_AFailedWriteLeavesNothingBehind) {
  ASSERT_EQ(file_->punch(0, 4 * kPageSize), 0);
  file_->sync_and_drop();
  disk_.fail_writes();
  ASSERT_EQ(write_direct(words(4 * kPageSize, 1, 2, 0), 0), -EIO);
  disk_.heal();
  EXPECT_TRUE(all_zero(read_direct(0, 4 * kPageSize)));
  const auto bytes = words(512, 1, 3, 1024);
  ASSERT_EQ(write_direct(bytes, 1024), 512);
  EXPECT_TRUE(all_zero(read_direct(0, 1024)));
  EXPECT_EQ(read_direct(1024, 512), bytes);
  const auto whole = words(2 * kPageSize, 1, 4, 0);
  ASSERT_EQ(write_direct(whole, 0), static_cast<ssize_t>(2 * kPageSize));
  EXPECT_EQ(read_direct(0, 2 * kPageSize), whole);
}

// What failed to be filled is no folio to go through, nor does it stay to be read.
TEST_P(Direct, R3_AFolioThatFailedIsReplaced) {
  disk_.fail_reads();
  char byte;
  ASSERT_EQ(file_->read(&byte, 1, 0), -EIO);
  ASSERT_EQ(resident(), 1U);
  std::vector<char> bytes(kPageSize);
  ASSERT_EQ(file_->read(bytes.data(), kPageSize, 0, kIoDirect), -EIO);
  const auto fresh = words(kPageSize, 1, 2, 0);
  ASSERT_EQ(write_direct(fresh, 0), static_cast<ssize_t>(kPageSize));
  disk_.heal();
  EXPECT_EQ(read_direct(0, kPageSize), fresh);
  EXPECT_EQ(file_->range(0, kPageSize), fresh);
}

TEST_P(Direct, FailuresAreTheCallsOwn) {
  disk_.fail_writes();
  const auto fresh = words(kPageSize, 1, 2, 0);
  EXPECT_EQ(write_direct(fresh, 0), -EIO);
  EXPECT_EQ(write_direct(fresh, kFile), -EIO);
  EXPECT_EQ(file_->size(), kFile);
  disk_.heal();
  EXPECT_EQ(file_->sync(), 0) << "nothing is owed";
  disk_.fail_reads(ENXIO);
  char byte;
  EXPECT_EQ(file_->read(&byte, 1, 0, kIoDirect), -ENXIO);
}

// Good bytes before a bad block are read; the count says how many.
TEST_P(Direct, ReadsEndBeforeWhatFails) {
  ASSERT_EQ(file_->range(8 * kPageSize, 1), words(1, 1, 1, 8 * kPageSize));  // the page is resident
  disk_.fail_reads();
  std::vector<char> bytes(4 * kPageSize, 'x');
  EXPECT_EQ(file_->read(bytes.data(), bytes.size(), 8 * kPageSize, kIoDirect), static_cast<ssize_t>(kPageSize));
}

TEST_P(Direct, SyncAfterADirectWriteFlushesTheDevice) {
  ASSERT_EQ(file_->sync(), 0);
  const std::size_t flushes = disk_.operations(FaultOp::flush);
  ASSERT_GT(write_direct(words(kPageSize, 1, 2, 0), 0), 0);
  ASSERT_EQ(file_->sync(), 0);
  EXPECT_EQ(disk_.operations(FaultOp::flush), flushes + 1);
}

// What is on the device of a write that failed is what readers see, and so what a sync has to flush.
TEST_P(Direct, D1_SyncAfterAFailedWriteFlushesWhatReadersSee) {
  ASSERT_EQ(file_->sync(), 0);
  const auto fresh = words(8 * kPageSize, 1, 2, 0);
  std::memcpy(memory_.data(), fresh.data(), fresh.size());
  disk_.device.set_plan({.rules = {{.kind = FaultKind::error, .reads = false, .skip = 1}}});
  const iovec halves[2] = {{memory_.data(), 4 * kPageSize}, {memory_.data() + 4 * kPageSize, 4 * kPageSize}};
  ASSERT_EQ(file_write(file_->handle(), halves, 0, kIoDirect).errnum(), EIO);
  disk_.heal();
  ASSERT_EQ(file_->range(0, kPageSize), words(kPageSize, 1, 2, 0)) << "the first half is there";
  const std::size_t flushes = disk_.operations(FaultOp::flush);
  ASSERT_EQ(file_->sync(), 0);
  EXPECT_GT(disk_.operations(FaultOp::flush), flushes);
}

// A second piece that goes through the cache and fails on its way to the device is in the file: it counts, and who
// wrote it learns of the failure from the next sync.
TEST_P(Direct, R1_WhatStandsInTheCacheCounts) {
  const std::size_t most = round_down(cache_.cache.max_operation_bytes(), kPageSize);
  ASSERT_LE(2 * most, kFile);
  ASSERT_GT(2 * most, cache_.cache.max_operation_bytes());
  ASSERT_EQ(file_->range(most, 1), words(1, 1, 1, most));  // resident
  const auto fresh = words(2 * most, 1, 2, 0);
  disk_.device.set_plan({.rules = {{.kind = FaultKind::error, .reads = false, .skip = 1}}});
  EXPECT_EQ(write_direct(fresh, 0), static_cast<ssize_t>(fresh.size()));
  disk_.heal();
  EXPECT_EQ(file_->range(0, fresh.size()), fresh);
  EXPECT_EQ(file_->sync(), EIO);
  EXPECT_EQ(file_->sync(), 0);
}

TEST_P(Direct, NoWaitIsRefusedWhereItWouldWait) {
  const auto fresh = words(kPageSize, 1, 2, 0);
  EXPECT_EQ(write_direct(fresh, 0, kIoNoWait), static_cast<ssize_t>(kPageSize));
  EXPECT_EQ(write_direct(words(10, 1, 2, 0), 3, kIoNoWait), -EAGAIN);  // the edge would be read
  std::latch held(1), tried(1);
  std::thread other([&] {
    RangeGuard range(file_->inode().range);
    range.acquire(0, kPageSize, kExclusive);
    held.count_down();
    tried.wait();
  });
  held.wait();
  EXPECT_EQ(write_direct(fresh, 0, kIoNoWait), -EAGAIN);
  char byte;
  EXPECT_EQ(file_->read(&byte, 1, 0, kIoDirect | kIoNoWait), -EAGAIN);
  tried.count_down();
  other.join();
}

TEST_P(Direct, VectorsOfAnyShape) {
  Random random(9);
  const auto bytes = words(6 * kPageSize, 1, 4, 0);
  for (int turn = 0; turn < 50; ++turn) {
    file_->sync_and_drop();
    std::vector<iovec> vectors;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t n = std::min(bytes.size() - at, random.one_in(2) ? kPageSize : random.below(3000));
      vectors.push_back(iovec{const_cast<char*>(bytes.data()) + at, n});
      at += n;
    }
    ASSERT_EQ(file_write(file_->handle(), vectors, 0, kIoDirect).value(), bytes.size());
    std::vector<char> back(bytes.size());
    for (iovec& v : vectors) v.iov_base = back.data() + (static_cast<char*>(v.iov_base) - bytes.data());
    ASSERT_EQ(file_read(file_->handle(), vectors, 0, kIoDirect).value(), bytes.size());
    ASSERT_EQ(back, bytes);
  }
}

}  // namespace
}  // namespace quire
