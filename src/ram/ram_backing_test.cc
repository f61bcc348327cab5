// The ram backing by itself: what a file reads as before and after each step, and where its blocks go.
#include "ram/ram_backing.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <thread>
#include <vector>

#include "base/random.h"
#include "ram/ram_disk_for_test.h"
#include "ram/ram_image_for_test.h"

namespace quire {
namespace {

using testing_support::RamDisk;

class Ram : public ::testing::TestWithParam<unsigned> {
 protected:
  std::uint64_t unit() const { return GetParam(); }

  std::vector<unsigned char> image(RamBacking& of) { return testing_support::image_of(store, of); }
  // Prepares and writes [block, block + count) full of `value`, without a commit.
  void write(RamBacking& to, std::uint64_t block, std::uint64_t count, unsigned char value) {
    for (std::uint64_t at = block * unit(); at < (block + count) * unit();) {
      const auto extent = to.prepare(at, (block + count) * unit() - at);
      ASSERT_TRUE(extent.ok());
      ASSERT_GT(extent.value().length, 0U);
      store.memory().fill(extent.value().address, extent.value().length, value);
      at += extent.value().length;
    }
  }
  void put(RamBacking& to, std::uint64_t block, std::uint64_t count, unsigned char value) {
    write(to, block, count, value);
    ASSERT_TRUE(to.commit(block * unit(), count * unit(), UINT64_MAX).ok());
  }

