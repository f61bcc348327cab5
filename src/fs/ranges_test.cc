// Range operations of one file and of two, against a plain array: every byte, size and errno, from the cache and from
// the backing, over all block sizes; what a failure leaves; and readers beside each.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/random.h"
#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr std::uint64_t kMost = 400 * 1024;

// A file and the array it must equal.
struct Twin {
  Twin(TestCache& cache, RamDisk& disk) : made(std::make_unique<OddBacking>(disk.make_file())), backing(*made) {
    file = std::make_unique<TestFile>(cache.cache, std::move(made));
    model.reserve(1);  // an iterator of an empty vector may then be moved
  }
  void write(std::uint64_t offset, std::size_t count, unsigned generation) {
    const std::vector<char> bytes = words(count, 1, generation, offset);
    ASSERT_EQ(file->write(bytes, offset), static_cast<ssize_t>(count));
    if (model.size() < offset + count) model.resize(offset + count);
    std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  void zero(std::uint64_t offset, std::uint64_t length, bool grow) {
    if (grow && model.size() < offset + length) model.resize(offset + length);
    for (std::uint64_t i = offset; i < std::min<std::uint64_t>(offset + length, model.size()); ++i) model[i] = 0;
  }
  void expect_equal(const char* what) {
    ASSERT_EQ(file->size(), model.size()) << what;
    const std::vector<char> found = file->content();
    ASSERT_EQ(found.size(), model.size()) << what;
    const auto [at, unused] = std::mismatch(found.begin(), found.end(), model.begin());
    ASSERT_TRUE(at == found.end()) << what << ": differs at " << at - found.begin() << " of " << model.size();
  }
  // Once more from the backing.
  void expect_equal_stored(const char* what) {
    expect_equal(what);
    ASSERT_EQ(file->sync(), 0) << what;
    ASSERT_EQ(backing.size(), model.size()) << what;
    file->drop_cached();
    expect_equal(what);
  }

  std::unique_ptr<OddBacking> made;
  OddBacking& backing;
  std::unique_ptr<TestFile> file;
  std::vector<char> model;
};

class Ranges : public ::testing::TestWithParam<unsigned> {
 protected:
  std::uint64_t block() const { return GetParam(); }
  // A few places around the edges of blocks and pages.
  std::uint64_t place(std::uint64_t limit) {
    const std::uint64_t at = random.below(limit);
    switch (random.below(3)) {
      case 0:
        return round_down(at, block());
      case 1:
        return round_down(at, kPageSize);
      default:
        return at;
    }
  }
  void random_step(Twin& a, Twin& b);
  void two_files(Twin& a, Twin& b);

