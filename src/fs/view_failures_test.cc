// Views where the system calls behind them fail, or have nothing left to give: nothing is lost, and what is there is
// shown in the end.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "base/random.h"
#include "cache/view_mapper_for_test.h"
#include "fs/file_for_test.h"
#include "fs/file_view_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr unsigned kFile = 1;
constexpr std::uint64_t kPages = 64;
constexpr std::uint64_t kBytes = kPages * kPageSize;

class ViewFailures : public ::testing::Test {
 protected:
  void lay(std::uint64_t bytes = kBytes) {
    ASSERT_EQ(file_.write(words(bytes, kFile, 1, 0), 0), static_cast<ssize_t>(bytes));
    ASSERT_EQ(file_.sync(), 0);
  }
  MapperFaults& faults() { return mappers_.faults; }

  FailingMappers mappers_;
  RamDisk disk_{4096};
  TestCache cache_{256};
  TestFile file_{cache_.cache, disk_.make_file()};
  const Watchdog watchdog_{"a view whose system calls fail"};
};

// Between its mapping and its registration a page can be stored to by whoever has the address.
TEST_F(ViewFailures, D1_StoresBeforeTrackingFailsAreKept) {
  lay();
  faults().before_track_fails = [](char* at) { *reinterpret_cast<volatile std::uint64_t*>(at + 8) = 7; };
  faults().track.store(1, memory_order_release);
  const FileView view(file_, kPages, 0, true);
  EXPECT_EQ(view.word(0), word_of(kFile, 1, 0));
  std::uint64_t stored = 0;
  ASSERT_EQ(file_.read(&stored, 8, 8), 8);
  EXPECT_EQ(stored, 7U);
  ASSERT_EQ(file_.sync(), 0);
  file_.drop_cached();
  ASSERT_EQ(file_.read(&stored, 8, 8), 8);
  EXPECT_EQ(stored, 7U);
}

// A trap that cannot be lifted when the file grows is tried again, and again.
TEST_F(ViewFailures, TrapsThatCannotBeLiftedGoLater) {
  lay(4 * kPageSize);
  const FileView view(file_, kPages);
  ASSERT_TRUE(trap_past_end(view.view, 4));
  faults().reset.store(2, memory_order_release);
  ASSERT_EQ(file_.truncate(kBytes), 0);
  const auto lifted = [&] {
    MutexLock lock(file_.mapping().views.mutex);
    return view.view.runs.size() == 0;
  };
  EXPECT_FALSE(lifted());
  while (!lifted()) std::this_thread::sleep_for(std::chrono::milliseconds(50));  // a second each; the watchdog's time
  EXPECT_LE(faults().reset.load(memory_order_acquire), 0);
  EXPECT_TRUE(view.all(kBytes) == file_.content());
}

// The new size shows before the traps are lifted: what is placed meanwhile leaves parts of them, before and after.
TEST_F(ViewFailures, AllPartsOfATrapAreLifted) {
  lay(4 * kPageSize);
  const FileView view(file_, kPages);
  ASSERT_TRUE(trap_past_end(view.view, 4));
  {
    MutexLock lock(file_.mapping().views.mutex);
    RunsChange(view.view)->set(6, {2, 0, ViewRuns::Kind::frames});
    RunsChange(view.view)->set(9, {1, 0, ViewRuns::Kind::frames});
  }
  ASSERT_EQ(file_.truncate(12 * kPageSize), 0);
  {
    MutexLock lock(file_.mapping().views.mutex);
    for (const auto& [first, run] : view.view.runs.map()) EXPECT_EQ(run.kind, ViewRuns::Kind::frames) << first;
    EXPECT_EQ(view.view.end_traps, UINT64_MAX);
  }
  for (const std::uint64_t page : {4, 5, 8, 10, 11}) EXPECT_EQ(view.word(page * kPageSize), 0U);
  ASSERT_TRUE(trap_past_end(view.view, 20));
  ASSERT_EQ(file_.truncate(5 * kPageSize), 0);
  ASSERT_EQ(file_.truncate(8 * kPageSize), 0);  // grows, and not as far as the trap
  {
    MutexLock lock(file_.mapping().views.mutex);
    EXPECT_EQ(view.view.end_traps, 12U);
  }
  EXPECT_EQ(view.word(7 * kPageSize), 0U);
  ASSERT_EQ(file_.truncate(30 * kPageSize), 0);
  EXPECT_EQ(view.word(29 * kPageSize), 0U);
}

