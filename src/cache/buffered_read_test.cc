// The fast path of a read: what it serves, each reason to leave it, and what it leaves in the caller's buffer.
#include "cache/buffered_read.h"

#include <gtest/gtest.h>

#include "cache/cache_for_test.h"
#include "cache/read_hit.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::uint64_t kPages = 12;
constexpr char kUntouched = '\x5c';

// Short reads in line (true) or by the function that serves every size.
class ReadFast : public ::testing::TestWithParam<bool> {
 protected:
  ReadFast() {
    for (std::uint64_t page = 0; page < kPages; ++page) cache.cache.put_folio(test.add(page));
    m.size.store(kPages * kPageSize, memory_order_release);
  }
  // The answer; what it read is checked, and up to 1 KiB nothing else may have been touched.
  ssize_t read(std::uint64_t offset, std::size_t count) {
    std::vector<char> bytes(count + 8, kUntouched);
    const bool in_line = GetParam() && count - 1 < kRegisterBytes;
    ssize_t n = in_line ? read_hit(m, bytes.data(), count, offset) : kSlow;
    if (n == kSlow) n = read_fast(m, bytes.data(), count, offset);
    const std::size_t got = n == kSlow ? 0 : static_cast<std::size_t>(n);
    EXPECT_LE(got, count);
    EXPECT_EQ(std::vector<char>(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(got)),
              words(got, 1, 1, offset));
    for (std::size_t i = count <= kBounceBytes ? got : count; i < bytes.size(); ++i) {
      EXPECT_EQ(bytes[i], kUntouched) << "byte " << i << " past " << got << " of " << count;
    }
    return n;
  }
  // The read is slow, for this reason, which is counted once.
  void expect_slow(Counter why, std::uint64_t offset, std::size_t count) {
    const std::uint64_t before = cache.sum(why);
    EXPECT_EQ(read(offset, count), kSlow);
    EXPECT_EQ(cache.sum(why), before + 1) << Stats::name(why);
  }

  RamDisk disk{4096};
  TestCache cache;
  std::unique_ptr<RamBacking> backing = disk.make_file();
  TestMapping test{cache.cache, *backing};
  Mapping& m = test.mapping;
};

