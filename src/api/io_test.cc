// Reading and writing whole files of any size and shape: what the cache serves and what the host file is afterwards.
#include <random>
#include <vector>

#include "api/api_test_util.h"

namespace quire::api_testing {
namespace {

// Through the engines and descriptors that a cache may use.
class FileIo : public ::testing::TestWithParam<unsigned> {
 protected:
  CachePtr cache(std::size_t memory = 16 * kMiB) { return make_cache(memory, GetParam()); }
  const TempDir dir_;
};
std::string engine_name(const ::testing::TestParamInfo<unsigned>& test) {
  const char* const names[] = {"RingDirect", "PlainDirect", "RingBuffered", "PlainBuffered"};
  return names[test.param];
}
INSTANTIATE_TEST_SUITE_P(Engines, FileIo,
                         ::testing::Values(0u, QUIRE_NO_IO_URING, QUIRE_NO_DIRECT, QUIRE_NO_IO_URING | QUIRE_NO_DIRECT),
                         engine_name);

const std::size_t kSizes[] = {0,    1,    7,    511,   512,   513,    4095,        4096,        4097,
                              8191, 8192, 8193, 12287, 65536, 131071, 262144 + 99, 1048576 + 3, 3 * 1048576 + 4095};

TEST_P(FileIo, SizesWrittenReachTheHostExactly) {
  const CachePtr c = cache();
  for (const std::size_t size : kSizes) {
    SCOPED_TRACE(size);
    const std::string bytes = named_bytes(1, 0, size);
    FilePtr file = open_file(c, dir_ / "file", O_RDWR | O_CREAT | O_TRUNC);
    if (size != 0) write_all(file, bytes, 0);
    EXPECT_EQ(file_size(file), static_cast<off_t>(size));
    EXPECT_TRUE(same_bytes(read_all(file, size + 100, 0), bytes));
    close_file(file);
    EXPECT_TRUE(same_bytes(host_read(dir_ / "file"), bytes));
  }
}

TEST_P(FileIo, SizesOfTheHostAreReadExactly) {
  const CachePtr c = cache();
  for (const std::size_t size : kSizes) {
    SCOPED_TRACE(size);
    const std::string path = dir_ / std::to_string(size);
    const std::string bytes = named_bytes(2, 0, size);
    host_write(path, bytes);
    FilePtr file = open_file(c, path, O_RDONLY);
    EXPECT_EQ(file_size(file), static_cast<off_t>(size));
    EXPECT_TRUE(same_bytes(read_all(file, size + 1, 0), bytes));
    EXPECT_EQ(read_all(file, 10, static_cast<off_t>(size)), "");
    EXPECT_EQ(read_all(file, 10, static_cast<off_t>(size) + 100000), "");
    if (size != 0) {
      EXPECT_EQ(read_all(file, 10, static_cast<off_t>(size) - 1), bytes.substr(size - 1));
    }
  }
}

TEST_P(FileIo, ReadLeavesBytesPastTheCountAlone) {
  const CachePtr c = cache();
  host_write(dir_ / "file", named_bytes(1, 0, 4100));
  FilePtr file = open_file(c, dir_ / "file", O_RDONLY);
  for (int pass = 0; pass < 2; ++pass) {  // cold, then warm
    std::string buffer(1024, '~');
    EXPECT_EQ(quire_pread(file.get(), buffer.data(), 1024, 4090), 10);
    EXPECT_TRUE(same_bytes(buffer, named_bytes(1, 4090, 10) + std::string(1014, '~')));
  }
}

TEST_P(FileIo, LastPartialBlockIsOverwrittenInPlace) {
  const CachePtr c = cache();
  for (const std::size_t size : {1ul, 4095ul, 4097ul, 10000ul}) {
    SCOPED_TRACE(size);
    std::string wanted = named_bytes(1, 0, size);
    host_write(dir_ / "file", wanted);
    FilePtr file = open_file(c, dir_ / "file", O_RDWR);
    write_all(file, "!", static_cast<off_t>(size) - 1);
    wanted[size - 1] = '!';
    EXPECT_EQ(quire_fsync(file.get()), 0) << quire_error_message();
    EXPECT_TRUE(same_bytes(host_read(dir_ / "file"), wanted)) << "synced, still open";
    write_all(file, "end", static_cast<off_t>(size));
    wanted += "end";
    close_file(file);
    EXPECT_TRUE(same_bytes(host_read(dir_ / "file"), wanted)) << "closed";
  }
}

TEST_P(FileIo, HolesOfTheHostReadAsZerosAndStayHoles) {
  const CachePtr c = cache();
  const std::string path = dir_ / "sparse";
  host_pwrite(path, named_bytes(1, 100000, 5000), 100000);
  host_pwrite(path, named_bytes(1, 9000000, 77), 9000000);
  ASSERT_EQ(truncate(path.c_str(), 20'000'001), 0);
  const std::string wanted = host_read(path);
  FilePtr file = open_file(c, path, O_RDWR);
  EXPECT_TRUE(same_bytes(read_all(file, 30'000'000, 0), wanted));
  EXPECT_EQ(quire_fsync(file.get()), 0);
  close_file(file);
  EXPECT_TRUE(same_bytes(host_read(path), wanted));
  EXPECT_LT(host_stat(path).st_blocks * 512, 1 << 20) << "reading must not fill holes";
}

TEST_P(FileIo, WritesFarPastTheEndAndPast4GiB) {
  const CachePtr c = cache();
  const std::string path = dir_ / "far";
  host_write(path, "start");
  FilePtr file = open_file(c, path, O_RDWR);
  const off_t far = static_cast<off_t>(5 * kGiB + 1234);
  write_all(file, named_bytes(1, 0, 9000), far);
  write_all(file, named_bytes(2, 0, 10), static_cast<off_t>(4 * kGiB) - 5);
  EXPECT_EQ(file_size(file), far + 9000);
  EXPECT_TRUE(same_bytes(read_all(file, 9100, far - 100), std::string(100, '\0') + named_bytes(1, 0, 9000)));
  EXPECT_TRUE(same_bytes(read_all(file, 100000, static_cast<off_t>(2 * kGiB) - 50000), std::string(100000, '\0')));
  write_all(file, named_bytes(3, 0, 300), static_cast<off_t>(2 * kGiB) - 100);
  close_file(file);
  EXPECT_EQ(host_stat(path).st_size, far + 9000);
  EXPECT_LT(host_stat(path).st_blocks * 512, 2 << 20) << "sparse";
  EXPECT_EQ(host_pread(path, 10, 0), "start" + std::string(5, '\0'));
  EXPECT_TRUE(same_bytes(host_pread(path, 9000, far), named_bytes(1, 0, 9000)));
  EXPECT_TRUE(same_bytes(host_pread(path, 20, static_cast<off_t>(4 * kGiB) - 10),
                         std::string(5, '\0') + named_bytes(2, 0, 10) + std::string(5, '\0')));
  EXPECT_TRUE(same_bytes(host_pread(path, 300, static_cast<off_t>(2 * kGiB) - 100), named_bytes(3, 0, 300)));
}

TEST_P(FileIo, TruncateDownAndUp) {
  const CachePtr c = cache();
  const std::string path = dir_ / "file";
  FilePtr file = open_file(c, path, O_RDWR | O_CREAT);
  std::string wanted = named_bytes(1, 0, 50000);
  write_all(file, wanted, 0);
  for (const std::size_t size : {49999ul, 40960ul, 40961ul, 60000ul, 5ul, 4096ul, 0ul, 100000ul}) {
    SCOPED_TRACE(size);
    ASSERT_EQ(quire_ftruncate(file.get(), static_cast<off_t>(size)), 0) << quire_error_message();
    wanted.resize(size, '\0');
    EXPECT_EQ(file_size(file), static_cast<off_t>(size));
    EXPECT_TRUE(same_bytes(read_all(file, 200000, 0), wanted));
    if (size == 4096) {
      EXPECT_EQ(quire_fsync(file.get()), 0);
    }
  }
  close_file(file);
  EXPECT_TRUE(same_bytes(host_read(path), wanted));
}

TEST_P(FileIo, SyncedBytesAreOnTheDevice) {
  const CachePtr c = cache();
  const std::string path = dir_ / "file";
  const auto on_device = [&](std::size_t count) {  // past the host's own cache, where the host can
    Fd fd(path, O_RDONLY | O_DIRECT);
    if (fd < 0) return host_pread(path, count, 0);
    std::unique_ptr<char, decltype(&std::free)> page(static_cast<char*>(std::aligned_alloc(4096, 65536)), &std::free);
    const ssize_t n = ::pread(fd, page.get(), 65536, 0);
    return std::string(page.get(), n < 0 ? 0 : std::min<std::size_t>(count, static_cast<std::size_t>(n)));
  };
  FilePtr file = open_file(c, path, O_RDWR | O_CREAT);
  write_all(file, named_bytes(1, 0, 9000), 0);
  ASSERT_EQ(quire_fsync(file.get()), 0);
  EXPECT_TRUE(same_bytes(on_device(9000), named_bytes(1, 0, 9000)));
  write_all(file, named_bytes(2, 0, 9000), 0);
  ASSERT_EQ(quire_fdatasync(file.get()), 0);
  EXPECT_TRUE(same_bytes(on_device(9000), named_bytes(2, 0, 9000)));
  const std::string third = named_bytes(3, 0, 9000);
  const iovec v{const_cast<char*>(third.data()), third.size()};
  ASSERT_EQ(quire_pwritev2(file.get(), &v, 1, 0, RWF_DSYNC), 9000);
  EXPECT_TRUE(same_bytes(on_device(9000), third));
  for (const int flag : {O_DSYNC, O_SYNC}) {
    FilePtr synced = open_file(c, path, O_WRONLY | flag);
    write_all(synced, named_bytes(static_cast<unsigned>(flag) & 0xffff, 0, 12000), 0);
    EXPECT_TRUE(same_bytes(on_device(12000), named_bytes(static_cast<unsigned>(flag) & 0xffff, 0, 12000))) << flag;
  }
}

// Operations at random against a string, in a cache far smaller than the file.
TEST_P(FileIo, RandomOperationsMatchAModel) {
  const std::string path = dir_ / "file";
  const std::uint64_t seed = 20240 + GetParam();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](std::uint64_t n) { return static_cast<std::size_t>(random() % n); };
  const std::size_t limit = 3 * kMiB;
  CachePtr c = cache(kMiB);
  FilePtr file = open_file(c, path, O_RDWR | O_CREAT);
  std::string model;
  for (std::uint64_t step = 1; step <= 1500 && !HasFailure(); ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    const std::size_t length = 1 + below(step % 10 == 0 ? 300000 : 9000);
    const std::size_t offset = below(step % 7 == 0 ? limit : model.size() + 5000);
    switch (below(10)) {
      case 0: {
        const std::size_t size = below(4) == 0 ? below(limit) : below(model.size() + 10000);
        ASSERT_EQ(quire_ftruncate(file.get(), static_cast<off_t>(size)), 0) << quire_error_message();
        model.resize(size, '\0');
        break;
      }
      case 1:
      case 2:
      case 3:
      case 4: {
        const std::string bytes = named_bytes(step, offset, length);
        write_all(file, bytes, static_cast<off_t>(offset));
        if (model.size() < offset + length) model.resize(offset + length, '\0');
        model.replace(offset, length, bytes);
        break;
      }
      case 5:
        if (below(8) == 0) {
          ASSERT_EQ(below(2) == 0 ? quire_fsync(file.get()) : quire_fdatasync(file.get()), 0) << quire_error_message();
          EXPECT_TRUE(same_bytes(host_read(path), model));
        }
        break;
      case 6:
        if (below(20) == 0) {
          close_file(file);
          ASSERT_TRUE(same_bytes(host_read(path), model));
          file = open_file(c, path, O_RDWR);
        }
        break;
      default:
        EXPECT_TRUE(same_bytes(read_all(file, length, static_cast<off_t>(offset)),
                               std::string_view(model).substr(std::min(offset, model.size()), length)));
    }
    EXPECT_EQ(file_size(file), static_cast<off_t>(model.size()));
  }
  EXPECT_TRUE(same_bytes(read_all(file, model.size() + 1, 0), model));
  close_file(file);
  EXPECT_TRUE(same_bytes(host_read(path), model));
}

TEST_P(FileIo, LongReadsAndWritesThroughASmallCache) {
  const CachePtr c = cache(2 * kMiB);
  const std::string path = dir_ / "file";
  const std::string bytes = named_bytes(1, 0, 20 * kMiB + 777);
  FilePtr file = open_file(c, path, O_RDWR | O_CREAT);
  write_all(file, bytes, 0);
  EXPECT_TRUE(same_bytes(read_all(file, bytes.size() + 10, 0), bytes));
  close_file(file);
  EXPECT_TRUE(same_bytes(host_read(path), bytes));
}

}  // namespace
}  // namespace quire::api_testing
