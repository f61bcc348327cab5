// The eviction policy: its lists under anything, and what it keeps of the patterns that caches are judged by.
#include "cache/eviction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <vector>

#include "base/random.h"

namespace quire {
namespace {

constexpr std::uint32_t kLimit = 64;

struct TestFrames {
  explicit TestFrames(std::uint32_t frames) : referenced(frames), pinned(frames) {}
  bool test_and_clear_referenced(std::uint32_t id) {
    ++looked;
    const bool was = referenced[id];
    referenced[id] = false;
    return was;
  }
  bool try_take(std::uint32_t id) { return !pinned[id]; }

  std::vector<bool> referenced;
  std::vector<bool> pinned;
  std::uint32_t looked = 0;
};

// A cache of pages, as the simulator's and the page cache's: ghosts in a map, folios of one frame.
class TestCache {
 public:
  explicit TestCache(std::uint32_t frames, std::uint32_t batch = 1) : frames_(frames), pages_(frames), batch_(batch) {
    EXPECT_TRUE(eviction.create(frames).ok());
    for (std::uint32_t id = 0; id < frames; ++id) free_.push_back(id);
  }

  // True: a hit. `readahead` pages that follow come in with one that is missed.
  bool access(std::uint64_t page, std::uint32_t readahead = 0) {
    const auto here = resident_.find(page);
    if (here != resident_.end()) {
      frames_.referenced[here->second] = true;
      return true;
    }
    admit(page, {});
    for (std::uint64_t next = page + 1; next <= page + readahead; ++next) {
      if (resident_.count(next) == 0) admit(next, {.prefetched = true});
    }
    return false;
  }
  std::uint64_t misses(const std::vector<std::uint64_t>& pages) {
    std::uint64_t missed = 0;
    for (const std::uint64_t page : pages) missed += access(page) ? 0 : 1;
    return missed;
  }
  std::uint64_t reads() const { return reads_; }

  Eviction eviction;

 private:
  void admit(std::uint64_t page, Admission how) {
    ++reads_;
    while (free_.empty()) evict_batch();
    const std::uint32_t id = free_.front();
    free_.pop_front();
    const auto ghost = ghosts_.find(page);
    eviction.admit(id, ghost == ghosts_.end() ? 0 : ghost->second, how);
    if (ghost != ghosts_.end()) ghosts_.erase(ghost);
    frames_.referenced[id] = false;
    pages_[id] = page;
    resident_[page] = id;
  }
  void evict_batch() {
    for (std::uint32_t i = 0; i < batch_; ++i) {
      std::uint32_t scanned = 0;
      std::uint64_t ghost = 0;
      const std::uint32_t id = eviction.evict(frames_, kLimit, &scanned, &ghost);
      if (id == Eviction::kNone) continue;
      if (ghost != 0) ghosts_[pages_[id]] = ghost;
      resident_.erase(pages_[id]);
      free_.push_back(id);
    }
  }