  RamStore store{GetParam(), 64};
  RamBacking file{store};
};

TEST_P(Ram, NewFileIsAHole) {
  EXPECT_EQ(file.size(), 0U);
  const auto extent = file.map(5 * unit() + 3, 100);
  ASSERT_TRUE(extent.ok());
  EXPECT_EQ(extent.value().kind, ExtentKind::hole);
  EXPECT_EQ(extent.value().length, 100U);
  EXPECT_EQ(store.blocks_in_use(), 0U);
}

TEST_P(Ram, PreparingShowsNothingBeforeTheCommit) {
  write(file, 0, 3, 0x11);
  EXPECT_EQ(file.size(), 0U);
  EXPECT_EQ(file.map(0, unit()).value().kind, ExtentKind::hole);
  EXPECT_EQ(store.blocks_in_use(), 3U);
  ASSERT_TRUE(file.commit(0, 3 * unit(), 2 * unit() + 7).ok());
  EXPECT_EQ(file.size(), 2 * unit() + 7) << "grows to the end of the file, not of the block";
  EXPECT_EQ(image(file), std::vector<unsigned char>(2 * unit() + 7, 0x11));
  ASSERT_TRUE(file.commit(0, unit(), UINT64_MAX).ok());
  EXPECT_EQ(file.size(), 2 * unit() + 7) << "and never shrinks";
}

TEST_P(Ram, AFailedWriteIsPreparedAgainInPlace) {
  const auto first = file.prepare(0, unit());
  const auto again = file.prepare(0, unit());
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(first.value().address, again.value().address);
  EXPECT_EQ(store.blocks_in_use(), 1U);
}

// Bytes within a block go where the file reads them, and are committed alone; whole blocks between them are prepared.
TEST_P(Ram, PartsOfBlocksAreWrittenInPlace) {
  put(file, 0, 4, 0x11);
  write(file, 0, 4, 0x22);  // failed: prepared elsewhere or in place
  RamBacking other(store);
  ASSERT_TRUE(other.clone(file, 0, 0, 4 * unit()).ok());
  write(file, 0, 4, 0x33);  // shared, so elsewhere; fails, too
  ASSERT_TRUE(other.set_size(0).ok());
  EXPECT_FALSE(file.map_exact(0, unit()).value().shared);
  const std::uint64_t half = unit() / 2;
  const auto edge = file.map_exact(half, half);
  ASSERT_EQ(edge.value().kind, ExtentKind::written);
  store.memory().fill(edge.value().address, half, 0x44);
  write(file, 1, 2, 0x44);
  store.memory().fill(file.map_exact(3 * unit(), 1).value().address, 1, 0x44);
  ASSERT_TRUE(file.commit(half, half + 2 * unit() + 1, UINT64_MAX).ok());
  EXPECT_EQ(file.size(), 4 * unit());
  std::vector<unsigned char> wanted(4 * unit(), 0x44);
  std::fill_n(wanted.begin(), half, static_cast<unsigned char>(0x22));
  std::fill(wanted.begin() + static_cast<long>(3 * unit() + 1), wanted.end(), static_cast<unsigned char>(0x22));
  EXPECT_EQ(image(file), wanted);
}

TEST_P(Ram, APartOfTheLastBlockGrowsTheFile) {
  put(file, 0, 1, 0x11);
  ASSERT_TRUE(file.set_size(7).ok());
  store.memory().fill(file.map_exact(0, 1).value().address, 9, 0x22);
  ASSERT_TRUE(file.commit(0, 9, UINT64_MAX).ok());
  EXPECT_EQ(file.size(), 9u);
  EXPECT_EQ(image(file), std::vector<unsigned char>(9, 0x22));
}

TEST_P(Ram, RewritesInPlace) {
  put(file, 0, 4, 1);
  const std::uint64_t address = file.map(unit(), unit()).value().address;
  const auto extent = file.prepare(unit(), unit());
  ASSERT_TRUE(extent.ok());
  EXPECT_EQ(extent.value().address, address);
  EXPECT_EQ(store.blocks_in_use(), 4U);
}

TEST_P(Ram, MapsRunsAndGaps) {
  put(file, 2, 3, 1);
  put(file, 8, 1, 2);
  auto extent = file.map(0, 20 * unit()).value();
  EXPECT_EQ(extent.kind, ExtentKind::hole);
  EXPECT_EQ(extent.length, 2 * unit());
  extent = file.map(2 * unit() + 5, 20 * unit()).value();
  EXPECT_EQ(extent.kind, ExtentKind::written);
  EXPECT_EQ(extent.length, 3 * unit() - 5) << "contiguous blocks in one";
  extent = file.map(3 * unit(), 10).value();
  EXPECT_EQ(extent.length, 10U);
  extent = file.map(5 * unit(), 20 * unit()).value();
  EXPECT_EQ(extent.kind, ExtentKind::hole);
  EXPECT_EQ(extent.length, 3 * unit());
  extent = file.map(100 * unit(), unit()).value();
  EXPECT_EQ(extent.kind, ExtentKind::hole);
  EXPECT_EQ(extent.length, unit());
}

TEST_P(Ram, ShrinkingZeroesTheRestOfTheLastBlock) {
  put(file, 0, 4, 7);
  ASSERT_TRUE(file.set_size(2 * unit() + 100).ok());
  ASSERT_TRUE(file.set_size(4 * unit()).ok());
  std::vector<unsigned char> expected(4 * unit(), 0);
  std::fill_n(expected.begin(), 2 * unit() + 100, 7);
  EXPECT_EQ(image(file), expected);
  EXPECT_EQ(store.blocks_in_use(), 3U);
}

TEST_P(Ram, FreedBlocksArePoisonedAndReusedAtOnce) {
  put(file, 0, 2, 7);
  const std::uint64_t address = file.map(unit(), unit()).value().address;
  ASSERT_TRUE(file.set_size(unit()).ok());
  unsigned char byte = 0;
  store.memory().peek(address, &byte, 1);
  EXPECT_EQ(byte, 0xdb);
  RamBacking other(store);
  EXPECT_EQ(other.prepare(0, unit()).value().address, address) << "last freed, first used";
}

TEST_P(Ram, TruncatingDropsWhatWasPrepared) {
  write(file, 0, 4, 1);
  ASSERT_TRUE(file.set_size(unit() + 1).ok());
  EXPECT_EQ(store.blocks_in_use(), 2U);
  EXPECT_EQ(file.size(), unit() + 1);
  EXPECT_EQ(image(file), std::vector<unsigned char>(unit() + 1, 0)) << "never committed";
}

TEST_P(Ram, FullStore) {
  put(file, 0, 60, 1);
  RamBacking other(store);
  const auto some = other.prepare(0, 10 * unit());
  ASSERT_TRUE(some.ok());
  EXPECT_EQ(some.value().length, 4 * unit()) << "what there is";
  EXPECT_EQ(other.prepare(4 * unit(), unit()).errnum(), ENOSPC);
  EXPECT_EQ(file.prepare(61 * unit(), unit()).errnum(), ENOSPC);
  EXPECT_TRUE(file.prepare(0, unit()).ok()) << "in place there is always room";
  ASSERT_TRUE(file.set_size(0).ok());
  EXPECT_TRUE(other.prepare(4 * unit(), 6 * unit()).ok());
}

TEST_P(Ram, GivesItsBlocksBack) {
  {
    RamBacking other(store);
    put(other, 0, 10, 1);
    write(other, 20, 10, 2);
    EXPECT_EQ(store.blocks_in_use(), 20U);
  }
  EXPECT_EQ(store.blocks_in_use(), 0U);
}

TEST_P(Ram, SyncTellsWhatTheDeviceSays) {
  RamDisk disk(GetParam());
  const auto other = disk.make_file();
  EXPECT_TRUE(other->sync(false).ok());
  disk.fail_flushes(1, ENOSPC);
  EXPECT_EQ(other->sync(true).errnum(), ENOSPC);
  EXPECT_TRUE(other->sync(true).ok());
}

TEST_P(Ram, Stat) {
  put(file, 3, 2, 1);
  ASSERT_TRUE(file.set_size(4 * unit() + 1).ok());
  struct stat st;
  ASSERT_TRUE(file.stat(&st).ok());
  EXPECT_TRUE(S_ISREG(st.st_mode));
  EXPECT_EQ(st.st_size, static_cast<off_t>(4 * unit() + 1));
  EXPECT_EQ(st.st_blocks, static_cast<blkcnt_t>(2 * unit() / 512));
}

// Files of one store by several threads: nobody's block is ever anybody else's.
TEST_P(Ram, R2_FilesOfOneStoreShareNoBlock) {
  std::vector<std::thread> threads;
  for (unsigned char value = 1; value <= 4; ++value) {
    threads.emplace_back([&, value] {
      Random random(value);
      RamBacking mine(store);
      for (int round = 0; round < 400; ++round) {
        const std::uint64_t block = random.below(12), count = 1 + random.below(3);
        write(mine, block, count, value);
        ASSERT_TRUE(mine.commit(block * unit(), count * unit(), UINT64_MAX).ok());
        for (const unsigned char byte : image(mine)) ASSERT_TRUE(byte == value || byte == 0) << int{byte};
        if (random.one_in(3)) {
          ASSERT_TRUE(mine.set_size(random.below(12 * unit())).ok());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store.blocks_in_use(), 0U);
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, Ram, ::testing::Values(512U, 1024U, 4096U));

}  // namespace
}  // namespace quire
