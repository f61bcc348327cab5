// The range operations of the ram backing one by one: what the file reads as, where its blocks are, and what is
// refused. ram_ranges_model_test.cc has them all at random.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "ram/ram_backing.h"
#include "ram/ram_disk_for_test.h"
#include "ram/ram_image_for_test.h"

namespace quire {
namespace {

using testing_support::extents_of;
using testing_support::image_of;
using testing_support::write_blocks;
using Bytes = std::vector<unsigned char>;

constexpr std::uint64_t kStoreBlocks = 32;

class RamRanges : public ::testing::TestWithParam<unsigned> {
 protected:
  std::uint64_t unit() const { return GetParam(); }

  // Block b of the range becomes full of the letter; the end of the file lies `less` bytes before the end of the range.
  void put(RamBacking& to, std::uint64_t block, const char* letters, std::uint64_t less = 0) {
    const std::size_t count = std::strlen(letters);
    Bytes bytes;
    for (std::size_t i = 0; i < count; ++i) bytes.insert(bytes.end(), unit(), static_cast<unsigned char>(letters[i]));
    std::fill(bytes.end() - static_cast<std::ptrdiff_t>(less), bytes.end(), 0);
    ASSERT_TRUE(write_blocks(store, to, block * unit(), bytes, (block + count) * unit() - less).ok());
  }
  // One letter a block of what the file reads as ('.' for zeros); '?' where a block is not all one byte.
  std::string letters(RamBacking& of) {
    const Bytes bytes = image_of(store, of);
    std::string text;
    for (std::size_t at = 0; at < bytes.size(); at += unit()) {
      const std::size_t end = std::min<std::size_t>(bytes.size(), at + unit());
      const bool same = std::all_of(&bytes[at], &bytes[0] + end, [&](unsigned char byte) { return byte == bytes[at]; });
      text += !same ? '?' : bytes[at] == 0 ? '.' : static_cast<char>(bytes[at]);
    }
    return text;
  }
  // h: hole, u: unwritten, w: written, s: written and shared; of the first `blocks` blocks.
  std::string kinds(RamBacking& of, std::uint64_t blocks) {
    std::string text;
    for (const Extent& extent : extents_of(of, blocks * unit())) {
      const char kind = extent.kind == ExtentKind::hole        ? 'h'
                        : extent.kind == ExtentKind::unwritten ? 'u'
                        : extent.shared                        ? 's'
                                                               : 'w';
      text.append(extent.length / unit(), kind);
    }
    return text;
  }
  std::uint64_t address(RamBacking& of, std::uint64_t block) { return of.map(block * unit(), unit()).value().address; }
  // Prepares a block and never commits it: what a failed write leaves.
  void fail_write(RamBacking& to, std::uint64_t block) { ASSERT_TRUE(to.prepare(block * unit(), unit()).ok()); }
  // Leaves `blocks` of the store free.
  void fill_store(std::uint64_t blocks) {
    ASSERT_TRUE(hog.allocate(0, (kStoreBlocks - store.blocks_in_use() - blocks) * unit(), false).ok());
  }

