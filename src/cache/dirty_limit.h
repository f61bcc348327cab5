// The dirty limit: how much of the cache may be unstable (dirty, in writeback, or written and not yet flushed), and how
// fast writers may make it so. Guarantees: D1 (the hard limit), M1.
//
//   unstable pages    0 ......... background ................. hard
//                       nobody waits   | writers are paced      | writers stand in line
//
// Past the background limit the flusher writes, and tells at which rate pages become stable. Writers then keep to that
// rate: each takes its turn on a clock that runs as fast as the device, twice as fast at the background limit, slower
// and slower towards the hard one, so the number of unstable pages settles half way between the two. A writer so waits
// for what it writes itself, a little each time, and not for a whole slice of the file every now and then. (The idea is
// that of Wu Fengguang's "IO-less dirty throttling", Linux Plumbers Conference 2010.) The hard limit is for a device
// that suddenly stalls, and for rates not known yet.
//
// Whoever may dirty pages claims them first, with no lock held. Claims and unstable pages together stay below the hard
// limit less a reserve: a large folio that cannot be split becomes dirty as a whole, a page may become stable just
// before it is dirtied again. Claims that wait for room stand in a line, the first in it alone looks for room: a large
// one is not passed by small ones for ever. Writers of a file whose writeback fails stand aside: they would hold up
// all others.
//
// What cannot be written counts for nobody but its own file: the others are paced, and have room, as if it were not
// there, an eighth of the cache at least. Only where all of it comes to three quarters of the cache (one failing file
// after another, or a cache that has become smaller) their writers get EIO as well.
// Locks: the line (a range lock, after the copy turn and before all else). Thread safety: every call from any thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "quire/result.h"
#include "sync/atomic.h"
#include "sync/range_lock.h"
#include "sync/wait_queue.h"

namespace quire {

class PageCache;
struct Mapping;

class DirtyLimit {
 public:
  explicit DirtyLimit(PageCache& cache);
  DirtyLimit(const DirtyLimit&) = delete;
  DirtyLimit& operator=(const DirtyLimit&) = delete;
  void set_frames(std::uint32_t frames);  // of the cache: the limits are parts of it

  // Before a write that may dirty `pages` more, with no lock held: waits for its turn and for room. EIO where this
  // file's writeback keeps failing, or that of so many others, and there is no room. On success the pages are claimed
  // until unclaim.
  Status claim(Mapping& mapping, std::uint32_t pages);
  void unclaim(std::uint32_t pages) {
    claims_.fetch_sub(pages, memory_order_relaxed);
    if (somebody_waits()) room_queue_.wake_all();
  }

  // Under the index's mutex of the mapping whose folio changes its state.
  void unstable_added(std::uint64_t pages) { unstable_.fetch_add(pages, memory_order_relaxed); }
  void unstable_removed(std::uint64_t pages) { unstable_.fetch_sub(pages, memory_order_relaxed); }

  // By the flusher: so many pages were written and flushed in that time; fewer than say anything are not counted.
  void measured(std::uint64_t pages, std::int64_t ns);
  void progress();                       // pages became stable
  void set_stuck(std::uint64_t pages) {  // by the flusher: unstable pages of files whose last writeback failed
    stuck_.store(pages, memory_order_relaxed);
  }
  void round_ended() { rounds_.fetch_add(1, memory_order_release); }  // of the flusher, through all files

  std::uint64_t unstable() const { return unstable_.load(memory_order_relaxed); }
  std::uint64_t background() const { return background_.load(memory_order_relaxed); }
  std::uint64_t hard() const { return hard_.load(memory_order_relaxed); }
  std::uint64_t rate() const { return rate_.load(memory_order_relaxed); }  // pages a second; 0: not known yet
  std::uint64_t stuck() const { return stuck_.load(memory_order_relaxed); }
  std::uint64_t used() const { return unstable() + claims_.load(memory_order_relaxed); }
  // Of what can be written.
  std::uint64_t writable() const { return used() - std::min(unstable(), stuck()); }
  bool past_background() const { return unstable() - std::min(unstable(), stuck()) >= background(); }
  // A write to this file has to claim. Who does not makes one page unstable at most.
  bool near(const Mapping& mapping) const { return used() >= background() && (somebody_waits() || is_near(mapping)); }
  bool somebody_waits() const { return waiting_.load(memory_order_relaxed) != 0; }

 private:
  bool is_near(const Mapping& mapping) const;
  std::int64_t cost_ns(std::uint32_t pages) const;
  void pace(std::uint32_t pages);
  std::uint64_t most_in_all() const { return hard() + hard() / 2; }
  bool has_room(const Mapping& mapping, std::uint64_t claims, std::uint32_t pages) const;
  bool try_claim(const Mapping& mapping, std::uint32_t pages);
  Status wait_for_room(Mapping& mapping, std::uint32_t pages);

  PageCache& cache_;
  Atomic<std::uint64_t> background_, hard_;  // pages
  Atomic<std::uint64_t> unstable_, claims_;  // pages
  Atomic<std::uint64_t> stuck_;              // of the unstable ones
  Atomic<std::uint32_t> rounds_;
  Atomic<std::uint64_t> rate_;     // pages a second, a running mean; written by the flusher
  Atomic<std::int64_t> due_ns_;    // the writers' clock: when the next of them may go on (CLOCK_MONOTONIC)
  Atomic<std::uint32_t> waiting_;  // for room
  RangeLock line_;
  WaitQueue room_queue_;  // the first in the line, and those who stand aside
  WaitQueue pace_queue_;
};

}  // namespace quire
