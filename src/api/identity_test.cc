// What stays cached between a close and the next open, and every way in which it must not.
#include <sys/wait.h>

#include "api/api_test_util.h"

namespace quire::api_testing {
namespace {

constexpr std::size_t kSize = 40'000;

class Identity : public ::testing::Test {
 protected:
  void SetUp() override {
    host_write(path_, named_bytes(1, 0, kSize));
    let_times_settle();
    FilePtr file = open_file(cache_, path_, O_RDONLY);
    EXPECT_TRUE(same_bytes(read_all(file, kSize, 0), named_bytes(1, 0, kSize)));
    close_file(file);
  }
  // Reads the file anew; the number of requests that the device got for it.
  std::uint64_t reads_to_see(std::string_view wanted) {
    const std::uint64_t before = stat_of(cache_, "device_reads");
    FilePtr file = open_file(cache_, path_, O_RDONLY);
    EXPECT_TRUE(same_bytes(read_all(file, wanted.size() + 100, 0), wanted));
    EXPECT_EQ(file_size(file), static_cast<off_t>(wanted.size()));
    close_file(file);
    return stat_of(cache_, "device_reads") - before;
  }
  const TempDir dir_;
  const std::string path_ = dir_ / "file";
  const CachePtr cache_ = make_cache();
};

TEST_F(Identity, UnchangedFileStaysWarm) {
  EXPECT_EQ(reads_to_see(named_bytes(1, 0, kSize)), 0u);
  EXPECT_EQ(reads_to_see(named_bytes(1, 0, kSize)), 0u);
  ASSERT_EQ(rename(path_.c_str(), (dir_ / "renamed").c_str()), 0);  // another ctime: in doubt, dropped
  ASSERT_EQ(rename((dir_ / "renamed").c_str(), path_.c_str()), 0);
  reads_to_see(named_bytes(1, 0, kSize));
}

TEST_F(Identity, OwnWritesStayWarmOnceOldEnough) {
  FilePtr file = open_file(cache_, path_, O_RDWR);
  write_all(file, named_bytes(2, 0, kSize), 0);
  ASSERT_EQ(quire_fsync(file.get()), 0);
  let_times_settle();
  close_file(file);
  EXPECT_EQ(reads_to_see(named_bytes(2, 0, kSize)), 0u);
}

TEST_F(Identity, OwnWritesClosedAtOnceAreReadRight) {
  for (unsigned i = 2; i < 30; ++i) {
    FilePtr file = open_file(cache_, path_, O_RDWR);
    write_all(file, named_bytes(i, 0, kSize), 0);
    close_file(file);
    reads_to_see(named_bytes(i, 0, kSize));
  }
}

TEST_F(Identity, OverwrittenByAPlainProgram) {
  host_pwrite(path_, "changed", 5000);
  std::string wanted = named_bytes(1, 0, kSize);
  wanted.replace(5000, 7, "changed");
  EXPECT_GT(reads_to_see(wanted), 0u);
}

// Changes that follow a close and each other as fast as they can: no tick of a clock tells them apart.
TEST_F(Identity, OverwrittenAtOnceAgainAndAgain) {
  for (unsigned i = 2; i < 200 && !HasFailure(); ++i) {
    SCOPED_TRACE(i);
    host_pwrite(path_, named_bytes(i, 0, kSize), 0);
    reads_to_see(named_bytes(i, 0, kSize));
  }
}

TEST_F(Identity, ReplacedByRename) {
  host_write(dir_ / "new", named_bytes(2, 0, kSize));
  ASSERT_EQ(rename((dir_ / "new").c_str(), path_.c_str()), 0);
  EXPECT_GT(reads_to_see(named_bytes(2, 0, kSize)), 0u);
}

TEST_F(Identity, InodeUsedAgain) {
  const ino_t before = host_stat(path_).st_ino;
  bool reused = false;
  for (unsigned i = 2; i < 40; ++i) {
    ASSERT_EQ(unlink(path_.c_str()), 0);
    host_write(path_, named_bytes(i, 0, kSize));
    reused |= host_stat(path_).st_ino == before;
    reads_to_see(named_bytes(i, 0, kSize));
  }
  if (!reused) GTEST_SKIP() << "this file system did not use the inode number again";
}

TEST_F(Identity, ModificationTimePutBack) {
  const struct stat st = host_stat(path_);
  host_pwrite(path_, "changed", 0);
  const timespec times[2] = {st.st_atim, st.st_mtim};  // touch -r
  ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  ASSERT_EQ(host_stat(path_).st_mtim.tv_nsec, st.st_mtim.tv_nsec);
  EXPECT_GT(reads_to_see("changed" + named_bytes(1, 7, kSize - 7)), 0u);
}

TEST_F(Identity, GrownAndShrunk) {
  ASSERT_EQ(truncate(path_.c_str(), 100), 0);
  reads_to_see(named_bytes(1, 0, 100));
  ASSERT_EQ(truncate(path_.c_str(), 9000), 0);
  reads_to_see(named_bytes(1, 0, 100) + std::string(8900, '\0'));
}

TEST_F(Identity, WrittenThroughAnotherCache) {
  const CachePtr other = make_cache(4 * kMiB);
  for (unsigned i = 2; i < 20; ++i) {
    FilePtr file = open_file(other, path_, O_RDWR);
    write_all(file, named_bytes(i, 0, kSize), 0);
    close_file(file);
    reads_to_see(named_bytes(i, 0, kSize));
  }
}

TEST_F(Identity, ManyFilesKeptAndForgotten) {
  constexpr int kFiles = 600;  // more than are kept
  for (int pass = 0; pass < 2; ++pass) {
    for (int i = 0; i < kFiles; ++i) {
      const std::string path = dir_ / std::to_string(i);
      if (pass == 0) host_write(path, named_bytes(static_cast<unsigned>(i) + 1, 0, 5000));
    }
    let_times_settle();
    for (int i = 0; i < kFiles; ++i) {
      FilePtr file = open_file(cache_, dir_ / std::to_string(i), O_RDONLY);
      ASSERT_TRUE(same_bytes(read_all(file, 6000, 0), named_bytes(static_cast<unsigned>(i) + 1, 0, 5000))) << i;
    }
  }
}

}  // namespace
}  // namespace quire::api_testing
