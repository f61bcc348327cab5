// Views over files in memory, beside everything that changes them: what a load finds is of this file and of this place,
// and what an operation has done shows once it has returned.
#include "cache/views.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "base/random.h"
#include "fs/file_for_test.h"
#include "fs/file_view_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr unsigned kFile = 1;

// Of this file and this place, whatever writing; or a hole.
bool word_may_be(std::uint64_t word, std::uint64_t offset) { return word == 0 || word_fits(word, kFile, offset); }

// Its end: what views show is what reads return.
::testing::AssertionResult shows_content(TestFile& file, const FileView& view) {
  const std::vector<char> wanted = file.content();
  const std::vector<char> got = view.all(wanted.size());
  if (got == wanted) return ::testing::AssertionSuccess();
  const auto at = std::mismatch(got.begin(), got.end(), wanted.begin()).first - got.begin();
  return ::testing::AssertionFailure() << "differs from byte " << at << " on";
}

class FileViews : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kPages = 512;
  static constexpr std::uint64_t kBytes = kPages * kPageSize;

  // Loads of words anywhere, until told to stop: each is in its place.
  void load_until_stopped(const FileView& view, unsigned seed) {
    Random random(seed);
    while (!stop_.load(std::memory_order_relaxed)) {
      const std::uint64_t offset = random.below(kBytes / 8) * 8;
      const std::uint64_t word = view.word(offset);
      ASSERT_TRUE(word_may_be(word, offset)) << std::hex << word << " at " << offset;
      loads_.fetch_add(1, std::memory_order_relaxed);
    }
  }

  RamDisk disk_{4096};
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> loads_{0};
};

TEST_F(FileViews, R1_LoadsBesideWritesAndPunches) {
  TestCache cache(256);  // less than the file
  TestFile file(cache.cache, disk_.make_file());
  ASSERT_EQ(file.write(words(kBytes, kFile, 1, 0), 0), static_cast<ssize_t>(kBytes));
  const Watchdog watchdog("loads beside writes and punches");
  {
    const FileView view(file, kPages);
    std::vector<std::thread> loaders;
    for (unsigned i = 0; i < 2; ++i) loaders.emplace_back([&, i] { load_until_stopped(view, i); });
    Random random(7);
    for (unsigned generation = 2; generation < 300; ++generation) {
      const std::uint64_t offset = random.below(kPages) * kPageSize + random.below(512) * 8;
      const std::uint64_t count = std::min(kBytes - offset, (random.below(12 * 512) + 1) * 8);
      if (generation % 3 == 0) {
        ASSERT_EQ(file.punch(offset, count), 0);
        for (const std::uint64_t at : {offset, offset + count - 8, offset + count / 16 * 8})
          ASSERT_EQ(view.word(at), 0U);
      } else {
        ASSERT_EQ(file.write(words(count, kFile, generation, offset), offset), static_cast<ssize_t>(count));
        for (const std::uint64_t at : {offset, offset + count - 8, offset + count / 16 * 8}) {
          ASSERT_EQ(view.word(at), word_of(kFile, generation, at));
        }
      }
    }
    stop_ = true;
    for (std::thread& loader : loaders) loader.join();
    EXPECT_TRUE(shows_content(file, view));
  }
  EXPECT_GT(loads_, 0U);
}

