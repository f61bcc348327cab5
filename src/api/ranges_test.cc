// Range operations through the C API: bad arguments, each with its errno and a sentence, and what a call on good ones
// does, as far as the API itself is concerned (handles, caches, counts). ranges_table_test.cc sets errnos against the
// host's own; what the operations do beside others is tested below the API.
#include <limits.h>
#include <linux/falloc.h>

#include <string>

#include "api/api_test_util.h"
#include "api/mount_test_util.h"

namespace quire::api_testing {
namespace {

constexpr off_t kMaxOffset = INT64_MAX;
constexpr std::size_t kBlock = 4096;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

class RangeCalls : public ::testing::Test {
 protected:
  void SetUp() override {
    host_write(path_, named_bytes(1, 0, 10 * kBlock));
    host_write(other_path_, named_bytes(2, 0, 10 * kBlock));
    file_ = open_file(cache_, path_, O_RDWR);
    other_ = open_file(cache_, other_path_, O_RDWR);
  }
  // Whatever was refused has changed nothing.
  void expect_unchanged() {
    EXPECT_TRUE(same_bytes(read_all(file_, 20 * kBlock, 0), named_bytes(1, 0, 10 * kBlock)));
    EXPECT_TRUE(same_bytes(read_all(other_, 20 * kBlock, 0), named_bytes(2, 0, 10 * kBlock)));
  }
  quire_file* a() const { return file_.get(); }
  quire_file* b() const { return other_.get(); }