  TestFrames frames_;
  std::vector<std::uint64_t> pages_;
  std::uint32_t batch_;
  std::deque<std::uint32_t> free_;
  std::map<std::uint64_t, std::uint32_t> resident_;
  std::map<std::uint64_t, std::uint64_t> ghosts_;
  std::uint64_t reads_ = 0;
};

std::vector<std::uint64_t> range(std::uint64_t first, std::uint64_t count) {
  std::vector<std::uint64_t> pages(count);
  for (std::uint64_t i = 0; i < count; ++i) pages[i] = first + i;
  return pages;
}

std::uint64_t lru_misses(const std::vector<std::uint64_t>& pages, std::size_t frames) {
  std::vector<std::uint64_t> stack;  // newest last
  std::uint64_t missed = 0;
  for (const std::uint64_t page : pages) {
    const auto at = std::find(stack.begin(), stack.end(), page);
    if (at != stack.end()) {
      stack.erase(at);
    } else {
      ++missed;
      if (stack.size() == frames) stack.erase(stack.begin());
    }
    stack.push_back(page);
  }
  return missed;
}

// --- lists
// ------------------------------------------------------------------------------------------------------------

TEST(Eviction, RandomOperationsKeepEveryInvariant) {
  constexpr std::uint32_t kFrames = 1024;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Random random(seed);
    Eviction eviction;
    ASSERT_TRUE(eviction.create(kFrames).ok());
    TestFrames frames(kFrames);
    std::map<std::uint32_t, std::uint32_t> here;  // first frame to order
    std::vector<std::uint64_t> ghosts(256, 0);
    std::uint64_t total = 0;
    for (int step = 0; step < 4000; ++step) {
      const auto what = random.below(10);
      if (what < 5) {
        const auto order = static_cast<std::uint32_t>(random.one_in(3) ? random.below(10) : 0);
        const auto id = static_cast<std::uint32_t>(random.below(kFrames >> order)) << order;
        const auto next = here.lower_bound(id);
        bool taken = next != here.end() && next->first < id + (1u << order);
        if (next != here.begin()) taken = taken || std::prev(next)->first + (1u << std::prev(next)->second) > id;
        if (taken) continue;
        eviction.admit(id, ghosts[random.below(256)], {.order = order, .prefetched = random.one_in(4)});
        frames.referenced[id] = false;
        frames.pinned[id] = random.one_in(8);
        here[id] = order;
        total += 1u << order;
      } else if (what < 8) {
        std::uint32_t scanned = 0;
        std::uint64_t ghost = 0;
        const std::uint32_t id = eviction.evict(frames, 16, &scanned, &ghost);
        EXPECT_LE(scanned, 16U);
        EXPECT_EQ(ghost >> 60, 0U);
        if (id == Eviction::kNone) continue;
        ASSERT_EQ(here.count(id), 1U);
        EXPECT_FALSE(frames.pinned[id]);
        total -= 1u << here[id];
        here.erase(id);
        ghosts[random.below(256)] = ghost;
      } else if (what == 8) {
        const auto id = static_cast<std::uint32_t>(random.below(kFrames));
        eviction.remove(id);
        if (here.count(id) != 0) total -= 1u << here[id];
        here.erase(id);
      } else if (random.one_in(20)) {
        eviction.resize(static_cast<std::uint32_t>(1 + random.below(kFrames)));
      }
      for (int hit = 0; hit < 3 && !here.empty(); ++hit) {
        const auto at = here.lower_bound(static_cast<std::uint32_t>(random.below(kFrames)));
        if (at != here.end()) frames.referenced[at->first] = true;
      }
      ASSERT_EQ(eviction.frames(), total);
      ASSERT_EQ(eviction.entries(), here.size());
      if (step % 64 == 0) eviction.check();
    }
    eviction.check();
  }
}

TEST(Eviction, EveryFrameIsEvictedOnce) {
  for (const std::uint32_t count : {1U, 2U, 3U, 32U, 500U}) {
    Eviction eviction;
    ASSERT_TRUE(eviction.create(count).ok());
    TestFrames frames(count);
    for (std::uint32_t id = 0; id < count; ++id) eviction.admit(id, 0);
    std::set<std::uint32_t> out;
    std::uint32_t scanned = 0;
    std::uint64_t ghost = 0;
    for (std::uint32_t i = 0; i < count; ++i) out.insert(eviction.evict(frames, kLimit, &scanned, &ghost));
    EXPECT_EQ(out.size(), count);
    EXPECT_EQ(out.count(Eviction::kNone), 0U);
    EXPECT_EQ(eviction.evict(frames, kLimit, &scanned, &ghost), Eviction::kNone);
    EXPECT_EQ(scanned, 0U);
    eviction.check();
  }
}

TEST(Eviction, PinnedFramesArePassedOverAndSeenAgain) {
  constexpr std::uint32_t kFrames = 300;
  for (std::uint32_t idle = 0; idle < kFrames; idle += 7) {
    Eviction eviction;
    ASSERT_TRUE(eviction.create(kFrames).ok());
    TestFrames frames(kFrames);
    for (std::uint32_t id = 0; id < kFrames; ++id) {
      eviction.admit(id, 0);
      frames.pinned[id] = id != idle;
    }
    std::uint32_t scanned = 0;
    std::uint64_t ghost = 0;
    std::uint32_t got = Eviction::kNone;
    for (int call = 0; call < 100 && got == Eviction::kNone; ++call) {
      got = eviction.evict(frames, 16, &scanned, &ghost);
      EXPECT_LE(scanned, 16U);
    }
    EXPECT_EQ(got, idle);
    eviction.check();
    std::fill(frames.pinned.begin(), frames.pinned.end(), false);
    for (std::uint32_t i = 1; i < kFrames; ++i)
      EXPECT_NE(eviction.evict(frames, 16, &scanned, &ghost), Eviction::kNone);
  }
}

TEST(Eviction, LooksAtABoundedNumber) {
  constexpr std::uint32_t kFrames = 5000;
  Eviction eviction;
  ASSERT_TRUE(eviction.create(kFrames).ok());
  TestFrames frames(kFrames);
  for (std::uint32_t id = 0; id < kFrames; ++id) eviction.admit(id, 0);
  std::fill(frames.referenced.begin(), frames.referenced.end(), true);
  std::uint32_t scanned = 0;
  std::uint64_t ghost = 0;
  int calls = 0;
  while (eviction.evict(frames, 10, &scanned, &ghost) == Eviction::kNone) {
    EXPECT_LE(scanned, 10U);
    EXPECT_LE(frames.looked, 10 + Eviction::kSweepMost + 4);
    frames.looked = 0;
    ASSERT_LT(++calls, 1000);
  }
}

TEST(Eviction, AGhostLivesForTwoCachesOfEvictions) {
  constexpr std::uint32_t kFrames = 100;
  Eviction eviction;
  ASSERT_TRUE(eviction.create(kFrames).ok());
  TestFrames frames(kFrames);
  std::uint32_t scanned = 0;
  std::uint64_t ghost = 0;
  EXPECT_FALSE(eviction.is_live(0));
  for (std::uint32_t id = 0; id < kFrames; ++id) eviction.admit(id, 0);
  std::uint32_t id = eviction.evict(frames, kLimit, &scanned, &ghost);
  const std::uint64_t first = ghost;
  EXPECT_NE(first, 0U);
  for (std::uint32_t i = 0; i < 2 * kFrames; ++i) {
    EXPECT_TRUE(eviction.is_live(first)) << i;
    eviction.admit(id, 0);
    id = eviction.evict(frames, kLimit, &scanned, &ghost);
  }
  eviction.admit(id, 0);
  eviction.evict(frames, kLimit, &scanned, &ghost);
  EXPECT_FALSE(eviction.is_live(first));
  EXPECT_TRUE(eviction.is_live(ghost));
}

TEST(Eviction, PrefetchedInVainLeavesNoGhost) {
  Eviction eviction;
  ASSERT_TRUE(eviction.create(8).ok());
  TestFrames frames(8);
  std::uint32_t scanned = 0;
  std::uint64_t ghost = 1;
  eviction.admit(3, 0, {.prefetched = true});
  EXPECT_EQ(eviction.evict(frames, kLimit, &scanned, &ghost), 3U);
  EXPECT_EQ(ghost, 0U);
  eviction.admit(3, 0, {.prefetched = true});
  frames.referenced[3] = true;  // used once
  EXPECT_EQ(eviction.evict(frames, kLimit, &scanned, &ghost), 3U);
  EXPECT_TRUE(eviction.is_live(ghost));
}

// When a cache is full for the first time nearly all bits are set and the newest pages' are not: those that a stream
// has read ahead and is about to read. What it has read goes first.
TEST(Eviction, WhatIsReadAheadIsSparedOnce) {
  constexpr std::uint32_t kFrames = 400, kAhead = 40;
  Eviction eviction;
  ASSERT_TRUE(eviction.create(kFrames).ok());
  TestFrames frames(kFrames);
  for (std::uint32_t id = 0; id < kFrames; ++id) {
    const bool ahead = id >= kFrames - kAhead;
    eviction.admit(id, 0, {.prefetched = true});
    frames.referenced[id] = !ahead;
  }
  std::uint32_t scanned = 0;
  std::uint64_t ghost = 0;
  const auto evict = [&] { return eviction.evict(frames, 2 * kFrames, &scanned, &ghost); };
  for (std::uint32_t i = 0; i < kFrames / 4; ++i) ASSERT_LT(evict(), kFrames - kAhead) << i;
  eviction.check();
  // In vain after all: it goes like everything else.
  std::uint32_t gone = kFrames / 4;
  while (evict() < kFrames - kAhead) ++gone;
  EXPECT_LT(gone, kFrames - kAhead);
}

// --- what is kept
// -----------------------------------------------------------------------------------------------------

TEST(Eviction, AScanSparesWhatIsUsedAgainAndAgain) {
  for (const std::uint32_t frames : {40U, 400U, 4000U}) {
    for (const std::uint32_t readahead : {0U, 7U}) {
      TestCache cache(frames);
      const auto set = range(0, frames / 2);
      for (int round = 0; round < 20; ++round) cache.misses(set);
      for (const std::uint64_t page : range(1'000'000, 10 * frames)) {
        cache.access(page, readahead);
        cache.access(page % (frames / 2));
      }
      EXPECT_LE(cache.misses(set), set.size() / 20) << frames << " frames, readahead " << readahead;
    }
  }
}

TEST(Eviction, ALoopLargerThanTheCacheKeepsMostOfIt) {
  for (const std::uint32_t frames : {40U, 400U, 4000U}) {
    for (const std::uint32_t batch : {1U, frames / 40}) {
      TestCache cache(frames, batch);
      const auto loop = range(0, frames + frames / 4);
      for (int round = 0; round < 10; ++round) cache.misses(loop);
      EXPECT_LE(cache.misses(loop), loop.size() * 30 / 100)
          << frames << " by " << batch << " (ideal: 20 %, LRU: 100 %)";
    }
  }
}

TEST(Eviction, ALoopThatReadaheadServesIsKeptToo) {
  TestCache cache(400);
  const auto loop = range(0, 500);
  for (int round = 0; round < 20; ++round) {
    for (const std::uint64_t page : loop) cache.access(page, 7);
  }
  const std::uint64_t before = cache.reads();
  for (const std::uint64_t page : loop) cache.access(page, 7);
  EXPECT_LE(cache.reads() - before, 200U) << "ideal: 100; LRU: 500";
}

TEST(Eviction, LargeFoliosAgeAsOne) {
  constexpr std::uint32_t kOrder = 4;
  constexpr std::uint32_t kFolios = 64;
  Eviction eviction;
  ASSERT_TRUE(eviction.create(kFolios << kOrder).ok());
  TestFrames frames(kFolios << kOrder);
  std::map<std::uint32_t, std::uint32_t> resident;  // page to slot
  std::map<std::uint32_t, std::uint64_t> ghosts;
  std::vector<std::uint32_t> pages(kFolios);
  std::uint32_t used = 0;
  std::uint32_t missed = 0;
  for (std::uint32_t access = 0; access < 20 * 80; ++access) {  // a loop over 80 folios, 64 of which fit
    const std::uint32_t page = access % 80;
    if (const auto here = resident.find(page); here != resident.end()) {
      frames.referenced[here->second << kOrder] = true;
      continue;
    }
    if (access >= 19 * 80) ++missed;
    std::uint32_t slot = used;
    if (used < kFolios) {
      ++used;
    } else {
      std::uint32_t scanned = 0;
      std::uint64_t ghost = 0;
      slot = eviction.evict(frames, kLimit, &scanned, &ghost) >> kOrder;
      ASSERT_LT(slot, kFolios);
      ghosts[pages[slot]] = ghost;
      resident.erase(pages[slot]);
    }
    eviction.admit(slot << kOrder, ghosts[page], {.order = kOrder});
    frames.referenced[slot << kOrder] = false;
    pages[slot] = page;
    resident[page] = slot;
    EXPECT_EQ(eviction.frames(), std::uint64_t{used} << kOrder);
  }
  eviction.check();
  EXPECT_LE(missed, 30U) << "of 80; ideal: 16, LRU: 80";
}

TEST(Eviction, APhaseChangeIsFollowed) {
  for (const std::uint32_t frames : {40U, 400U, 4000U}) {
    TestCache cache(frames);
    for (std::uint64_t phase = 0; phase < 4; ++phase) {
      const auto set = range(phase * 1'000'000, frames * 9 / 10);
      for (int round = 0; round < 6; ++round) cache.misses(set);
      EXPECT_LE(cache.misses(set), set.size() / 20) << frames << " frames, phase " << phase;
    }
  }
}

TEST(Eviction, AnEndedLoopGivesItsFramesBack) {
  TestCache cache(400);
  for (int round = 0; round < 50; ++round) cache.misses(range(0, 2000));
  EXPECT_LE(cache.eviction.cold_share(), 8U);
  Random random(1);  // uniform in a window that slides: recency is all there is
  std::vector<std::uint64_t> pages;
  for (std::uint64_t i = 0; i < 60'000; ++i) pages.push_back(100'000 + random.below(450) + i / 20);
  const std::vector<std::uint64_t> warm_up(pages.begin(), pages.begin() + 20'000);
  const std::vector<std::uint64_t> rest(pages.begin() + 20'000, pages.end());
  cache.misses(warm_up);
  EXPECT_LE(cache.misses(rest), lru_misses(rest, 400) + rest.size() * 2 / 100);
}

// Two out of three pages are used once; the others come back just after what the cache holds has been replaced.
TEST(Eviction, RefaultsComeToBeHot) {
  TestCache cache(400);
  for (int round = 0; round < 30; ++round) cache.misses(range(0, 300));  // hot is full of these, which nobody wants now
  std::uint64_t once = 1'000'000;
  std::uint64_t missed = 0;
  for (int round = 0; round < 40; ++round) {
    for (std::uint64_t page = 500'000; page < 500'200; ++page) {
      cache.access(once++);
      cache.access(once++);
      if (!cache.access(page) && round >= 30) ++missed;
    }
  }
  EXPECT_LE(missed, 200U) << "of 2000; LRU: all";
}

// The loop's ghosts are gone when their pages come back: only hot pages can tell that keeping pays.
TEST(Eviction, AFewHotPagesSpeakForALongLoop) {
  for (const std::uint32_t frames : {40U, 400U}) {
    TestCache cache(frames);
    std::vector<std::uint64_t> pages;
    for (int turn = 0; turn < 30; ++turn) {  // back and forth: cold has nearly everything
      auto pass = range(1'000'000, 2 * frames);
      if (turn % 2 == 1) std::reverse(pass.begin(), pass.end());
      cache.misses(pass);
    }
    ASSERT_GE(cache.eviction.cold_share(), frames * 9 / 10);
    for (int round = 0; round < 30; ++round) cache.misses(range(0, 6 * frames));
    EXPECT_LE(cache.misses(range(0, 6 * frames)), frames * 6 - frames * 8 / 10) << frames << " (ideal: all frames hit)";
  }
}

TEST(Eviction, BackAndForthIsNoWorseThanLru) {
  for (const std::uint32_t frames : {40U, 200U, 400U}) {
    std::vector<std::uint64_t> pages;
    for (int turn = 0; turn < 20; ++turn) {
      auto pass = range(0, 1000);
      if (turn % 2 == 1) std::reverse(pass.begin(), pass.end());
      pages.insert(pages.end(), pass.begin(), pass.end());
    }
    TestCache cache(frames);
    EXPECT_LE(cache.misses(pages), lru_misses(pages, frames) + pages.size() * 2 / 100) << frames;
  }
}

}  // namespace
}  // namespace quire
