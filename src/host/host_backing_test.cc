// A host file as a backing: attaching, who may write, sizes, and I/O through its device.
#include "host/host_backing.h"

#include <vector>

#include "host/host_test_util.h"

namespace quire {
namespace {

class Backings : public host_testing::HostTest {
 protected:
  HostDescriptors files(int flags) {
    auto opened = open_host_path(path().c_str(), flags, 0644);
    EXPECT_TRUE(opened.ok()) << opened.errnum();
    return opened.take();
  }
  // Bytes moved or -errno.
  std::int64_t transfer(HostBacking& backing, IoOp op, void* data, std::size_t count, std::uint64_t offset) {
    const iovec vector{data, count};
    Request request;
    request.op = op;
    request.offset = offset;
    request.buffers = std::span(&vector, 1);
    Request* const list[] = {&request};
    backing.device().execute(list);
    return request.result;
  }
  IoStats stats_;
  HostOptions options_{.stats = &stats_};
};

TEST_F(Backings, AttachDetachAndAttachAgain) {
  write(path(), "0123456789");
  HostBacking backing(options_);
  EXPECT_FALSE(backing.attached());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(backing.attach(files(O_RDONLY), false).ok());
    EXPECT_TRUE(backing.attached());
    EXPECT_FALSE(backing.may_write());
    EXPECT_EQ(backing.size(), 10u + static_cast<unsigned>(i));
    std::string bytes(4, '?');
    EXPECT_EQ(transfer(backing, IoOp::read, bytes.data(), 4, 3), 4);
    EXPECT_EQ(bytes, "3456");
    backing.detach();
    EXPECT_FALSE(backing.attached());
    write(path(), "+", 10 + i);
  }
}

TEST_F(Backings, OneWriterOrManyReaders) {
  write(path(), "x");
  HostBacking a(options_), b(options_), c(options_);
  ASSERT_TRUE(a.attach(files(O_RDONLY), false).ok());
  ASSERT_TRUE(b.attach(files(O_RDONLY), false).ok());
  EXPECT_EQ(a.allow_writing(files(O_RDWR)).errnum(), EBUSY);
  EXPECT_FALSE(a.may_write());
  EXPECT_EQ(c.attach(files(O_RDWR), true).errnum(), EBUSY);
  c.detach();
  b.detach();
  ASSERT_TRUE(a.allow_writing(files(O_RDWR)).ok());
  EXPECT_TRUE(a.may_write());
  EXPECT_TRUE(a.allow_writing(files(O_RDWR)).ok()) << "twice is once";
  EXPECT_EQ(b.attach(files(O_RDONLY), false).errnum(), EBUSY);
  b.detach();
  a.stop_writing();
  EXPECT_FALSE(a.may_write());
  ASSERT_TRUE(b.attach(files(O_RDONLY), false).ok());
  EXPECT_EQ(a.allow_writing(files(O_RDWR)).errnum(), EBUSY);
  b.detach();
  ASSERT_TRUE(a.allow_writing(files(O_RDWR)).ok()) << "with the descriptors of before";
  a.detach();
  ASSERT_TRUE(c.attach(files(O_RDWR), true).ok());
}

TEST_F(Backings, WritesOfAnyLengthAreExact) {
  for (const bool direct : {true, false}) {
    options_.use_direct = direct;
    ASSERT_EQ(unlink(path().c_str()) == 0 || errno == ENOENT, true);
    HostBacking backing(options_);
    ASSERT_TRUE(backing.attach(files(O_RDWR | O_CREAT), true).ok());
    auto* const page = static_cast<char*>(std::aligned_alloc(kPageSize, 2 * kPageSize));
    std::memset(page, 'p', 2 * kPageSize);
    EXPECT_EQ(transfer(backing, IoOp::write, page, 2 * kPageSize, 0), static_cast<std::int64_t>(2 * kPageSize));
    EXPECT_EQ(transfer(backing, IoOp::write, page, 1234, 2 * kPageSize), 1234) << "a last partial block";
    ASSERT_TRUE(backing.commit(0, 3 * kPageSize, 2 * kPageSize + 1234).ok());
    EXPECT_EQ(backing.size(), 2 * kPageSize + 1234) << "no further than the file";
    EXPECT_TRUE(backing.sync(false).ok());
    EXPECT_EQ(read(path()), std::string(2 * kPageSize + 1234, 'p'));
    ASSERT_TRUE(backing.set_size(100).ok());
    EXPECT_EQ(backing.size(), 100u);
    EXPECT_EQ(read(path()), std::string(100, 'p'));
    ASSERT_TRUE(backing.set_size(5000).ok());
    EXPECT_EQ(read(path()), std::string(100, 'p') + std::string(4900, '\0'));
    struct stat st = {};
    ASSERT_TRUE(backing.stat(&st).ok());
    EXPECT_EQ(st.st_size, 5000);
    std::free(page);
  }
}

TEST_F(Backings, MapIsTheIdentityToTheEndAndAHoleAfter) {
  write(path(), std::string(5000, 'x'));
  HostBacking backing(options_);
  ASSERT_TRUE(backing.attach(files(O_RDONLY), false).ok());
  const auto inside = backing.map(4096, 100 * kPageSize);
  ASSERT_TRUE(inside.ok());
  EXPECT_EQ(inside.value().kind, ExtentKind::written);
  EXPECT_EQ(inside.value().address, 4096u);
  EXPECT_EQ(inside.value().length, kPageSize) << "the block of the end, whole";
  const auto past = backing.map(2 * kPageSize, kPageSize);
  ASSERT_TRUE(past.ok());
  EXPECT_EQ(past.value().kind, ExtentKind::hole);
}

TEST_F(Backings, DirectIoIsUsedWhereItMayBeAndCountedWhereNot) {
  write(path(), std::string(kPageSize, 'x'));
  options_.use_direct = false;
  HostBacking backing(options_);
  ASSERT_TRUE(backing.attach(files(O_RDONLY), false).ok());
  EXPECT_EQ(IoStats::get(stats_.direct_fallbacks), 1u);
  std::string bytes(kPageSize, '?');
  EXPECT_EQ(transfer(backing, IoOp::read, bytes.data(), kPageSize, 0), static_cast<std::int64_t>(kPageSize));
  EXPECT_EQ(bytes, std::string(kPageSize, 'x'));
}

// A child of fork closes its copies of the descriptors: what the parent gives up is then given up.
TEST_F(Backings, DetachFreesTheLockEvenIfACopyOfTheDescriptionLives) {
  write(path(), "x");
  HostDescriptors mine = files(O_RDWR);
  const int copy = dup(mine.buffered);  // as a child that was forked in a bad moment has it
  HostBacking backing(options_), other(options_);
  ASSERT_TRUE(backing.attach(std::move(mine), true).ok());
  backing.detach();
  EXPECT_TRUE(other.attach(files(O_RDWR), true).ok());
  close(copy);
}

}  // namespace
}  // namespace quire