  RamDisk disk{GetParam()};
  TestCache cache{96};
  Twin one{cache, disk}, two{cache, disk};
  Random random{GetParam()};
};

// What was written back but not flushed would become clean with the next flush, and differ from the backing.
TEST_P(Ranges, D1_FailureHalfWayWritesUnflushedFoliosAgain) {
  one.write(0, 4 * kPageSize, 1);
  ASSERT_TRUE(write_back(one.file->mapping(), 0, 3, CacheContext{}).ok());
  one.backing.half_way_errnum.store(EIO, memory_order_release);
  EXPECT_EQ(one.file->punch(kPageSize, 2 * kPageSize), EIO);
  one.backing.half_way_errnum.store(0, memory_order_release);
  one.expect_equal_stored("as before the punch");
}

TEST_P(Ranges, FailedCloneThatGrewTheBackingIsCutOff) {
  one.write(0, 2 * kPageSize, 1);
  two.write(0, 8 * kPageSize, 2);
  ASSERT_EQ(one.file->sync(), 0);
  one.backing.half_way_errnum.store(ENOSPC, memory_order_release);
  EXPECT_EQ(file_clone(two.file->handle(), 0, one.file->handle(), 2 * kPageSize, 8 * kPageSize).errnum(), ENOSPC);
  one.backing.half_way_errnum.store(0, memory_order_release);
  EXPECT_EQ(one.backing.size(), 2 * kPageSize);
  one.expect_equal_stored("as before the clone");
  ASSERT_EQ(one.file->truncate(6 * kPageSize), 0);
  one.model.resize(6 * kPageSize);
  one.expect_equal_stored("grown by zeros");
}

TEST_P(Ranges, D1_SynchronousHandlesAreDurableOnReturn) {
  two.write(0, 4 * kPageSize, 2);
  ASSERT_EQ(two.file->sync(), 0);
  one.write(0, 4 * kPageSize, 1);
  one.file->handle().data_sync = true;
  const auto durable_after = [&](const char* what, int errnum) {
    EXPECT_EQ(errnum, 0) << what;
    EXPECT_EQ(one.file->mapping().unstable_count.load(memory_order_acquire), 0U) << what;
    EXPECT_FALSE(one.file->mapping().backing_changed.load(memory_order_acquire)) << what;
  };
  durable_after("write", one.file->write(words(4 * kPageSize, 1, 1, 0), 0) < 0);
  durable_after("punch", one.file->punch(100, 5000));
  durable_after("zero", one.file->allocate(FALLOC_FL_ZERO_RANGE, 0, 5000));
  durable_after("allocate", one.file->allocate(0, 0, 8 * kPageSize));
  durable_after("insert", one.file->allocate(FALLOC_FL_INSERT_RANGE, kPageSize, kPageSize));
  durable_after("collapse", one.file->allocate(FALLOC_FL_COLLAPSE_RANGE, kPageSize, kPageSize));
  durable_after("clone", file_clone(two.file->handle(), 0, one.file->handle(), 0, kPageSize).errnum());
  durable_after("copy", file_copy(two.file->handle(), 0, one.file->handle(), 0, 3 * kPageSize).errnum());
  durable_after("exchange", file_exchange(one.file->handle(), 0, two.file->handle(), 0, kPageSize).errnum());
}

TEST_P(Ranges, PunchInsideOnePage) {
  for (const bool synced : {false, true}) {
    one.write(0, 3 * kPageSize, 1);
    if (synced) {
      ASSERT_EQ(one.file->sync(), 0);
    }
    ASSERT_EQ(one.file->punch(5000, 100), 0);
    one.zero(5000, 100, false);
    one.expect_equal_stored("punch");
  }
}

TEST_P(Ranges, ZeroGrowsUnlessToldNot) {
  one.write(0, 10'000, 1);
  ASSERT_EQ(one.file->allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 9000, 50'000), 0);
  one.zero(9000, 50'000, false);
  one.expect_equal("keep size");
  ASSERT_EQ(one.file->allocate(FALLOC_FL_ZERO_RANGE, 5000, 50'000), 0);
  one.zero(5000, 50'000, true);
  one.expect_equal_stored("grown");
}

TEST_P(Ranges, AllocateChangesNoByte) {
  one.write(100, 10'000, 1);
  ASSERT_EQ(one.file->allocate(FALLOC_FL_KEEP_SIZE, 0, 100'000), 0);
  one.expect_equal("keep size");
  ASSERT_EQ(one.file->allocate(0, 0, 100'000), 0);
  one.model.resize(100'000);
  one.expect_equal_stored("grown");
}

TEST_P(Ranges, CollapseAndInsertMoveWhatFollows) {
  const std::uint64_t unit = std::max<std::uint64_t>(block(), 2048);
  one.write(0, 60'000, 1);
  ASSERT_EQ(one.file->allocate(FALLOC_FL_COLLAPSE_RANGE, 2 * unit, 3 * unit), 0);
  one.model.erase(one.model.begin() + static_cast<std::ptrdiff_t>(2 * unit),
                  one.model.begin() + static_cast<std::ptrdiff_t>(5 * unit));
  one.expect_equal("collapsed");
  ASSERT_EQ(one.file->allocate(FALLOC_FL_INSERT_RANGE, unit, 2 * unit), 0);
  one.model.insert(one.model.begin() + static_cast<std::ptrdiff_t>(unit), 2 * unit, 0);
  one.expect_equal_stored("inserted");
}

TEST_P(Ranges, SeekKnowsWhatOnlyTheCacheHolds) {
  OpenFile& file = one.file->handle();
  ASSERT_EQ(one.file->truncate(100 * kPageSize), 0);
  EXPECT_EQ(file_seek(file, 0, true).errnum(), ENXIO);
  EXPECT_EQ(file_seek(file, 0, false).value(), 0U);
  one.model.resize(100 * kPageSize);
  one.write(10 * kPageSize, 2 * kPageSize, 1);
  for (const bool synced : {false, true}) {
    if (synced) {
      ASSERT_EQ(one.file->sync(), 0);
    }
    EXPECT_EQ(file_seek(file, 0, true).value(), 10 * kPageSize);
    EXPECT_EQ(file_seek(file, 10 * kPageSize + 7, true).value(), 10 * kPageSize + 7);
    EXPECT_EQ(file_seek(file, 10 * kPageSize, false).value(), 12 * kPageSize);
    EXPECT_EQ(file_seek(file, 12 * kPageSize, true).errnum(), ENXIO);
    EXPECT_EQ(file_seek(file, 99 * kPageSize, false).value(), 99 * kPageSize);
    EXPECT_EQ(file_seek(file, 100 * kPageSize, false).errnum(), ENXIO);
  }
}

TEST_P(Ranges, CloneDedupeAndExchange) {
  one.write(0, 20 * kPageSize, 1);
  two.write(0, 20 * kPageSize, 2);
  OpenFile &a = one.file->handle(), &b = two.file->handle();
  ASSERT_EQ(file_clone(a, 2 * kPageSize, b, 4 * kPageSize, 3 * kPageSize).errnum(), 0);
  std::copy_n(one.model.begin() + 2 * kPageSize, 3 * kPageSize, two.model.begin() + 4 * kPageSize);
  two.expect_equal("cloned");
  one.expect_equal("source");
  EXPECT_EQ(file_dedupe(a, 2 * kPageSize, b, 4 * kPageSize, 3 * kPageSize).value(), 3 * kPageSize);
  EXPECT_EQ(file_dedupe(a, 2 * kPageSize, b, 5 * kPageSize, 3 * kPageSize).errnum(), EBADE);
  one.write(3 * kPageSize + 5, 10, 3);
  two.expect_equal("written to the source only");
  one.expect_equal_stored("source");
  two.expect_equal_stored("target");
  ASSERT_EQ(file_exchange(a, 0, b, 8 * kPageSize, 5 * kPageSize).errnum(), 0);
  std::swap_ranges(one.model.begin(), one.model.begin() + 5 * kPageSize, two.model.begin() + 8 * kPageSize);
  one.expect_equal_stored("exchanged");
  two.expect_equal_stored("exchanged");
}

TEST_P(Ranges, CopyWithinAndBetween) {
  one.write(0, 300'000, 1);
  EXPECT_EQ(file_copy(one.file->handle(), 1000, two.file->handle(), 77, 250'000).value(), 250'000U);
  two.model.resize(77 + 250'000);
  std::copy_n(one.model.begin() + 1000, 250'000, two.model.begin() + 77);
  two.expect_equal_stored("copied");
  EXPECT_EQ(file_copy(one.file->handle(), 299'000, two.file->handle(), 0, 5000).value(), 1000U) << "the source ends";
  std::copy_n(one.model.begin() + 299'000, 1000, two.model.begin());
  EXPECT_EQ(file_copy(two.file->handle(), 0, two.file->handle(), 300'000, 9000).value(), 9000U);
  two.model.resize(309'000);
  std::copy_n(two.model.begin(), 9000, two.model.begin() + 300'000);
  two.expect_equal_stored("within");
  EXPECT_EQ(file_copy(two.file->handle(), 0, two.file->handle(), 5000, 9000).errnum(), EINVAL);
}

TEST_P(Ranges, ErrnosOfLinux) {
  one.write(0, 10 * kPageSize, 1);
  TestFile& f = *one.file;
  EXPECT_EQ(f.allocate(0, 0, 0), EINVAL);
  EXPECT_EQ(f.allocate(FALLOC_FL_PUNCH_HOLE, 0, 4096), EOPNOTSUPP);
  EXPECT_EQ(f.allocate(FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096), EOPNOTSUPP);
  EXPECT_EQ(f.allocate(FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_ZERO_RANGE, 0, 4096), EOPNOTSUPP);
  EXPECT_EQ(f.allocate(0x4000, 0, 4096), EOPNOTSUPP);
  EXPECT_EQ(f.allocate(FALLOC_FL_COLLAPSE_RANGE, 1, 4096), EINVAL);
  EXPECT_EQ(f.allocate(FALLOC_FL_COLLAPSE_RANGE, 4096, 9 * kPageSize), EINVAL) << "reaches the end";
  EXPECT_EQ(f.allocate(FALLOC_FL_INSERT_RANGE, 10 * kPageSize, 4096), EINVAL) << "begins at the end";
  EXPECT_EQ(f.allocate(FALLOC_FL_INSERT_RANGE, 0, kMaxFileSize - 4095), EFBIG);
  EXPECT_EQ(f.allocate(0, kMaxFileSize - 10, 100), EFBIG);
  OpenFile reader;
  f.open(reader);
  reader.writable = false;
  EXPECT_EQ(file_allocate(reader, kPunch, 0, 1).errnum(), EBADF);
  EXPECT_EQ(file_clone(f.handle(), 0, reader, 0, 4096).errnum(), EBADF);
  EXPECT_EQ(file_clone(f.handle(), 0, f.handle(), 4096, 8192).errnum(), EINVAL) << "overlaps";
  EXPECT_EQ(file_clone(f.handle(), 0, two.file->handle(), 0, 11 * kPageSize).errnum(), EINVAL) << "past the source";
  EXPECT_EQ(file_clone(f.handle(), 1, two.file->handle(), 0, 4096).errnum(), EINVAL);
  EXPECT_EQ(file_exchange(f.handle(), 0, two.file->handle(), 0, 4096).errnum(), EINVAL) << "past the end of two";
  one.expect_equal_stored("after all that");
}

// A backing that fails leaves the cache as it was, dirty bytes included.
TEST_P(Ranges, D1_AFailureChangesNothing) {
  one.write(0, 20 * kPageSize, 1);
  ASSERT_EQ(one.file->sync(), 0);
  one.write(3000, 40'000, 2);
  for (const int errnum : {ENOSPC, EINVAL, EIO}) {
    one.backing.range_errnum.store(errnum, memory_order_release);
    for (const int mode :
         {0, kPunch, FALLOC_FL_ZERO_RANGE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_UNSHARE_RANGE}) {
      EXPECT_EQ(one.file->allocate(mode, 4096, 4 * kPageSize), errnum) << mode;
      one.expect_equal("failed");
    }
  }
  one.backing.range_errnum.store(ENOSPC, memory_order_release);
  EXPECT_EQ(file_clone(one.file->handle(), 0, one.file->handle(), 8 * kPageSize, 4096).errnum(), ENOSPC);
  one.expect_equal("failed");
  one.backing.range_errnum.store(0, memory_order_release);
  one.expect_equal_stored("afterwards");
}

TEST_P(Ranges, ZeroingWorksWhereTheBackingCannot) {
  one.write(0, 90'000, 1);
  one.backing.range_errnum.store(EOPNOTSUPP, memory_order_release);
  EXPECT_EQ(one.file->punch(0, 4096), EOPNOTSUPP);
  EXPECT_EQ(one.file->allocate(FALLOC_FL_ZERO_RANGE, 5000, 200'001), 0);
  one.zero(5000, 200'001, true);
  EXPECT_EQ(one.file->allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 1, 500'000), 0);
  one.zero(1, 500'000, false);
  one.expect_equal_stored("zeroed by writing");
}

// --- anything, many times ---

void Ranges::two_files(Twin& a, Twin& b) {
  const std::uint64_t n = (1 + random.below(8)) * kPageSize;
  const std::uint64_t from = round_down(random.below(a.model.size() + 1), block());
  const std::uint64_t to = round_down(random.below(b.model.size() + 1), block());
  const bool overlap = &a == &b && from < to + n && to < from + n;
  if (from + n > a.model.size() || overlap) return;
  const auto source = a.model.begin() + static_cast<std::ptrdiff_t>(from);
  const std::vector<char> bytes(source, source + static_cast<std::ptrdiff_t>(n));
  switch (random.below(4)) {
    case 0: {
      ASSERT_EQ(file_clone(a.file->handle(), from, b.file->handle(), to, n).errnum(), 0);
      if (b.model.size() < to + n) b.model.resize(to + n);
      std::copy(bytes.begin(), bytes.end(), b.model.begin() + static_cast<std::ptrdiff_t>(to));
      break;
    }
    case 1: {
      if (to + n > b.model.size()) return;
      const bool same = std::equal(bytes.begin(), bytes.end(), b.model.begin() + static_cast<std::ptrdiff_t>(to));
      const auto shared = file_dedupe(a.file->handle(), from, b.file->handle(), to, n);
      ASSERT_EQ(shared.errnum(), same ? 0 : EBADE);
      break;
    }
    case 2: {
      if (to + n > b.model.size()) return;
      ASSERT_EQ(file_exchange(a.file->handle(), from, b.file->handle(), to, n).errnum(), 0);
      std::swap_ranges(source, source + static_cast<std::ptrdiff_t>(n),
                       b.model.begin() + static_cast<std::ptrdiff_t>(to));
      break;
    }
    default: {
      ASSERT_EQ(file_copy(a.file->handle(), from, b.file->handle(), to, n).value(), n);
      if (b.model.size() < to + n) b.model.resize(to + n);
      std::copy(bytes.begin(), bytes.end(), b.model.begin() + static_cast<std::ptrdiff_t>(to));
    }
  }
}

void Ranges::random_step(Twin& a, Twin& b) {
  const std::uint64_t offset = place(a.model.size() + 20'000), length = 1 + place(60'000);
  const std::uint64_t blocks = (1 + random.below(6)) * std::max<std::uint64_t>(block(), 1024);
  const std::uint64_t aligned = round_down(offset, std::max<std::uint64_t>(block(), 1024));
  switch (random.below(10)) {
    case 0:
    case 1:
      return a.write(offset, length, 1 + static_cast<unsigned>(random.below(1000)));
    case 2:
      ASSERT_EQ(a.file->punch(offset, length), 0);
      return a.zero(offset, length, false);
    case 3: {
      const bool keep = random.one_in(2);
      ASSERT_EQ(a.file->allocate(FALLOC_FL_ZERO_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0), offset, length), 0);
      return a.zero(offset, length, !keep);
    }
    case 4: {
      const bool keep = random.one_in(2);
      ASSERT_EQ(a.file->allocate(keep ? FALLOC_FL_KEEP_SIZE : 0, offset, length), 0);
      if (!keep && a.model.size() < offset + length) a.model.resize(offset + length);
      return;
    }
    case 5: {
      const bool possible = aligned + blocks < a.model.size();
      ASSERT_EQ(a.file->allocate(FALLOC_FL_COLLAPSE_RANGE, aligned, blocks), possible ? 0 : EINVAL);
      const auto at = a.model.begin() + static_cast<std::ptrdiff_t>(aligned);
      if (possible) a.model.erase(at, at + static_cast<std::ptrdiff_t>(blocks));
      return;
    }
    case 6: {
      const bool possible = aligned < a.model.size();
      ASSERT_EQ(a.file->allocate(FALLOC_FL_INSERT_RANGE, aligned, blocks), possible ? 0 : EINVAL);
      if (possible) a.model.insert(a.model.begin() + static_cast<std::ptrdiff_t>(aligned), blocks, 0);
      return;
    }
    case 7: {
      const std::uint64_t size = random.below(kMost);
      ASSERT_EQ(a.file->truncate(size), 0);
      return a.model.resize(size);
    }
    case 8:
      if (random.one_in(3)) {
        const bool keep = random.one_in(2);
        ASSERT_EQ(a.file->allocate(FALLOC_FL_UNSHARE_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0), offset, length), 0);
        if (!keep && a.model.size() < offset + length) a.model.resize(offset + length);
      }
      return;
    default:
      return two_files(a, random.one_in(4) ? a : b);
  }
}

TEST_P(Ranges, AgainstAModel) {
  for (int i = 0; i < 3000 && !HasFatalFailure(); ++i) {
    SCOPED_TRACE(i);
    Twin& a = random.one_in(2) ? one : two;
    random_step(a, &a == &one ? two : one);
    if (a.model.size() > 2 * kMost) {
      ASSERT_EQ(a.file->truncate(kMost), 0);
      a.model.resize(kMost);
    }
    if (i % 10 == 0) a.expect_equal("in between");
    if (i % 200 == 0) a.expect_equal_stored("stored");
  }
  one.expect_equal_stored("at the end");
  two.expect_equal_stored("at the end");
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, Ranges, ::testing::Values(512U, 1024U, 4096U));

}  // namespace
}  // namespace quire
