// Which folio to give up next: LIRS by reference bits, with the share of new pages set by a duel of LRU and LIRS.
// Not thread-safe: its user holds a mutex. Nothing is allocated after create(). docs/EVICTION.md has the figures.
//
// The policy sees misses (admit), removals, and one reference bit per folio that hits set; never a hit itself. An entry
// is one folio, aged as one and counted in frames. It stands on one of two lists, newest access first:
//
//        admit (no ghost, or too old a one)                      admit (a ghost younger than hot's coldest)
//                        v                                                      v
//   bit set: to front  [ cold ]  -- hot is short of frames: what was used    [ hot ]  bit set: to front
//                                   again, then the oldest as it is -->
//                        v                                                      v
//        tail, hot within its share: evicted                     tail, hot over its share: to front if found used
//                                                                since it came or was spared; else evicted
//   at either tail, read ahead and not yet accessed: to front once
//
// From LIRS (Jiang and Zhang, SIGMETRICS 2002): a page comes to be hot by a reuse distance smaller than the time for
// which hot's coldest has been left alone; by being hit soon after it came only while frames of hot are nobody's yet;
// and hot pages stay while nothing better refaults, so a loop larger than the cache keeps most of itself. From
// CLOCK-Pro (Jiang, Chen and Zhang, USENIX ATC 2005): bits in the place of hits. Unlike CLOCK, which learns of an
// access when the page is about to go, a hand goes round all frames, two at each frame evicted and further the more
// bits it finds, so that last accesses are known to a fraction of a turn. Everything below rests on that. Where many
// bits are found at once and then few (a stream begins; who reads the hot pages misses some, and is slow), hot's tail
// is pages whose bits were cleared a moment before: hence it spares once what was ever found used.
// And what a stream has read ahead is younger than the bits that were found: the bits of all that it has read already,
// found at once, would leave the pages that it is about to read as the coldest; hence those are spared once, too.
//
// What is adaptive is cold's share of the frames. With next to none this is LIRS (best on loops, scans, stable sets);
// with all but a few it is LRU (best where pages are used a few times and never again). Two questions decide; for each
// access that shows (a refault, or a bit found set) both are answered from last accesses alone (RecencyHorizon):
//   would LRU have hit?   the page's last access is within those that fill the cache
//   would LIRS have hit?  so it is within those of warm pages (whose last reuse distance was short) that fill the cache
// `balance_` sums the differences: at one end cold's share grows, at the other it shrinks. It grows only while LRU
// would beat what is really done as well (`lead_`), for a share in between is often better than either. A hot page
// reused after longer than ghosts live speaks for those whose ghosts did not live to tell: it counts for as many as the
// cache is larger than hot, which is why hot is never empty. The share begins at a half: nothing is known.
//
// Ghosts: the value left in the index says when the page was last accessed, when evicted, and if it was warm. It counts
// until two caches' worth of frames have been evicted since (is_live). Any may be lost.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "cache/recency_horizon.h"
#include "quire/result.h"

namespace quire {

// What ghosts' ages are measured by, at one moment.
struct GhostAge {
  std::uint64_t evicted;  // frames, so far
  std::uint64_t span;     // frames evicted since, after which a ghost counts no more
  bool is_live(std::uint64_t ghost, std::uint64_t within) const;  // within: frames evicted since, at most
};

// How a folio comes in.
struct Admission {
  std::uint32_t order = 0;  // 2^order frames, up to 2^9
  bool prefetched = false;  // nobody has asked for it: its bit, when first set, is its first access
};

class Eviction {
 public:
  static constexpr std::uint32_t kNone = 0xffffffff;
  static constexpr std::uint32_t kMaxFrames = 1u << 27;
  static constexpr std::size_t kBytesPerFrame = 16;
  static constexpr std::uint32_t kHandPasses = 16;  // frames with no entry of their own, in one look
  static constexpr std::uint32_t kSweepMost = 32;   // entries that the hand looks at in one evict(), at most

