// quire_fadvise, RWF_DONTCACHE, quire_sync_file_range: bad input, and what each does to what of the file is in the
// cache.
#include <limits.h>

#include <vector>

#include "api/api_test_util.h"
#include "quire/quire.hpp"

namespace quire::api_testing {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPages = 1500;

class Advise : public ::testing::Test {
 protected:
  void SetUp() override {
    host_write(path_, named_bytes(1, 0, kPages * kPage));
    file_ = open_file(cache_, path_, O_RDWR);
  }
  std::vector<quire_residency_run> runs() const {
    std::vector<quire_residency_run> runs(2000);
    const ssize_t count = quire_residency(file_.get(), 0, runs.data(), runs.size());
    EXPECT_GE(count, 0) << quire_error_message();
    runs.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    return runs;
  }
  // Pages of [first, end) in the cache; waits for what is being read.
  std::uint64_t resident(std::uint64_t first = 0, std::uint64_t end = kPages) const {
    for (int i = 0; i < 5000; ++i) {
      std::uint64_t pages = 0;
      bool filling = false;
      for (const quire_residency_run& run : runs()) {
        filling |= run.state == QUIRE_RUN_FILLING;
        if (run.state == QUIRE_RUN_GHOST) continue;
        const std::uint64_t low = std::max(first, run.offset / kPage);
        const std::uint64_t high = std::min(end, (run.offset + run.length) / kPage);
        if (low < high) pages += high - low;
      }
      if (!filling) return pages;
      usleep(1000);
    }
    ADD_FAILURE() << "still being read";
    return 0;
  }
  void read(const FilePtr& file, std::size_t first, std::size_t pages) const {
    const auto offset = static_cast<off_t>(first * kPage);
    EXPECT_TRUE(same_bytes(read_all(file, pages * kPage, offset), named_bytes(1, first * kPage, pages * kPage)));
  }
  void advise(int advice, std::size_t first = 0, std::size_t pages = 0) const {
    EXPECT_EQ(quire_fadvise(file_.get(), static_cast<off_t>(first * kPage), static_cast<off_t>(pages * kPage), advice),
              0)
        << quire_error_message();
  }

  const TempDir dir_;
  const std::string path_ = dir_ / "file";
  const CachePtr cache_ = make_cache();  // 16 MiB: a readahead budget of a thousand pages
  FilePtr file_;
};

TEST_F(Advise, Arguments) {
  for (const int advice : {-1, 6, 100, INT_MAX, INT_MIN}) {
    EXPECT_FAILS(EINVAL, quire_fadvise(file_.get(), 0, 0, advice));
    EXPECT_MESSAGE_HAS(path_);
    EXPECT_MESSAGE_HAS(std::to_string(advice));
  }
  for (int advice = POSIX_FADV_NORMAL; advice <= POSIX_FADV_NOREUSE; ++advice) {
    SCOPED_TRACE(advice);
    EXPECT_FAILS(EINVAL, quire_fadvise(file_.get(), -1, 0, advice));
    EXPECT_MESSAGE_HAS("offset is negative");
    EXPECT_FAILS(EINVAL, quire_fadvise(file_.get(), INT64_MIN, 4096, advice));
    EXPECT_FAILS(EINVAL, quire_fadvise(file_.get(), 0, -1, advice));
    EXPECT_MESSAGE_HAS("length is negative");
    EXPECT_FAILS(EINVAL, quire_fadvise(file_.get(), 0, INT64_MIN, advice));
    // Past the end of the file, and of all files: nothing there, no error.
    EXPECT_EQ(quire_fadvise(file_.get(), INT64_MAX, 0, advice), 0);
    EXPECT_EQ(quire_fadvise(file_.get(), INT64_MAX, INT64_MAX, advice), 0);
    EXPECT_EQ(quire_fadvise(file_.get(), INT64_MAX - 1, 1, advice), 0);
    EXPECT_EQ(quire_fadvise(file_.get(), kPages * kPage, 1, advice), 0);
  }
  EXPECT_EQ(resident(), 0U);
  read(file_, 0, kPages);
}

TEST_F(Advise, OfAnEmptyFile) {
  const FilePtr empty = open_file(cache_, dir_ / "empty", O_RDWR | O_CREAT);
  for (int advice = POSIX_FADV_NORMAL; advice <= POSIX_FADV_NOREUSE; ++advice) {
    EXPECT_EQ(quire_fadvise(empty.get(), 0, 0, advice), 0);
    EXPECT_EQ(quire_fadvise(empty.get(), 1, INT64_MAX, advice), 0);
  }
}

TEST_F(Advise, TheCppTwin) {
  auto cache = Cache::create({.memory = 16 * kMiB});
  ASSERT_TRUE(cache.ok());
  auto file = cache.value().open((dir_ / "other").c_str(), O_RDWR | O_CREAT);
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file.value().advise(0, 0, POSIX_FADV_SEQUENTIAL).ok());
  EXPECT_EQ(file.value().advise(0, 0, 17).errnum(), EINVAL);
  EXPECT_EQ(file.value().advise(UINT64_MAX, 0, POSIX_FADV_NORMAL).errnum(), EINVAL);
}

