// Block devices, read and written through the cache. Needs root and loop devices; skips without.
#include <optional>

#include "api/mount_test_util.h"

namespace quire::api_testing {
namespace {

class BlockDevice : public ::testing::TestWithParam<std::size_t> {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "loop devices are root's";
    host_write(dir_ / "store", named_bytes(1, 0, GetParam()));
    device_.emplace(dir_ / "store");
    if (device_->path().empty()) GTEST_SKIP() << "no loop devices";
    path_ = device_->path();
  }
  const TempDir dir_;
  std::optional<LoopDevice> device_;
  std::string path_;
  const CachePtr cache_ = make_cache();
};
INSTANTIATE_TEST_SUITE_P(Sizes, BlockDevice, ::testing::Values(1 << 20, (1 << 20) + 512, (1 << 20) + 3584, 2048));

TEST_P(BlockDevice, ReadAndWrittenToItsEnd) {
  const std::size_t size = GetParam();
  FilePtr file = open_file(cache_, path_, O_RDWR);
  EXPECT_TRUE(same_bytes(read_all(file, size + 10000, 0), named_bytes(1, 0, size)));
  const std::string bytes = named_bytes(2, 0, size);
  write_all(file, bytes, 0);
  ASSERT_EQ(quire_fsync(file.get()), 0) << quire_error_message();
  write_all(file, "!", static_cast<off_t>(size) - 1);
  close_file(file);
  EXPECT_TRUE(same_bytes(host_pread(path_, size, 0), bytes.substr(0, size - 1) + "!"));
  EXPECT_EQ(host_stat(dir_ / "store").st_size, static_cast<off_t>(size));
}

TEST_P(BlockDevice, WritesPastItsEnd) {
  const auto size = static_cast<off_t>(GetParam());
  FilePtr file = open_file(cache_, path_, O_RDWR | O_TRUNC | O_CREAT);
  EXPECT_FAILS(ENOSPC, quire_pwrite(file.get(), "x", 1, size));
  EXPECT_MESSAGE_HAS(path_);
  EXPECT_FAILS(ENOSPC, quire_pwrite(file.get(), "x", 1, size + 1'000'000));
  EXPECT_EQ(quire_pwrite(file.get(), "abcdef", 6, size - 2), 2) << "as much as fits";
  const iovec v{const_cast<char*>("x"), 1};
  EXPECT_FAILS(ENOSPC, quire_pwritev2(file.get(), &v, 1, 0, RWF_APPEND));
  EXPECT_FAILS(EINVAL, quire_ftruncate(file.get(), 0));
  EXPECT_EQ(read_all(file, 10, size - 2), "ab");
  EXPECT_TRUE(same_bytes(read_all(file, 512, 0), named_bytes(1, 0, 512))) << "O_TRUNC means nothing here";
  close_file(file);
  EXPECT_EQ(host_pread(path_, 2, size - 2), "ab");
}

TEST_P(BlockDevice, OneCacheMayHaveManyHandles) {
  FilePtr reader = open_file(cache_, path_, O_RDONLY);
  {
    FilePtr first = open_file(cache_, path_, O_RDWR);
    FilePtr second = open_file(cache_, path_, O_RDWR);
    if (first == nullptr || second == nullptr) return;
    write_all(first, "first", 0);
    EXPECT_EQ(read_all(second, 5, 0), "first");
    const CachePtr other = make_cache(4 * kMiB);
    EXPECT_FAILS(EBUSY, quire_open(other.get(), path_.c_str(), O_RDWR, 0));
    EXPECT_FAILS(EBUSY, quire_open(other.get(), path_.c_str(), O_RDONLY, 0));
  }
  FilePtr again = open_file(cache_, path_, O_RDWR);  // a writer once more, while the reader stays
  if (again != nullptr) write_all(again, "again", 0);
  EXPECT_EQ(read_all(reader, 5, 0), "again");
}

TEST_P(BlockDevice, DescriptorOfADevice) {
  Fd fd(path_, O_RDWR);
  FilePtr file(quire_fdopen(cache_.get(), fd));
  ASSERT_NE(file, nullptr) << quire_error_message();
  write_all(file, "through a descriptor", 100);
  close_file(file);
  EXPECT_EQ(host_pread(path_, 20, 100), "through a descriptor");
}

TEST_P(BlockDevice, AttributesAreTheDevices) {
  FilePtr file = open_file(cache_, path_, O_RDONLY);
  struct stat st = {};
  ASSERT_EQ(quire_fstat(file.get(), &st), 0);
  EXPECT_TRUE(S_ISBLK(st.st_mode));
  EXPECT_EQ(st.st_rdev, host_stat(path_).st_rdev);
}

TEST(MountedBlockDevice, RefusedForWriting) {
  const TempDir dir, mount_point;
  if (!private_mounts()) GTEST_SKIP() << "no mounts for this user";
  host_write(dir / "store", "");
  ASSERT_EQ(truncate((dir / "store").c_str(), 16 << 20), 0);
  const std::string make = "PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F '" + (dir / "store") + "' >/dev/null 2>&1";
  if (system(make.c_str()) != 0) GTEST_SKIP() << "no mkfs.ext4";
  const LoopDevice device(dir / "store");
  if (device.path().empty()) GTEST_SKIP() << "no loop devices";
  if (mount(device.path().c_str(), mount_point.path().c_str(), "ext4", 0, nullptr) != 0) GTEST_SKIP() << "no ext4";
  {
    const CachePtr cache = make_cache(4 * kMiB);
    EXPECT_FAILS(EBUSY, quire_open(cache.get(), device.path().c_str(), O_RDWR, 0));
    EXPECT_MESSAGE_HAS("mounted");
    EXPECT_MESSAGE_HAS(device.path());
    FilePtr reader = open_file(cache, device.path(), O_RDONLY);  // reading is allowed
    EXPECT_EQ(read_all(reader, 2, 1024 + 56), "\x53\xef");       // ext4's magic
    EXPECT_FAILS(EBUSY, quire_open(cache.get(), device.path().c_str(), O_RDWR, 0));
    Fd fd(device.path(), O_RDWR);
    if (fd >= 0) {
      EXPECT_FAILS(EBUSY, quire_fdopen(cache.get(), fd));
    }
  }
  ASSERT_EQ(umount(mount_point.path().c_str()), 0);
  const CachePtr cache = make_cache(4 * kMiB);
  FilePtr writer = open_file(cache, device.path(), O_RDWR);
  EXPECT_NE(mount(device.path().c_str(), mount_point.path().c_str(), "ext4", 0, nullptr), 0)
      << "nobody mounts what quire writes";
}

}  // namespace
}  // namespace quire::api_testing
