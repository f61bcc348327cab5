// The cache that all mappings of one quire::Cache share: frames, eviction, counters, the dirty limit and the flusher.
// Guarantees: M1.
//
// Memory comes before locks: `reserve` may wait and is called with nothing held. Its waiters hold no frames but for
// one, the head of a FIFO, so no set of waiters can hold what the others wait for. Writers claim what they may make
// unstable (dirty, in writeback, unflushed) before they reserve, and claims and unstable folios together stay under
// half of the frames (DirtyLimit). An eighth of the frames beyond them may always be in use, even where files' metadata
// or a smaller size leave fewer than that (least_needed): readers, who hold no frames while they wait for more, get
// theirs by reclaim of what is neither claimed nor unstable.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>

#include "base/defect.h"
#include "cache/ahead_budget.h"
#include "cache/dirty_limit.h"
#include "cache/eviction_queue.h"
#include "cache/folio_pool.h"
#include "cache/ghosts.h"
#include "cache/lookaside.h"
#include "cache/stats.h"
#include "cache/transient_bytes.h"
#include "device/io_stats.h"
#include "device/io_thread.h"
#include "quire/result.h"
#include "sync/range_lock.h"
#include "sync/wait_queue.h"
#include "xarray/node_store.h"

namespace quire {

struct Mapping;
class Flusher;
class ViewEngine;

extern LockClass bounce_lock_class;

struct PageCacheOptions {
  std::size_t memory = 0;      // bytes, everything included
  std::size_t max_memory = 0;  // what resize() may give it; less than memory: no more than that
  unsigned io_depth = 128;     // of the asynchronous ring
  bool use_io_uring = true;
  bool io_thread = true;  // false: no backing asks for it
};

// Where the memory of a cache is, in bytes.
struct MemoryUse {
  std::uint64_t arena;        // frames that have memory, in use or not
  std::uint64_t descriptors;  // of frames: descriptors, the policy's entries, the lookaside
  std::uint64_t index;        // nodes, those kept for the next included
  std::uint64_t files;        // inodes, mappings, handles
  std::uint64_t prefetch;     // windows in flight, the frames aside
  std::uint64_t
      bounce;  // private memory of calls whose buffers lie in views or are not aligned, for as long as they take
  std::uint64_t counters;
  std::uint64_t sum() const { return arena + descriptors + index + files + prefetch + bounce + counters; }
};

class PageCache {
 public:
  static constexpr std::uint32_t kMinFrames = 64;
  static std::size_t min_memory();

  PageCache();
  ~PageCache();  // no mapping is left
  PageCache(const PageCache&) = delete;
  PageCache& operator=(const PageCache&) = delete;
  Status create(const PageCacheOptions& options);

  // Gives the cache another size, beside everything else that it does. Growing takes effect at once. Shrinking waits,
  // for some seconds at most, until as much was reclaimed, written back where need be, and given back to the host; what
  // is in use longer follows as it can. EINVAL: too small to work, or more than max_memory.
  Status resize(std::size_t memory);
  // On the flusher's thread: gives memory back to the host while the cache holds more than it may.
  void trim();

  // Fills the reservation up to `want` frames: free ones, else reclaimed, else waits for writeback and other users.
  // No lock may be held. want <= frames() / 2. order: of the largest blocks wanted; smaller ones come where those are
  // not to be had.
  void reserve(FrameReservation& reservation, std::uint32_t want, unsigned order = 0);
  // The same without waiting for anybody (reclaim only tries locks); returns whether it got them all.
  bool try_reserve(FrameReservation& reservation, std::uint32_t want, unsigned order = 0) {
    return try_reserve(reservation, want, order, false);
  }
  // For a reader that holds its range lock and no frame: at least one, at most `want`.
  void reserve_for_read(FrameReservation& reservation, std::uint32_t want, unsigned order = 0);

  void put_folio(Folio& folio) {
    if (folio.refs.fetch_sub(1, memory_order_acq_rel) == 1) folio_unused(folio);
  }

  // Accounting, called by mark functions of mapping.cc under the mapping's xarray lock.
  void resident_added(std::uint64_t pages) { resident_.fetch_add(pages, memory_order_relaxed); }
  void resident_removed(std::uint64_t pages) { resident_.fetch_sub(pages, memory_order_relaxed); }
  void progress() {  // folios became clean or free
    frames_queue_.wake_all();
    dirty.progress();
  }

