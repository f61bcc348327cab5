// Truncate: the backing first, the cache at one instant, nothing of what was cut ever comes back.
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

constexpr unsigned kFile = 4;

class Truncate : public ::testing::TestWithParam<unsigned> {
 protected:
  void lay(std::uint64_t size) {
    for (std::uint64_t at = 0; at < size; at += 16'384) {
      const std::size_t n = std::min<std::uint64_t>(16'384, size - at);
      ASSERT_EQ(file.write(words(n, kFile, 1, at), at), static_cast<ssize_t>(n));
    }
  }
  // Zeros in [low, high), data below; from the cache and, once more, from the device.
  void expect_zeros_after(std::uint64_t low, std::uint64_t high) {
    for (int from_device = 0; from_device < 2; ++from_device) {
      ASSERT_EQ(file.size(), high);
      EXPECT_EQ(file.range(0, low), words(low, kFile, 1, 0));
      EXPECT_TRUE(all_zero(file.range(low, high - low))) << "from the device: " << from_device;
      ASSERT_EQ(file.sync(), 0);
      ASSERT_EQ(file.inode().backing->size(), high);
      file.drop_cached();
    }
  }

  RamDisk disk{GetParam()};
  TestCache cache;
  std::unique_ptr<OddBacking> made = std::make_unique<OddBacking>(disk.make_file());
  OddBacking& backing = *made;
  TestFile file{cache.cache, std::move(made)};
};

TEST_P(Truncate, DownAndUpWithinAPage) {
  for (const bool synced_before : {false, true}) {
    for (const bool synced_between : {false, true}) {
      ASSERT_EQ(file.truncate(0), 0);
      lay(4 * kPageSize);
      if (synced_before) {
        ASSERT_EQ(file.sync(), 0);
      }
      ASSERT_EQ(file.truncate(5000), 0);
      EXPECT_EQ(file.range(4990, 100), words(10, kFile, 1, 4990));
      if (synced_between) {
        ASSERT_EQ(file.sync(), 0);
        file.drop_cached();
      }
      ASSERT_EQ(file.truncate(9000), 0);
      expect_zeros_after(5000, 9000);
    }
  }
}

TEST_P(Truncate, UpFromInsideABlockShowsNoOldBytes) {
  lay(1000);
  ASSERT_EQ(file.sync(), 0);
  ASSERT_EQ(file.truncate(3000), 0);
  expect_zeros_after(1000, 3000);
  ASSERT_EQ(file.truncate(1 << 20), 0);
  expect_zeros_after(1000, 1 << 20);
}

TEST_P(Truncate, ThroughEvictedPages) {
  lay(100 * kPageSize);  // most of it is on the device only
  ASSERT_EQ(file.sync(), 0);
  file.drop_cached();
  ASSERT_EQ(file.truncate(3 * kPageSize + 100), 0);
  ASSERT_EQ(file.truncate(50 * kPageSize), 0);
  expect_zeros_after(3 * kPageSize + 100, 50 * kPageSize);
}

TEST_P(Truncate, DropsWhatWasDirty) {
  lay(20 * kPageSize);
  ASSERT_EQ(file.truncate(4096), 0);
  EXPECT_LE(file.mapping().unstable_count.load(memory_order_relaxed), 1U);
  EXPECT_LE(cache.cache.dirty.unstable(), 1U);
  EXPECT_EQ(file.mapping().page_count.load(memory_order_relaxed), 1U);
  ASSERT_EQ(file.truncate(0), 0);
  EXPECT_EQ(cache.cache.dirty.unstable(), 0U);
  ASSERT_EQ(file.sync(), 0);
  EXPECT_EQ(disk.store.blocks_in_use(), 0U) << "blocks prepared or written by the flusher are given back";
}

TEST_P(Truncate, AppendsAfterwardsBeginAtTheNewEnd) {
  lay(10'000);
  ASSERT_EQ(file.truncate(1001), 0);
  ASSERT_EQ(file.append(words(5000, kFile, 1, 1001)), 5000);
  EXPECT_EQ(file.content(), words(6001, kFile, 1, 0));
  ASSERT_EQ(file.sync(), 0);
  file.drop_cached();
  EXPECT_EQ(file.content(), words(6001, kFile, 1, 0));
}

TEST_P(Truncate, R1_FailedTruncateLeavesEverything) {
  lay(30'000);
  const std::uint64_t folios = file.mapping().page_count.load(memory_order_relaxed);
  backing.set_size_errnum.store(EIO, memory_order_release);
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{5000}, std::uint64_t{1} << 20}) {
    EXPECT_EQ(file.truncate(size), EIO);
    EXPECT_EQ(file.size(), 30'000U);
    EXPECT_EQ(file.mapping().page_count.load(memory_order_relaxed), folios);
    EXPECT_EQ(file.content(), words(30'000, kFile, 1, 0));
  }
  backing.set_size_errnum.store(0, memory_order_release);
  ASSERT_EQ(file.sync(), 0);
  file.drop_cached();
  EXPECT_EQ(file.content(), words(30'000, kFile, 1, 0));
  EXPECT_EQ(file.truncate(5000), 0);
  EXPECT_EQ(file.content(), words(5000, kFile, 1, 0));
}

TEST_P(Truncate, RefusesWhatCannotBe) {
  lay(100);
  backing.limit.store(1 << 20, memory_order_release);
  EXPECT_EQ(file.truncate((1 << 20) + 1), EFBIG);
  EXPECT_EQ(file.truncate(1 << 20), 0);
  backing.is_fixed.store(true, memory_order_release);
  EXPECT_EQ(file.truncate(5), EINVAL);
  backing.is_fixed.store(false, memory_order_release);
  file.handle().writable = false;
  EXPECT_EQ(file.truncate(5), EINVAL);
  EXPECT_EQ(file.size(), 1U << 20);
}

// The blocks may be freed, and be another's, only after writeback and fills of them have ended.
TEST_P(Truncate, R2_WaitsForIoInFlight) {
  Watchdog watchdog("truncate beside I/O");
  for (const bool reading : {false, true}) {
    ASSERT_EQ(file.truncate(0), 0);
    lay(4 * kPageSize);
    if (reading) {
      ASSERT_EQ(file.sync(), 0);
      file.drop_cached();
    }
    disk.device.set_plan({.rules = {{.kind = FaultKind::hold, .reads = reading, .writes = !reading, .times = 1}}});
    std::thread user([&] {
      if (reading) {
        EXPECT_EQ(file.range(0, 8192), words(8192, kFile, 1, 0));
      } else {
        EXPECT_EQ(file.sync(), 0);
      }
    });
    ASSERT_TRUE(disk.device.wait_for_held(1, 20'000'000'000));
    std::atomic<bool> truncated{false};
    std::thread truncater([&] {
      EXPECT_EQ(file.truncate(100), 0);
      truncated = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(truncated);
    EXPECT_EQ(file.size(), 4 * kPageSize) << "and nothing of it shows yet";
    disk.device.release_held();
    user.join();
    truncater.join();
    EXPECT_EQ(file.content(), words(100, kFile, 1, 0));
    disk.heal();
  }
}

// Two ends that move at once: the file is always as one of the calls left it.
TEST_P(Truncate, R1_BesideTruncatesAndAppends) {
  Watchdog watchdog("truncates beside appends");
  std::atomic<bool> stop{false};
  run_threads(4, [&](int thread) {
    Random random(static_cast<std::uint64_t>(thread) + GetParam());
    for (int i = 0; i < 300 && !stop; ++i) {
      if (thread == 0) {
        ASSERT_EQ(file.truncate(8 * random.below(4000)), 0);
      } else if (thread == 3) {
        const std::vector<char> bytes = file.range(0, 65'536);
        for (std::size_t at = 0; at + 8 <= bytes.size(); at += 8) {  // appended words say their length only
          const std::uint64_t word = load_word(&bytes[at]);
          ASSERT_TRUE(word == 0 || word_file(word) == kFile) << std::hex << word;
        }
      } else {
        const std::size_t count = 8 * (1 + random.below(600));
        const std::vector<char> bytes = words(count, kFile, static_cast<unsigned>(i), 0);
        ASSERT_EQ(random.one_in(2) ? file.append(bytes) : file.write(bytes, 8 * random.below(6000)),
                  static_cast<ssize_t>(count));
      }
    }
    stop = true;
  });
  const std::uint64_t size = file.size();
  const std::vector<char> before = file.range(0, size);
  ASSERT_EQ(file.sync(), 0);
  EXPECT_EQ(file.inode().backing->size(), size);
  file.drop_cached();
  EXPECT_EQ(file.range(0, size), before);
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, Truncate, ::testing::Values(512U, 1024U, 4096U));

}  // namespace
}  // namespace quire