TEST_F(Advise, WillNeedReadsAhead) {
  EXPECT_EQ(quire_fadvise(file_.get(), 10 * kPage + 100, 20 * kPage, POSIX_FADV_WILLNEED), 0);
  EXPECT_EQ(resident(), 21U) << "pages that it touches";
  EXPECT_EQ(resident(10, 31), 21U);
  const std::uint64_t misses = stat_of(cache_, "slow_reads");
  read(file_, 10, 21);
  EXPECT_EQ(stat_of(cache_, "slow_reads"), misses);
}

TEST_F(Advise, WillNeedStaysWithinTheBudget) {
  for (int i = 0; i < 20; ++i) advise(POSIX_FADV_WILLNEED);
  EXPECT_GE(resident(), 800U);
  EXPECT_LE(resident(), 1024U) << "a quarter of 16 MiB";
}

TEST_F(Advise, RandomReadsNothingAhead) {
  advise(POSIX_FADV_RANDOM);
  for (std::size_t page = 0; page < 100; ++page) read(file_, page, 1);
  EXPECT_EQ(resident(), 100U);
  advise(POSIX_FADV_NORMAL);
  for (std::size_t page = 100; page < 110; ++page) read(file_, page, 1);
  EXPECT_GT(resident(), 112U);
}

TEST_F(Advise, SequentialReadsAheadAtOnce) {
  advise(POSIX_FADV_SEQUENTIAL);
  read(file_, 100, 1);
  EXPECT_EQ(resident(), 33U);
}

TEST_F(Advise, DontNeedDropsWhatThisHandleBroughtIn) {
  advise(POSIX_FADV_RANDOM);
  read(file_, 0, 100);
  read(file_, 0, 100);  // hits
  // Whole pages only: 11 to 19.
  EXPECT_EQ(quire_fadvise(file_.get(), 10 * kPage + 1, 10 * kPage, POSIX_FADV_DONTNEED), 0);
  EXPECT_EQ(resident(10, 11), 1U);
  EXPECT_EQ(resident(11, 20), 0U);
  EXPECT_EQ(resident(20, 100), 80U);
  read(file_, 0, 100);
  advise(POSIX_FADV_DONTNEED);
  EXPECT_EQ(resident(), 0U);
  read(file_, 0, kPages);
}

TEST_F(Advise, DontNeedDropsTheLastPartialPageAtTheEnd) {
  ASSERT_EQ(quire_ftruncate(file_.get(), 5 * kPage + 10), 0);
  ASSERT_EQ(quire_fsync(file_.get()), 0);
  read(file_, 0, 5);
  EXPECT_EQ(read_all(file_, kPage, 5 * kPage).size(), 10U);
  EXPECT_EQ(quire_fadvise(file_.get(), 0, 5 * kPage + 9, POSIX_FADV_DONTNEED), 0);
  EXPECT_EQ(resident(5, 6), 1U);
  EXPECT_EQ(quire_fadvise(file_.get(), 0, 5 * kPage + 10, POSIX_FADV_DONTNEED), 0);
  EXPECT_EQ(resident(), 0U);
}

TEST_F(Advise, DontNeedLosesNoByte) {
  write_all(file_, named_bytes(2, 0, 50 * kPage), 0);
  advise(POSIX_FADV_DONTNEED);
  for (const quire_residency_run& run : runs()) EXPECT_NE(run.state, QUIRE_RUN_DIRTY) << "written back";
  EXPECT_EQ(resident(), 50U) << "not flushed yet";
  ASSERT_EQ(quire_fdatasync(file_.get()), 0);
  advise(POSIX_FADV_DONTNEED);
  EXPECT_EQ(resident(), 0U);
  EXPECT_TRUE(same_bytes(read_all(file_, 50 * kPage, 0), named_bytes(2, 0, 50 * kPage)));
}

TEST_F(Advise, DontNeedLeavesWhatOthersUse) {
  advise(POSIX_FADV_RANDOM);
  const FilePtr other = open_file(cache_, path_, O_RDONLY);
  ASSERT_EQ(quire_fadvise(other.get(), 0, 0, POSIX_FADV_RANDOM), 0);
  read(other, 0, 50);
  read(file_, 0, 100);
  read(other, 60, 10);
  advise(POSIX_FADV_WILLNEED, 200, 50);
  EXPECT_EQ(resident(200, 250), 50U);
  read(other, 200, 10);
  advise(POSIX_FADV_DONTNEED);
  EXPECT_EQ(resident(0, 50), 50U) << "brought in by the other";
  EXPECT_EQ(resident(60, 70), 10U) << "by this one, and used by the other";
  EXPECT_EQ(resident(50, 100), 10U) << "by this one";
  EXPECT_GE(resident(200, 250), 10U) << "used by the other";
  EXPECT_LT(resident(200, 250), 50U) << "nobody has used the rest";
}