  RamStore store{GetParam(), kStoreBlocks};
  RamBacking file{store}, other{store}, hog{store};
};

TEST_P(RamRanges, AllocateGivesUnwrittenBlocks) {
  put(file, 1, "a");
  ASSERT_TRUE(file.allocate(unit() / 2, 3 * unit(), true).ok());
  EXPECT_EQ(kinds(file, 5), "uwuuh");
  EXPECT_EQ(file.size(), 2 * unit());
  EXPECT_EQ(letters(file), ".a");
  ASSERT_TRUE(file.allocate(3 * unit(), unit() + 5, false).ok());
  EXPECT_EQ(file.size(), 4 * unit() + 5);
  EXPECT_EQ(letters(file), ".a...") << "never the poison in it";
  put(file, 2, "c");
  EXPECT_EQ(kinds(file, 5), "uwwuu");
}

TEST_P(RamRanges, AllocateWithoutRoomTakesNothing) {
  put(file, 0, "ab");
  fail_write(file, 4);
  fill_store(3);
  EXPECT_EQ(file.allocate(0, 7 * unit(), false).errnum(), ENOSPC) << "5 missing, 3 free and 1 that was prepared";
  EXPECT_EQ(kinds(file, 8), "wwhhhhhh");
  EXPECT_EQ(file.size(), 2 * unit());
  EXPECT_EQ(store.blocks_in_use(), kStoreBlocks - 3);
  EXPECT_EQ(file.allocate(0, file.max_size(), true).errnum(), ENOSPC) << "and at once";
  EXPECT_TRUE(file.allocate(0, 6 * unit(), false).ok()) << "a leftover of a failed write makes room";
  EXPECT_EQ(store.blocks_in_use(), kStoreBlocks);
  put(file, 2, "cdef");
  EXPECT_EQ(letters(file), "abcdef") << "what was allocated needs no room";
}

TEST_P(RamRanges, PunchMakesHolesAndZeroesEdges) {
  put(file, 0, "abcde");
  ASSERT_TRUE(file.punch(unit() - 10, 2 * unit() + 20).ok());
  EXPECT_EQ(kinds(file, 5), "whhww");
  Bytes expected(5 * unit(), 0);
  std::fill_n(expected.begin(), unit() - 10, 'a');
  std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(3 * unit() + 10), unit() - 10, 'd');
  std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(4 * unit()), unit(), 'e');
  EXPECT_EQ(image_of(store, file), expected);
  EXPECT_EQ(file.size(), 5 * unit());
  EXPECT_EQ(store.blocks_in_use(), 3U);

  ASSERT_TRUE(file.punch(4 * unit() + 3, 7).ok());  // inside one block
  std::fill_n(expected.begin() + static_cast<std::ptrdiff_t>(4 * unit() + 3), 7, 0);
  EXPECT_EQ(image_of(store, file), expected);
  ASSERT_TRUE(file.punch(4 * unit(), 100 * unit()).ok()) << "past the end";
  EXPECT_EQ(kinds(file, 5), "whhwh");
  EXPECT_EQ(file.size(), 5 * unit());
}

TEST_P(RamRanges, PunchLeavesTheOtherFilesBytes) {
  put(file, 0, "abc");
  ASSERT_TRUE(other.clone(file, 0, 0, 3 * unit()).ok());
  ASSERT_TRUE(other.punch(5, 2 * unit()).ok());
  EXPECT_EQ(letters(file), "abc");
  EXPECT_EQ(kinds(file, 3), "www");
  EXPECT_EQ(kinds(other, 3), "whw") << "copies at both edges";
  EXPECT_EQ(letters(other), "?.?");
}

TEST_P(RamRanges, ZeroKeepsOrMakesBlocks) {
  put(file, 0, "ab");
  put(file, 3, "de");
  const std::uint64_t before = address(file, 1);
  ASSERT_TRUE(file.zero(unit() - 1, 3 * unit() + 2, true).ok());
  EXPECT_EQ(kinds(file, 6), "wuuuwh");
  EXPECT_EQ(address(file, 1), before) << "stays where it is";
  EXPECT_EQ(letters(file), "?...?");
  ASSERT_TRUE(file.zero(5 * unit(), unit(), true).ok());
  EXPECT_EQ(file.size(), 5 * unit());
  ASSERT_TRUE(file.zero(5 * unit(), unit() + 9, false).ok());
  EXPECT_EQ(file.size(), 6 * unit() + 9);
  EXPECT_EQ(kinds(file, 7), "wuuuwuu");
}

