// What the host does to us: files that shrink underneath, full file systems, failing devices. No byte is lost silently.
#include <vector>

#include "api/mount_test_util.h"

namespace quire::api_testing {
namespace {

// The flusher may have tried, too, before the cause was gone: a failure of its own, to be told first.
void sync_after_mending(const FilePtr& file) {
  if (quire_fsync(file.get()) == 0) return;
  EXPECT_TRUE(errno == ENOSPC || errno == EIO) << quire_error_message();
  EXPECT_EQ(quire_fsync(file.get()), 0) << quire_error_message();
}

class ShrunkUnderneath : public ::testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Engines, ShrunkUnderneath, ::testing::Values(0u, QUIRE_NO_IO_URING, QUIRE_NO_DIRECT));

TEST_P(ShrunkUnderneath, ReadsOfWhatIsGoneFail) {
  const TempDir dir;
  const std::string path = dir / "shrinking";
  const CachePtr cache = make_cache(16 * kMiB, GetParam());
  host_write(path, named_bytes(1, 0, 3 * kMiB));
  FilePtr file = open_file(cache, path, O_RDONLY);
  EXPECT_EQ(read_all(file, 100, 0), named_bytes(1, 0, 100));
  ASSERT_EQ(truncate(path.c_str(), 1'000'001), 0);
  char buffer[8192];
  EXPECT_FAILS(EIO, quire_pread(file.get(), buffer, 10, 2'500'000));
  EXPECT_MESSAGE_HAS(path);
  EXPECT_MESSAGE_HAS("2500000");
  EXPECT_MESSAGE_HAS("shrank");
  // Across the new end: what is there may be returned first, but nothing is made up.
  const off_t before_end = 1'000'001 - 4096;
  const ssize_t n = quire_pread(file.get(), buffer, sizeof buffer, before_end);
  EXPECT_LE(n, 4096);
  if (n > 0) {
    EXPECT_TRUE(same_bytes(std::string(buffer, static_cast<std::size_t>(n)),
                           named_bytes(1, static_cast<std::uint64_t>(before_end), static_cast<std::size_t>(n))));
    EXPECT_FAILS(EIO, quire_pread(file.get(), buffer, sizeof buffer, before_end + n));
  }
  EXPECT_FAILS(EIO, quire_pread(file.get(), buffer, 10, static_cast<off_t>(3 * kMiB) - 5));
  EXPECT_TRUE(same_bytes(read_all(file, 100'000, 800'000), named_bytes(1, 800'000, 100'000))) << "what is left";
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  EXPECT_FAILS(EIO, quire_pread(file.get(), buffer, 10, static_cast<off_t>(3 * kMiB) - 5));
  close_file(file);
  file = open_file(cache, path, O_RDONLY);
  EXPECT_EQ(file_size(file), 0) << "reopened, it is what it is";
}

TEST_P(ShrunkUnderneath, WritesIntoWhatIsGone) {
  const TempDir dir;
  const std::string path = dir / "shrinking";
  const CachePtr cache = make_cache(16 * kMiB, GetParam());
  host_write(path, named_bytes(1, 0, kMiB));
  FilePtr file = open_file(cache, path, O_RDWR);
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  EXPECT_FAILS(EIO, quire_pwrite(file.get(), "x", 1, 500'000));  // the rest of its block is gone
  write_all(file, named_bytes(2, 409'600, 8192), 409'600);       // whole blocks need nothing
  EXPECT_EQ(quire_fsync(file.get()), 0) << quire_error_message();
  EXPECT_TRUE(same_bytes(host_pread(path, 8192, 409'600), named_bytes(2, 409'600, 8192)));
}

class FullFileSystem : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs_.mounted()) GTEST_SKIP() << "no mounts for this user";
    file_ = open_file(cache_, path_, O_RDWR | O_CREAT);
    write_all(file_, named_bytes(1, 0, 10000), 0);
    ASSERT_EQ(quire_fsync(file_.get()), 0);
    fs_.fill();
    wanted_ = named_bytes(1, 0, 10000) + named_bytes(2, 10000, 190'000);
    write_all(file_, std::string_view(wanted_).substr(10000), 10000);
  }
  SmallTmpfs fs_{2 * kMiB};
  const std::string path_ = fs_ / "file";
  CachePtr cache_ = make_cache();
  FilePtr file_;
  std::string wanted_;
};

TEST_F(FullFileSystem, BytesStayAndALaterSyncSucceeds) {
  FilePtr other = open_file(cache_, path_, O_RDONLY);
  EXPECT_FAILS(ENOSPC, quire_fsync(file_.get()));
  EXPECT_MESSAGE_HAS(path_);
  EXPECT_MESSAGE_HAS("No space");
  EXPECT_FAILS(ENOSPC, quire_fdatasync(file_.get()));
  EXPECT_TRUE(same_bytes(read_all(file_, 300'000, 0), wanted_));
  EXPECT_TRUE(same_bytes(read_all(other, 300'000, 0), wanted_));
  const std::uint64_t unstable = stat_of(cache_, "unstable_folios");
  EXPECT_GE(unstable, 190'000u / 4096);
  fs_.free();
  sync_after_mending(file_);
  EXPECT_TRUE(same_bytes(host_read(path_), wanted_));
  EXPECT_EQ(stat_of(cache_, "unstable_folios"), 0u);
  EXPECT_FAILS(ENOSPC, quire_fsync(other.get()));  // it had not been told
  EXPECT_EQ(quire_fsync(other.get()), 0) << quire_error_message();
  EXPECT_EQ(quire_fsync(file_.get()), 0);
  FilePtr late = open_file(cache_, path_, O_RDONLY);
  EXPECT_EQ(quire_fsync(late.get()), 0) << "opened after all that: " << quire_error_message();
}

TEST_F(FullFileSystem, CloseFailsAndTheHandleStaysOpen) {
  EXPECT_FAILS(ENOSPC, quire_close(file_.get()));
  EXPECT_MESSAGE_HAS(path_);
  EXPECT_TRUE(same_bytes(read_all(file_, 300'000, 0), wanted_));
  write_all(file_, "more", 0);
  wanted_.replace(0, 4, "more");
  EXPECT_FAILS(EBUSY, quire_cache_destroy(cache_.get(), 0));
  EXPECT_FAILS(ENOSPC, quire_close(file_.get()));
  fs_.free();
  close_file(file_);
  EXPECT_TRUE(same_bytes(host_read(path_), wanted_));
  EXPECT_EQ(quire_cache_destroy(cache_.release(), 0), 0);
}

TEST_F(FullFileSystem, DiscardAfterAFailedClose) {
  FilePtr open = open_file(cache_, fs_ / "another", O_RDWR | O_CREAT);
  EXPECT_FAILS(ENOSPC, quire_close(file_.get()));
  EXPECT_FAILS(EBUSY, quire_cache_destroy(cache_.get(), QUIRE_DISCARD));  // one is open that nobody tried to close
  close_file(open);
  static_cast<void>(file_.release());
  ASSERT_EQ(quire_cache_destroy(cache_.release(), QUIRE_DISCARD), 0) << quire_error_message();
  EXPECT_EQ(host_pread(path_, 10000, 0), named_bytes(1, 0, 10000)) << "what was synced is there";
  const CachePtr fresh = make_cache(4 * kMiB);
  FilePtr again = open_file(fresh, path_, O_RDWR);  // and its lock is free
}

TEST_F(FullFileSystem, WritersAreStoppedAtTheHardLimitOnly) {
  const CachePtr small = make_cache(kMiB);
  FilePtr file = open_file(small, fs_ / "limited", O_RDWR | O_CREAT);
  std::string bytes;
  ssize_t n = 0;
  while (bytes.size() < 4 * kMiB) {
    const std::string next = named_bytes(3, bytes.size(), 65536);
    n = quire_pwrite(file.get(), next.data(), next.size(), static_cast<off_t>(bytes.size()));
    if (n < 0) break;
    bytes += next.substr(0, static_cast<std::size_t>(n));
  }
  EXPECT_EQ(n, -1);
  EXPECT_EQ(errno, EIO) << quire_error_message();
  EXPECT_GE(bytes.size(), kMiB / 4);
  EXPECT_LE(bytes.size(), kMiB);
  EXPECT_TRUE(same_bytes(read_all(file, 5 * kMiB, 0), bytes)) << "nothing is lost";
  fs_.free();
  EXPECT_FAILS(ENOSPC, quire_fsync(file.get()));  // made good, and told once
  EXPECT_EQ(quire_fsync(file.get()), 0) << quire_error_message();
  write_all(file, named_bytes(3, bytes.size(), 65536), static_cast<off_t>(bytes.size()));
  bytes += named_bytes(3, bytes.size(), 65536);
  close_file(file);
  EXPECT_TRUE(same_bytes(host_read(fs_ / "limited"), bytes));
}

TEST_F(FullFileSystem, OtherFilesGoOnBesideAFailingOne) {
  const TempDir elsewhere;
  FilePtr healthy = open_file(cache_, elsewhere / "healthy", O_RDWR | O_CREAT);
  EXPECT_FAILS(ENOSPC, quire_fsync(file_.get()));
  const std::string bytes = named_bytes(4, 0, 40 * kMiB);  // more than the cache holds
  for (std::size_t at = 0; at < bytes.size(); at += kMiB) {
    write_all(healthy, std::string_view(bytes).substr(at, kMiB), static_cast<off_t>(at));
  }
  close_file(healthy);
  EXPECT_TRUE(same_bytes(host_read(elsewhere / "healthy"), bytes));
  EXPECT_TRUE(same_bytes(read_all(file_, 300'000, 0), wanted_));
  fs_.free();
}

TEST_F(FullFileSystem, SynchronousWriteIsTold) {
  FilePtr synced = open_file(cache_, path_, O_WRONLY | O_DSYNC);
  EXPECT_FAILS(ENOSPC, quire_pwrite(synced.get(), "now", 3, 300'000));
  EXPECT_EQ(read_all(file_, 3, 300'000), "now");
  fs_.free();
  write_all(synced, "now", 300'000);
  EXPECT_EQ(host_pread(path_, 3, 300'000), "now");
  close_file(synced);
}

// A block device whose own store is full: writes fail with EIO (or what the loop driver makes of it).
// The kernel takes no request up to 2^63: the last page of the largest file is a byte shorter.
TEST(LargestFile, LastPageIsReadFromTheHost) {
  SmallTmpfs fs(2 * kMiB);
  if (!fs.mounted()) GTEST_SKIP() << "no mounts for this user";
  constexpr off_t kLast = INT64_MAX - 8;
  const std::string path = fs / "largest";
  {
    const CachePtr cache = make_cache();
    FilePtr file = open_file(cache, path, O_RDWR | O_CREAT);
    write_all(file, "farthest", kLast);
    close_file(file);
  }
  const CachePtr cache = make_cache();
  FilePtr file = open_file(cache, path, O_RDWR);
  EXPECT_EQ(read_all(file, 12, kLast - 4), std::string(4, '\0') + "farthest");
  write_all(file, "F", kLast);
  ASSERT_EQ(quire_fsync(file.get()), 0) << quire_error_message();
  EXPECT_EQ(host_pread(path, 8, kLast), "Farthest");
}

TEST(FailingDevice, BytesStayUntilTheDeviceTakesThem) {
  SmallTmpfs fs(2 * kMiB);
  if (!fs.mounted()) GTEST_SKIP() << "no mounts for this user";
  host_write(fs / "store", "");
  ASSERT_EQ(truncate((fs / "store").c_str(), 8 << 20), 0);
  const LoopDevice device(fs / "store");
  if (device.path().empty()) GTEST_SKIP() << "no loop devices";
  const CachePtr cache = make_cache();
  FilePtr file = open_file(cache, device.path(), O_RDWR);
  fs.fill();
  const std::string bytes = named_bytes(1, 0, 500'000);
  write_all(file, bytes, kMiB);
  errno = 0;
  EXPECT_EQ(quire_fsync(file.get()), -1);
  EXPECT_TRUE(errno == EIO || errno == ENOSPC) << quire_error_message();
  EXPECT_MESSAGE_HAS(device.path());
  EXPECT_TRUE(same_bytes(read_all(file, bytes.size(), kMiB), bytes));
  EXPECT_EQ(quire_close(file.get()), -1);
  EXPECT_TRUE(same_bytes(read_all(file, bytes.size(), kMiB), bytes));
  fs.free();
  sync_after_mending(file);
  close_file(file);
  EXPECT_TRUE(same_bytes(host_pread(device.path(), bytes.size(), kMiB), bytes));
}

// Reads fail where the store has gone.
TEST(FailingDevice, ReadErrorsAreToldAndCured) {
  const TempDir dir;
  if (geteuid() != 0) GTEST_SKIP() << "loop devices are root's";
  const std::string store = dir / "store";
  host_write(store, named_bytes(1, 0, 4 * kMiB));
  const LoopDevice device(store);
  if (device.path().empty()) GTEST_SKIP() << "no loop devices";
  const CachePtr cache = make_cache();
  FilePtr file = open_file(cache, device.path(), O_RDONLY);
  ASSERT_EQ(truncate(store.c_str(), 0), 0);
  char buffer[100];
  const ssize_t n = quire_pread(file.get(), buffer, sizeof buffer, 2'000'000);
  if (n >= 0) GTEST_SKIP() << "this loop driver reads what is gone as zeros";
  EXPECT_EQ(errno, EIO) << quire_error_message();
  EXPECT_MESSAGE_HAS("2000000");
  host_write(store, named_bytes(2, 0, 4 * kMiB));
  EXPECT_TRUE(same_bytes(read_all(file, 100, 2'000'000), named_bytes(2, 2'000'000, 100)));
}

}  // namespace
}  // namespace quire::api_testing