TEST_F(FileViews, R1_LoadsBesideTruncates) {
  TestCache cache(256);
  TestFile file(cache.cache, disk_.make_file());
  ASSERT_EQ(file.write(words(kBytes, kFile, 1, 0), 0), static_cast<ssize_t>(kBytes));
  const Watchdog watchdog("loads beside truncates");
  constexpr std::uint64_t kKept = kBytes / 2;  // nobody loads from where the end may be
  {
    const FileView view(file, kPages);
    std::thread loader([&] {
      Random random(3);
      while (!stop_) {
        const std::uint64_t offset = random.below(kKept / 8) * 8;
        ASSERT_TRUE(word_fits(view.word(offset), kFile, offset)) << offset;
      }
    });
    Random random(11);
    for (unsigned generation = 2; generation < 150; ++generation) {
      const std::uint64_t size = kKept + random.below((kBytes - kKept) / 8) * 8;
      ASSERT_EQ(file.truncate(size), 0);
      ASSERT_EQ(file.truncate(kBytes), 0);
      ASSERT_EQ(view.word(kBytes - 8), 0U);
      ASSERT_EQ(view.word(size), 0U);
      const std::vector<char> more = words(kBytes - size, kFile, generation, size);
      ASSERT_EQ(file.write(more, size), static_cast<ssize_t>(more.size()));
      ASSERT_EQ(view.word(kBytes - 8), word_of(kFile, generation, kBytes - 8));
    }
    stop_ = true;
    loader.join();
    EXPECT_TRUE(shows_content(file, view));
  }
}

// What was moved shows at its new place as soon as the call has returned.
TEST_F(FileViews, R3_CollapseAndInsertShow) {
  TestCache cache(256);
  TestFile file(cache.cache, disk_.make_file());
  ASSERT_EQ(file.write(words(kBytes, kFile, 1, 0), 0), static_cast<ssize_t>(kBytes));
  const Watchdog watchdog("collapses beside loads");
  {
    const FileView view(file, kPages);
    std::thread loader([&] {  // of this file in any place
      Random random(3);
      while (!stop_) {
        const std::uint64_t word = view.word(random.below(kBytes / 16) * 8);
        ASSERT_TRUE(word == 0 || word_file(word) == kFile) << std::hex << word;
      }
    });
    Random random(5);
    for (int i = 0; i < 60; ++i) {
      const std::uint64_t at = random.below(kPages / 2) * kPageSize, count = (random.below(16) + 1) * kPageSize;
      const std::uint64_t before = view.word(at + count);
      ASSERT_EQ(file.allocate(FALLOC_FL_COLLAPSE_RANGE, at, count), 0);
      ASSERT_EQ(view.word(at), before);
      ASSERT_EQ(file.allocate(FALLOC_FL_INSERT_RANGE, at, count), 0);
      ASSERT_EQ(view.word(at), 0U);
      ASSERT_EQ(view.word(at + count), before);
    }
    stop_ = true;
    loader.join();
    EXPECT_TRUE(shows_content(file, view));
  }
}

// Much more than fits, by several threads: what is taken away and used anew never shows another place's bytes.
TEST_F(FileViews, R2_ReclaimBesideLoads) {
  TestCache cache(96);
  TestFile file(cache.cache, disk_.make_file()), other(cache.cache, disk_.make_file());
  ASSERT_EQ(file.write(words(kBytes, kFile, 1, 0), 0), static_cast<ssize_t>(kBytes));
  ASSERT_EQ(other.write(words(kBytes, 2, 1, 0), 0), static_cast<ssize_t>(kBytes));
  ASSERT_EQ(file.sync(), 0);
  ASSERT_EQ(other.sync(), 0);
  const Watchdog watchdog("reclaim beside loads");
  {
    const FileView view(file, kPages), others(other, kPages), again(file, kPages / 2, kPages / 4);
    std::vector<std::thread> loaders;
    for (unsigned i = 0; i < 2; ++i) loaders.emplace_back([&, i] { load_until_stopped(view, i); });
    loaders.emplace_back([&] {
      Random random(9);
      while (!stop_) {
        const std::uint64_t offset = random.below(kBytes / 8) * 8;
        ASSERT_TRUE(word_fits(others.word(offset), 2, offset));
      }
    });
    loaders.emplace_back([&] {
      Random random(10);
      while (!stop_) {
        const std::uint64_t offset = random.below(kBytes / 16) * 8;
        ASSERT_TRUE(word_fits(again.word(offset), kFile, offset + kBytes / 4));
      }
    });
    while (loads_ < 1500 || cache.sum(Counter::evictions) < 1000 || cache.cache.pool.scrubbed() < 100) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    stop_ = true;
    for (std::thread& loader : loaders) loader.join();
  }
}