TEST_P(RamRanges, ZeroTakesBlocksForWhatIsShared) {
  put(file, 0, "abc");
  ASSERT_TRUE(other.clone(file, 0, 0, 3 * unit()).ok());
  fill_store(2);
  EXPECT_EQ(other.zero(0, 3 * unit(), false).errnum(), ENOSPC);
  EXPECT_EQ(kinds(other, 3), "sss");
  EXPECT_EQ(store.blocks_in_use(), kStoreBlocks - 2);
  ASSERT_TRUE(other.zero(0, 2 * unit(), false).ok());
  EXPECT_EQ(kinds(other, 3), "uus");
  EXPECT_EQ(letters(other), "..c");
  EXPECT_EQ(letters(file), "abc");
}

TEST_P(RamRanges, UnshareCopiesWhatIsShared) {
  put(file, 0, "abcd");
  ASSERT_TRUE(other.clone(file, 0, 0, 4 * unit()).ok());
  fill_store(2);
  EXPECT_EQ(other.unshare(0, 3 * unit()).errnum(), ENOSPC);
  EXPECT_EQ(kinds(other, 4), "ssss");
  ASSERT_TRUE(other.unshare(unit() + 1, unit()).ok());
  EXPECT_EQ(kinds(other, 4), "swws");
  EXPECT_EQ(kinds(file, 4), "swws");
  EXPECT_NE(address(file, 1), address(other, 1));
  EXPECT_EQ(letters(file), "abcd");
  EXPECT_EQ(letters(other), "abcd");
  EXPECT_TRUE(other.unshare(unit(), 2 * unit()).ok()) << "nothing to do needs no room";
}

TEST_P(RamRanges, TheLastReferenceNeedsNoCopy) {
  put(file, 0, "a");
  ASSERT_TRUE(file.clone(file, 0, unit(), unit()).ok());
  ASSERT_TRUE(file.clone(file, 0, 2 * unit(), unit()).ok());
  EXPECT_EQ(store.blocks_in_use(), 1U);
  EXPECT_EQ(kinds(file, 3), "sss");
  fill_store(2);
  ASSERT_TRUE(file.unshare(0, 3 * unit()).ok()) << "three references take two copies";
  EXPECT_EQ(kinds(file, 3), "www");
  EXPECT_EQ(letters(file), "aaa");
}

TEST_P(RamRanges, PunchMakesTheRoomThatItNeeds) {
  put(file, 0, "abc");
  ASSERT_TRUE(other.clone(file, 0, 0, unit()).ok());
  fill_store(0);
  EXPECT_EQ(file.punch(0, 1).errnum(), ENOSPC) << "a copy, and nothing is freed";
  EXPECT_EQ(letters(file), "abc");
  ASSERT_TRUE(file.punch(1, 2 * unit()).ok());
  EXPECT_EQ(letters(file), "?.?");
  EXPECT_EQ(letters(other), "a");
}

TEST_P(RamRanges, CollapseAndInsertMoveWhatFollows) {
  put(file, 0, "abcdef", 3);
  ASSERT_TRUE(file.allocate(6 * unit(), unit(), true).ok());
  ASSERT_TRUE(file.collapse(unit(), 2 * unit()).ok());
  EXPECT_EQ(file.size(), 4 * unit() - 3);
  EXPECT_EQ(letters(file), "adef");
  EXPECT_EQ(kinds(file, 6), "wwwwuh");
  ASSERT_TRUE(file.insert(2 * unit(), 3 * unit()).ok());
  EXPECT_EQ(file.size(), 7 * unit() - 3);
  EXPECT_EQ(letters(file), "ad...ef");
  EXPECT_EQ(kinds(file, 8), "wwhhhwwu");
  EXPECT_EQ(store.blocks_in_use(), 5U);
}

