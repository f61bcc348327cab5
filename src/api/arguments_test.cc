// Arguments of reads, writes, fdopen, fstat: what is refused, what flags mean, and the calls that are still to land.
#include <limits.h>

#include <ctime>
#include <vector>

#include "api/api_test_util.h"

namespace quire::api_testing {
namespace {

constexpr off_t kMaxOffset = INT64_MAX;

class Arguments : public ::testing::Test {
 protected:
  void SetUp() override {
    host_write(path_, named_bytes(1, 0, 10000));
    file_ = open_file(cache_, path_, O_RDWR);
  }
  const TempDir dir_;
  const std::string path_ = dir_ / "the file";
  const CachePtr cache_ = make_cache();
  FilePtr file_;
  char buffer_[64] = {};
};

TEST_F(Arguments, NegativeOffsets) {
  for (const off_t offset : {off_t{-1}, off_t{-4096}, off_t{INT64_MIN}}) {
    EXPECT_FAILS(EINVAL, quire_pread(file_.get(), buffer_, 8, offset));
    EXPECT_MESSAGE_HAS(path_);
    EXPECT_MESSAGE_HAS(std::to_string(offset));
    EXPECT_FAILS(EINVAL, quire_pwrite(file_.get(), buffer_, 8, offset));
    EXPECT_FAILS(EINVAL, quire_pread(file_.get(), buffer_, 0, offset));
    EXPECT_FAILS(EINVAL, quire_ftruncate(file_.get(), offset));
    const iovec v{buffer_, 8};
    EXPECT_FAILS(EINVAL, quire_preadv2(file_.get(), &v, 1, offset, 0));
    EXPECT_FAILS(EINVAL, quire_pwritev2(file_.get(), &v, 1, offset, 0));
  }
  EXPECT_EQ(file_size(file_), 10000);
}

TEST_F(Arguments, OffsetPlusLengthPastTheLargest) {
  EXPECT_FAILS(EINVAL, quire_pread(file_.get(), buffer_, 8, kMaxOffset - 7));
  EXPECT_EQ(quire_pread(file_.get(), buffer_, 8, kMaxOffset - 8), 0);
  EXPECT_EQ(quire_pread(file_.get(), buffer_, 0, kMaxOffset), 0);
  EXPECT_FAILS(EINVAL, quire_pread(file_.get(), buffer_, SIZE_MAX, 0));
  EXPECT_FAILS(EINVAL, quire_pread(file_.get(), buffer_, static_cast<std::size_t>(SSIZE_MAX), 1));
  errno = 0;
  EXPECT_EQ(quire_pwrite(file_.get(), buffer_, 8, kMaxOffset - 7), -1);
  EXPECT_TRUE(errno == EINVAL || errno == EFBIG) << quire_error_message();
  EXPECT_FAILS(EINVAL, quire_pwrite(file_.get(), buffer_, SIZE_MAX, 0));
  EXPECT_EQ(file_size(file_), 10000);
}

// The largest size is the host's: ext4 stops at 16 TiB, tmpfs, XFS and btrfs at the largest off_t.
TEST_F(Arguments, LargestSizeOfTheHost) {
  Fd plain(dir_ / "plain", O_RDWR | O_CREAT);
  const bool unbounded = ftruncate(plain, kMaxOffset) == 0;
  const auto offset = kMaxOffset - 8;
  if (!unbounded) {
    EXPECT_FAILS(EFBIG, quire_pwrite(file_.get(), buffer_, 8, offset));
    EXPECT_FAILS(EFBIG, quire_ftruncate(file_.get(), kMaxOffset));
    EXPECT_EQ(file_size(file_), 10000);
    close_file(file_);
    EXPECT_TRUE(same_bytes(host_read(path_), named_bytes(1, 0, 10000)));
    return;
  }
  ASSERT_EQ(quire_ftruncate(file_.get(), kMaxOffset), 0) << quire_error_message();
  EXPECT_EQ(file_size(file_), kMaxOffset);
  ASSERT_EQ(quire_ftruncate(file_.get(), 10000), 0) << quire_error_message();
  write_all(file_, "farthest", offset);
  EXPECT_EQ(read_all(file_, 8, offset), "farthest");
  EXPECT_EQ(read_all(file_, 4, offset - 100), std::string(4, '\0'));
  close_file(file_);
  EXPECT_EQ(host_stat(path_).st_size, kMaxOffset);
  EXPECT_EQ(host_pread(path_, 8, offset), "farthest");
  EXPECT_TRUE(same_bytes(host_pread(path_, 10000, 0), named_bytes(1, 0, 10000)));
}

TEST_F(Arguments, ZeroLengths) {
  EXPECT_EQ(quire_pread(file_.get(), buffer_, 0, 0), 0);
  EXPECT_EQ(quire_pwrite(file_.get(), buffer_, 0, 500000), 0);
  EXPECT_EQ(quire_preadv2(file_.get(), nullptr, 0, 0, 0), 0);
  EXPECT_EQ(quire_pwritev2(file_.get(), nullptr, 0, 0, 0), 0);
  const iovec empty[2] = {{buffer_, 0}, {buffer_, 0}};
  EXPECT_EQ(quire_preadv2(file_.get(), empty, 2, 0, 0), 0);
  EXPECT_EQ(quire_pwritev2(file_.get(), empty, 2, 900000, RWF_APPEND), 0);
  EXPECT_EQ(file_size(file_), 10000) << "nothing written, nothing grown";
}

TEST_F(Arguments, VectorBounds) {
  std::vector<iovec> many(IOV_MAX + 1, iovec{buffer_, 1});
  EXPECT_FAILS(EINVAL, quire_preadv2(file_.get(), many.data(), -1, 0, 0));
  EXPECT_FAILS(EINVAL, quire_preadv2(file_.get(), many.data(), IOV_MAX + 1, 0, 0));
  EXPECT_FAILS(EINVAL, quire_pwritev2(file_.get(), many.data(), IOV_MAX + 1, 0, 0));
  EXPECT_EQ(quire_preadv2(file_.get(), many.data(), IOV_MAX, 0, 0), IOV_MAX);
  EXPECT_EQ(buffer_[0], named_bytes(1, IOV_MAX - 1, 1)[0]);
  const iovec huge[2] = {{buffer_, SSIZE_MAX}, {buffer_, SSIZE_MAX}};
  EXPECT_FAILS(EINVAL, quire_preadv2(file_.get(), huge, 2, 0, 0));
  EXPECT_FAILS(EINVAL, quire_pwritev2(file_.get(), huge, 2, 0, 0));
}

TEST_F(Arguments, VectorsAreFilledInOrder) {
  std::string a(3, '?'), b(0, '?'), c(5000, '?'), d(10, '?');
  const iovec in[4] = {{a.data(), a.size()}, {b.data(), 0}, {c.data(), c.size()}, {d.data(), d.size()}};
  for (int pass = 0; pass < 2; ++pass) {
    EXPECT_EQ(quire_preadv2(file_.get(), in, 4, 4090, 0), 5013);
    EXPECT_TRUE(same_bytes(a + c + d, named_bytes(1, 4090, 5013)));
  }
  EXPECT_EQ(quire_preadv2(file_.get(), in, 4, 9998, 0), 2) << "the end of the file";
  const std::string x = named_bytes(2, 0, 4097), y = named_bytes(2, 4097, 1);
  const iovec out[2] = {{const_cast<char*>(x.data()), x.size()}, {const_cast<char*>(y.data()), 1}};
  EXPECT_EQ(quire_pwritev2(file_.get(), out, 2, 9000, 0), 4098);
  close_file(file_);
  EXPECT_TRUE(same_bytes(host_read(path_), named_bytes(1, 0, 9000) + named_bytes(2, 0, 4098)));
}

TEST_F(Arguments, UnknownRwfFlags) {
  const iovec v{buffer_, 8};
  for (const int flag : {0x40000000, 0x40 /* ATOMIC, yet to come */, 0x10000}) {
    EXPECT_FAILS(EOPNOTSUPP, quire_preadv2(file_.get(), &v, 1, 0, flag));
    EXPECT_FAILS(EOPNOTSUPP, quire_pwritev2(file_.get(), &v, 1, 0, flag));
    EXPECT_FAILS(EOPNOTSUPP, quire_pwritev2(file_.get(), &v, 1, 0, flag | RWF_DSYNC));
  }
  EXPECT_EQ(quire_preadv2(file_.get(), &v, 1, 0, RWF_HIPRI), 8);
}

TEST_F(Arguments, RwfAppend) {
  const std::string bytes = named_bytes(2, 0, 20);
  const iovec v{const_cast<char*>(bytes.data()), bytes.size()};
  EXPECT_EQ(quire_pwritev2(file_.get(), &v, 1, 3, RWF_APPEND), 20);
  EXPECT_EQ(file_size(file_), 10020);
  EXPECT_TRUE(same_bytes(read_all(file_, 10100, 0), named_bytes(1, 0, 10000) + bytes));
}

TEST_F(Arguments, RwfNoWait) {
  const iovec v{buffer_, 8};
  EXPECT_FAILS(EAGAIN, quire_preadv2(file_.get(), &v, 1, 4096, RWF_NOWAIT));
  read_all(file_, 8, 4096);
  EXPECT_EQ(quire_preadv2(file_.get(), &v, 1, 4096, RWF_NOWAIT), 8);
  EXPECT_EQ(std::string(buffer_, 8), named_bytes(1, 4096, 8));
  std::string across(8192, '?');
  const iovec two{across.data(), across.size()};
  FilePtr other = open_file(cache_, dir_ / "other", O_RDWR | O_CREAT);
  write_all(other, named_bytes(3, 0, 4096), 0);
  EXPECT_EQ(quire_preadv2(other.get(), &two, 1, 0, RWF_NOWAIT), 4096) << "to the end of the file, all of it resident";
  EXPECT_EQ(quire_preadv2(other.get(), &v, 1, 999999, RWF_NOWAIT), 0);
  EXPECT_EQ(quire_pwritev2(other.get(), &v, 1, 16, RWF_NOWAIT), 8) << "a resident folio: nothing to wait for";
}

TEST_F(Arguments, FdopenTakesADuplicateAndTheAccessMode) {
  close_file(file_);
  {
    Fd fd(path_, O_RDWR);
    ASSERT_EQ(lseek(fd, 123, SEEK_SET), 123);
    file_.reset(quire_fdopen(cache_.get(), fd));
    ASSERT_NE(file_, nullptr) << quire_error_message();
    EXPECT_EQ(read_all(file_, 8, 0), named_bytes(1, 0, 8)) << "offsets are the call's, not the descriptor's";
    EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 123);
    EXPECT_NE(fcntl(fd, F_GETFD), -1) << "the caller's stays the caller's";
  }
  write_all(file_, "after", 9000);  // the caller has closed its own
  close_file(file_);
  EXPECT_EQ(host_pread(path_, 5, 9000), "after");

