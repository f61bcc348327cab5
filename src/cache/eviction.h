// Which folio to give up next: LIRS by reference bits, with the share of new pages found by a duel of LRU and LIRS.
// Not thread-safe: its user holds a mutex. Nothing is allocated after create(). docs/EVICTION.md has the figures.
//
// The policy sees misses (admit), removals, and one reference bit per folio that hits set; never a hit itself. An entry
// is one folio, aged as one and counted in frames. It stands on one of two lists, newest access first:
//
//              admit (no ghost, or an old one)                 admit (a ghost younger than hot's tail)
//                          v                                                   v
//   bit set: to front < [ cold ] -- hot is short of frames: unproven --> [ hot ] > bit set: to front
//                          v                                                   v
//              tail, cold over its share: evicted            tail, hot over its share: evicted
//
// From LIRS (Jiang and Zhang, SIGMETRICS 2002): a page comes to be hot by a reuse distance smaller than the recency of
// the coldest hot page, not by being hit; hot pages stay while nothing better refaults, so a loop larger than the cache
// keeps most of itself. From CLOCK-Pro (Jiang, Chen and Zhang, USENIX ATC 2005): bits for hits. Unlike CLOCK, a hand
// walks over both lists at every eviction, a few entries and further the more bits it finds, so that a page's last
// access is known to a fraction of a turn: recency by bits fails where a set bit may mean "long ago".
//
// What is adaptive is cold's share of the frames. With almost none this is LIRS (best on loops, scans, stable sets);
// with almost all it is LRU (best where pages are used a few times and never again). Two questions decide, and both are
// answered exactly, for each access that shows (a refault or a found bit), from last accesses alone (RecencyHorizon):
//   would LRU have hit?   the page's last access is within the last accesses that fill the cache
//   would LIRS have hit?  it is warm (its last reuse distance was short) and within the warm pages that fill the cache
// `balance_` sums the differences: at one end cold's share grows, at the other it shrinks. It grows only while LRU
// would also beat what is done now (`lead_`), for a share in between is often better than either. A hot page reused
// after longer than ghosts live stands for all those whose ghosts did not live to tell: it counts for as many as the
// cache is larger than hot, which is why hot is never empty. The cold share starts at a half: nothing is known.
//
// Ghosts: the value left in the index says when the page was last accessed and evicted, and if it was warm. It counts
// until two caches' worth of frames have been evicted since (is_live). Any may be lost.
#pragma once

#include <cstdint>
#include <memory>

#include "cache/recency_horizon.h"
#include "quire/result.h"

namespace quire {

// How a folio comes in.
struct Admission {
  std::uint32_t order = 0;  // 2^order frames, up to 2^9
  bool prefetched = false;  // nobody has asked for it: its bit, when first set, is its first access
};

class Eviction {
 public:
  static constexpr std::uint32_t kNone = 0xffffffff;
  static constexpr std::uint32_t kMaxFrames = 1u << 27;
  static constexpr std::uint32_t kSweepMost = 32;  // entries that the hand looks at in one evict(), at most

  // Frame ids 0 to max_frames - 1, all of them allowed. ENOMEM.
  Status create(std::uint32_t max_frames);
  // The number of frames now allowed, 1 to max_frames. It evicts nothing, and costs no more than a few evictions.
  void resize(std::uint32_t frames);

  // A folio whose first frame is `id` was filled; its bit is clear. `ghost` is what the index held for it, or 0.
  void admit(std::uint32_t id, std::uint64_t ghost, Admission how = {});
  void remove(std::uint32_t id);  // truncated or dropped; no effect on what is not here

  // The next victim, off the lists, with what to leave in the index in *ghost (0: nothing); kNone after `limit` looked
  // at. *scanned is how many were. Frames: bool test_and_clear_referenced(id); bool try_take(id), false where it is
  // pinned, dirty or locked now: it goes to the front of its list. Both may be called for any entry.
  template <class Frames>
  std::uint32_t evict(Frames& frames, std::uint32_t limit, std::uint32_t* scanned, std::uint64_t* ghost);

  bool is_live(std::uint64_t ghost) const;  // false: as good as none

  std::uint64_t frames() const { return lists_[kCold].frames + lists_[kHot].frames; }
  std::uint64_t entries() const { return std::uint64_t{lists_[kCold].entries} + lists_[kHot].entries; }
  std::uint64_t cold_share() const { return cold_share_; }  // in frames: what cold may hold
  void check() const;                                       // every invariant; O(entries)

 private:
  enum ListName : std::uint64_t { kCold, kHot, kNowhere };

  struct Entry {
    std::uint32_t next;            // towards the tail
    std::uint32_t previous;        // towards the head
    std::uint64_t stamp : 48 = 0;  // clock_ at the last access known of
    ListName list : 2 = kNowhere;
    std::uint64_t order : 4 = 0;
    std::uint64_t warm : 1 = 0;     // LIRS would hold it, were it not for its age
    std::uint64_t untried : 1 = 0;  // prefetched and not yet accessed
    std::uint64_t known : 1 = 0;    // the stamp is an access (untried: of an earlier life)
  };
  static_assert(sizeof(Entry) == 16);

  struct List {
    std::uint32_t head = kNone;
    std::uint32_t tail = kNone;
    std::uint32_t entries = 0;
    std::uint64_t frames = 0;
  };

  static std::uint32_t weight(const Entry& entry) { return 1u << entry.order; }
  std::uint64_t hot_share() const { return capacity_ - cold_share_; }

  void push_front(std::uint32_t id, ListName list);
  void unlink(std::uint32_t id);
  void move_to_front(std::uint32_t id);

  // An access came to light: by a refault, or by a bit found set.
  void found(std::uint32_t id);
  void judge(const Entry& entry, bool was_resident);
  void set_cold_share(std::uint64_t share);
  void record_access(Entry& entry);
  void forget(const Entry& entry);
  bool younger_than_hot(std::uint64_t stamp) const;

  void fill_hot();
  std::uint32_t next_victim(std::uint32_t refused) const;
  std::uint32_t next_of_hand();
  std::uint64_t take_off(std::uint32_t id);
  template <class Frames>
  void sweep(Frames& frames);

  std::unique_ptr<Entry[]> entries_;
  std::uint32_t max_frames_ = 0;
  std::uint64_t capacity_ = 0;
  List lists_[2];
  std::uint32_t hand_ = kNone;  // the entry to be looked at next; kNone: the end of a list
  ListName hand_turn_ = kCold;  // the list that the hand is on

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
  sweep(frames);
  fill_hot();
  while (*scanned < limit) {
    const std::uint32_t id = next_victim(refused);
    if (id == kNone) return kNone;
    ++*scanned;
    if (frames.test_and_clear_referenced(id)) {
      found(id);
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