// A view in which everything was looked at keeps nothing from going, and nothing from being split.
TEST_F(FileViews, ViewedFoliosGo) {
  TestCache cache(256);
  TestFile file(cache.cache, disk_.make_file());
  ASSERT_EQ(file.write(words(kBytes / 4, kFile, 1, 0), 0), static_cast<ssize_t>(kBytes / 4));
  ASSERT_EQ(file.sync(), 0);
  const FileView view(file, kPages / 4);
  EXPECT_TRUE(shows_content(file, view));
  std::uint64_t viewed = 0;
  for (std::uint64_t page = 0; page < kPages / 4; ++page) {
    Folio* folio = get_folio(file.mapping(), page);
    if (folio == nullptr) continue;
    viewed += folio->has(kViewed);
    cache.cache.put_folio(*folio);
  }
  EXPECT_GT(viewed, kPages / 8);
  file.drop_cached();
  EXPECT_EQ(file.mapping().page_count.load(std::memory_order_relaxed), 0U);
  EXPECT_TRUE(shows_content(file, view));
}

// A read that fails is SIGBUS for the loads (api tests), and an error for who asks first.
TEST_F(FileViews, PrefaultTellsErrors) {
  TestCache cache(256);
  TestFile file(cache.cache, disk_.make_file());
  ASSERT_EQ(file.write(words(kBytes / 4, kFile, 1, 0), 0), static_cast<ssize_t>(kBytes / 4));
  ASSERT_EQ(file.sync(), 0);
  file.drop_cached();
  const FileView view(file, kPages);
  disk_.fail_reads();
  EXPECT_EQ(view.engine.prefault(view.view).errnum(), EIO);
  disk_.heal();
  EXPECT_TRUE(view.engine.prefault(view.view).ok());
  const std::uint64_t faults = cache.sum(Counter::view_faults);
  EXPECT_TRUE(shows_content(file, view));
  EXPECT_EQ(cache.sum(Counter::view_faults), faults);
}

// --- stores ---

// What the backing holds: all is written back, and forgotten by the cache.
std::vector<char> stored_content(TestFile& file) {
  EXPECT_EQ(file.sync(), 0);
  file.drop_cached();
  return file.content();
}

TEST_F(FileViews, R3_StoresShowAndLast) {
  TestCache cache(512);
  TestFile file(cache.cache, disk_.make_file());
  constexpr std::uint64_t kSize = kBytes / 8;
  ASSERT_EQ(file.write(words(kSize, kFile, 1, 0), 0), static_cast<ssize_t>(kSize));
  std::vector<char> wanted = words(kSize, kFile, 1, 0);
  for (const bool resident : {true, false}) {
    ASSERT_EQ(file.sync(), 0);
    if (!resident) file.drop_cached();
    const FileView view(file, kPages, 0, true), other(file, kPages);
    Random random(resident);
    for (unsigned generation = 2; generation < 500; ++generation) {
      const std::uint64_t offset = random.below(kSize / 8) * 8;
      view.store(offset, word_of(kFile, generation, offset));
      fill_words(&wanted[offset], 8, kFile, generation, offset);
      std::uint64_t read = 0;
      ASSERT_EQ(file.read(&read, 8, offset), 8);
      ASSERT_EQ(read, word_of(kFile, generation, offset));
      ASSERT_EQ(other.word(offset), read);
      if (generation % 50 != 0) continue;
      ASSERT_EQ(file.sync(), 0);  // protected anew
    }
    EXPECT_EQ(file.content(), wanted);
    EXPECT_EQ(stored_content(file), wanted);
    EXPECT_TRUE(shows_content(file, view));
  }
  EXPECT_GT(cache.sum(Counter::view_stores), 100U);
}