  Fd reading(path_, O_RDONLY);
  file_.reset(quire_fdopen(cache_.get(), reading));
  ASSERT_NE(file_, nullptr);
  EXPECT_FAILS(EBADF, quire_pwrite(file_.get(), buffer_, 1, 0));
  close_file(file_);
  Fd writing(path_, O_WRONLY | O_APPEND);
  file_.reset(quire_fdopen(cache_.get(), writing));
  ASSERT_NE(file_, nullptr);
  EXPECT_FAILS(EBADF, quire_pread(file_.get(), buffer_, 1, 0));
  write_all(file_, "appended", 0);
  close_file(file_);
  EXPECT_EQ(host_pread(path_, 100, 10000), "appended");
}

TEST_F(Arguments, FdopenKeepsSynchronousWriting) {
  close_file(file_);
  Fd fd(path_, O_RDWR | O_DSYNC);
  file_.reset(quire_fdopen(cache_.get(), fd));
  ASSERT_NE(file_, nullptr) << quire_error_message();
  write_all(file_, "durable at once", 0);
  EXPECT_EQ(host_pread(path_, 15, 0), "durable at once");
}

TEST_F(Arguments, FdopenRefusals) {
  EXPECT_FAILS(EBADF, quire_fdopen(cache_.get(), -1));
  EXPECT_FAILS(EBADF, quire_fdopen(cache_.get(), 9999));
  EXPECT_MESSAGE_HAS("9999");
  Fd directory(dir_.path(), O_RDONLY);
  EXPECT_FAILS(EISDIR, quire_fdopen(cache_.get(), directory));
  Fd path_only(path_, O_PATH);
  EXPECT_FAILS(EBADF, quire_fdopen(cache_.get(), path_only));
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_FAILS(EINVAL, quire_fdopen(cache_.get(), ends[0]));
  close(ends[0]);
  close(ends[1]);
  Fd null_device("/dev/null", O_RDWR);
  EXPECT_FAILS(EINVAL, quire_fdopen(cache_.get(), null_device));
}

TEST_F(Arguments, FdopenOfWhatHasNoName) {
  Fd nameless(dir_.path(), O_TMPFILE | O_RDWR, 0600);
  if (nameless < 0) GTEST_SKIP() << "no O_TMPFILE here";
  FilePtr file(quire_fdopen(cache_.get(), nameless));
  ASSERT_NE(file, nullptr) << quire_error_message();
  write_all(file, named_bytes(4, 0, 5000), 0);
  close_file(file);
  std::string got(6000, '?');
  EXPECT_EQ(::pread(nameless, got.data(), got.size(), 0), 5000);
  got.resize(5000);
  EXPECT_TRUE(same_bytes(got, named_bytes(4, 0, 5000)));
}

TEST_F(Arguments, FstatWhileDirty) {
  struct stat before = {}, after = {};
  const timespec past[2] = {{1000, 0}, {1000, 0}};
  close_file(file_);
  ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), past, 0), 0);
  file_ = open_file(cache_, path_, O_RDWR);
  ASSERT_EQ(quire_fstat(file_.get(), &before), 0);
  EXPECT_EQ(before.st_mtim.tv_sec, 1000);
  EXPECT_EQ(before.st_size, 10000);
  EXPECT_EQ(before.st_ino, host_stat(path_).st_ino);
  const time_t now = time(nullptr);
  write_all(file_, "grows", 20000);
  ASSERT_EQ(quire_fstat(file_.get(), &after), 0);
  EXPECT_EQ(after.st_size, 20005);
  EXPECT_GE(after.st_mtim.tv_sec, now - 1) << "the host does not know yet";
  close_file(file_);
  EXPECT_EQ(host_stat(path_).st_size, 20005);
  EXPECT_GE(host_stat(path_).st_mtim.tv_sec, now - 1);
}

}  // namespace
}  // namespace quire::api_testing