TEST_P(RamRanges, CollapseAndInsertRefuse) {
  put(file, 0, "abcd", 1);
  EXPECT_EQ(file.collapse(1, unit()).errnum(), EINVAL);
  EXPECT_EQ(file.collapse(unit(), unit() + 1).errnum(), EINVAL);
  EXPECT_EQ(file.collapse(2 * unit(), 2 * unit()).errnum(), EINVAL) << "reaches the end";
  EXPECT_EQ(file.insert(unit() / 2, unit()).errnum(), EINVAL);
  EXPECT_EQ(file.insert(unit(), unit() / 2).errnum(), EINVAL);
  EXPECT_EQ(file.insert(4 * unit(), unit()).errnum(), EINVAL) << "past the end";
  const std::uint64_t most = file.max_size() / unit() * unit();
  EXPECT_EQ(file.insert(0, most).errnum(), EFBIG);
  EXPECT_EQ(letters(file), "abcd");
  EXPECT_EQ(file.size(), 4 * unit() - 1);
  ASSERT_TRUE(file.insert(unit(), most - 4 * unit()).ok()) << "as far as there is room for the size";
  EXPECT_EQ(file.size(), most - 1);
  EXPECT_EQ(file.seek_data(unit()).value(), most - 3 * unit());
  EXPECT_EQ(file.insert(unit(), 2 * unit()).errnum(), EFBIG);
  ASSERT_TRUE(file.collapse(unit(), most - 4 * unit()).ok());
  EXPECT_EQ(letters(file), "abcd");
  report_error(EFBIG, "insert");
  EXPECT_NE(std::strstr(error_message(), "largest size"), nullptr) << error_message();
}

TEST_P(RamRanges, CloneSharesAndWritesCopy) {
  put(file, 0, "abcd");
  ASSERT_TRUE(other.clone(file, unit(), 2 * unit(), 2 * unit()).ok());
  EXPECT_EQ(other.size(), 4 * unit());
  EXPECT_EQ(letters(other), "..bc");
  EXPECT_EQ(kinds(other, 4), "hhss");
  EXPECT_EQ(kinds(file, 4), "wssw");
  EXPECT_EQ(address(other, 2), address(file, 1));
  EXPECT_EQ(store.blocks_in_use(), 4U);

  const auto extent = other.prepare(2 * unit(), unit());
  ASSERT_TRUE(extent.ok());
  EXPECT_NE(extent.value().address, address(file, 1));
  store.memory().fill(extent.value().address, unit(), 'X');
  EXPECT_EQ(letters(other), "..bc") << "until the commit";
  ASSERT_TRUE(other.commit(2 * unit(), unit(), 4 * unit()).ok());
  EXPECT_EQ(letters(other), "..Xc");
  EXPECT_EQ(letters(file), "abcd");
  EXPECT_EQ(kinds(file, 4), "wwsw") << "the old reference is gone";
  put(file, 1, "B");
  EXPECT_EQ(store.blocks_in_use(), 5U) << "its own again: in place";
  ASSERT_TRUE(file.set_size(0).ok());
  EXPECT_EQ(letters(other), "..Xc");
  ASSERT_TRUE(other.set_size(0).ok());
  EXPECT_EQ(store.blocks_in_use(), 0U);
}

TEST_P(RamRanges, TruncatingASharedBlockLeavesTheOther) {
  put(file, 0, "ab");
  ASSERT_TRUE(other.clone(file, 0, 0, 2 * unit()).ok());
  ASSERT_TRUE(other.set_size(unit() + 7).ok());
  EXPECT_EQ(letters(file), "ab");
  EXPECT_EQ(kinds(file, 2), "sw");
  ASSERT_TRUE(other.set_size(2 * unit()).ok());
  EXPECT_EQ(letters(other), "a?");
}

// A write to a shared block fails, then the other file goes, so that the block would now be written in place.
TEST_P(RamRanges, AFailedWriteOfASharedBlockIsTriedAgain) {
  put(file, 0, "a");
  {
    RamBacking third(store);
    ASSERT_TRUE(third.clone(file, 0, 0, unit()).ok());
    fail_write(file, 0);
  }
  put(file, 0, "b");
  EXPECT_EQ(letters(file), "b");
  EXPECT_EQ(store.blocks_in_use(), 1U);
}

