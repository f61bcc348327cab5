// The way that a request takes to the host's file: past its cache, through it, or either (IoPath).
#include "device/file_device_test_util.h"

namespace quire {
namespace {

using testing_support::Buffer;
using testing_support::engine_name;
using testing_support::engines;
using testing_support::fill_pattern;
using testing_support::Io;
using testing_support::run;
using testing_support::TempFile;

class IoPaths : public testing_support::FileDeviceEngines {
 protected:
  // A descriptor that refuses (EINVAL) what is no multiple of 8 bytes, as a host file system does under O_DIRECT: the
  // page map's. Under a block size of 1 every request is tried on it.
  FileDeviceOptions refusing() {
    FileDeviceOptions made = options();
    made.direct_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    made.direct_alignment = 1;
    EXPECT_GE(made.direct_fd, 0);
    return made;
  }
};

TEST_P(IoPaths, RefusedDirectGoesThroughTheHostsCache) {
  Buffer data(kPageSize);
  fill_pattern(data.data(), data.size(), 4, 0);
  ASSERT_EQ(run(*device_, IoOp::write, 0, data.data(), 4096), 4096);
  FileDeviceOptions refuses = refusing();
  device_ = std::make_unique<FileDevice>(refuses);
  Buffer back(kPageSize);
  Io read(IoOp::read, 1, back.data(), 13);
  EXPECT_EQ(run_one(read), 13);
  EXPECT_EQ(std::memcmp(back.data(), data.data() + 1, 13), 0);
  EXPECT_EQ(IoStats::get(stats_.direct_fallbacks), 1u);
  EXPECT_EQ(IoStats::get(stats_.errors), 0u);
  device_.reset();
  close(refuses.direct_fd);
}

// Two files stand for the two ways to one, so that the bytes tell which was taken.
TEST_P(IoPaths, WaysThatRequestsAskFor) {
  const TempFile other(GetParam().directory);
  if (other.direct() < 0) GTEST_SKIP() << "no O_DIRECT here";
  Buffer data(3 * kPageSize);
  fill_pattern(data.data(), data.size(), 1, 0);
  ASSERT_EQ(pwrite(other.buffered(), data.data(), 5000, 0), 5000);
  fill_pattern(data.data(), data.size(), 2, 0);
  ASSERT_EQ(pwrite(file_.buffered(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  FileDeviceOptions both = options();
  both.direct_fd = other.direct();
  both.direct_alignment = kPageSize;
  device_ = std::make_unique<FileDevice>(both);
  Buffer back(3 * kPageSize);
  const auto go = [&](IoOp op, IoPath path, std::uint64_t offset, unsigned char* memory, std::size_t size) {
    Io io(op, offset, memory, size);
    io.request.path = path;
    return run_one(io);
  };
  const auto read_by = [&] { return std::memcmp(back.data(), data.data(), 4096) == 0 ? "host" : "direct"; };
  EXPECT_EQ(go(IoOp::read, IoPath::any, 0, back.data(), 4096), 4096);
  EXPECT_STREQ(read_by(), "direct");
  EXPECT_EQ(go(IoOp::read, IoPath::through_host, 0, back.data(), 4096), 4096);
  EXPECT_STREQ(read_by(), "host");
  EXPECT_EQ(go(IoOp::read, IoPath::direct_only, 0, back.data(), 4096), 4096);
  EXPECT_STREQ(read_by(), "direct");
  // The end of the file, inside a unit: the other file goes on, and must not be asked.
  EXPECT_EQ(go(IoOp::read, IoPath::direct_only, 0, back.data(), 3 * kPageSize), 5000);
  EXPECT_EQ(go(IoOp::read, IoPath::direct_only, 8192, back.data(), 4096), 0);
  EXPECT_EQ(go(IoOp::read, IoPath::direct_only, 1, back.data(), 4096), -EINVAL);
  EXPECT_EQ(go(IoOp::read, IoPath::direct_only, 0, back.data() + 1, 4096), -EINVAL);
  EXPECT_EQ(go(IoOp::write, IoPath::direct_only, 0, back.data(), 100), -EINVAL);
  fill_pattern(back.data(), back.size(), 3, 0);
  EXPECT_EQ(go(IoOp::write, IoPath::direct_only, 0, back.data(), 4096), 4096);
  EXPECT_EQ(go(IoOp::write, IoPath::through_host, 8192, back.data(), 4096), 4096);
  Buffer whole(3 * kPageSize);
  ASSERT_EQ(pread(file_.buffered(), whole.data(), whole.size(), 0), static_cast<ssize_t>(whole.size()));
  EXPECT_EQ(std::memcmp(whole.data(), data.data(), 8192), 0) << "a direct write came here";
  EXPECT_EQ(std::memcmp(whole.data() + 8192, back.data(), 4096), 0);
  EXPECT_EQ(other.size(), 5000u);
  EXPECT_EQ(IoStats::get(stats_.errors), 0u) << "what is refused is for the caller to send another way";
  EXPECT_EQ(IoStats::get(stats_.direct_fallbacks), 0u);
}

TEST_P(IoPaths, DirectOnlyIsRefusedWhereTheHostRefuses) {
  Buffer data(kPageSize);
  ASSERT_EQ(run(*device_, IoOp::write, 0, data.data(), 4096), 4096);
  FileDeviceOptions refuses = refusing();
  device_ = std::make_unique<FileDevice>(refuses);
  EXPECT_EQ(device_->direct_alignment(), 1u);
  Io read(IoOp::read, 1, data.data(), 13);
  read.request.path = IoPath::direct_only;
  EXPECT_EQ(run_one(read), -EINVAL);
  close(refuses.direct_fd);
  refuses.direct_fd = -1;
  device_ = std::make_unique<FileDevice>(refuses);
  EXPECT_EQ(device_->direct_alignment(), 0u);
  Io none(IoOp::read, 0, data.data(), 4096);
  none.request.path = IoPath::direct_only;
  EXPECT_EQ(run_one(none), -EINVAL);
  EXPECT_EQ(IoStats::get(stats_.errors), 0u);
  EXPECT_EQ(IoStats::get(stats_.direct_fallbacks), 0u);
}

INSTANTIATE_TEST_SUITE_P(All, IoPaths, engines(), engine_name);

}  // namespace
}  // namespace quire