// A store makes the page around it dirty, and no more; one after another, some more.
TEST_F(FileViews, StoresSplitLargeFolios) {
  TestCache cache(2048);
  cache.cache.set_max_order(5);
  TestFile file(cache.cache, disk_.make_file());
  ASSERT_EQ(file.write(words(kBytes, kFile, 1, 0), 0), static_cast<ssize_t>(kBytes));
  ASSERT_EQ(file.sync(), 0);
  const FileView view(file, kPages, 0, true);
  EXPECT_TRUE(shows_content(file, view));
  for (std::uint64_t page = 10; page < 500; page += 37)
    view.store(page * kPageSize, word_of(kFile, 2, page * kPageSize));
  EXPECT_GT(cache.sum(Counter::folio_splits), 5U);
  EXPECT_LE(file.mapping().unstable_count.load(std::memory_order_relaxed), 14U);
  std::vector<char> wanted = words(kBytes, kFile, 1, 0);
  for (std::uint64_t page = 10; page < 500; page += 37) {
    fill_words(&wanted[page * kPageSize], 8, kFile, 2, page * kPageSize);
  }
  EXPECT_TRUE(shows_content(file, view));
  EXPECT_EQ(stored_content(file), wanted);
  for (std::uint64_t page = 0; page < kPages; ++page) view.store(page * kPageSize, word_of(kFile, 3, page * kPageSize));
  EXPECT_LT(cache.sum(Counter::view_stores), kPages);  // not a fault for each
  for (std::uint64_t page = 0; page < kPages; ++page)
    fill_words(&wanted[page * kPageSize], 8, kFile, 3, page * kPageSize);
  EXPECT_EQ(stored_content(file), wanted);
}

// No store is lost, whatever writes back, flushes and reclaims beside it.
TEST_F(FileViews, D1_StoresBesideWritebackAndReclaim) {
  TestCache cache(160);
  TestFile file(cache.cache, disk_.make_file());
  ASSERT_EQ(file.write(words(kBytes, kFile, 1, 0), 0), static_cast<ssize_t>(kBytes));
  const Watchdog watchdog("stores beside writeback");
  std::vector<char> wanted = words(kBytes, kFile, 1, 0);
  {
    const FileView view(file, kPages, 0, true), again(file, kPages, 0, true);
    std::vector<std::thread> storers;
    for (unsigned t = 0; t < 2; ++t) {
      storers.emplace_back([&, t] {  // its own words: an even or odd place
        Random random(t);
        for (unsigned generation = 2; generation < 800; ++generation) {
          const std::uint64_t offset = random.below(kBytes / 16) * 16 + t * 8;
          (generation % 2 == 0 ? view : again).store(offset, word_of(kFile, generation, offset));
          fill_words(&wanted[offset], 8, kFile, generation, offset);
          const std::uint64_t before = random.below(kBytes / 16) * 16 + t * 8;
          ASSERT_EQ(view.word(before), load_word(&wanted[before])) << before;
        }
      });
    }
    std::thread syncer([&] {
      while (!stop_) ASSERT_EQ(file.sync(), 0);
    });
    for (std::thread& storer : storers) storer.join();
    stop_ = true;
    syncer.join();
    EXPECT_TRUE(shows_content(file, view));
  }
  EXPECT_EQ(stored_content(file), wanted);
  EXPECT_GT(cache.sum(Counter::evictions), 100U);
}

// Much more is stored than may be dirty.
TEST_F(FileViews, StoresPastTheDirtyLimit) {
  TestCache cache(128);
  TestFile file(cache.cache, disk_.make_file());
  ASSERT_EQ(file.truncate(kBytes), 0);
  const Watchdog watchdog("stores past the limit");
  {
    const FileView view(file, kPages, 0, true);
    for (std::uint64_t offset = 0; offset < kBytes; offset += 8) view.store(offset, word_of(kFile, 1, offset));
    EXPECT_TRUE(shows_content(file, view));
  }
  EXPECT_EQ(stored_content(file), words(kBytes, kFile, 1, 0));
}

