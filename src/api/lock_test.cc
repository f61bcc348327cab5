// Many readers or one writer: between two caches of one process, and between processes.
#include <sys/file.h>

#include "api/peer_test_util.h"

namespace quire::api_testing {
namespace {

class Locks : public ::testing::Test {
 protected:
  void SetUp() override { host_write(path_, "first"); }
  // What another cache of this process gets: 0 or an errno.
  int try_open(const CachePtr& cache, int flags) {
    quire_file* file = quire_open(cache.get(), path_.c_str(), flags, 0644);
    if (file == nullptr) return errno;
    EXPECT_EQ(quire_close(file), 0) << quire_error_message();
    return 0;
  }
  const TempDir dir_;
  const std::string path_ = dir_ / "locked";
  const CachePtr mine_ = make_cache(4 * kMiB);
  const CachePtr other_ = make_cache(4 * kMiB);
};

TEST_F(Locks, WriterKeepsOutReadersAndWriters) {
  FilePtr writer = open_file(mine_, path_, O_RDWR);
  EXPECT_EQ(try_open(other_, O_RDONLY), EBUSY);
  EXPECT_MESSAGE_HAS(path_);
  EXPECT_MESSAGE_HAS("another cache");
  EXPECT_EQ(try_open(other_, O_RDWR), EBUSY);
  EXPECT_EQ(try_open(other_, O_WRONLY), EBUSY);
  EXPECT_EQ(try_open(mine_, O_RDONLY), 0) << "the same cache is no other";
  EXPECT_EQ(try_open(mine_, O_RDWR), 0);
  EXPECT_EQ(try_open(other_, O_RDONLY), EBUSY) << "a second writer's close frees nothing";
  close_file(writer);
  EXPECT_EQ(try_open(other_, O_RDWR), 0);
  EXPECT_EQ(try_open(other_, O_RDONLY), 0);
}

TEST_F(Locks, ReadersShareAndKeepWritersOut) {
  FilePtr a = open_file(mine_, path_, O_RDONLY);
  FilePtr b = open_file(other_, path_, O_RDONLY);
  EXPECT_EQ(try_open(mine_, O_RDWR), EBUSY);
  EXPECT_EQ(try_open(other_, O_RDWR), EBUSY);
  EXPECT_EQ(read_all(a, 9, 0), "first") << "a refused writer harms no reader";
  EXPECT_EQ(try_open(mine_, O_RDONLY), 0);
  close_file(b);
  EXPECT_EQ(try_open(mine_, O_RDWR), 0);
  EXPECT_EQ(try_open(other_, O_RDWR), EBUSY);
  close_file(a);
  EXPECT_EQ(try_open(other_, O_RDWR), 0);
}

TEST_F(Locks, UpgradeInPlaceAndBack) {
  FilePtr reader = open_file(mine_, path_, O_RDONLY);
  for (int round = 0; round < 3; ++round) {  // the first adds descriptors, the next find them
    FilePtr writer = open_file(mine_, path_, O_RDWR);
    EXPECT_EQ(try_open(other_, O_RDONLY), EBUSY);
    const std::string bytes = "round" + std::to_string(round);
    write_all(writer, bytes, 0);
    EXPECT_EQ(read_all(reader, 6, 0), bytes);
    close_file(writer);  // a reader remains: others may read, and see what was written
    EXPECT_EQ(host_read(path_), bytes);
    FilePtr second = open_file(other_, path_, O_RDONLY);
    EXPECT_EQ(read_all(second, 6, 0), bytes);
    EXPECT_EQ(try_open(other_, O_RDWR), EBUSY);
    EXPECT_EQ(try_open(mine_, O_RDWR), EBUSY);
    close_file(second);
  }
  close_file(reader);
  EXPECT_EQ(try_open(other_, O_RDWR), 0);
}

TEST_F(Locks, TruncateComesAfterTheLock) {
  FilePtr reader = open_file(mine_, path_, O_RDONLY);
  EXPECT_EQ(try_open(other_, O_RDWR | O_TRUNC), EBUSY);
  EXPECT_EQ(try_open(other_, O_RDWR | O_CREAT | O_TRUNC), EBUSY);
  EXPECT_EQ(host_read(path_), "first");
  close_file(reader);
  EXPECT_EQ(try_open(other_, O_RDWR | O_TRUNC), 0);
  EXPECT_EQ(host_read(path_), "");
}

TEST_F(Locks, FdopenIsLockedToo) {
  Fd fd(path_, O_RDWR);
  FilePtr writer(quire_fdopen(mine_.get(), fd));
  ASSERT_NE(writer, nullptr);
  EXPECT_FAILS(EBUSY, quire_fdopen(other_.get(), fd));
  close_file(writer);
  writer.reset(quire_fdopen(other_.get(), fd));
  EXPECT_NE(writer, nullptr) << quire_error_message();
}

TEST_F(Locks, WriterThatClosesLetsTheNextSeeItsBytes) {
  for (int i = 0; i < 20; ++i) {
    const CachePtr& cache = i % 2 == 0 ? mine_ : other_;
    FilePtr file = open_file(cache, path_, O_RDWR);
    if (i != 0) {
      ASSERT_TRUE(same_bytes(read_all(file, 20000, 0), named_bytes(static_cast<unsigned>(i), 0, 10000)));
    }
    write_all(file, named_bytes(static_cast<unsigned>(i) + 1, 0, 10000), 0);
    close_file(file);
  }
}

TEST_F(Locks, AnotherProcess) {
  Peer peer;
  FilePtr file = open_file(mine_, path_, O_RDWR);
  EXPECT_EQ(peer.open(path_, O_RDONLY), EBUSY);
  EXPECT_TRUE(contains(peer.message(), path_)) << peer.message();
  EXPECT_EQ(peer.open(path_, O_RDWR), EBUSY);
  close_file(file);
  ASSERT_EQ(peer.open(path_, O_RDWR), 0) << peer.message();
  EXPECT_EQ(try_open(mine_, O_RDONLY), EBUSY);
  EXPECT_EQ(peer.write("theirs", 0), 0);
  EXPECT_EQ(peer.close(), 0);
  file = open_file(mine_, path_, O_RDONLY);
  EXPECT_EQ(read_all(file, 9, 0), "theirs");
  EXPECT_EQ(peer.open(path_, O_RDONLY), 0);
  EXPECT_EQ(try_open(mine_, O_RDWR), EBUSY);
  EXPECT_EQ(peer.close(), 0);
  EXPECT_EQ(try_open(mine_, O_RDWR), 0);
}

TEST_F(Locks, KilledHolderFreesItsLockAndLosesWhatIsDirty) {
  Peer peer;
  ASSERT_EQ(peer.open(path_, O_RDWR), 0) << peer.message();
  ASSERT_EQ(peer.write("lost!", 0), 0);
  EXPECT_EQ(try_open(mine_, O_RDWR), EBUSY);
  peer.kill();
  FilePtr file = open_file(mine_, path_, O_RDWR);
  EXPECT_EQ(read_all(file, 9, 0), "first");
}

TEST_F(Locks, PlainProgramsAreNotInTheWay) {
  Fd fd(path_, O_RDWR);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  struct flock whole = {};
  whole.l_type = F_RDLCK;
  whole.l_len = 4096;
  ASSERT_EQ(fcntl(fd, F_OFD_SETLK, &whole), 0);
  EXPECT_EQ(try_open(mine_, O_RDWR), 0) << "their locks are on other bytes";
}

}  // namespace
}  // namespace quire::api_testing
