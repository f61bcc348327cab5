// Opening, identifying and locking files of the host, below the cache.
#include "host/host_file.h"

#include <sys/statfs.h>

#include "base/error.h"
#include "host/host_test_util.h"

namespace quire {
namespace {

class HostFile : public host_testing::HostTest {
 protected:
  HostDescriptors open(int flags, const char* name = "file") {
    auto files = open_host_path(path(name).c_str(), flags, 0644);
    EXPECT_TRUE(files.ok()) << files.errnum();
    return files.take();
  }
  HostIdentity identity(const HostDescriptors& files) {
    const auto id = identify_host_file(files.buffered);
    EXPECT_TRUE(id.ok());
    return id.value();
  }
};

TEST_F(HostFile, DescriptorsOwnWhatTheyHold) {
  write(path(), "x");
  HostDescriptors a = open(O_RDONLY);
  open_direct(a, false, 4096);
  const int buffered = a.buffered, direct = a.direct;
  HostDescriptors b = std::move(a);
  EXPECT_FALSE(a.open());  // NOLINT: what a moved-from value is, is relied on
  EXPECT_EQ(b.buffered, buffered);
  EXPECT_EQ(b.direct, direct);
  HostDescriptors c = open(O_RDONLY);
  const int replaced = c.buffered;
  c = std::move(b);
  EXPECT_EQ(fcntl(replaced, F_GETFD), -1) << "what it held before is closed";
  EXPECT_NE(fcntl(buffered, F_GETFD), -1);
  EXPECT_EQ(fcntl(buffered, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  if (direct >= 0) {
    EXPECT_EQ(fcntl(direct, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  }
  c.close();
  EXPECT_EQ(fcntl(buffered, F_GETFD), -1);
  if (direct >= 0) {
    EXPECT_EQ(fcntl(direct, F_GETFD), -1);
  }
}

TEST_F(HostFile, FlagsThatAreNotPassedOn) {
  write(path(), "kept");
  const HostDescriptors files = open(O_WRONLY | O_TRUNC | O_APPEND | O_SYNC);
  const int flags = fcntl(files.buffered, F_GETFL);
  EXPECT_EQ(flags & O_ACCMODE, O_RDWR) << "writing a part of a block means reading the rest";
  EXPECT_EQ(flags & (O_APPEND | O_DSYNC), 0);
  EXPECT_EQ(read(path()), "kept");
}

TEST_F(HostFile, DirectTwinHasTheSameFile) {
  write(path(), "x");
  HostDescriptors files = open(O_RDWR);
  const unsigned alignment = open_direct(files, true, 4096);
  if (files.direct < 0) GTEST_SKIP() << "no O_DIRECT on this file system";
  EXPECT_EQ(alignment, 4096u);
  EXPECT_NE(fcntl(files.direct, F_GETFL) & O_DIRECT, 0);
  EXPECT_EQ(fcntl(files.direct, F_GETFL) & O_ACCMODE, O_RDWR);
  struct stat a = {}, b = {};
  ASSERT_EQ(fstat(files.buffered, &a) | fstat(files.direct, &b), 0);
  EXPECT_EQ(a.st_ino, b.st_ino);
}

TEST_F(HostFile, IdentityOfAnOldFileIsCertain) {
  write(path(), "x");
  const HostDescriptors files = open(O_RDONLY);
  EXPECT_FALSE(identity(files).certain) << "the next change could bear the same time";
  usleep(120'000);
  const HostIdentity first = identity(files);
  EXPECT_TRUE(first.certain);
  EXPECT_EQ(first, identity(files));
  EXPECT_EQ(first, identity(open(O_RDONLY))) << "whoever asks";
}

TEST_F(HostFile, IdentityTellsEveryChange) {
  write(path(), "first");
  usleep(120'000);
  const HostDescriptors files = open(O_RDONLY);
  HostIdentity known = identity(files);
  const auto changed = [&] {
    const HostIdentity now = identity(files);
    const bool different = !(now == known);
    usleep(120'000);
    known = identity(files);
    return different;
  };
  EXPECT_FALSE(changed());
  write(path(), "other");
  EXPECT_TRUE(changed()) << "bytes";
  ASSERT_EQ(truncate(path().c_str(), 3), 0);
  EXPECT_TRUE(changed()) << "size";
  const timespec past[2] = {{1000, 0}, {1000, 0}};
  ASSERT_EQ(utimensat(AT_FDCWD, path().c_str(), past, 0), 0);
  EXPECT_TRUE(changed()) << "times";
  write(path(), "abc");
  ASSERT_EQ(utimensat(AT_FDCWD, path().c_str(), past, 0), 0);
  EXPECT_TRUE(changed()) << "bytes, with mtime and size as before";
  write(path("second"), "abc");
  EXPECT_NE(identity(files).inode, identity(open(O_RDONLY, "second")).inode);
}

TEST_F(HostFile, LocksOfReadersAndWriters) {
  write(path(), "x");
  const HostDescriptors a = open(O_RDWR), b = open(O_RDWR), c = open(O_RDONLY);
  // Two readers; neither becomes a writer while the other reads.
  ASSERT_TRUE(lock_host_read(a.buffered).ok());
  ASSERT_TRUE(lock_host_read(c.buffered).ok());
  EXPECT_EQ(lock_host_write(a.buffered, a.buffered).errnum(), EBUSY);
  EXPECT_TRUE(lock_host_read(b.buffered).ok()) << "a refused upgrade left nothing behind";
  unlock_host_read(b.buffered);
  unlock_host_read(c.buffered);
  // One reader becomes the writer, in place; nobody else gets anything.
  ASSERT_TRUE(lock_host_write(a.buffered, a.buffered).ok());
  EXPECT_TRUE(lock_host_write(a.buffered, a.buffered).ok()) << "again is no conflict with oneself";
  EXPECT_EQ(lock_host_read(c.buffered).errnum(), EBUSY);
  EXPECT_EQ(lock_host_write(b.buffered, b.buffered).errnum(), EBUSY);
  unlock_host_write(a.buffered);
  EXPECT_TRUE(lock_host_read(c.buffered).ok());
  EXPECT_EQ(lock_host_write(b.buffered, b.buffered).errnum(), EBUSY);
}

TEST_F(HostFile, UpgradeThroughASecondDescription) {
  write(path(), "x");
  HostDescriptors reading = open(O_RDONLY);
  const HostDescriptors writing = open(O_RDWR), other = open(O_RDONLY);
  ASSERT_TRUE(lock_host_read(reading.buffered).ok());
  ASSERT_TRUE(lock_host_write(writing.buffered, reading.buffered).ok()) << "its own R is no conflict";
  EXPECT_EQ(lock_host_read(other.buffered).errnum(), EBUSY);
  unlock_host_write(writing.buffered);
  EXPECT_TRUE(lock_host_read(other.buffered).ok());
  EXPECT_EQ(lock_host_write(writing.buffered, reading.buffered).errnum(), EBUSY);
  unlock_host_read(other.buffered);
  EXPECT_TRUE(lock_host_write(writing.buffered, reading.buffered).ok());
}

TEST_F(HostFile, LocksEndWithTheDescription) {
  write(path(), "x");
  HostDescriptors a = open(O_RDWR);
  ASSERT_TRUE(lock_host_read(a.buffered).ok());
  ASSERT_TRUE(lock_host_write(a.buffered, a.buffered).ok());
  a.close();
  const HostDescriptors b = open(O_RDWR);
  EXPECT_TRUE(lock_host_read(b.buffered).ok());
  EXPECT_TRUE(lock_host_write(b.buffered, b.buffered).ok());
}

TEST_F(HostFile, Properties) {
  write(path(), "12345");
  const HostDescriptors files = open(O_RDWR);
  const auto properties = host_properties(files.buffered);
  ASSERT_TRUE(properties.ok());
  EXPECT_EQ(properties.value().size, 5u);
  EXPECT_FALSE(properties.value().block_device);
  // The largest size is what ftruncate takes, and not a byte more.
  const std::uint64_t most = properties.value().max_size;
  EXPECT_GT(most, std::uint64_t{1} << 40);
  const auto set = [&](std::uint64_t size) { return ftruncate(files.buffered, static_cast<off_t>(size)) == 0; };
  EXPECT_TRUE(set(most)) << most << ": " << std::strerror(errno);
  if (most < INT64_MAX) {
    EXPECT_FALSE(set(most + 1));
  }
  EXPECT_TRUE(set(5));
}

}  // namespace
}  // namespace quire