// What was stored past the end, in its page, is never the file's.
TEST_F(FileViews, R2_StoresPastTheEndGo) {
  constexpr std::uint64_t kEnd = 5 * kPageSize + 1000;
  for (const int way : {0, 1, 2, 3, 4, 5}) {
    for (const bool written : {false, true}) {
      TestCache cache(256);
      TestFile file(cache.cache, disk_.make_file());
      ASSERT_EQ(file.write(words(kEnd, kFile, 1, 0), 0), static_cast<ssize_t>(kEnd));
      const FileView view(file, kPages, 0, true);
      view.store(kEnd, UINT64_MAX);
      view.store(6 * kPageSize - 8, UINT64_MAX);
      if (written) {
        ASSERT_EQ(file.sync(), 0);
        view.store(kEnd + 8, UINT64_MAX);
      }
      std::vector<char> wanted = words(kEnd, kFile, 1, 0);
      switch (way) {
        case 0:
          ASSERT_EQ(file.truncate(7 * kPageSize), 0);
          wanted.resize(7 * kPageSize);
          break;
        case 1:  // in the same page
          ASSERT_EQ(file.write(words(8, kFile, 2, kEnd + 1000), kEnd + 1000), 8);
          wanted.resize(kEnd + 1000);
          break;
        case 2:  // beyond it
          ASSERT_EQ(file.write(words(8, kFile, 2, 8 * kPageSize), 8 * kPageSize), 8);
          wanted.resize(8 * kPageSize);
          break;
        case 5:
          ASSERT_EQ(file_copy(file.handle(), 0, file.handle(), 8 * kPageSize, 8).value(), 8U);
          wanted.resize(8 * kPageSize);
          break;
        case 3:
          ASSERT_EQ(file.allocate(0, 0, 9 * kPageSize), 0);
          wanted.resize(9 * kPageSize);
          break;
        default:
          ASSERT_EQ(file.allocate(FALLOC_FL_ZERO_RANGE, 8 * kPageSize, kPageSize), 0);
          wanted.resize(9 * kPageSize);
      }
      const std::uint64_t compared = wanted.size();
      EXPECT_EQ(file.range(0, compared), wanted) << way << written;
      ASSERT_EQ(file.sync(), 0);
      file.drop_cached();
      EXPECT_EQ(file.range(0, compared), wanted) << way << written;
    }
  }
}

// Range operations that remove what they have written back first: a store beside them is before them or after, not
// gone.
TEST_F(FileViews, R3_StoresBesideRangeOperations) {
  RamDisk disk(512);
  TestCache cache(256);
  TestFile file(cache.cache, disk.make_file()), source(cache.cache, disk.make_file());
  constexpr std::uint64_t kSize = 64 * kPageSize;
  ASSERT_EQ(file.write(words(kSize, kFile, 1, 0), 0), static_cast<ssize_t>(kSize));
  ASSERT_EQ(source.write(words(kSize, 2, 1, 0), 0), static_cast<ssize_t>(kSize));
  const Watchdog watchdog("stores beside range operations");
  {
    const FileView view(file, 64, 0, true);
    std::thread storer([&] {
      std::uint64_t count[4] = {};
      // In pages of which other parts are replaced, and before what is moved.
      const std::uint64_t at[4] = {8, 10 * kPageSize + 512, 20 * kPageSize + 3584, 21 * kPageSize - 8};
      for (std::uint64_t& c : count) c = 1;
      for (int i = 0; i < 4; ++i) view.store(at[i], count[i]);
      while (!stop_) {
        for (int i = 0; i < 4; ++i) {
          ASSERT_EQ(view.word(at[i]), count[i]) << i;
          view.store(at[i], ++count[i]);
        }
      }
    });
    for (int i = 0; i < 150; ++i) {
      ASSERT_EQ(file_clone(source.handle(), 0, file.handle(), 10 * kPageSize + 1024, 10 * kPageSize + 1024).errnum(),
                0);
      ASSERT_EQ(file_exchange(file.handle(), 22 * kPageSize, source.handle(), 30 * kPageSize, kPageSize).errnum(), 0);
      ASSERT_EQ(file_exchange(file.handle(), 10 * kPageSize + 2048, source.handle(), 40 * kPageSize, 512).errnum(), 0);
      ASSERT_EQ(file.allocate(FALLOC_FL_COLLAPSE_RANGE, 21 * kPageSize, kPageSize), 0);
      ASSERT_EQ(file.allocate(FALLOC_FL_INSERT_RANGE, 21 * kPageSize, kPageSize), 0);
      ASSERT_EQ(file.punch(20 * kPageSize + 2560, 512), 0);
      ASSERT_EQ(file.allocate(FALLOC_FL_ZERO_RANGE, 10 * kPageSize + 1024, 512), 0);
    }
    stop_ = true;
    storer.join();
    EXPECT_TRUE(shows_content(file, view));
    const std::vector<char> now = file.content();
    EXPECT_EQ(stored_content(file), now);
  }
}