// A load in a writable view is no store, whatever becomes blank elsewhere in the meantime. One loader: a second could
// touch what is just being mapped for the first, which counts as a store.
TEST_F(ViewFailures, LoadsBesideResetsLeaveAllClean) {
  TestFile other(cache_.cache, disk_.make_file());
  ASSERT_EQ(other.truncate(8 * kPageSize), 0);
  constexpr std::uint64_t kMany = 2048;  // pages: more than fit, so that there is always a fault
  lay(kMany * kPageSize);
  const FileView view(file_, kMany, 0, true), growing(other, kPages);
  std::atomic<bool> stop{false};
  std::thread loader([&] {
    Random random(1);
    while (!stop) {
      const std::uint64_t offset = random.below(kMany * kPageSize / 8) * 8;
      ASSERT_TRUE(word_fits(view.word(offset), kFile, offset));
    }
  });
  std::uint64_t dirty = 0;
  for (int round = 0; round < 2000; ++round) {
    ASSERT_TRUE(trap_past_end(growing.view, 8));
    ASSERT_EQ(other.truncate(kBytes), 0);
    ASSERT_EQ(other.truncate(8 * kPageSize), 0);
    dirty = std::max(dirty, file_.mapping().unstable_count.load(memory_order_relaxed));
  }
  stop = true;
  loader.join();
  EXPECT_EQ(dirty, 0U);
}

// Stores that wait for the dirty limit, more than there are workers, hold up no load: neither of another page nor of
// one that they go to.
TEST_F(ViewFailures, LoadsBesideStoresThatWaitForTheDirtyLimit) {
  lay();
  file_.drop_cached();
  DirtyLimit& limit = cache_.cache.dirty;
  std::uint32_t claims = 0;
  for (; limit.used() + 1 <= limit.hard() - limit.hard() / 16; ++claims) {
    ASSERT_TRUE(limit.claim(file_.mapping(), 1).ok());
  }
  const FileView view(file_, kPages, 0, true);
  std::vector<std::thread> storers;
  for (std::uint64_t page = 0; page < 12; ++page) {
    storers.emplace_back([&, page] { view.store(page * kPageSize, 7); });
  }
  while (!limit.somebody_waits() || cache_.sum(Counter::view_parked) < storers.size()) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(view.word(40 * kPageSize), word_of(kFile, 1, 40 * kPageSize));
  EXPECT_EQ(view.word(8), word_of(kFile, 1, 8));
  EXPECT_TRUE(limit.somebody_waits());
  limit.unclaim(claims);
  for (std::thread& storer : storers) storer.join();
  for (std::uint64_t page = 0; page < 12; ++page) EXPECT_EQ(view.word(page * kPageSize), 7U);
}

// Where mappings are used up, some of ours make room for what is touched.
TEST_F(ViewFailures, MakesRoomWhereTheKernelHasNoMappingsLeft) {
  lay();
  const FileView view(file_, kPages), shown(file_, kPages);
  EXPECT_TRUE(shown.all(kBytes) == file_.content());
  faults().place.store(2, memory_order_release);  // the fault thread's, and a worker's
  EXPECT_EQ(view.word(8), word_of(kFile, 1, 8));
  EXPECT_GT(cache_.sum(Counter::view_resets), 0U);
  EXPECT_TRUE(shown.all(kBytes) == file_.content());
}

// The same with the real limit.
TEST_F(ViewFailures, ShowsPagesBesideAProgramThatUsesUpAllMappings) {
#if defined(QUIRE_TSAN) || defined(QUIRE_ASAN)
  GTEST_SKIP() << "sanitizers need mappings of their own";
#endif
  mallopt(M_ARENA_MAX, 1);  // a thread's first malloc would map memory, and glibc ends the process where it cannot
  lay();
  file_.drop_cached();  // so that workers run, and have memory of their own by then
  const FileView view(file_, kPages);
  for (std::uint64_t page = 0; page < kPages; page += 2)
    EXPECT_EQ(view.word(page * kPageSize), word_of(kFile, 1, page * kPageSize));
  const FileView blank(file_, kPages);
  constexpr std::size_t kSpan = std::size_t{4} << 20;  // pages
  char* const all = static_cast<char*>(
      mmap(nullptr, kSpan * kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  ASSERT_NE(all, MAP_FAILED);
  std::size_t used = 0;
  while (used < kSpan && mprotect(all + used * kPageSize, kPageSize, PROT_READ) == 0) used += 2;
  const bool used_up = used < kSpan;
  std::uint64_t found[3];
  for (const std::uint64_t page : {1, 40, 63}) found[page / 30] = blank.word(page * kPageSize);
  ASSERT_EQ(munmap(all, kSpan * kPageSize), 0);
  if (!used_up) GTEST_SKIP() << "no limit on mappings is met here";
  for (const std::uint64_t page : {1, 40, 63}) EXPECT_EQ(found[page / 30], word_of(kFile, 1, page * kPageSize));
}

}  // namespace
}  // namespace quire
