// What sync promises, on a device that fails on demand: bytes stay dirty until a flush has succeeded, an error is told
// once to each handle, and one failing file is no other file's misfortune.
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

constexpr unsigned kFile = 9;

class Durable : public ::testing::Test {
 protected:
  std::uint64_t unstable() { return file.mapping().unstable_count.load(memory_order_relaxed); }
  // What the backing holds, past every cache.
  static std::vector<char> stored(TestFile& f, RamDisk& on, std::uint64_t offset, std::size_t count) {
    std::vector<char> bytes(count, 0);
    Backing& backing = *f.inode().backing;
    for (std::size_t done = 0; done < count;) {
      const auto extent = backing.map(offset + done, count - done);
      if (!extent.ok() || extent.value().length == 0) return {};
      if (extent.value().kind == ExtentKind::written) {
        on.store.memory().peek(extent.value().address, bytes.data() + done, extent.value().length);
      }
      done += extent.value().length;
    }
    return bytes;
  }

  RamDisk disk{512};
  TestCache cache;
  TestFile file{cache.cache, disk.make_file()};
};

TEST_F(Durable, D1_SyncWritesAndThenFlushes) {
  const std::vector<char> bytes = words(20'000, kFile, 1, 500);
  ASSERT_EQ(file.write(bytes, 500), 20'000);
  EXPECT_EQ(unstable(), 6U);
  EXPECT_EQ(disk.device.records().size(), 0U);
  ASSERT_EQ(file.sync(), 0);
  EXPECT_EQ(unstable(), 0U);
  EXPECT_EQ(cache.cache.dirty.unstable(), 0U);
  const auto records = disk.device.records();
  ASSERT_GE(records.size(), 2U);
  EXPECT_EQ(records.back().op, FaultOp::flush);
  for (std::size_t i = 0; i + 1 < records.size(); ++i) EXPECT_EQ(records[i].op, FaultOp::write);
  EXPECT_EQ(stored(file, disk, 500, 20'000), bytes);
  EXPECT_EQ(file.inode().backing->size(), 20'500U);

  disk.device.clear_records();
  ASSERT_EQ(file.sync(), 0);
  EXPECT_EQ(disk.device.records().size(), 0U) << "nothing changed, so nothing had to be flushed";
}

TEST_F(Durable, D1_TruncateIsFlushedToo) {
  ASSERT_EQ(file.write(words(9000, kFile, 1, 0), 0), 9000);
  ASSERT_EQ(file.sync(), 0);
  disk.device.clear_records();
  ASSERT_EQ(file.truncate(100), 0);
  ASSERT_EQ(file.sync(), 0);
  EXPECT_EQ(disk.operations(FaultOp::flush), 1U);
}

TEST_F(Durable, D1_FailedWritebackStaysDirty) {
  const std::vector<char> bytes = words(20'000, kFile, 1, 0);
  ASSERT_EQ(file.write(bytes, 0), 20'000);
  disk.fail_writes();
  EXPECT_EQ(file.sync(), EIO);
  EXPECT_EQ(unstable(), 5U);
  EXPECT_GT(cache.sum(Counter::writeback_errors), 0U);
  EXPECT_EQ(file.content(), bytes);
  EXPECT_EQ(file.sync(), EIO) << "it still fails";
  disk.heal();
  EXPECT_EQ(file.sync(), 0);
  EXPECT_EQ(unstable(), 0U);
  EXPECT_EQ(stored(file, disk, 0, 20'000), bytes);
}

TEST_F(Durable, D1_TornWritebackStaysDirty) {
  const std::vector<char> before = words(20'000, kFile, 1, 0), after = words(20'000, kFile, 2, 0);
  ASSERT_EQ(file.write(before, 0), 20'000);
  ASSERT_EQ(file.sync(), 0);
  ASSERT_EQ(file.write(after, 0), 20'000);
  disk.device.set_plan({.rules = {{.kind = FaultKind::torn}}});
  EXPECT_EQ(file.sync(), EIO);
  disk.heal();
  EXPECT_EQ(file.content(), after);
  EXPECT_EQ(file.sync(), 0);
  file.drop_cached();
  EXPECT_EQ(file.content(), after);
}

// Only what failed is written again; the rest of the file is durable already.
TEST_F(Durable, D1_OneBadBlockKeepsItsFolioOnly) {
  constexpr std::size_t kSize = 12 * kPageSize;
  for (std::uint64_t page = 0; page < 12; page += 2) {  // every other page, so that each has a request of its own
    ASSERT_EQ(file.write(words(kPageSize, kFile, 1, page * kPageSize), page * kPageSize), ssize_t{kPageSize});
  }
  disk.device.set_plan({.rules = {{.kind = FaultKind::error, .reads = false, .skip = 3, .times = 1}}});
  EXPECT_EQ(file.sync(), EIO);
  EXPECT_EQ(unstable(), 1U);
  disk.heal();
  disk.device.clear_records();
  EXPECT_EQ(file.sync(), 0);
  EXPECT_EQ(disk.operations(FaultOp::write), 1U);
  file.drop_cached();
  const std::vector<char> bytes = file.range(0, kSize);
  for (std::uint64_t page = 0; page < 11; ++page) {
    const std::vector<char> part(bytes.begin() + static_cast<std::ptrdiff_t>(page * kPageSize),
                                 bytes.begin() + static_cast<std::ptrdiff_t>((page + 1) * kPageSize));
    EXPECT_EQ(part, page % 2 == 0 ? words(kPageSize, kFile, 1, page * kPageSize) : std::vector<char>(kPageSize, 0));
  }
}

TEST_F(Durable, D1_FailedFlushStaysDirty) {
  const std::vector<char> bytes = words(20'000, kFile, 1, 0);
  ASSERT_EQ(file.write(bytes, 0), 20'000);
  disk.fail_flushes(1);
  EXPECT_EQ(file.sync(), EIO);
  EXPECT_EQ(unstable(), 5U) << "written, but who knows whether the device still has it";
  const std::size_t writes = disk.operations(FaultOp::write);
  EXPECT_EQ(file.sync(), 0);
  EXPECT_GT(disk.operations(FaultOp::write), writes) << "it has to be written again, not only flushed";
  EXPECT_EQ(unstable(), 0U);
}

// After a failed flush the folios must outlast any pressure.
TEST_F(Durable, D1_FailedFlushOutlastsEviction) {
  const std::vector<char> bytes = words(20'000, kFile, 1, 0);
  ASSERT_EQ(file.write(bytes, 0), 20'000);
  disk.device.set_plan({.rules = {{.kind = FaultKind::error, .reads = false, .skip = 1}}, .fail_flushes = 1});
  EXPECT_EQ(file.sync(), EIO);
  TestFile other(cache.cache, disk.make_file());
  ASSERT_EQ(other.truncate(4 << 20), 0);
  for (std::uint64_t at = 0; at < 4 << 20; at += 65'536) ASSERT_TRUE(all_zero(other.range(at, 65'536)));
  EXPECT_GT(cache.sum(Counter::evictions), 500U);
  EXPECT_EQ(file.content(), bytes);
  disk.heal();
  file.sync();  // may tell of the flusher's attempts
  EXPECT_EQ(file.sync(), 0);
  EXPECT_EQ(stored(file, disk, 0, 20'000), bytes);
}

TEST_F(Durable, D1_ErrorToldOncePerHandle) {
  OpenFile first, second;
  file.open(first);
  file.open(second);
  ASSERT_EQ(file.write(words(5000, kFile, 1, 0), 0), 5000);
  disk.fail_writes();
  EXPECT_EQ(file_sync(first, false).errnum(), EIO);
  disk.heal();
  EXPECT_EQ(file_sync(first, false).errnum(), 0) << "told already, and made good";
  OpenFile late;
  file.open(late);  // opened when somebody had been told
  EXPECT_EQ(file_sync(late, false).errnum(), 0);
  EXPECT_EQ(file_sync(second, true).errnum(), EIO) << "its own first word of it";
  EXPECT_EQ(file_sync(second, false).errnum(), 0);
  EXPECT_EQ(file_sync(first, false).errnum(), 0);
  EXPECT_EQ(file.sync(), EIO) << "the third handle that was open";
  EXPECT_EQ(file.sync(), 0);
}

// An error that only the flusher met is told to handles opened before anybody heard of it.
TEST_F(Durable, D1_FlushersErrorIsTold) {
  Watchdog watchdog("waiting for the flusher to fail");
  disk.fail_writes(ENOSPC);
  ASSERT_EQ(file.write(words(20 * kPageSize, kFile, 1, 0), 0), ssize_t{20 * kPageSize});
  cache.cache.flusher().kick();
  while (cache.sum(Counter::writeback_errors) == 0) std::this_thread::yield();
  while (file.mapping().failing.load(memory_order_acquire) == 0) std::this_thread::yield();
  disk.heal();
  OpenFile late;
  file.open(late);
  EXPECT_EQ(file_sync(late, false).errnum(), ENOSPC);
  EXPECT_EQ(file_sync(late, false).errnum(), 0);
  EXPECT_EQ(file.sync(), ENOSPC);
  EXPECT_EQ(file.sync(), 0);
}

TEST_F(Durable, D1_HardDirtyLimitGivesEio) {
  Watchdog watchdog("writing to a file whose writeback fails");
  disk.fail_writes();
  std::vector<char> model;
  ssize_t got = 0;
  for (unsigned i = 0; i < 100 && got >= 0; ++i) {
    const std::vector<char> bytes = words(8192, kFile, i + 1, model.size());
    got = file.write(bytes, model.size());
    if (got > 0) model.insert(model.end(), bytes.begin(), bytes.begin() + got);
  }
  EXPECT_EQ(got, -EIO);
  EXPECT_GE(model.size() / kPageSize, cache.cache.dirty.hard() / 2);
  EXPECT_LE(cache.cache.dirty.unstable(), cache.cache.dirty.hard() + 1);
  EXPECT_EQ(file.size(), model.size());
  EXPECT_EQ(file.content(), model) << "the dirty bytes are kept";
  EXPECT_EQ(file.write(words(100, kFile, 7, 0), 0), -EIO) << "and no more are taken";
  EXPECT_EQ(file.content(), model);
  disk.heal();
  file.sync();
  EXPECT_EQ(file.sync(), 0);
  EXPECT_EQ(stored(file, disk, 0, model.size()), model);
  EXPECT_EQ(file.write(words(8192, kFile, 8, 0), 0), 8192);
}

TEST_F(Durable, D1_OneFailingFileDoesNotStopAnother) {
  Watchdog watchdog("a file beside a failing one");
  disk.fail_writes();
  while (file.write(words(8192, kFile, 1, file.size()), file.size()) > 0) {
  }
  const std::uint64_t size = file.size();
  RamDisk good_disk(512);
  TestFile good(cache.cache, good_disk.make_file());
  const auto begin = std::chrono::steady_clock::now();
  for (unsigned i = 0; i < 100; ++i) {
    const std::vector<char> bytes = words(16'384, 2, i, std::uint64_t{i} * 16'384);
    ASSERT_EQ(good.write(bytes, std::uint64_t{i} * 16'384), 16'384) << i;
    if (i % 10 == 0) {
      ASSERT_EQ(good.sync(), 0);
    }
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
  ASSERT_EQ(good.sync(), 0);
  good.drop_cached();
  for (unsigned i = 0; i < 100; ++i) {
    ASSERT_EQ(good.range(std::uint64_t{i} * 16'384, 16'384), words(16'384, 2, i, std::uint64_t{i} * 16'384));
  }
  EXPECT_EQ(file.size(), size);
  EXPECT_TRUE(all_of_file(file.range(0, 65'536), kFile, 0));
}

// The second one's dirty bytes are, while nobody knows that they cannot be written, what others have to wait for.
TEST_F(Durable, D1_TwoFailingFilesDoNotStopAThird) {
  Watchdog watchdog("a file beside two failing ones");
  TestCache large(1024);
  TestFile bad(large.cache, disk.make_file()), worse(large.cache, disk.make_file());
  RamDisk good_disk(512);
  TestFile good(large.cache, good_disk.make_file());
  disk.fail_writes();
  for (TestFile* failing : {&bad, &worse}) {
    while (failing->write(words(4096, kFile, 1, failing->size()), failing->size()) > 0) {
    }
  }
  EXPECT_GT(large.cache.dirty.stuck(), large.cache.dirty.hard());
  const auto begin = std::chrono::steady_clock::now();
  const std::uint64_t paced = large.sum(Counter::paced);
  for (unsigned i = 0; i < 300; ++i) {
    const std::uint64_t at = i % 64 * 16'384;
    ASSERT_EQ(good.write(words(16'384, 2, i, at), at), 16'384) << i;
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  ASSERT_EQ(good.sync(), 0);
  EXPECT_EQ(large.sum(Counter::paced), paced) << "below the background limit but for what cannot be written";
}

// Then reading goes on, and writers are told.
TEST_F(Durable, D1_AShrunkCacheFullOfWhatCannotBeWritten) {
  Watchdog watchdog("a healthy file in a cache that has become too small");
  TestCache large(1024);
  TestFile bad(large.cache, disk.make_file());
  RamDisk good_disk(512);
  TestFile good(large.cache, good_disk.make_file());
  const std::vector<char> bytes = words(400 * 4096, 2, 1, 0);
  ASSERT_EQ(good.write(bytes, 0), static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(good.sync(), 0);
  disk.fail_writes();
  while (bad.write(words(4096, kFile, 1, bad.size()), bad.size()) > 0) {
  }
  const std::size_t before = large.cache.memory();
  ASSERT_TRUE(large.cache.resize(TestCache(128).cache.memory()).ok());
  EXPECT_GT(large.cache.dirty.stuck(), large.cache.frames());
  EXPECT_EQ(good.content(), bytes);
  EXPECT_EQ(good.write(words(100, 2, 2, 0), 0), -EIO);
  EXPECT_EQ(bad.content(), words(bad.size(), kFile, 1, 0)) << "nothing is lost";
  ASSERT_TRUE(large.cache.resize(before).ok());
  EXPECT_EQ(good.write(words(100, 2, 2, 0), 0), 100);
  disk.heal();
  bad.sync();
  EXPECT_EQ(bad.sync(), 0);
  EXPECT_EQ(good.sync(), 0);
}

// What a failed flush leaves of a file without dirty bytes is an error to tell, and nothing to hold writers back for.
TEST_F(Durable, D1_NothingAtStakeIsNotFailing) {
  ASSERT_EQ(file.write(words(9000, kFile, 1, 0), 0), 9000);
  disk.fail_flushes();
  EXPECT_EQ(file.sync(), EIO);
  EXPECT_NE(file.mapping().failing.load(memory_order_acquire), 0);
  disk.heal();
  ASSERT_EQ(file.sync(), 0);
  EXPECT_EQ(file.mapping().failing.load(memory_order_acquire), 0);
  ASSERT_EQ(file.truncate(4096), 0);
  disk.fail_flushes();
  EXPECT_EQ(file.sync(), EIO);
  EXPECT_EQ(file.mapping().failing.load(memory_order_acquire), 0);
  disk.heal();
  EXPECT_EQ(file.sync(), 0);
}

// A writer that appends faster than the disk takes it does not keep the flusher from other files.
TEST_F(Durable, D1_FlusherDoesNotFollowAnAppender) {
  Watchdog watchdog("the flusher behind an appender");
  disk.device.set_plan({.rules = {{.kind = FaultKind::delay, .reads = false, .delay_ns = 2'000'000}}});
  const std::uint64_t attempts = file.mapping().flusher_attempts.load(memory_order_acquire);
  std::uint64_t size = 0;
  while (file.mapping().flusher_attempts.load(memory_order_acquire) == attempts) {
    ASSERT_LT(size, 16u << 20) << "appended while the flusher made one round of one file";
    ASSERT_EQ(file.write(words(8192, kFile, 1, size), size), 8192);
    size += 8192;
  }
}

TEST_F(Durable, D1_NoSpaceKeepsDirtyUntilThereIs) {
  RamDisk small(512, 64);
  TestFile hog(cache.cache, small.make_file()), wants(cache.cache, small.make_file());
  ASSERT_EQ(hog.write(words(48 * 512, 1, 1, 0), 0), 48 * 512);
  ASSERT_EQ(hog.sync(), 0);
  const std::vector<char> bytes = words(20'000, 2, 1, 0);
  ASSERT_EQ(wants.write(bytes, 0), 20'000);
  EXPECT_EQ(wants.sync(), ENOSPC);
  EXPECT_EQ(wants.content(), bytes);
  EXPECT_EQ(wants.sync(), ENOSPC);
  ASSERT_EQ(hog.truncate(8 * 512), 0);
  EXPECT_EQ(wants.sync(), 0);
  wants.drop_cached();
  EXPECT_EQ(wants.content(), bytes);
  EXPECT_TRUE(all_of_file(hog.content(), 1, 0));
}

// Synchronous writes are on the device when they return, and say so when they are not.
TEST_F(Durable, D1_SynchronousWrites) {
  const std::vector<char> bytes = words(6000, kFile, 1, 0);
  ASSERT_EQ(file.write(bytes, 0, kIoDataSync), 6000);
  EXPECT_EQ(unstable(), 0U);
  EXPECT_EQ(stored(file, disk, 0, 6000), bytes);
  EXPECT_EQ(disk.operations(FaultOp::flush), 1U);
  file.handle().full_sync = true;
  ASSERT_EQ(file.write(words(10, kFile, 2, 0), 0), 10);
  EXPECT_EQ(unstable(), 0U);
  EXPECT_EQ(disk.operations(FaultOp::flush), 2U);
  disk.fail_flushes(1, ENOSPC);
  EXPECT_EQ(file.write(words(10, kFile, 3, 0), 0), -ENOSPC);
  EXPECT_EQ(unstable(), 1U);
  file.handle().full_sync = false;
  EXPECT_EQ(file.sync(), 0);
}

// A sync that succeeded covers every write that had returned before it, whatever else goes on.
TEST_F(Durable, D1_SyncBesideWritersAndFailures) {
  Watchdog watchdog("syncs beside writers");
  constexpr unsigned kThreads = 3;
  constexpr std::uint64_t kOwn = 16 * kPageSize;
  std::atomic<bool> stop{false};
  std::atomic<unsigned> good{0}, bad{0};
  disk.device.set_plan({.rules = {{.kind = FaultKind::error, .reads = false, .one_in = 40}}, .fail_flushes = 20});
  run_threads(kThreads + 1, [&](int thread) {
    if (thread == kThreads) {
      for (int i = 0; i < 40 && !stop; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        disk.device.set_plan({.rules = {{.kind = FaultKind::error, .reads = false, .one_in = 40}},
                              .skip_flushes = 5,
                              .fail_flushes = 2});
        disk.device.clear_records();
      }
      stop = true;
      return;
    }
    const std::uint64_t base = static_cast<std::uint64_t>(thread) * kOwn + 256;  // shares its edge folios
    Random random(static_cast<std::uint64_t>(thread) + 31);
    for (unsigned generation = 1; !stop && !HasFailure(); ++generation) {
      const std::uint64_t offset = base + 8 * random.below(kOwn / 8 - 1000);
      const std::size_t count = 8 * (1 + random.below(1000));
      const std::vector<char> bytes = words(count, kFile, generation, offset);
      if (file.write(bytes, offset) != static_cast<ssize_t>(count)) continue;
      if (file.sync() != 0) {
        ++bad;
        continue;
      }
      ++good;
      ASSERT_TRUE(stored(file, disk, offset, count) == bytes) << "durable, it said: " << count << " at " << offset;
    }
  });
  EXPECT_GT(good, 0U);
  EXPECT_GT(bad, 0U);
}

}  // namespace
}  // namespace quire