TEST_P(ReadFast, EverySizeAndPlace) {
  for (const std::size_t count :
       {1, 7, 8, 63, 64, 100, 256, 1000, 1023, 1024, 1025, 2000, 4095, 4096, 4097, 8192, 20'000}) {
    for (const std::uint64_t offset : {0, 1, 5, 511, 4000, 4095, 4096, 8191, 12'289}) {
      EXPECT_EQ(read(offset, count), static_cast<ssize_t>(count)) << count << " at " << offset;
    }
  }
}

TEST_P(ReadFast, R2_ClipsAtTheEnd) {
  for (const std::uint64_t cut : {1, 8, 100, 1000, 4000}) {
    const std::uint64_t size = (kPages - 1) * kPageSize + cut;
    m.size.store(size, memory_order_release);
    for (const std::size_t count : {1, 64, 1024, 1025, 5000, 20'000}) {
      for (const std::uint64_t back : {0, 1, 50, 999, 3000, 5000}) {
        const std::uint64_t offset = size - std::min<std::uint64_t>(size, back);
        EXPECT_EQ(read(offset, count), static_cast<ssize_t>(std::min<std::uint64_t>(count, back)));
      }
    }
    EXPECT_EQ(read(size + 10, 100), 0);
    EXPECT_EQ(read(size + (1 << 20), 5000), 0);
  }
}

TEST_P(ReadFast, R2_LeavesTheBufferAloneWhenItGivesUp) {
  RangeGuard remove(m.invalidate);
  remove.acquire(0, kRangeEnd, kRemove);
  remove_folios(m, 5, 5);
  expect_slow(Counter::miss_absent, 5 * kPageSize, 100);
  expect_slow(Counter::miss_absent, 5 * kPageSize - 500, 1000);  // its first half was there
  expect_slow(Counter::miss_absent, 6 * kPageSize - 500, 1000);
  expect_slow(Counter::miss_absent, 4 * kPageSize, 8192);
}

TEST_P(ReadFast, FoliosBeingChanged) {
  Folio* folio = get_folio(m, 3);
  lock_folio(*folio);
  begin_change(*folio);
  expect_slow(Counter::miss_changing, 3 * kPageSize + 8, 16);
  expect_slow(Counter::miss_changing, 2 * kPageSize, 20'000);
  expect_slow(Counter::miss_changing, 3 * kPageSize - 8, 16);
  EXPECT_EQ(read(4 * kPageSize, 16), 16);
  end_change(*folio);
  unlock_folio(*folio);
  EXPECT_EQ(read(3 * kPageSize + 8, 16), 16);
  cache.cache.put_folio(*folio);
}

// A locked folio is read as ever: only the sequence counts.
TEST_P(ReadFast, LocksDoNotMatter) {
  Folio* folio = get_folio(m, 3);
  lock_folio(*folio);
  EXPECT_EQ(read(3 * kPageSize, 4096), 4096);
  unlock_folio(*folio);
  cache.cache.put_folio(*folio);
}

TEST_P(ReadFast, ReadaheadMark) {
  Folio* folio = get_folio(m, 3);
  folio->flags.fetch_or(kReadahead, memory_order_relaxed);
  expect_slow(Counter::miss_readahead_mark, 3 * kPageSize, 100);
  expect_slow(Counter::miss_readahead_mark, 2 * kPageSize, 8192);
  folio->flags.fetch_and(~kReadahead, memory_order_relaxed);
  EXPECT_FALSE(referenced(*folio));
  EXPECT_EQ(read(3 * kPageSize, 100), 100);
  EXPECT_TRUE(referenced(*folio));
  cache.cache.put_folio(*folio);
}

TEST_P(ReadFast, GateClosedOverTheRange) {
  ClosedGate gate(m.gate, 5000, 9000);
  expect_slow(Counter::miss_gate, 5000, 1);
  expect_slow(Counter::miss_gate, 8999, 100);
  expect_slow(Counter::miss_gate, 4000, 2000);
  expect_slow(Counter::miss_gate, 0, 40'000);
  EXPECT_EQ(read(4000, 1000), 1000) << "up to it";
  EXPECT_EQ(read(9000, 5000), 5000) << "from its end on";
}

TEST_P(ReadFast, IdentityIsChecked) {
  Folio* folio = get_folio(m, 3);
  folio->index.store(4711, memory_order_relaxed);  // as if recycled
  folio->hit_word.store(hit_word_of(4711), memory_order_relaxed);
  expect_slow(Counter::miss_identity, 3 * kPageSize, 100);
  folio->index.store(3, memory_order_relaxed);
  folio->hit_word.store(hit_word_of(3), memory_order_relaxed);
  Mapping* const mapping = folio->mapping.exchange(nullptr, memory_order_relaxed);
  expect_slow(Counter::miss_identity, 3 * kPageSize, 100);
  folio->mapping.store(mapping, memory_order_relaxed);
  EXPECT_EQ(read(3 * kPageSize, 100), 100);
  cache.cache.put_folio(*folio);
}

TEST_P(ReadFast, TooLongForTheFastPath) {
  m.size.store(std::uint64_t{1} << 30, memory_order_release);
  std::vector<char> bytes(2 << 20);
  const std::uint64_t before = cache.sum(Counter::miss_too_long);
  EXPECT_EQ(read_fast(m, bytes.data(), bytes.size(), 0), kSlow);
  EXPECT_EQ(cache.sum(Counter::miss_too_long), before + 1);
}

TEST_P(ReadFast, HitsSetTheReferenceBitOnce) {
  Folio* folio = get_folio(m, 7);
  EXPECT_FALSE(referenced(*folio));
  EXPECT_EQ(read(7 * kPageSize, 8), 8);
  EXPECT_TRUE(referenced(*folio));
  EXPECT_FALSE(folio->has(kDirty));
  EXPECT_EQ(folio->refs.load(memory_order_relaxed), 2U) << "ours and the mapping's: a hit takes none";
  cache.cache.put_folio(*folio);
}

INSTANTIATE_TEST_SUITE_P(InLine, ReadFast, ::testing::Bool());

}  // namespace
}  // namespace quire