TEST_P(RamRanges, CloneReplacesWhatTheTargetHad) {
  put(file, 0, "a");
  ASSERT_TRUE(file.allocate(unit(), unit(), false).ok());
  ASSERT_TRUE(file.set_size(3 * unit()).ok());  // written, unwritten, hole
  put(other, 0, "vwx");
  put(other, 4, "z");
  fail_write(other, 3);
  fill_store(0);
  ASSERT_TRUE(other.clone(file, 0, unit(), 3 * unit()).ok());
  EXPECT_EQ(letters(other), "va..z");
  EXPECT_EQ(kinds(other, 5), "wshhw");
  EXPECT_EQ(store.blocks_in_use(), kStoreBlocks - 3);
  ASSERT_TRUE(other.clone(file, 0, unit(), 3 * unit()).ok()) << "the same again";
  EXPECT_EQ(letters(other), "va..z");
}

TEST_P(RamRanges, CloneArguments) {
  put(file, 0, "abc", 5);
  put(other, 0, "wxyz");
  const std::uint64_t size = 3 * unit() - 5;
  EXPECT_EQ(other.clone(file, 1, 0, unit()).errnum(), EINVAL);
  EXPECT_EQ(other.clone(file, 0, 1, unit()).errnum(), EINVAL);
  EXPECT_EQ(other.clone(file, 0, 0, unit() - 1).errnum(), EINVAL);
  EXPECT_EQ(other.clone(file, 2 * unit(), 0, unit()).errnum(), EINVAL) << "past the source's end";
  EXPECT_EQ(other.clone(file, 0, 0, size).errnum(), EINVAL) << "the source's end, but not the target's";
  EXPECT_EQ(file.clone(file, 0, unit(), 2 * unit()).errnum(), EINVAL) << "overlap";
  EXPECT_EQ(file.clone(file, 2 * unit(), 2 * unit(), unit() - 5).errnum(), EINVAL) << "all of itself";
  EXPECT_EQ(letters(other), "wxyz");
  ASSERT_TRUE(other.clone(file, unit(), 3 * unit(), size - unit()).ok());
  EXPECT_EQ(other.size(), 5 * unit() - 5);
  EXPECT_EQ(letters(other), "wxybc");

  RamStore elsewhere(GetParam());
  RamBacking stranger(elsewhere);
  testing_support::OddBacking odd(std::make_unique<RamBacking>(store));
  for (Backing* source : {static_cast<Backing*>(&stranger), static_cast<Backing*>(&odd)}) {
    EXPECT_EQ(other.clone(*source, 0, 0, unit()).errnum(), EXDEV);
    EXPECT_EQ(other.dedupe(*source, 0, 0, unit()).errnum(), EXDEV);
    EXPECT_EQ(other.exchange(*source, 0, 0, unit()).errnum(), EXDEV);
  }
}

TEST_P(RamRanges, DedupeSharesWhatIsEqual) {
  put(file, 0, "abc.", 9);
  put(other, 0, "xabc.", 9);
  EXPECT_EQ(other.dedupe(file, 0, 0, unit()).errnum(), EBADE);
  EXPECT_EQ(kinds(other, 5), "wwwww");
  const auto shared = other.dedupe(file, 0, unit(), 2 * unit() + 5);
  ASSERT_TRUE(shared.ok());
  EXPECT_EQ(shared.value(), 2 * unit()) << "whole blocks";
  EXPECT_EQ(kinds(other, 5), "wssww");
  const auto end = other.dedupe(file, 0, unit(), 4 * unit() - 9);
  ASSERT_TRUE(end.ok());
  EXPECT_EQ(end.value(), 4 * unit() - 9) << "to both ends";
  EXPECT_EQ(kinds(other, 5), "wssss");
  EXPECT_EQ(store.blocks_in_use(), 5U);
  EXPECT_EQ(letters(file), "abc.");
  EXPECT_EQ(letters(other), "xabc.");
}

