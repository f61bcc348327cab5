// Short hits: what they serve, what they refuse, and that a guess of the lookaside is never believed.
#include "cache/read_hit.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/random.h"
#include "cache/buffered_write.h"
#include "cache/cache_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::uint64_t kPages = 24;
constexpr char kUntouched = '\x5c';

// An id whose pages share their entries with those of `id`.
std::uint64_t id_that_shares(std::uint64_t id, std::uint64_t mask) {
  std::uint64_t other = id + 1;
  while (((Lookaside::first_place(other) ^ Lookaside::first_place(id)) & mask) != 0) ++other;
  return other;
}

class ReadHit : public ::testing::Test {
 protected:
  ReadHit() {
    for (std::uint64_t page = 0; page < kPages; ++page) {
      cache.cache.put_folio(test.add(page, 1));
      cache.cache.put_folio(rival.add(page, 2));
    }
    test.mapping.size.store(kPages * kPageSize, memory_order_release);
    rival.mapping.size.store(kPages * kPageSize, memory_order_release);
  }
  // The hit's answer; a miss leaves the buffer alone, a hit touches what it counts only.
  ssize_t hit(std::uint64_t offset, std::size_t count, unsigned file = 1) {
    std::vector<char> bytes(kRegisterBytes + 8, kUntouched);
    const ssize_t n = read_hit(file == 1 ? test.mapping : rival.mapping, bytes.data(), count, offset);
    const std::size_t got = n == kSlow ? 0 : count;
    EXPECT_EQ(n, got == 0 ? kSlow : static_cast<ssize_t>(count));
    EXPECT_EQ(std::vector<char>(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(got)),
              words(got, file, 1, offset));
    for (std::size_t i = got; i < bytes.size(); ++i) EXPECT_EQ(bytes[i], kUntouched) << i << " of " << count;
    return n;
  }
  // Read as every reader reads it, which notes it.
  void note(std::uint64_t page, unsigned file = 1) {
    char byte;
    EXPECT_EQ(read_fast(file == 1 ? test.mapping : rival.mapping, &byte, 1, page * kPageSize), 1);
  }

  RamDisk disk{4096};
  TestCache cache;
  std::unique_ptr<RamBacking> backing = disk.make_file(), rival_backing = disk.make_file();
  TestMapping test{cache.cache, *backing, 1};
  TestMapping rival{cache.cache, *rival_backing, id_that_shares(1, cache.cache.lookaside.mask())};
};

TEST_F(ReadHit, FromTheSecondReadOn) {
  EXPECT_EQ(hit(3 * kPageSize, 100), kSlow) << "nobody has noted it";
  note(3);
  EXPECT_EQ(hit(3 * kPageSize, 100), 100);
  const std::uint64_t before = cache.cache.stats.hits();
  EXPECT_EQ(hit(3 * kPageSize, 100), 100);
  EXPECT_EQ(cache.cache.stats.hits(), before + 1);
}

TEST_F(ReadHit, EverySizeAndPlaceInsideAPage) {
  for (std::uint64_t page = 0; page < kPages; ++page) note(page);
  for (std::size_t count = 1; count <= kRegisterBytes; ++count) {
    for (const std::uint64_t inside : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{777}, kPageSize - count}) {
      EXPECT_EQ(hit(5 * kPageSize + inside, count), static_cast<ssize_t>(count)) << inside;
    }
  }
}

TEST_F(ReadHit, LeavesTheRestToOthers) {
  for (std::uint64_t page = 0; page < kPages; ++page) note(page);
  EXPECT_EQ(hit(kPageSize - 1, 2), kSlow) << "across two pages";
  EXPECT_EQ(hit(kPages * kPageSize - 1, 1), 1);
  EXPECT_EQ(hit(kPages * kPageSize - 1, 2), kSlow) << "past the end";
  EXPECT_EQ(hit(kPages * kPageSize, 1), kSlow);
  for (const std::int64_t negative : {-1, -100, -256, -4096}) {
    EXPECT_EQ(hit(static_cast<std::uint64_t>(negative), 200), kSlow) << negative;
  }
  EXPECT_EQ(hit(INT64_MAX, 256), kSlow);
  EXPECT_EQ(hit(INT64_MIN, 256), kSlow);
}

TEST_F(ReadHit, RefusesWhileTheFolioChangesOrTheGateIsClosed) {
  note(3);
  Folio* folio = get_folio(test.mapping, 3);
  lock_folio(*folio);
  EXPECT_EQ(hit(3 * kPageSize, 8), 8) << "a lock alone does not matter";
  begin_change(*folio);
  EXPECT_EQ(hit(3 * kPageSize, 8), kSlow);
  end_change(*folio);
  unlock_folio(*folio);
  cache.cache.put_folio(*folio);
  EXPECT_EQ(hit(3 * kPageSize, 8), 8);
  {
    ClosedGate gate(test.mapping.gate, 0, 1);
    EXPECT_EQ(hit(3 * kPageSize, 8), kSlow);
  }
  EXPECT_EQ(hit(3 * kPageSize, 8), 8);
}

TEST_F(ReadHit, UnreferencedFoliosAreMarkedByOthers) {
  note(3);
  Folio* folio = get_folio(test.mapping, 3);
  clear_referenced(*folio);
  EXPECT_EQ(hit(3 * kPageSize, 8), kSlow);
  note(3);
  EXPECT_TRUE(referenced(*folio));
  EXPECT_EQ(hit(3 * kPageSize, 8), 8);
  cache.cache.put_folio(*folio);
}

