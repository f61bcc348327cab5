// Reads into and writes from mapped views (R4). No view here can be touched: its addresses are not accessible, so a
// copy that does not go through the cache ends the test, whichever lock it holds.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/random.h"
#include "fs/fake_views_for_test.h"
#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr unsigned kOne = 1, kOther = 2;
constexpr std::size_t kSizes[] = {1,    7,    256,   1024,  1025,    4095,     4096,           4097,
                                  8192, 9000, 65536, 65537, 200'000, 1u << 20, (1u << 20) + 5, 8u << 20};
constexpr std::size_t kMost = 8u << 20;

// However a test ends, its thread does.
struct StopAndJoin {
  std::atomic<bool>& stop;
  std::thread& thread;
  ~StopAndJoin() {
    stop = true;
    thread.join();
  }
};

ssize_t read_vectors(TestFile& file, std::span<const iovec> to, std::uint64_t offset, unsigned flags = 0) {
  const auto n = file_read(file.handle(), to, offset, flags);
  return n.ok() ? static_cast<ssize_t>(n.value()) : -n.errnum();
}
ssize_t write_vectors(TestFile& file, std::span<const iovec> from, std::uint64_t offset, unsigned flags = 0) {
  const auto n = file_write(file.handle(), from, offset, flags);
  return n.ok() ? static_cast<ssize_t>(n.value()) : -n.errnum();
}
ssize_t read_to(TestFile& file, char* to, std::size_t count, std::uint64_t offset, unsigned flags = 0) {
  const iovec v{to, count};
  return read_vectors(file, std::span(&v, 1), offset, flags);
}
ssize_t write_from(TestFile& file, const char* from, std::size_t count, std::uint64_t offset, unsigned flags = 0) {
  const iovec v{const_cast<char*>(from), count};
  return write_vectors(file, std::span(&v, 1), offset, flags);
}
ssize_t signed_of(std::size_t count) { return static_cast<ssize_t>(count); }

// frames: of the cache. A quarter of its memory is the largest operation.
class AnyBuffer : public ::testing::TestWithParam<std::uint32_t> {
 protected:
  static void lay(TestFile& file, std::uint64_t size, unsigned number, unsigned generation = 1) {
    for (std::uint64_t at = 0; at < size; at += 65'536) {
      const std::size_t n = std::min<std::uint64_t>(65'536, size - at);
      ASSERT_EQ(file.write(words(n, number, generation, at), at), signed_of(n));
    }
  }
  // Lays `one` and `second`. Four threads: two write to each from the other's view, two read from it into that. Returns
  // the view of `one`.
  static constexpr std::size_t kCrossed = 3u << 20;
  char* cross(TestFile& second, int rounds) {
    lay(one, kCrossed, kOne);
    lay(second, kCrossed, kOther);
    char* const of_one = views.map(one.handle(), 0, kCrossed);
    char* const of_second = views.map(second.handle(), 0, kCrossed);
    run_threads(4, [&](int thread) {
      BlockedSignals all;
      Random random(static_cast<std::uint64_t>(thread) + 1);
      TestFile& file = thread % 2 == 0 ? one : second;
      char* const view = thread % 2 == 0 ? of_second : of_one;
      for (int round = 0; round < rounds; ++round) {
        const std::size_t size = kSizes[random.below(14)];
        const std::uint64_t at = random.below((kCrossed - size) / 8) * 8;
        const ssize_t n = thread < 2 ? write_from(file, view + at, size, at) : read_to(file, view + at, size, at);
        ASSERT_EQ(n, signed_of(size)) << "thread " << thread;
      }
    });
    return of_one;
  }

  RamDisk disk{4096, 1u << 15};
  TestCache cache{GetParam()};
  TestFile one{cache.cache, disk.make_file()}, other{cache.cache, disk.make_file()};
  FakeViews views;
  BlockedSignals blocked;
  Watchdog watchdog{"reads and writes of views", 100};
};
INSTANTIATE_TEST_SUITE_P(Frames, AnyBuffer, ::testing::Values(512u, 12'288u));

TEST_P(AnyBuffer, R4_WriteFromItsOwnView) {
  lay(one, kMost + 10'000, kOne);
  char* const view = views.map(one.handle(), 0, kMost + 12'288);
  for (const std::size_t size : kSizes) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{4099}}) {
      ASSERT_EQ(write_from(one, view + offset, size, offset), signed_of(size)) << size << " at " << offset;
    }
  }
  EXPECT_EQ(one.size(), kMost + 10'000);
  EXPECT_EQ(one.content(), words(kMost + 10'000, kOne, 1, 0)) << "each byte was written over itself";
}

TEST_P(AnyBuffer, R4_ReadIntoItsOwnView) {
  lay(one, kMost + 10'000, kOne);
  char* const view = views.map(one.handle(), 0, kMost + 12'288);
  for (const std::size_t size : kSizes) {
    ASSERT_EQ(read_to(one, view + 4099, size, 4099), signed_of(size)) << size;
  }
  EXPECT_EQ(one.content(), words(kMost + 10'000, kOne, 1, 0));
}

// Every size against the bytes that another file's view shows, both ways, cold and resident.
TEST_P(AnyBuffer, R4_BetweenTwoFiles) {
  lay(one, kMost + 10'000, kOne);
  lay(other, kMost + 10'000, kOther);
  ASSERT_EQ(one.sync(), 0);
  ASSERT_EQ(other.sync(), 0);
  char* const view = views.map(one.handle(), 0, kMost + 12'288);
  unsigned generation = 1;
  for (const std::size_t size : kSizes) {
    one.drop_cached();
    for (const char* const how : {"cold", "resident"}) {
      ASSERT_EQ(write_from(other, view + 8, size, 8), signed_of(size)) << size << how;
      ASSERT_EQ(other.range(8, size), one.range(8, size)) << size << how;
    }
    lay(other, size + 16, kOther, ++generation);
    ASSERT_EQ(read_to(other, view + 8, size, 8), signed_of(size)) << size;
    ASSERT_EQ(one.range(8, size), words(size, kOther, generation, 8)) << size;
    ASSERT_EQ(one.range(0, 8), words(8, kOne, 1, 0));  // sizes ascend: behind them nothing was stored yet
    ASSERT_EQ(one.range(8 + size, 64), words(64, kOne, 1, 8 + size)) << "past what was stored";
    ASSERT_EQ(one.sync(), 0);
    ASSERT_EQ(other.sync(), 0);
  }
  EXPECT_EQ(cache.cache.memory_use().bounce, 0U);
}

// As memmove, for what is one operation.
TEST_P(AnyBuffer, R4_ShiftedSelfOverlap) {
  char* const view = views.map(one.handle(), 0, kMost + 65'536);
  for (const std::size_t size : kSizes) {
    if (size > cache.cache.max_operation_bytes()) continue;
    for (const auto& [from, to] : {std::pair{0u, 1u}, {1u, 0u}, {0u, 4096u}, {4096u, 0u}, {13u, 5000u}, {9001u, 77u}}) {
      lay(one, size + 16'384, kOne);
      std::vector<char> wanted = one.content();
      std::memmove(wanted.data() + to, wanted.data() + from, size);
      ASSERT_EQ(write_from(one, view + from, size, to), signed_of(size));
      ASSERT_EQ(one.content(), wanted) << size << " bytes from " << from << " to " << to;

      lay(one, size + 16'384, kOne);
      ASSERT_EQ(read_to(one, view + to, size, from), signed_of(size));
      ASSERT_EQ(one.content(), wanted) << size << " bytes read from " << from << " to " << to;
    }
  }
}

// One from the other's view while the other from the one's: reads and writes, either way.
TEST_P(AnyBuffer, R4_TwoViewsCrossed) {
  cross(other, 300);
  for (TestFile* file : {&one, &other}) {
    const std::vector<char> bytes = file->content();
    ASSERT_EQ(bytes.size(), kCrossed);
    // Words move as wholes between equal places, whole words at a time but at odd ends: each byte is in its place.
    const std::vector<char> a = words(kCrossed, kOne, 1, 0), b = words(kCrossed, kOther, 1, 0);
    for (std::size_t i = 0; i < kCrossed; ++i) {
      ASSERT_TRUE(bytes[i] == a[i] || bytes[i] == b[i]) << i;
    }
  }
  EXPECT_EQ(cache.cache.memory_use().bounce, 0U);
}

// The source is cut off and grows again all the time: what was counted is of the source, or zeros of its last page, and
// what was not is as it was.
TEST_P(AnyBuffer, R4_SourceTruncatedMeanwhile) {
  constexpr std::size_t kSpan = 300'000;
  lay(one, kSpan, kOne);
  char* const view = views.map(one.handle(), 0, 512 * 1024);
  std::atomic<bool> stop{false};
  std::thread truncator([&] {
    Random random(7);
    while (!stop) {
      const std::uint64_t size = random.below(kSpan);
      ASSERT_EQ(one.truncate(size), 0);
      const std::vector<char> rest = words(kSpan - size, kOne, 1, size);
      ASSERT_EQ(one.write(rest, size), signed_of(rest.size()));
    }
  });
  const StopAndJoin ends{stop, truncator};
  Random random(3);
  int cut = 0, none = 0;
  for (int round = 0; round < 2000 && (round < 200 || cut == 0); ++round) {
    const std::uint64_t at = random.below(kSpan / 8) * 8;
    const std::size_t size = 1 + random.below(kSpan - at);
    lay(other, kSpan, kOther, 2);
    const ssize_t n = write_from(other, view + at, size, at);
    if (n == -EFAULT) {
      ++none;
      ASSERT_EQ(other.range(at, size), words(size, kOther, 2, at));
      continue;
    }
    ASSERT_GT(n, 0);
    const std::size_t count = static_cast<std::size_t>(n);
    ASSERT_LE(count, size);
    const std::vector<char> bytes = other.range(at, size), source = words(size, kOne, 1, at);
    std::size_t same = 0;
    while (same < count && bytes[same] == source[same]) ++same;
    for (std::size_t i = same; i < count; ++i) ASSERT_EQ(bytes[i], 0) << "past an end that the source had";
    ASSERT_TRUE(std::equal(bytes.begin() + n, bytes.end(), words(size - count, kOther, 2, at + count).begin()) ||
                (at + count) % 8 != 0);
    if (count < size) {
      ++cut;
      // A mapping ends with a page; or, cut off a second time just after the read that met the end, where that was.
      ASSERT_TRUE((at + count) % kPageSize == 0 || same == count) << count << " of " << size << " bytes at " << at;
    }
  }
  EXPECT_GT(cut, 0);
  EXPECT_LT(none, 2000);
}

TEST_P(AnyBuffer, R4_SourceEnds) {
  struct Case {
    std::uint64_t file_size, at;
    std::size_t count;
  };
  char* const view = views.map(one.handle(), 0, 1u << 20);
  for (const auto& [file_size, at, count] :
       {Case{0, 0, 1}, Case{1, 0, 1}, Case{1, 0, 4096}, Case{1, 0, 4097}, Case{1, 4095, 1}, Case{1, 4096, 1},
        Case{4096, 0, 4096}, Case{4096, 0, 4097}, Case{4096, 4096, 10}, Case{4097, 4000, 5000},
        Case{70'000, 1, 200'000}, Case{70'000, 69'999, 1}, Case{70'000, 70'000, 100}, Case{70'000, 73'727, 1},
        Case{70'000, 73'728, 1}, Case{300'000, 123, 1u << 19}}) {
    const std::uint64_t shown = round_up(file_size, kPageSize);
    const std::size_t wanted = at >= shown ? 0 : std::min<std::uint64_t>(count, shown - at);
    ASSERT_EQ(one.truncate(0), 0);
    lay(one, file_size, kOne);
    ASSERT_EQ(one.truncate(file_size), 0);
    lay(other, 1u << 20, kOther);
    const auto what = ::testing::Message() << count << " bytes at " << at << " of " << file_size;
    ASSERT_EQ(write_from(other, view + at, count, 3), wanted == 0 ? -EFAULT : signed_of(wanted)) << what;
    std::vector<char> image = words(1u << 20, kOther, 1, 0), source = words(shown, kOne, 1, 0);
    std::fill(source.begin() + static_cast<std::ptrdiff_t>(file_size), source.end(), '\0');
    std::copy_n(source.begin() + static_cast<std::ptrdiff_t>(std::min(at, shown)), wanted, image.begin() + 3);
    ASSERT_EQ(other.content(), image) << what;

    // Into the view: bytes past the end are dropped, and counted as far as there is a page for them.
    lay(other, 1u << 20, kOther, 2);
    ASSERT_EQ(read_to(other, view + at, count, 3), wanted == 0 ? -EFAULT : signed_of(wanted)) << what;
    ASSERT_EQ(one.size(), file_size) << what;
    image = words(file_size, kOne, 1, 0);
    const std::size_t kept = at >= file_size ? 0 : std::min<std::uint64_t>(wanted, file_size - at);
    std::copy_n(words(kept, kOther, 2, 3).begin(), kept,
                image.begin() + static_cast<std::ptrdiff_t>(at >= file_size ? 0 : at));
    ASSERT_EQ(one.content(), image) << what;
    ASSERT_EQ(one.truncate(round_up(file_size, kPageSize)), 0);
    ASSERT_TRUE(all_zero(one.range(file_size, kPageSize))) << "what was dropped";
  }
}

// The device of the source fails: the same, but with what the mapping has already.
TEST_P(AnyBuffer, R4_SourceCannotBeRead) {
  lay(one, 100'000, kOne);
  lay(other, 100'000, kOther);
  ASSERT_EQ(one.sync(), 0);
  ASSERT_EQ(other.sync(), 0);
  char* const view = views.map(one.handle(), 0, 102'400);
  one.drop_cached();
  ASSERT_TRUE(file_advise(one.handle(), 0, 0, POSIX_FADV_RANDOM).ok());
  ASSERT_EQ(one.range(0, 8192), words(8192, kOne, 1, 0));
  disk.fail_reads();
  EXPECT_EQ(write_from(other, view + 20'480, 4096, 0), -EFAULT);
  EXPECT_EQ(write_from(other, view + 5, 20'000, 0), 8192 - 5);
  disk.heal();
  EXPECT_EQ(other.range(0, 8192 - 5), words(8192 - 5, kOne, 1, 5));
  EXPECT_EQ(other.range(8192 - 5, 1000), words(1000, kOther, 1, 8192 - 5));
}

TEST_P(AnyBuffer, R4_Vectors) {
  lay(one, 300'000, kOne);
  lay(other, 1u << 20, kOther);
  char* const view = views.map(one.handle(), 0, 303'104);
  std::vector<char> plain = words(100'000, 9, 1, 0);
  // Ordinary, a view, nothing, another place of the view, ordinary.
  const iovec v[] = {
      {plain.data(), 10}, {view + 5000, 70'000}, {nullptr, 0}, {view + 1, 3}, {plain.data() + 10, 50'000}};
  std::vector<char> joined(plain.begin(), plain.begin() + 10);
  const auto add = [&joined](const std::vector<char>& more) { joined.insert(joined.end(), more.begin(), more.end()); };
  add(words(70'000, kOne, 1, 5000));
  add(words(3, kOne, 1, 1));
  add(std::vector<char>(plain.begin() + 10, plain.begin() + 50'010));
  ASSERT_EQ(write_vectors(other, v, 77), signed_of(joined.size()));
  EXPECT_EQ(other.range(77, joined.size()), joined);
  EXPECT_EQ(other.range(0, 77), words(77, kOther, 1, 0));
  EXPECT_EQ(other.range(77 + joined.size(), 500), words(500, kOther, 1, 77 + joined.size()));

  lay(other, 200'000, kOther, 3);
  ASSERT_EQ(read_vectors(other, v, 1000), signed_of(joined.size()));
  EXPECT_EQ(std::vector<char>(plain.begin(), plain.begin() + 10), words(10, kOther, 3, 1000));
  EXPECT_EQ(one.range(5000, 70'000), words(70'000, kOther, 3, 1010));
  EXPECT_EQ(one.range(1, 3), words(3, kOther, 3, 71'010));
  EXPECT_EQ(std::vector<char>(plain.begin() + 10, plain.begin() + 50'010), words(50'000, kOther, 3, 71'013));

  // The second ends: the prefix. The first does: nothing.
  const iovec ends[] = {{plain.data(), 10}, {view + 303'000, 10'000}, {plain.data(), 10}};
  lay(other, 200'000, kOther, 4);
  EXPECT_EQ(write_vectors(other, ends, 0), 10 + 104);
  EXPECT_EQ(other.range(114, 500), words(500, kOther, 4, 114));
  EXPECT_EQ(read_vectors(other, ends, 0), 10 + 104);
  EXPECT_EQ(write_vectors(other, std::span(ends).subspan(1), 0), 104);
  const iovec none[] = {{view + 304'000, 10}, {plain.data(), 10}};
  EXPECT_EQ(write_vectors(other, none, 0), -EFAULT);
  EXPECT_EQ(read_vectors(other, none, 0), -EFAULT);
}

// More than one operation, whose pieces begin and end inside the vectors.
TEST_P(AnyBuffer, R4_LongVectors) {
  constexpr std::size_t kPart = 400'000, kAll = 3 * kPart;
  lay(one, 2 * kPart + 4096, kOne);
  lay(other, kAll, kOther);
  char* const view = views.map(one.handle(), 0, 1u << 20);
  std::vector<char> plain = words(kPart, 9, 1, 0);
  const iovec v[] = {{view + kPart, kPart}, {plain.data(), kPart}, {view, kPart}};
  ASSERT_EQ(write_vectors(other, v, 5), signed_of(kAll));
  EXPECT_EQ(other.range(5, kPart), words(kPart, kOne, 1, kPart));
  EXPECT_EQ(other.range(5 + kPart, kPart), plain);
  EXPECT_EQ(other.range(5 + 2 * kPart, kPart), words(kPart, kOne, 1, 0));
  lay(other, kAll + 5, kOther, 2);
  ASSERT_EQ(read_vectors(other, v, 5), signed_of(kAll));
  EXPECT_EQ(one.range(kPart, kPart), words(kPart, kOther, 2, 5));
  EXPECT_EQ(plain, words(kPart, kOther, 2, 5 + kPart));
  EXPECT_EQ(one.range(0, kPart), words(kPart, kOther, 2, 5 + 2 * kPart));
}

TEST_P(AnyBuffer, R4_ViewsThatEnd) {
  lay(one, 1u << 20, kOne);
  lay(other, 1u << 20, kOther);
  char* const view = views.map(one.handle(), 8192, 65'536);
  EXPECT_EQ(write_from(other, view + 60'000, 10'000, 0), 5536) << "what is behind it is nobody's";
  EXPECT_EQ(other.range(0, 5536), words(5536, kOne, 1, 68'192));
  EXPECT_EQ(other.range(5536, 100), words(100, kOther, 1, 5536));
  views.map_behind(view, other.handle(), 4096, 4096);
  EXPECT_EQ(write_from(other, view + 60'000, 10'000, 200'000), 9632) << "two views, side by side";
  EXPECT_EQ(other.range(200'000, 5536), words(5536, kOne, 1, 68'192));
  std::vector<char> second = words(5536 - 4096, kOne, 1, 68'192 + 4096);  // of the first write above
  const std::vector<char> rest = words(8192 - 5536, kOther, 1, 5536);
  second.insert(second.end(), rest.begin(), rest.end());
  EXPECT_EQ(other.range(205'536, 4096), second);
  EXPECT_EQ(write_from(other, view - 100, 50, 0), -EFAULT);
  EXPECT_EQ(write_from(other, view - 100, 500, 0), -EFAULT);
  views.unmap(view);
  EXPECT_EQ(write_from(other, view, 100, 0), -EFAULT);
  EXPECT_EQ(read_to(other, view, 100, 0), -EFAULT);
}

TEST_P(AnyBuffer, R4_ViewForReadingOnly) {
  lay(one, 100'000, kOne);
  lay(other, 100'000, kOther);
  char* const view = views.map(one.handle(), 0, 102'400, false);
  EXPECT_EQ(write_from(other, view, 50'000, 10), 50'000);
  EXPECT_EQ(read_to(other, view, 50'000, 10), -EFAULT);
  EXPECT_EQ(one.content(), words(100'000, kOne, 1, 0));
  std::vector<char> plain(10);
  const iovec v[] = {{plain.data(), 10}, {view, 10}};
  EXPECT_EQ(read_vectors(other, v, 10), 10);
}

// Errors of the file itself come before the buffer is looked at, and what is not to be waited for is not.
TEST_P(AnyBuffer, R4_ErrorsOfTheFile) {
  lay(one, 100'000, kOne);
  char* const view = views.map(one.handle(), 0, 102'400);
  OpenFile handle;
  one.open(handle);
  handle.readable = handle.writable = false;
  const iovec v{view + 102'400, 10};  // nothing is there
  EXPECT_EQ(file_read(handle, std::span(&v, 1), 0, 0).errnum(), EBADF);
  EXPECT_EQ(file_write(handle, std::span(&v, 1), 0, 0).errnum(), EBADF);
  const std::uint64_t held = views.holds();
  EXPECT_EQ(write_from(one, view + 102'400, 10, kMaxFileSize), -EFBIG);
  EXPECT_EQ(read_to(one, view + 102'400, 10, 200'000), 0) << "nothing to store";
  EXPECT_EQ(write_from(one, view + 102'400, 0, 0), 0);
  EXPECT_EQ(views.holds(), held);
  ASSERT_EQ(one.sync(), 0);
  one.drop_cached();
  EXPECT_EQ(read_to(one, view, 10, 50'000, kIoNoWait), -EAGAIN);
  ASSERT_EQ(one.range(50'000, 10), words(10, kOne, 1, 50'000));
  EXPECT_EQ(read_to(one, view, 10, 50'000, kIoNoWait), 10) << "it is the file that is not waited for";
  EXPECT_EQ(one.range(0, 10), words(10, kOne, 1, 50'000));
}

TEST_P(AnyBuffer, R4_Append) {
  lay(one, 100'000, kOne);
  char* const view = views.map(one.handle(), 0, 1u << 20);
  EXPECT_EQ(write_from(one, view + 8, 50'000, 3, kIoAppend), 50'000);
  EXPECT_EQ(one.size(), 150'000U);
  EXPECT_EQ(one.range(100'000, 50'000), words(50'000, kOne, 1, 8));
  // A store is a store, whatever the view's handle is.
  one.handle().append = one.handle().full_sync = true;
  const std::uint64_t flushes = disk.operations(FaultOp::flush);
  EXPECT_EQ(read_to(one, view + 8, 50'000, 100'000), 50'000);
  EXPECT_EQ(disk.operations(FaultOp::flush), flushes) << "nothing says that stores are durable";
  EXPECT_EQ(one.size(), 150'000U);
  one.handle().append = one.handle().full_sync = false;
}

TEST_P(AnyBuffer, R4_TwoCaches) {
  TestCache second(GetParam());
  TestFile far(second.cache, disk.make_file());
  const char* const of_one = cross(far, 200);
  ASSERT_EQ(write_from(far, of_one, kCrossed, 0), signed_of(kCrossed));
  EXPECT_EQ(far.content(), one.content());
  EXPECT_EQ(cache.cache.memory_use().bounce, 0U);
  EXPECT_EQ(second.cache.memory_use().bounce, 0U);
}

// What is looked for holds nothing that serving a fault might need: no lock (the fake checks that), nor claims, nor
// frames.
TEST_P(AnyBuffer, R4_NothingIsHeld) {
  lay(one, kMost, kOne);
  lay(other, kMost, kOther);
  ASSERT_EQ(one.sync(), 0);
  ASSERT_EQ(other.sync(), 0);
  char* const view = views.map(one.handle(), 0, kMost);
  std::uint64_t most = 0;
  views.on_hold = [&] {
    EXPECT_EQ(cache.cache.dirty.used(), cache.cache.dirty.unstable()) << "a claim";
    RangeGuard all(one.inode().range), target(other.inode().range);
    EXPECT_TRUE(all.try_acquire(0, kRangeEnd, kExclusive));
    EXPECT_TRUE(target.try_acquire(0, kRangeEnd, kExclusive));
    most = std::max(most, cache.cache.memory_use().bounce);
  };
  const std::uint64_t largest = cache.cache.max_operation_bytes();
  for (const std::size_t size : kSizes) {
    ASSERT_EQ(write_from(other, view, size, 0), signed_of(size));
    EXPECT_EQ(most, std::min<std::uint64_t>(size, largest)) << "as much as one operation, charged";
    ASSERT_EQ(read_to(other, view, size, 0), signed_of(size));
    EXPECT_EQ(most, std::min<std::uint64_t>(size, largest));
    EXPECT_EQ(cache.cache.memory_use().bounce, 0U);
  }
  views.on_hold = nullptr;
}

// Two at a time copy more than 64 KiB, and whoever copies less passes them.
TEST_P(AnyBuffer, R4_BounceTurns) {
  constexpr std::size_t kLarge = 100'000;
  lay(one, 1u << 20, kOne);
  lay(other, 1u << 20, kOther);
  char* const view = views.map(one.handle(), 0, 1u << 20);
  RangeGuard first(cache.cache.bounce_turn), second(cache.cache.bounce_turn);
  std::atomic<int> done{0};
  std::atomic<bool> held{false};
  {
    std::thread holder([&] {
      // Of two threads, as the turns are of two calls.
      RangeGuard mine(cache.cache.bounce_turn);
      EXPECT_TRUE(mine.try_acquire(1, 1, 0));
      held = true;
      while (done < 2) std::this_thread::yield();
    });
    ASSERT_TRUE(first.try_acquire(0, 0, 0));
    while (!held) std::this_thread::yield();
    EXPECT_FALSE(second.try_acquire(1, 1, 0));
    std::thread small([&] {
      EXPECT_EQ(write_from(other, view, BounceMemory::kFreely, 0), signed_of(BounceMemory::kFreely));
      EXPECT_EQ(write_from(other, view, kLarge, 0, kIoNoWait), -EAGAIN);
      ++done;
    });
    small.join();
    std::thread large([&] {
      EXPECT_EQ(write_from(other, view, kLarge, 0), signed_of(kLarge));
      EXPECT_EQ(read_to(other, view, kLarge, 0), signed_of(kLarge));
      done = 9;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(done, 1) << "both turns are taken";
    done = 2;
    holder.join();
    first.release();
    large.join();
    EXPECT_EQ(done, 9);
  }
}

}  // namespace
}  // namespace quire