TEST_P(RamRanges, DedupeTakesAHoleForZeros) {
  put(file, 0, "a");
  ASSERT_TRUE(file.set_size(2 * unit()).ok());
  const Bytes zeros(unit(), 0);
  ASSERT_TRUE(write_blocks(store, other, 0, zeros, unit()).ok());
  EXPECT_EQ(other.dedupe(file, unit(), 0, unit()).value(), unit());
  EXPECT_EQ(kinds(other, 1), "h");
  EXPECT_EQ(other.dedupe(file, 0, 0, unit()).errnum(), EBADE) << "in the first bytes";
  ASSERT_TRUE(file.set_size(std::uint64_t{1} << 50).ok());
  ASSERT_TRUE(other.set_size(std::uint64_t{1} << 50).ok());
  EXPECT_EQ(other.dedupe(file, unit(), 0, std::uint64_t{1} << 49).value(), std::uint64_t{1} << 49) << "at once";
}

TEST_P(RamRanges, DedupeArguments) {
  put(file, 0, "abc", 5);
  put(other, 0, "abc");
  EXPECT_EQ(other.dedupe(file, 3, 0, unit()).errnum(), EINVAL);
  EXPECT_EQ(other.dedupe(file, 0, 3, unit()).errnum(), EINVAL);
  EXPECT_EQ(other.dedupe(file, 2 * unit(), 2 * unit(), unit()).errnum(), EINVAL) << "past the source's end";
  EXPECT_EQ(file.dedupe(other, 2 * unit(), 2 * unit(), unit()).errnum(), EINVAL) << "past the target's end";
  EXPECT_EQ(file.dedupe(other, 2 * unit(), 2 * unit(), unit() - 5).errnum(), EINVAL) << "less than a block";
  EXPECT_EQ(file.dedupe(file, 0, 0, unit()).errnum(), EINVAL) << "overlap";
}

TEST_P(RamRanges, Exchange) {
  put(file, 0, "abcd", 1);
  put(other, 1, "xy", 1);
  fail_write(other, 0);
  fill_store(0);
  ASSERT_TRUE(file.exchange(other, 0, unit(), 2 * unit()).ok());
  EXPECT_EQ(letters(file), "a.xd");
  EXPECT_EQ(letters(other), "bcy");
  EXPECT_EQ(kinds(file, 4), "whww");
  EXPECT_EQ(store.blocks_in_use(), kStoreBlocks - 1) << "the leftover of the failed write";
  ASSERT_TRUE(file.exchange(other, 2 * unit(), 3 * unit(), unit() - 1).ok()) << "a common end";
  EXPECT_EQ(letters(file), "a.xy");
  EXPECT_EQ(letters(other), "bcd");
  ASSERT_TRUE(file.exchange(file, 0, 2 * unit(), unit()).ok());
  EXPECT_EQ(letters(file), "x.ay");

  EXPECT_EQ(file.exchange(file, 0, unit(), 2 * unit()).errnum(), EINVAL) << "overlap";
  EXPECT_EQ(file.exchange(other, 1, 0, unit()).errnum(), EINVAL);
  EXPECT_EQ(file.exchange(other, 0, 1, unit()).errnum(), EINVAL);
  EXPECT_EQ(file.exchange(other, 0, 0, unit() - 1).errnum(), EINVAL);
  EXPECT_EQ(file.exchange(other, 0, 3 * unit(), unit()).errnum(), EINVAL) << "past the end";
  EXPECT_EQ(file.exchange(other, 2 * unit(), 0, unit()).errnum(), EINVAL) << "past the other's";
  EXPECT_EQ(file.exchange(other, 0, 3 * unit(), unit() - 1).errnum(), EINVAL) << "the end of one only";
  EXPECT_EQ(letters(file), "x.ay");
  EXPECT_EQ(letters(other), "bcd");
}