  // Frame ids 0 to max_frames - 1, all of them allowed. ENOMEM.
  Status create(std::uint32_t max_frames);
  // The number of frames now allowed, 1 to max_frames. It evicts nothing, and costs no more than a few evictions.
  void resize(std::uint32_t frames);

  // A folio whose first frame is `id` was filled. `ghost` is what the index held for it, or 0. Its bit is clear: the
  // access that missed is not a hit. A victim that could not be freed after all is admitted again, with its ghost.
  void admit(std::uint32_t id, std::uint64_t ghost, Admission how = {});
  void remove(std::uint32_t id);  // truncated or dropped; no effect on what is not here
  // The victim that evict() gave last stays after all, and is the next one. A part of it goes (ghost as for evict()).
  void put_back(std::uint32_t id);
  std::uint64_t take(std::uint32_t id);
  // The 2^order frames from `part` on leave the entry `id` and are one of their own: as old, and next to it. When all
  // parts are off, and before anything else, shrink() says what is left of it.
  void split_off(std::uint32_t id, std::uint32_t part, std::uint32_t order);
  void shrink(std::uint32_t id, std::uint32_t order);
  // The folio's frames are now those from `to` on; nothing else about it changes.
  void move(std::uint32_t id, std::uint32_t to);

  // The next victim, off the lists, with what to leave in the index in *ghost (0: nothing); kNone after `limit` looked
  // at. *scanned is how many were, the hand's own aside. Frames: bool test_and_clear_referenced(id); bool try_take(id),
  // false where it is pinned, dirty or locked now: it goes to the front of its list, its age unchanged.
  template <class Frames>
  std::uint32_t evict(Frames& frames, std::uint32_t limit, std::uint32_t* scanned, std::uint64_t* ghost);

  bool is_live(std::uint64_t ghost) const { return ghost_age().is_live(ghost, UINT64_MAX); }  // false: as good as none
  GhostAge ghost_age() const;

  std::uint64_t frames() const { return lists_[kCold].frames + lists_[kHot].frames; }
  std::uint64_t entries() const { return std::uint64_t{lists_[kCold].entries} + lists_[kHot].entries; }
  std::uint64_t cold_share() const { return cold_share_; }  // in frames: what cold may hold
  void check() const;                                       // every invariant; O(entries)

 private:
  enum ListName : std::uint64_t { kNowhere, kCold, kHot };  // zeros: an entry that was never used

  struct Entry {
    std::uint32_t next;        // towards the tail
    std::uint32_t previous;    // towards the head
    std::uint64_t stamp : 48;  // clock_ at the last access known of
    ListName list : 2;
    std::uint64_t order : 4;
    std::uint64_t warm : 1;     // LIRS would hold it, were it not for its age
    std::uint64_t untried : 1;  // prefetched and not yet accessed
    std::uint64_t used : 1;     // its bit was found set since it came, or since hot's tail spared it
    std::uint64_t known : 1;    // the stamp is an access (untried: of an earlier life)
    std::uint64_t spared : 1;   // untried: it has been at a tail before
  };
  static_assert(sizeof(Entry) == kBytesPerFrame);

  struct List {
    std::uint32_t head = kNone;
    std::uint32_t tail = kNone;
    std::uint32_t entries = 0;
    std::uint64_t frames = 0;
  };

  static std::uint32_t weight(const Entry& entry) { return 1u << entry.order; }
  std::uint64_t hot_share() const;

  void push_front(std::uint32_t id, ListName list);
  void push_back(std::uint32_t id, ListName list);
  void unlink(std::uint32_t id);
  void move_to_front(std::uint32_t id);

  // An access came to light: by a refault, or by a bit found set.
  void found(std::uint32_t id);
  void judge(const Entry& entry, bool was_resident);
  void set_cold_share(std::uint64_t share);
  void record_access(Entry& entry);
  void forget(const Entry& entry);
  bool younger_than_hot(std::uint64_t stamp) const;

