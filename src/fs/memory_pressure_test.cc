// A cache of the smallest memory under many users: everybody gets through, and the memory is never exceeded.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/random.h"
#include "cache/flusher.h"
#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::size_t kLarge = 64 * 1024;  // nearly the largest operation of 64 frames
constexpr std::int64_t kMicrosecond = 1000;

// Frames and metadata in use, as M1 counts them.
std::uint64_t memory_in_use(PageCache& cache) {
  return std::uint64_t{cache.frames() - cache.free_frames()} * kPageSize +
         static_cast<std::uint64_t>(cache.metadata_bytes());
}

TEST(MemoryPressure, ManyLargeWritersGetThrough) {
  Watchdog watchdog("large writers");
  RamDisk disk(4096);
  TestCache test;
  {
    std::vector<std::unique_ptr<TestFile>> files;
    for (int i = 0; i < 4; ++i) files.push_back(std::make_unique<TestFile>(test.cache, disk.make_file()));
    run_threads(12, [&](int thread) {
      const unsigned number = static_cast<unsigned>(thread) % 4;
      TestFile& file = *files[number];
      for (unsigned round = 1; round <= 25; ++round) {
        const std::uint64_t offset = (thread / 4 * 25 + round % 5) * kLarge + 8 * (round % 3);
        ASSERT_EQ(file.write(words(kLarge, number, round, offset), offset), static_cast<ssize_t>(kLarge));
      }
    });
    EXPECT_GT(test.sum(Counter::throttled) + test.sum(Counter::reservation_waits), 0U);
    for (unsigned i = 0; i < 4; ++i) {
      ASSERT_EQ(files[i]->sync(), 0);
      const std::vector<char> bytes = files[i]->range(8, 5 * kLarge);
      EXPECT_TRUE(all_of_file(bytes, i, 8));
    }
  }
  EXPECT_EQ(test.cache.dirty.unstable(), 0U);
}

// Readers that already hold their range wait for frames; others wait for a writer that waits for the readers' range.
TEST(MemoryPressure, ManyLargeReadersBesideWritersOfOneFile) {
  Watchdog watchdog("large readers beside writers of one file");
  RamDisk disk(4096);
  TestCache test;
  TestFile file(test.cache, disk.make_file());
  constexpr std::uint64_t kSize = 16 * kLarge;
  for (std::uint64_t at = 0; at < kSize; at += kLarge)
    ASSERT_EQ(file.write(words(kLarge, 7, 1, at), at), ssize_t{kLarge});
  ASSERT_EQ(file.sync(), 0);
  disk.device.set_plan(
      {.rules = {{.kind = FaultKind::delay, .writes = false, .one_in = 2, .delay_ns = 100 * kMicrosecond}}});
  run_threads(28, [&](int thread) {
    Random random(static_cast<std::uint64_t>(thread) + 1);
    for (unsigned round = 0; round < 40; ++round) {
      const std::uint64_t offset = random.below(kSize / kLarge - 1) * kLarge + 512 * random.below(8);
      if (thread % 7 == 0) {
        ASSERT_EQ(file.write(words(kLarge, 7, round + 2, offset), offset), static_cast<ssize_t>(kLarge));
      } else {
        const std::vector<char> bytes = file.range(offset, kLarge);
        ASSERT_EQ(bytes.size(), kLarge);
        ASSERT_TRUE(all_of_file(bytes, 7, offset));
      }
    }
  });
}

// Other things take most of the memory: a quarter of the frames is left, and a writer may want as many at once, or hold
// them all and wait for a range whose readers have none yet.
TEST(MemoryPressure, M1_FilesThatTakeTheMemoryStopNobody) {
  Watchdog watchdog("reads and writes beside a full budget");
  RamDisk disk(4096);
  TestCache test(512);
  PageCache& cache = test.cache;
  TestFile file(cache, disk.make_file());
  const std::uint64_t most = cache.max_operation_bytes(), size = 4 * most;
  for (std::uint64_t at = 0; at < size; at += most) file.write(words(most, 7, 1, at), at);
  ASSERT_EQ(file.sync(), 0);
  const auto charge = static_cast<std::int64_t>(cache.memory());
  cache.charge_files(charge);
  EXPECT_EQ(cache.usable(), cache.frames() / 4);
  run_threads(7, [&](int thread) {
    Random random(static_cast<std::uint64_t>(thread) + 1);
    const std::uint64_t count = most - 4096 * random.below(20);
    for (unsigned round = 0; round < 40; ++round) {
      const std::uint64_t offset = random.below((size - count) / 512) * 512 + 8;
      if (thread < 3) {
        ASSERT_EQ(file.write(words(count - 8, 7, round + 2, offset), offset), static_cast<ssize_t>(count - 8));
      } else {
        const std::vector<char> bytes = file.range(offset, count - 8);
        ASSERT_TRUE(all_of_file(bytes, 7, offset)) << offset;
      }
    }
  });
  cache.charge_files(-charge);
}