  std::uint32_t frames() const { return frames_.load(memory_order_relaxed); }  // that the memory makes; see usable()
  // Of folios: no folio is more than a small part of the cache.
  unsigned max_order() const { return max_order_.load(memory_order_relaxed); }
  void set_max_order(unsigned order) {  // for tests, before there are mappings
    max_order_.store(order, memory_order_relaxed);
    largest_order_ = order;
  }
  // No folio lies on both sides of a multiple of this. Bytes.
  std::uint64_t folio_alignment() const {
    return has_defect(Defect::range_operation_locks_pages_only) ? kPageSize
                                                                : std::uint64_t{kPageSize} << largest_order_;
  }
  std::uint64_t max_operation_bytes() const;  // R1: min(16 MiB, a quarter of the memory)
  std::size_t memory() const { return memory_.load(memory_order_relaxed); }
  std::int64_t metadata_bytes() const;
  MemoryUse memory_use() const;
  std::uint32_t free_frames() const { return frames() - std::min(frames(), frames_in_use()); }
  std::uint32_t usable() const;  // frames, less what else costs memory
  // What is not in folios, descriptors or the index, but the cache's all the same: by who makes and frees it.
  void charge_files(std::int64_t bytes) { file_bytes_.fetch_add(bytes, memory_order_relaxed); }
  void charge_prefetch(std::int64_t bytes) { prefetch_bytes_.add(bytes); }
  std::int64_t bounce_bytes() const { return bounce_bytes_.now(); }
  void charge_bounce(std::int64_t bytes) { bounce_bytes_.add(bytes); }
  std::uint64_t resident_pages() const { return resident_.load(memory_order_relaxed); }
  std::uint64_t resident_folios() const { return eviction.size(); }
  Flusher& flusher() { return *flusher_; }
  // What serves mapped views; made at the first call.
  Result<ViewEngine*> view_engine();

  FolioPool pool;
  EvictionQueue eviction;
  GhostKeeper ghosts;
  DirtyLimit dirty{*this};
  Lookaside lookaside;
  AheadBudget ahead{*this};  // a quarter of the frames
  Stats stats;
  IoStats io_stats;
  XNodeStore nodes;  // of the mappings' xarrays
  std::unique_ptr<IoThread> io_thread;
  WaitQueue ahead_queue;                // some mapping's last readahead in flight ended
  Atomic<std::uint32_t> ahead_leaving;  // threads that are just saying so, and use the cache for that
  // Places 0 and 1, one for each who copies much between views and files (fs): before every lock but those of the API,
  // held over I/O.
  RangeLock bounce_turn;
  Atomic<std::uint32_t> bounce_turns;  // given to those who had to wait: they take the places by turns
  Mutex copy_turn;                     // of who copies between files (fs): before every range lock, held over I/O
  Atomic<std::uint32_t> owners;        // handles opened (Folio::flags has their numbers)
  Atomic<std::uint32_t> wanted_order;  // of a block that was not to be had since the flusher looked; 0: none
  Atomic<std::uint32_t> rebuild_hand;  // the frame where migration goes on looking; the flusher's
  Atomic<bool> forked;                 // this is a child of the process that made the cache: every call fails

 private:
  bool try_reserve(FrameReservation& reservation, std::uint32_t want, unsigned order, bool entitled);
  std::uint32_t take_within_budget(FrameReservation& reservation, std::uint32_t want, unsigned order, bool entitled);
  std::uint32_t least_needed(std::uint32_t wanted) const;
  bool over_budget() const;
  void fade_transient();
  void note_order_miss(unsigned order);
  std::uint32_t reclaim(std::uint32_t want);
  std::uint64_t cut(Mapping& mapping, const Victim& victim, std::uint32_t wanted);
  std::uint32_t give_up(Victim victim, std::uint32_t wanted, std::uint32_t* spared);
  bool leaves_views(Mapping& mapping, Folio& folio, std::uint32_t* spared);
  void folio_unused(Folio& folio);
  std::uint32_t spare_nodes() const;
  // Frames that are neither free nor withheld; a look at two counters, which may be of two moments.
  std::uint32_t in_use_beside(std::uint32_t free) const {
    return pool.frames() - std::min(pool.frames(), free + pool.withheld());
  }
  std::uint32_t frames_in_use() const { return in_use_beside(pool.free_frames()); }
  void divide(std::size_t memory);

  Atomic<std::size_t> memory_;
  Atomic<std::uint32_t> frames_;
  Atomic<unsigned> max_order_;
  unsigned largest_order_ = 0;  // that max_order_ ever has: what range operations reckon with
  Mutex resize_mutex_;          // one resize at a time
  Atomic<std::int64_t> file_bytes_;
  TransientBytes prefetch_bytes_, bounce_bytes_;
  Atomic<std::int64_t> faded_ns_;   // when those last were
  Atomic<std::uint64_t> resident_;  // pages
  WaitQueue frames_queue_;
  RangeLock turn_;  // FIFO of those who wait for frames; only its holder accumulates
  std::unique_ptr<Flusher> flusher_;
  Mutex view_engine_mutex_;
  std::unique_ptr<ViewEngine> view_engine_ GUARDED_BY(view_engine_mutex_);
};

}  // namespace quire