// A store beside a collapse is before it, and moves with its page, or after it, and stays where it is.
TEST_F(FileViews, R3_StoresBesideCollapseAreNotLost) {
  TestCache cache(256);
  TestFile file(cache.cache, disk_.make_file());
  constexpr std::uint64_t kAt = 40 * kPageSize + 8, kMoved = kAt - kPageSize;
  const std::vector<char> zeros(64 * kPageSize);
  const Watchdog watchdog("stores beside collapses");
  for (int round = 0; round < 200; ++round) {
    ASSERT_EQ(file.write(zeros, 0), static_cast<ssize_t>(zeros.size()));
    const FileView view(file, 64, 0, true);
    std::atomic<std::uint64_t> last{0};
    stop_ = false;
    std::thread storer([&] {
      for (std::uint64_t count = 1; !stop_; ++count) {
        view.store(kAt, count);
        last.store(count);
      }
    });
    while (last.load() == 0) std::this_thread::yield();
    ASSERT_EQ(file.allocate(FALLOC_FL_COLLAPSE_RANGE, 20 * kPageSize, kPageSize), 0);
    stop_ = true;
    storer.join();
    ASSERT_EQ(std::max(view.word(kAt), view.word(kMoved)), last.load()) << round;
  }
}

// The stores that a clone has are all up to some instant: one after another, into pages far apart, the second is never
// there without the first.
TEST_F(FileViews, R1_ACloneIsACutOfStores) {
  TestCache cache(4 * kPages);
  cache.cache.set_max_order(0);
  TestFile source(cache.cache, disk_.make_file()), target(cache.cache, disk_.make_file());
  constexpr std::uint64_t kSecond = (kPages - 1) * kPageSize;
  ASSERT_EQ(source.write(std::vector<char>(kBytes), 0), static_cast<ssize_t>(kBytes));
  const Watchdog watchdog("clones beside stores");
  const FileView view(source, kPages, 0, true);
  std::atomic<std::uint64_t> last{0};
  std::thread storer([&] {
    for (std::uint64_t count = 1; !stop_; ++count) {
      view.store(0, count);
      view.store(kSecond, count);
      last.store(count);
    }
  });
  std::thread other([&] {  // so much between the two that they are written apart
    for (std::uint64_t count = 1; !stop_; ++count) {
      for (std::uint64_t page = 1; page + 1 < kPages; ++page) view.store(page * kPageSize, count);
    }
  });
  disk_.device.set_plan({.rules = {{.kind = FaultKind::delay, .reads = false, .delay_ns = 2'000'000}}});
  for (int i = 0; i < 40 && !HasFailure(); ++i) {
    const std::uint64_t before = last.load();
    EXPECT_EQ(file_clone(source.handle(), 0, target.handle(), 0, kBytes).errnum(), 0);
    const std::vector<char> cloned = target.content();
    const std::uint64_t first = load_word(&cloned[0]), second = load_word(&cloned[kSecond]);
    EXPECT_TRUE(first == second || first == second + 1) << i << ": " << first << " and " << second;
    EXPECT_GE(second, before) << "stored before the clone began";
  }
  stop_ = true;
  storer.join();
  other.join();
}

}  // namespace
}  // namespace quire