TEST_P(RamRanges, Seek) {
  EXPECT_EQ(file.seek_data(0).errnum(), ENXIO);
  EXPECT_EQ(file.seek_hole(0).errnum(), ENXIO);
  put(file, 1, "ab");
  put(file, 5, "c", 10);
  ASSERT_TRUE(file.allocate(3 * unit(), unit(), false).ok());
  ASSERT_TRUE(file.allocate(6 * unit(), unit(), true).ok());
  EXPECT_EQ(file.seek_data(0).value(), unit());
  EXPECT_EQ(file.seek_data(unit() + 3).value(), unit() + 3);
  EXPECT_EQ(file.seek_data(3 * unit()).value(), 5 * unit()) << "unwritten is a hole";
  EXPECT_EQ(file.seek_hole(0).value(), 0U);
  EXPECT_EQ(file.seek_hole(unit() + 3).value(), 3 * unit());
  EXPECT_EQ(file.seek_hole(4 * unit() + 1).value(), 4 * unit() + 1);
  EXPECT_EQ(file.seek_hole(5 * unit()).value(), 6 * unit() - 10) << "the end of the file";
  EXPECT_EQ(file.seek_data(6 * unit() - 10).errnum(), ENXIO);
  EXPECT_EQ(file.seek_hole(6 * unit() - 10).errnum(), ENXIO);
  ASSERT_TRUE(file.set_size(9 * unit()).ok());
  EXPECT_EQ(file.seek_data(6 * unit()).errnum(), ENXIO) << "no data any more";
  EXPECT_EQ(file.seek_hole(6 * unit()).value(), 6 * unit());
}

TEST_P(RamRanges, TruncatingToTheSameSizeFreesWhatIsPastIt) {
  put(file, 0, "ab", 3);
  ASSERT_TRUE(file.allocate(0, 9 * unit(), true).ok());
  ASSERT_TRUE(file.set_size(file.size()).ok());
  EXPECT_EQ(store.blocks_in_use(), 2U);
  EXPECT_EQ(letters(file), "ab");
}

// Files of several threads refer to the blocks of one that does not change, and copy what they write.
TEST_P(RamRanges, R2_CopiesOfOneFileByManyThreads) {
  RamStore large(GetParam(), 256);
  RamBacking origin(large);
  ASSERT_TRUE(write_blocks(large, origin, 0, Bytes(8 * unit(), 'o'), 8 * unit()).ok());
  std::vector<std::thread> threads;
  for (unsigned char value = 1; value <= 4; ++value) {
    threads.emplace_back([&, value] {
      Random random(value);
      RamBacking mine(large);
      for (int round = 0; round < 300; ++round) {
        const std::uint64_t from = random.below(6), to = random.below(8), count = 1 + random.below(2);
        ASSERT_TRUE(mine.clone(origin, from * unit(), to * unit(), count * unit()).ok());
        const std::uint64_t at = random.below(8) * unit();
        ASSERT_TRUE(write_blocks(large, mine, at, Bytes(unit(), value), at + unit()).ok());
        const std::uint64_t offset = random.below(mine.size()), length = 1 + random.below(3 * unit());
        switch (random.below(4)) {
          case 0:
            ASSERT_TRUE(mine.punch(offset, length).ok());
            break;
          case 1:
            ASSERT_TRUE(mine.zero(offset, length, true).ok());
            break;
          case 2:
            ASSERT_TRUE(mine.unshare(offset, length).ok());
            break;
          default:
            break;
        }
        (void)mine.dedupe(origin, 0, 0, unit());
        for (const unsigned char byte : image_of(large, mine)) {
          ASSERT_TRUE(byte == value || byte == 0 || byte == 'o') << int{byte};
        }
        if (random.one_in(4)) {
          ASSERT_TRUE(mine.set_size(random.below(8 * unit())).ok());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(image_of(large, origin), Bytes(8 * unit(), 'o'));
  EXPECT_EQ(large.blocks_in_use(), 8U);
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, RamRanges, ::testing::Values(512U, 1024U, 4096U));

}  // namespace
}  // namespace quire