  void note_evicting();
  void note_admitting();
  void fill_hot();
  std::uint32_t next_victim(std::uint32_t refused) const;
  std::uint32_t next_of_hand();
  std::uint64_t take_off(std::uint32_t id);
  template <class Frames>
  void sweep(Frames& frames);

  struct FreeEntries {
    void operator()(Entry* entries) const { std::free(entries); }
  };
  std::unique_ptr<Entry[], FreeEntries> entries_;  // from calloc: memory is used as frames are first admitted
  std::uint32_t max_frames_ = 0;
  std::uint64_t capacity_ = 0;
  List lists_[3];               // kNowhere's is empty
  bool evicting_ = false;       // since the last admit
  std::uint64_t began_ = 0;     // frames here when that began
  std::uint64_t peak_ = 0;      // the most of those of late: what is divided
  std::uint64_t swing_ = 1;     // frames evicted together, the most of late
  std::uint64_t untried_ = 0;   // frames here
  std::uint64_t ahead_ = 0;     // the most of those of late
  std::uint32_t hand_ = 0;      // the frame whose bit is looked at next
  std::uint32_t owed_ = 0;      // frames that the hand is yet to pass, because large folios went
  std::uint32_t hand_end_ = 0;  // no frame from here on was ever admitted

  std::uint64_t clock_ = 1;    // frames accessed that came to light, each time
  std::uint64_t evicted_ = 0;  // frames
  RecencyHorizon lru_;         // all pages, resident or not, to the cache's size
  RecencyHorizon lirs_;        // warm pages, to what LIRS gives its hot ones

  std::uint64_t cold_share_ = 0;
  std::int64_t patience_ = 0;  // how far the two sums go either way, in frames
  std::int64_t balance_ = 0;   // hits of LRU over those of LIRS
  std::int64_t lead_ = 0;      // hits of LRU over ours
};

template <class Frames>
void Eviction::sweep(Frames& frames) {
  constexpr std::uint32_t kAtLeast = 2;
  constexpr std::uint32_t kMorePerFound = 2;  // hits come in bursts between misses: catch up with them
  std::uint32_t budget = kAtLeast;
  for (std::uint32_t looked = 0; looked < kSweepMost && looked < budget; ++looked) {
    const std::uint32_t id = next_of_hand();
    if (id == kNone || !frames.test_and_clear_referenced(id)) continue;
    budget += kMorePerFound + 1;
    found(id);
  }
  // As far again as a large folio took more than one frame with it: the turn of the hand is counted in frames.
  while (owed_ != 0) {
    const std::uint32_t id = next_of_hand();
    owed_ -= std::min(owed_, id == kNone ? kHandPasses : weight(entries_[id]));
    if (id != kNone && frames.test_and_clear_referenced(id)) found(id);
  }
  constexpr std::uint32_t kHotTails = 4;  // a refault is measured against hot's coldest
  for (std::uint32_t looked = 0; looked < kHotTails; ++looked) {
    const std::uint32_t id = lists_[kHot].tail;
    if (id == kNone || !frames.test_and_clear_referenced(id)) return;
    found(id);
  }
}

template <class Frames>
std::uint32_t Eviction::evict(Frames& frames, std::uint32_t limit, std::uint32_t* scanned, std::uint64_t* ghost) {
  *scanned = 0;
  *ghost = 0;
  std::uint32_t refused = 0;
  note_evicting();
  sweep(frames);
  fill_hot();
  while (*scanned < limit) {
    const std::uint32_t id = next_victim(refused);
    if (id == kNone) return kNone;
    ++*scanned;
    if (frames.test_and_clear_referenced(id)) {
      found(id);
    } else if (entries_[id].list == kHot && entries_[id].used) {
      entries_[id].used = 0;
      move_to_front(id);
    } else if (entries_[id].untried && !entries_[id].spared) {
      entries_[id].spared = 1;
      move_to_front(id);
    } else if (!frames.try_take(id)) {
      ++refused;
      move_to_front(id);
    } else {
      *ghost = take_off(id);
      return id;
    }
  }
  return kNone;
}

}  // namespace quire