TEST_F(ReadHit, R2_StaleGuessesAreRefused) {
  note(3);
  Folio* const was = get_folio(test.mapping, 3);
  cache.cache.put_folio(*was);
  {
    RangeGuard remove(test.mapping.invalidate);
    remove.acquire(3, 3, kRemove);
    remove_folios(test.mapping, 3, 3);
  }
  EXPECT_EQ(hit(3 * kPageSize, 8), kSlow) << "removed";
  cache.cache.pool.collect_retired();
  Folio* now = &rival.add(100, 2);
  ASSERT_EQ(now, was) << "the same frame in its next life";
  EXPECT_EQ(hit(3 * kPageSize, 8), kSlow) << "another file's";
  cache.cache.put_folio(*now);
  rival.drop_cached();
  cache.cache.pool.collect_retired();
  now = &test.add(5000, 1);
  for (int i = 0; now != was && i < 100; ++i) {
    cache.cache.put_folio(*now);
    now = &test.add(5001 + static_cast<std::uint64_t>(i), 1);
  }
  ASSERT_EQ(now, was);
  EXPECT_EQ(hit(3 * kPageSize, 8), kSlow) << "another page of the file";
  cache.cache.put_folio(*now);
}

TEST_F(ReadHit, FilesThatShareEntriesPushEachOtherOut) {
  for (std::uint64_t page = 0; page < kPages; ++page) {
    for (int i = 0; i < 8; ++i) note(page, 1);
    EXPECT_EQ(hit(page * kPageSize, 8, 1), 8);
    EXPECT_EQ(hit(page * kPageSize, 8, 2), kSlow) << "the guess is the other's folio of that page";
    for (int i = 0; i < 8; ++i) note(page, 2);  // one time in eight
    EXPECT_EQ(hit(page * kPageSize, 8, 2), 8);
    EXPECT_EQ(hit(page * kPageSize, 8, 1), kSlow);
  }
}

TEST_F(ReadHit, CountsInEachOfTwoCaches) {
  TestCache other;
  TestMapping mine(other.cache, *backing, 1);
  other.cache.put_folio(mine.add(0, 1));
  mine.mapping.size.store(kPageSize, memory_order_release);
  char byte;
  EXPECT_EQ(read_fast(mine.mapping, &byte, 1, 0), 1);
  note(0);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(hit(0, 8), 8);
    EXPECT_EQ(read_hit(mine.mapping, &byte, 1, 0), 1);
  }
  EXPECT_EQ(cache.cache.stats.hits(), 10U);
  EXPECT_EQ(other.cache.stats.hits(), 10U);
}

// A write's guess may be a frame that another thread just prepares for its next life: its lock is not there to be
// taken.
TEST_F(ReadHit, R1_WritesLeaveFramesInPreparationAlone) {
  const std::uint64_t page = 3, elsewhere = 7777;
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve(frames, 1);
  Folio* const frame = frames.take();
  const std::uint32_t id = cache.cache.pool.id(*frame);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const std::vector<char> bytes = words(8, 1, 1, page * kPageSize);
    while (!stop) write_fast(test.mapping, bytes.data(), bytes.size(), page * kPageSize, true);
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(600);
  while (!stop && std::chrono::steady_clock::now() < end) {
    cache.cache.lookaside.note(test.mapping.hits.first_place + page, id);
    EXPECT_EQ(insert_new(test.mapping, *frame, page).errnum(), EEXIST);
    ASSERT_TRUE(insert_new(test.mapping, *frame, elsewhere).ok());
    for (int i = 0; i < 200 && !stop; ++i) {
      if (!frame->has(kLocked)) stop = true;
    }
    EXPECT_TRUE(frame->has(kLocked)) << "somebody unlocked what is being filled";
    detach_folio(test.mapping, *frame);
    unlock_folio(*frame);
    frame->refs.store(0, memory_order_relaxed);
  }
  stop = true;
  writer.join();
  frames.put(*frame);
}

// Two files share their entries, and their folios come and go in each other's frames.
TEST_F(ReadHit, R1_R2_NeverAnotherPagesBytes) {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> hits{0};
  std::vector<std::thread> threads;
  for (unsigned file = 1; file <= 2; ++file) {
    threads.emplace_back([&, file] {  // takes its file's folios out and puts them in again
      TestMapping& mine = file == 1 ? test : rival;
      Random random(file);
      while (!stop) {
        const std::uint64_t page = random.below(kPages);
        {
          RangeGuard remove(mine.mapping.invalidate);
          remove.acquire(page, page, kRemove);
          remove_folios(mine.mapping, page, page);
        }
        if (random.one_in(4)) cache.cache.pool.collect_retired();
        cache.cache.put_folio(mine.add(page, file));
      }
    });
    threads.emplace_back([&, file] {
      Mapping& mine = file == 1 ? test.mapping : rival.mapping;
      Random random(file + 10);
      while (!stop) {
        const std::uint64_t offset = random.below(kPages) * kPageSize + 8 * random.below(480);
        std::vector<char> bytes(256);
        ssize_t n = read_hit(mine, bytes.data(), bytes.size(), offset);
        if (n != kSlow) hits.fetch_add(1, std::memory_order_relaxed);
        if (n == kSlow) n = read_fast(mine, bytes.data(), bytes.size(), offset);
        if (n == kSlow) continue;
        const auto right = all_of_file(bytes, file, offset);
        if (!right) stop = true;
        EXPECT_TRUE(right);
      }
    });
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(800);
  while (!stop && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(hits.load(), 100U) << "the test must meet hits";
}

}  // namespace
}  // namespace quire