  const TempDir dir_;
  const std::string path_ = dir_ / "the file", other_path_ = dir_ / "the other";
  const CachePtr cache_ = make_cache();
  FilePtr file_, other_;
};

TEST_F(RangeCalls, FallocateArguments) {
  EXPECT_FAILS(EINVAL, quire_fallocate(a(), 0, -1, 4096));
  EXPECT_MESSAGE_HAS(path_);
  EXPECT_MESSAGE_HAS("offset -1");
  EXPECT_MESSAGE_HAS("negative");
  EXPECT_FAILS(EINVAL, quire_fallocate(a(), kPunch, INT64_MIN, 4096));
  EXPECT_FAILS(EINVAL, quire_fallocate(a(), 0, 0, 0));
  EXPECT_MESSAGE_HAS("not above zero");
  EXPECT_FAILS(EINVAL, quire_fallocate(a(), 0, 0, -1));
  EXPECT_FAILS(EFBIG, quire_fallocate(a(), 0, kMaxOffset, 1));
  EXPECT_MESSAGE_HAS(std::to_string(kMaxOffset));
  EXPECT_FAILS(EFBIG, quire_fallocate(a(), kPunch, kMaxOffset - 4095, 4096 + 4096));
  EXPECT_FAILS(EFBIG, quire_fallocate(a(), 0, kMaxOffset, kMaxOffset));
  for (const int mode : {FALLOC_FL_PUNCH_HOLE, FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE,
                         FALLOC_FL_INSERT_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | kPunch,
                         FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE, 0x04, 0x100, 0x40000000, INT_MIN, -1}) {
    SCOPED_TRACE(mode);
    EXPECT_FAILS(EOPNOTSUPP, quire_fallocate(a(), mode, 0, 4096));
    EXPECT_MESSAGE_HAS(path_);
  }
  FilePtr reading = open_file(cache_, path_, O_RDONLY);
  EXPECT_FAILS(EBADF, quire_fallocate(reading.get(), kPunch, 0, 4096));
  EXPECT_MESSAGE_HAS("writing");
  expect_unchanged();
}

TEST_F(RangeCalls, FallocateGrowsOrKeepsTheSize) {
  ASSERT_EQ(quire_fallocate(a(), 0, 0, 12 * kBlock + 7), 0) << quire_error_message();
  EXPECT_EQ(file_size(file_), 12 * kBlock + 7);
  EXPECT_TRUE(
      same_bytes(read_all(file_, 20 * kBlock, 0), named_bytes(1, 0, 10 * kBlock) + std::string(2 * kBlock + 7, '\0')));
  ASSERT_EQ(quire_fallocate(b(), FALLOC_FL_KEEP_SIZE, 0, 20 * kBlock), 0) << quire_error_message();
  EXPECT_EQ(file_size(other_), 10 * kBlock);
  ASSERT_EQ(quire_fallocate(b(), kPunch, 100, 5000), 0) << quire_error_message();
  ASSERT_EQ(quire_fallocate(b(), FALLOC_FL_ZERO_RANGE, 10 * kBlock - 5, 10), 0) << quire_error_message();
  close_file(other_);
  EXPECT_TRUE(same_bytes(host_read(other_path_), named_bytes(2, 0, 100) + std::string(5000, '\0') +
                                                     named_bytes(2, 5100, 10 * kBlock - 5100 - 5) +
                                                     std::string(10, '\0')));
}

TEST_F(RangeCalls, SeekArguments) {
  for (const off_t offset : {off_t{-1}, off_t{INT64_MIN}, off_t{10 * kBlock}, kMaxOffset}) {
    SCOPED_TRACE(offset);
    EXPECT_FAILS(ENXIO, quire_seek_data(a(), offset));
    EXPECT_MESSAGE_HAS(path_);
    EXPECT_MESSAGE_HAS(std::to_string(offset));
    EXPECT_FAILS(ENXIO, quire_seek_hole(a(), offset));
    EXPECT_MESSAGE_HAS("hole");
  }
}

TEST_F(RangeCalls, SeekFindsWhatIsNotWrittenBackYet) {
  EXPECT_EQ(quire_seek_data(a(), 5), 5);
  EXPECT_EQ(quire_seek_hole(a(), 5), 10 * kBlock);
  FilePtr sparse = open_file(cache_, dir_ / "sparse", O_RDWR | O_CREAT);
  ASSERT_EQ(quire_ftruncate(sparse.get(), 40 * kBlock), 0);
  EXPECT_FAILS(ENXIO, quire_seek_data(sparse.get(), 0));
  EXPECT_EQ(quire_seek_hole(sparse.get(), 7), 7);
  write_all(sparse, "here", 20 * kBlock + 10);
  EXPECT_EQ(quire_seek_data(sparse.get(), 0), 20 * kBlock) << "a whole block is data";
  EXPECT_EQ(quire_seek_data(sparse.get(), 20 * kBlock + 3), 20 * kBlock + 3);
  EXPECT_EQ(quire_seek_hole(sparse.get(), 20 * kBlock + 3), 21 * kBlock);
  EXPECT_FAILS(ENXIO, quire_seek_data(sparse.get(), 21 * kBlock));
  FilePtr writing = open_file(cache_, dir_ / "sparse", O_WRONLY);
  EXPECT_EQ(quire_seek_hole(writing.get(), 0), 0) << "any access mode, as lseek";
}

// Each of the four, for what they refuse alike.
using PairCall = long (*)(quire_file*, off_t, quire_file*, off_t, std::size_t);
struct NamedCall {
  const char* name;
  PairCall call;
};
const NamedCall kPairCalls[] = {{"clone",
                                 [](quire_file* s, off_t from, quire_file* d, off_t at, std::size_t n) -> long {
                                   return quire_clone_range(s, from, d, at, n);
                                 }},
                                {"dedupe",
                                 [](quire_file* s, off_t from, quire_file* d, off_t at, std::size_t n) -> long {
                                   return quire_dedupe_range(s, from, d, at, n);
                                 }},
                                {"exchange",
                                 [](quire_file* s, off_t from, quire_file* d, off_t at, std::size_t n) -> long {
                                   return quire_exchange_range(s, from, d, at, n);
                                 }},
                                {"copy", [](quire_file* s, off_t from, quire_file* d, off_t at, std::size_t n) -> long {
                                   return quire_copy_range(s, from, d, at, n);
                                 }}};

TEST_F(RangeCalls, PairsNegativeOffsets) {
  for (const NamedCall& pair : kPairCalls) {
    SCOPED_TRACE(pair.name);
    EXPECT_FAILS(EINVAL, pair.call(a(), INT64_MIN, b(), 0, kBlock));
    EXPECT_MESSAGE_HAS(path_);
    EXPECT_MESSAGE_HAS(other_path_);
    EXPECT_MESSAGE_HAS(pair.name);
    EXPECT_MESSAGE_HAS("negative");
    EXPECT_FAILS(EINVAL, pair.call(a(), 0, b(), INT64_MIN, kBlock));
  }
  expect_unchanged();
}

TEST_F(RangeCalls, PairsPastTheLargestOffset) {
  for (const NamedCall& pair : kPairCalls) {
    if (std::string(pair.name) == "copy") continue;
    SCOPED_TRACE(pair.name);
    EXPECT_FAILS(EINVAL, pair.call(a(), 0, b(), kMaxOffset - 4094, kBlock));
    EXPECT_MESSAGE_HAS("largest off_t");
    EXPECT_FAILS(EINVAL, pair.call(a(), kMaxOffset - 4094, b(), 0, kBlock));
    EXPECT_FAILS(EINVAL, pair.call(a(), 0, b(), 0, SIZE_MAX));
    EXPECT_FAILS(EINVAL, pair.call(a(), kBlock, b(), 0, SSIZE_MAX));
  }
  // A copy ends where its source does; only what 64 bits cannot hold is too large.
  EXPECT_FAILS(EOVERFLOW, quire_copy_range(a(), kBlock, b(), 0, SIZE_MAX));
  EXPECT_MESSAGE_HAS("64 bits");
  EXPECT_FAILS(EOVERFLOW, quire_copy_range(a(), -1, b(), 0, kBlock));
  EXPECT_FAILS(EFBIG, quire_copy_range(a(), 0, b(), kMaxOffset, kBlock));
  EXPECT_EQ(quire_copy_range(a(), kMaxOffset - 4094, b(), 0, kBlock), 0);
  expect_unchanged();
}

TEST_F(RangeCalls, PairsAccessModes) {
  FilePtr reading = open_file(cache_, path_, O_RDONLY);
  FilePtr writing = open_file(cache_, path_, O_WRONLY);
  FilePtr appending = open_file(cache_, path_, O_RDWR | O_APPEND);
  for (const NamedCall& pair : kPairCalls) {
    SCOPED_TRACE(pair.name);
    EXPECT_FAILS(EBADF, pair.call(writing.get(), 0, b(), 0, kBlock));
    EXPECT_MESSAGE_HAS("reading");
    EXPECT_FAILS(EBADF, pair.call(b(), 0, reading.get(), 0, kBlock));
    EXPECT_MESSAGE_HAS("writing");
    if (std::string(pair.name) == "dedupe") continue;
    EXPECT_FAILS(EBADF, pair.call(b(), 0, appending.get(), 0, kBlock));
  }
  EXPECT_FAILS(EBADF, quire_exchange_range(reading.get(), 0, b(), 0, kBlock));
  EXPECT_FAILS(EBADF, quire_exchange_range(appending.get(), 0, b(), 0, kBlock));
  expect_unchanged();
}

TEST_F(RangeCalls, PairsOfTwoCaches) {
  const CachePtr elsewhere = make_cache();
  host_write(dir_ / "third", named_bytes(3, 0, 10 * kBlock));
  FilePtr third = open_file(elsewhere, dir_ / "third", O_RDWR);
  for (const NamedCall& pair : kPairCalls) {
    SCOPED_TRACE(pair.name);
    EXPECT_FAILS(EXDEV, pair.call(a(), 0, third.get(), 0, kBlock));
    EXPECT_MESSAGE_HAS("two different caches");
    EXPECT_FAILS(EXDEV, pair.call(third.get(), 0, a(), 0, kBlock));
  }
  expect_unchanged();
}

TEST_F(RangeCalls, PairsOfTwoFileSystems) {
  SmallTmpfs elsewhere(4 * kMiB);
  if (!elsewhere.mounted()) GTEST_SKIP() << "only root can mount a tmpfs";
  FilePtr there = open_file(cache_, elsewhere / "there", O_RDWR | O_CREAT);
  write_all(there, named_bytes(3, 0, 10 * kBlock), 0);
  for (const NamedCall& pair : kPairCalls) {
    SCOPED_TRACE(pair.name);
    if (std::string(pair.name) == "copy") continue;
    const long result = pair.call(a(), 0, there.get(), 0, kBlock);
    EXPECT_EQ(result, -1);
    EXPECT_TRUE(errno == EXDEV || errno == EOPNOTSUPP) << quire_error_message();
  }
  EXPECT_EQ(quire_copy_range(a(), 100, there.get(), 9 * kBlock, 5000), 5000) << quire_error_message();
  EXPECT_EQ(quire_copy_range(there.get(), 0, b(), 0, 10), 10) << quire_error_message();
  close_file(there);
  EXPECT_TRUE(same_bytes(host_read(elsewhere / "there"), named_bytes(3, 0, 9 * kBlock) + named_bytes(1, 100, 5000)));
  EXPECT_TRUE(same_bytes(read_all(other_, 20, 0), named_bytes(3, 0, 10) + named_bytes(2, 10, 10)));
}

TEST_F(RangeCalls, OverlapInOneFileThroughTwoHandles) {
  FilePtr again = open_file(cache_, path_, O_RDWR);
  for (const NamedCall& pair : kPairCalls) {
    SCOPED_TRACE(pair.name);
    EXPECT_FAILS(EINVAL, pair.call(a(), 0, again.get(), kBlock, 2 * kBlock));
    EXPECT_MESSAGE_HAS("overlap");
    EXPECT_FAILS(EINVAL, pair.call(a(), 2 * kBlock, a(), kBlock, 2 * kBlock));
  }
  expect_unchanged();
}

TEST_F(RangeCalls, CopyCounts) {
  EXPECT_EQ(quire_copy_range(a(), 0, b(), 0, 0), 0);
  EXPECT_EQ(quire_copy_range(a(), 10 * kBlock, b(), 0, kBlock), 0);
  EXPECT_EQ(quire_copy_range(a(), 20 * kBlock, b(), 0, kBlock), 0);
  EXPECT_EQ(quire_copy_range(a(), 10 * kBlock - 5, b(), 3, 100), 5);
  EXPECT_EQ(quire_copy_range(a(), 1, b(), 12 * kBlock, 7000), 7000) << "grows, with a hole before";
  EXPECT_EQ(quire_copy_range(a(), 0, a(), 5 * kBlock, 5 * kBlock), static_cast<ssize_t>(5 * kBlock));
  close_file(other_);
  EXPECT_TRUE(same_bytes(host_read(other_path_), named_bytes(2, 0, 3) + named_bytes(1, 10 * kBlock - 5, 5) +
                                                     named_bytes(2, 8, 10 * kBlock - 8) +
                                                     std::string(2 * kBlock, '\0') + named_bytes(1, 1, 7000)));
  close_file(file_);
  EXPECT_TRUE(same_bytes(host_read(path_), named_bytes(1, 0, 5 * kBlock) + named_bytes(1, 0, 5 * kBlock)));
}

TEST_F(RangeCalls, CopyOfMoreThanTheCacheHolds) {
  const CachePtr small = make_cache(2 * kMiB);
  const std::string bytes = named_bytes(5, 0, 5 * kMiB + 123);
  host_write(dir_ / "large", bytes);
  FilePtr from = open_file(small, dir_ / "large", O_RDONLY);
  FilePtr to = open_file(small, dir_ / "copy", O_WRONLY | O_CREAT);
  off_t done = 0;
  for (;;) {
    const ssize_t n = quire_copy_range(from.get(), done, to.get(), done, bytes.size());
    ASSERT_GE(n, 0) << quire_error_message();
    if (n == 0) break;
    done += n;
  }
  close_file(to);
  EXPECT_TRUE(same_bytes(host_read(dir_ / "copy"), bytes));
}

TEST_F(RangeCalls, ABlockDeviceIsNoFileOfExtents) {
  host_write(dir_ / "disk", std::string(4 * kMiB, 'd'));
  LoopDevice loop(dir_ / "disk");
  if (loop.path().empty()) GTEST_SKIP() << "no loop device here";
  FilePtr device = open_file(cache_, loop.path(), O_RDWR);
  for (const int mode : {0, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_UNSHARE_RANGE}) {
    SCOPED_TRACE(mode);
    EXPECT_FAILS(EOPNOTSUPP, quire_fallocate(device.get(), mode, 0, kBlock));
  }
  EXPECT_EQ(quire_copy_range(a(), 0, device.get(), kBlock, kBlock), static_cast<ssize_t>(kBlock));
  EXPECT_TRUE(same_bytes(read_all(device, kBlock, kBlock), named_bytes(1, 0, kBlock)));
  EXPECT_EQ(quire_clone_range(a(), 0, device.get(), 0, kBlock), -1);
}

}  // namespace
}  // namespace quire::api_testing