// What an earlier handle brought in is not this one's, either.
TEST_F(Advise, DontNeedLeavesWhatEarlierHandlesBroughtIn) {
  advise(POSIX_FADV_RANDOM);
  read(file_, 0, 10);
  let_times_settle();
  close_file(file_);
  file_ = open_file(cache_, path_, O_RDONLY);
  const std::uint64_t before = resident();
  read(file_, 20, 10);
  advise(POSIX_FADV_DONTNEED);
  EXPECT_EQ(resident(), before);
}

TEST_F(Advise, NoReuseDropsBehind) {
  advise(POSIX_FADV_NOREUSE);
  std::uint64_t most = 0;
  for (std::size_t page = 0; page + 16 <= kPages; page += 16) {
    read(file_, page, 16);
    if (page % 160 == 0) most = std::max(most, resident());
  }
  EXPECT_LT(most, 1000U);
  EXPECT_LT(resident(0, kPages / 2), 100U);
}

constexpr int kDontCache = 0x80;  // RWF_DONTCACHE

// What is written once goes once it is on the disk; nobody asks for that.
TEST_F(Advise, NoReuseWritesDropBehind) {
  advise(POSIX_FADV_NOREUSE);
  for (std::size_t page = 0; page + 16 <= kPages; page += 16) {
    write_all(file_, named_bytes(3, page * kPage, 16 * kPage), static_cast<off_t>(page * kPage));
  }
  for (int i = 0; i < 1000 && resident() != 0; ++i) usleep(10'000);
  EXPECT_EQ(resident(), 0U);
  EXPECT_TRUE(same_bytes(read_all(file_, 16 * kPage, 160 * kPage), named_bytes(3, 160 * kPage, 16 * kPage)));
}

TEST_F(Advise, DropBehindLeavesWhatOthersUse) {
  const FilePtr other = open_file(cache_, path_, O_RDWR);
  const std::string bytes = named_bytes(3, 0, 80 * kPage);
  const iovec once{const_cast<char*>(bytes.data()), bytes.size()};
  ASSERT_EQ(quire_pwritev2(file_.get(), &once, 1, 0, kDontCache), static_cast<ssize_t>(bytes.size()));
  EXPECT_TRUE(same_bytes(read_all(other, 3 * kPage, 0), bytes.substr(0, 3 * kPage)));
  write_all(other, named_bytes(4, 36 * kPage, kPage), 36 * kPage);
  ASSERT_EQ(quire_fdatasync(file_.get()), 0);
  for (int i = 0; i < 1000 && resident(64, 80) != 0; ++i) usleep(10'000);
  EXPECT_EQ(resident(64, 80), 0U);
  EXPECT_EQ(resident(0, 3), 3U) << "read by the other";
  EXPECT_EQ(resident(36, 37), 1U) << "written by the other";
}

TEST_F(Advise, DontCacheReadsLeaveNothing) {
  advise(POSIX_FADV_RANDOM);
  std::vector<char> bytes(20 * kPage);
  const iovec once{bytes.data(), bytes.size()};
  read(file_, 5, 2);
  ASSERT_EQ(quire_preadv2(file_.get(), &once, 1, 0, kDontCache), static_cast<ssize_t>(bytes.size()));
  EXPECT_TRUE(same_bytes(std::string_view(bytes.data(), bytes.size()), named_bytes(1, 0, bytes.size())));
  EXPECT_EQ(resident(), 2U) << "those that were there before";
}

TEST_F(Advise, SyncFileRange) {
  const unsigned before = SYNC_FILE_RANGE_WAIT_BEFORE, write = SYNC_FILE_RANGE_WRITE;
  const unsigned after = SYNC_FILE_RANGE_WAIT_AFTER;
  EXPECT_FAILS(EINVAL, quire_sync_file_range(file_.get(), -1, 0, write));
  EXPECT_FAILS(EINVAL, quire_sync_file_range(file_.get(), 0, -1, write));
  EXPECT_FAILS(EINVAL, quire_sync_file_range(file_.get(), 0, 0, 8));
  EXPECT_EQ(quire_sync_file_range(file_.get(), 0, 0, before | write | after), 0) << "of a clean file";
  write_all(file_, named_bytes(2, 0, 50 * kPage), 0);
  ASSERT_EQ(quire_sync_file_range(file_.get(), 0, 10 * kPage, before | write | after), 0) << quire_error_message();
  const auto written = [&] {
    std::uint64_t pages = 0;
    for (const quire_residency_run& run : runs()) pages += run.state == QUIRE_RUN_UNFLUSHED ? run.length / kPage : 0;
    return pages;
  };
  EXPECT_GE(written(), 10U);
  EXPECT_LT(written(), 50U);
  ASSERT_EQ(quire_sync_file_range(file_.get(), 0, 0, write), 0) << quire_error_message();
  for (int i = 0; i < 1000 && written() != 50; ++i) usleep(1000);
  EXPECT_EQ(written(), 50U);
  EXPECT_EQ(stat_of(cache_, "flushes"), 0U) << "nothing is flushed";
  ASSERT_EQ(quire_fdatasync(file_.get()), 0);
  EXPECT_EQ(written(), 0U);
}

}  // namespace
}  // namespace quire::api_testing