// Dirty pages take more than may be in use: what readers take beside them is theirs to have. The flusher, which comes
// to write once it has trimmed, would otherwise reclaim for as long as they read.
TEST(MemoryPressure, D1_TrimLeavesToReadersWhatTheyMayTake) {
  Watchdog watchdog("trimming beside dirty pages and a full budget");
  RamDisk disk(4096), slow_disk(4096);
  TestCache test(512);
  PageCache& cache = test.cache;
  TestFile file(cache, disk.make_file()), dirty(cache, disk.make_file()), slow(cache, slow_disk.make_file());
  ASSERT_EQ(file.write(words(kLarge, 7, 1, 0), 0), ssize_t{kLarge});
  ASSERT_EQ(file.sync(), 0);
  slow_disk.device.set_plan({.rules = {{.kind = FaultKind::hold, .times = 1}}});
  ASSERT_EQ(slow.write(words(kPageSize, 2, 1, 0), 0), ssize_t{kPageSize});
  cache.flusher().kick();
  ASSERT_TRUE(slow_disk.device.wait_for_held(1, 10'000'000'000)) << "the flusher is busy";
  for (std::uint64_t at = 0; at < 220 * kPageSize; at += kPageSize) {
    ASSERT_EQ(dirty.write(words(kPageSize, 3, 1, at), at), ssize_t{kPageSize});
  }
  const auto charge = static_cast<std::int64_t>(cache.memory());
  cache.charge_files(charge);
  ASSERT_EQ(file.range(0, kLarge).size(), kLarge);
  ASSERT_GT(cache.dirty.unstable(), cache.usable());
  const std::uint64_t resident = cache.resident_pages();
  cache.trim();
  EXPECT_EQ(cache.resident_pages(), resident);
  EXPECT_LT(cache.pool.populated_frames(), cache.frames()) << "what was free has gone";
  slow_disk.device.release_held();
  ASSERT_EQ(dirty.sync(), 0);
  // The flusher may be giving memory back at the same time, which counts until it has gone.
  while (cache.pool.populated_frames() > cache.usable() + 4) cache.trim();
  cache.charge_files(-charge);
}

// Who waits for a frame asks for it now and then, and not all the time.
TEST(MemoryPressure, WaitersDoNotSpin) {
  Watchdog watchdog("a reader that waits for a frame");
  RamDisk disk(4096), slow_disk(4096);
  TestCache test;
  TestFile file(test.cache, disk.make_file()), slow(test.cache, slow_disk.make_file());
  ASSERT_EQ(slow.write(words(kLarge, 1, 1, 0), 0), ssize_t{kLarge});
  ASSERT_EQ(file.write(words(kLarge, 2, 1, 0), 0), ssize_t{kLarge});
  ASSERT_EQ(file.sync(), 0);
  ASSERT_EQ(slow.sync(), 0);
  file.drop_cached();
  FrameReservation all(test.cache.pool);
  while (test.cache.try_reserve(all, all.count() + 1)) {
  }
  std::thread reader([&] { EXPECT_EQ(file.range(0, kLarge).size(), kLarge); });
  while (test.sum(Counter::reservation_waits) == 0) std::this_thread::yield();
  const std::uint64_t before = test.sum(Counter::reservation_waits);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_LT(test.sum(Counter::reservation_waits) - before, 500U) << "one each 2 ms would be 250";
  all.release();
  test.cache.progress();
  reader.join();
}

// All readers and one hot range: whoever comes second waits behind a writer with frames of its own in hand.
TEST(MemoryPressure, ReadersWaitingForTheirRangeHoldNoFrames) {
  Watchdog watchdog("readers that wait for a range with frames in hand");
  RamDisk disk(4096);
  TestCache test;
  TestFile file(test.cache, disk.make_file());
  constexpr std::uint64_t kSize = 8 * kLarge;
  for (std::uint64_t at = 0; at < kSize; at += kLarge)
    ASSERT_EQ(file.write(words(kLarge, 7, 1, at), at), ssize_t{kLarge});
  ASSERT_EQ(file.sync(), 0);
  file.drop_cached();
  // A writer of the whole range is held in its edge's fill; the readers queue up behind it.
  OpenFile other;
  file.open(other);
  for (int round = 0; round < 4; ++round) {
    disk.device.set_plan({.rules = {{.kind = FaultKind::hold, .writes = false, .times = 1}}});
    file.drop_cached();
    std::thread first([&] { ASSERT_EQ(file.range(0, kLarge).size(), kLarge); });  // held, with its range
    ASSERT_TRUE(disk.device.wait_for_held(1, 10'000'000'000));
    std::thread writer([&] { ASSERT_EQ(file.write(words(kLarge, 7, 2, 8), 8), static_cast<ssize_t>(kLarge)); });
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    std::vector<std::thread> readers;
    for (int i = 0; i < 24; ++i) {
      readers.emplace_back([&] { ASSERT_EQ(file.range(0, kLarge).size(), kLarge); });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    disk.device.release_held();
    first.join();
    writer.join();
    for (std::thread& reader : readers) reader.join();
  }
}

// Writes that fill their edges while everything else is evicted around them.
TEST(MemoryPressure, EdgesSurviveEviction) {
  Watchdog watchdog("writers that fill edges under eviction");
  RamDisk disk(512);
  TestCache test;
  constexpr unsigned kFiles = 6;
  constexpr std::uint64_t kPages = 200;
  std::vector<std::unique_ptr<TestFile>> files;
  for (unsigned i = 0; i < kFiles; ++i) {
    files.push_back(std::make_unique<TestFile>(test.cache, disk.make_file()));
    for (std::uint64_t page = 0; page < kPages; page += 10) {
      ASSERT_GT(files[i]->write(words(10 * kPageSize, i, 1, page * kPageSize), page * kPageSize), 0);
    }
    ASSERT_EQ(files[i]->sync(), 0);
  }
  run_threads(kFiles * 2, [&](int thread) {
    const unsigned number = static_cast<unsigned>(thread) % kFiles;
    Random random(static_cast<std::uint64_t>(thread) + 77);
    for (unsigned round = 2; round < 300; ++round) {
      const std::uint64_t offset = random.below(kPages - 3) * kPageSize + 8 * random.below(512);
      const std::size_t count = 8 * (1 + random.below(random.one_in(3) ? 1024 : 8));
      ASSERT_EQ(files[number]->write(words(count, number, round, offset), offset), static_cast<ssize_t>(count));
    }
  });
  for (unsigned i = 0; i < kFiles; ++i) {
    for (std::uint64_t page = 0; page < kPages; page += 10) {
      const std::vector<char> bytes = files[i]->range(page * kPageSize, 10 * kPageSize);
      ASSERT_EQ(bytes.size(), 10 * kPageSize);
      ASSERT_TRUE(all_of_file(bytes, i, page * kPageSize));
    }
  }
}

// Somebody counts all the while.
class Meter {
 public:
  explicit Meter(PageCache& cache)
      : thread_([this, &cache] {
          while (!stop_.load()) {
            most_ = std::max(most_, memory_in_use(cache));
            std::this_thread::yield();
          }
        }) {}
  std::uint64_t stop() {
    stop_ = true;
    thread_.join();
    return most_;
  }

 private:
  std::atomic<bool> stop_{false};
  std::uint64_t most_ = 0;
  std::thread thread_;
};

TEST(MemoryPressure, M1_MemoryBound) {
  Watchdog watchdog("the memory bound");
  RamDisk disk(4096);
  TestCache test;
  TestFile file(test.cache, disk.make_file());
  Meter meter(test.cache);
  // Scattered over the largest offsets, so that the index costs far more than its usual share.
  run_threads(4, [&](int thread) {
    Random random(static_cast<std::uint64_t>(thread) + 5);
    for (unsigned round = 0; round < 600; ++round) {
      const std::uint64_t offset = (random.next() >> (2 + random.below(40))) & ~std::uint64_t{7};
      const std::vector<char> bytes = words(8 * (1 + random.below(600)), 3, round, offset);
      ASSERT_EQ(file.write(bytes, offset), static_cast<ssize_t>(bytes.size()));
      ASSERT_TRUE(all_of_file(file.range(offset, bytes.size()), 3, offset));
    }
  });
  EXPECT_LE(meter.stop(), test.cache.memory());
  EXPECT_GT(test.sum(Counter::evictions), 1000U);
  EXPECT_GT(test.cache.nodes.bytes(), 0);
}

TEST(MemoryPressure, M1_ManyFiles) {
  Watchdog watchdog("many files");
  RamDisk disk(512);
  TestCache test;
  constexpr unsigned kFiles = 1500;
  Meter meter(test.cache);
  {
    std::vector<std::unique_ptr<TestFile>> files;
    for (unsigned i = 0; i < kFiles; ++i) {
      files.push_back(std::make_unique<TestFile>(test.cache, disk.make_file()));
      ASSERT_EQ(files[i]->write(words(1000, i, 1, 0), 0), 1000);
    }
    for (unsigned i = 0; i < kFiles; ++i) {
      ASSERT_TRUE(all_of_file(files[i]->range(0, 1000), i & 0xff, 0)) << i;
      ASSERT_EQ(files[i]->sync(), 0);
    }
  }
  EXPECT_LE(meter.stop(), test.cache.memory());
  EXPECT_EQ(test.cache.dirty.unstable(), 0U);
  EXPECT_EQ(test.cache.resident_folios(), 0U);
}

}  // namespace
}  // namespace quire
