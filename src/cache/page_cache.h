// The cache that all mappings of one quire::Cache share: frames, eviction, counters, the dirty limit and the flusher.
// Guarantees: D1 (the hard dirty limit), M1.
//
// Memory comes before locks: `reserve` may wait and is called with nothing held. Its waiters hold no frames but for
// one, the head of a FIFO, so no set of waiters can hold what the others wait for. Writers' reservations and unstable
// (dirty, in writeback, unflushed) folios together stay under half of the frames (`throttle`): the other half can
// always be reclaimed for readers, who hold no frames while they wait for more.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/defect.h"
#include "cache/ahead_budget.h"
#include "cache/eviction_queue.h"
#include "cache/folio_pool.h"
#include "cache/ghosts.h"
#include "cache/lookaside.h"
#include "cache/stats.h"
#include "device/io_stats.h"
#include "device/io_thread.h"
#include "quire/result.h"
#include "sync/range_lock.h"
#include "sync/wait_queue.h"
#include "xarray/node_store.h"

namespace quire {

struct Mapping;
class Flusher;

struct PageCacheOptions {
  std::size_t memory = 0;   // bytes, everything included
  unsigned io_depth = 128;  // of the asynchronous ring
  bool use_io_uring = true;
  bool io_thread = true;  // false: no backing asks for it
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

  // Fills the reservation up to `want` frames: free ones, else reclaimed, else waits for writeback and other users.
  // No lock may be held. want <= frames() / 2. order: of the largest blocks wanted; smaller ones come where those are
  // not to be had.
  void reserve(FrameReservation& reservation, std::uint32_t want, unsigned order = 0);
  // The same without waiting for anybody (reclaim only tries locks); returns whether it got them all.
  bool try_reserve(FrameReservation& reservation, std::uint32_t want, unsigned order = 0);
  // For a reader that holds its range lock and no frame: at least one, at most `want`.
  void reserve_for_read(FrameReservation& reservation, std::uint32_t want, unsigned order = 0);

  // Before a write that may dirty `folios` more, with no lock held: waits while too much is unstable. EIO when this
  // file's writeback keeps failing. On success the folios count against the limit until unthrottle.
  Status throttle(Mapping& mapping, std::uint32_t folios);
  void unthrottle(std::uint32_t folios);
  bool throttling() const { return throttled_.load(memory_order_relaxed) != 0; }  // does anybody wait there?
  bool near_dirty_limit() const {
    return unstable_.load(memory_order_relaxed) + write_claims_.load(memory_order_relaxed) >= background_dirty_;
  }

  void put_folio(Folio& folio) {
    if (folio.refs.fetch_sub(1, memory_order_acq_rel) == 1) folio_unused(folio);
  }

  // Accounting, called by mark functions of mapping.cc under the mapping's xarray lock.
  void unstable_added(std::uint64_t pages) { unstable_.fetch_add(pages, memory_order_relaxed); }
  void unstable_removed(std::uint64_t pages) { unstable_.fetch_sub(pages, memory_order_relaxed); }
  void resident_added(std::uint64_t pages) { resident_.fetch_add(pages, memory_order_relaxed); }
  void resident_removed(std::uint64_t pages) { resident_.fetch_sub(pages, memory_order_relaxed); }
  void progress() { frames_queue_.wake_all(); }  // folios became clean or free

  std::uint32_t frames() const { return pool.frames(); }
  // Of folios: no folio is more than a small part of the cache.
  unsigned max_order() const { return max_order_; }
  void set_max_order(unsigned order) { max_order_ = order; }  // for tests, before there are mappings
  // No folio lies on both sides of a multiple of this. Bytes.
  std::uint64_t folio_alignment() const {
    return has_defect(Defect::range_operation_locks_pages_only) ? kPageSize : std::uint64_t{kPageSize} << max_order_;
  }
  std::uint64_t max_operation_bytes() const;  // R1: min(16 MiB, a quarter of the memory)
  std::uint64_t unstable() const { return unstable_.load(memory_order_relaxed); }
  std::uint64_t background_dirty() const { return background_dirty_; }
  std::uint64_t hard_dirty() const { return hard_dirty_; }
  std::size_t memory() const { return memory_; }
  std::int64_t metadata_bytes() const;
  std::uint64_t resident_pages() const { return resident_.load(memory_order_relaxed); }
  std::uint64_t resident_folios() const { return eviction.size(); }
  Flusher& flusher() { return *flusher_; }

  FolioPool pool;
  EvictionQueue eviction;
  GhostKeeper ghosts;
  Lookaside lookaside;
  AheadBudget ahead{*this};  // a quarter of the frames
  Stats stats;
  IoStats io_stats;
  XNodeStore nodes;  // of the mappings' xarrays
  std::unique_ptr<IoThread> io_thread;
  WaitQueue ahead_queue;               // some mapping's last readahead in flight ended
  Mutex copy_turn;                     // of who copies between files (fs): before every range lock, held over I/O
  Atomic<std::uint32_t> owners;        // handles opened (Folio::flags has their numbers)
  Atomic<std::uint32_t> wanted_order;  // of a block that was not to be had since the flusher looked; 0: none
  Atomic<std::uint32_t> rebuild_hand;  // the frame where migration goes on looking; the flusher's
  Atomic<bool> forked;                 // this is a child of the process that made the cache: every call fails

 private:
  std::uint32_t take_within_budget(FrameReservation& reservation, std::uint32_t want, unsigned order);
  void note_order_miss(unsigned order);
  std::uint32_t reclaim(std::uint32_t want);
  std::uint32_t give_up(const Victim& victim);
  void folio_unused(Folio& folio);
  std::uint32_t spare_nodes() const;

  std::size_t memory_ = 0;
  std::uint64_t background_dirty_ = 0;
  std::uint64_t hard_dirty_ = 0;
  unsigned max_order_ = 0;
  Atomic<std::uint64_t> resident_;  // pages
  Atomic<std::uint64_t> unstable_;  // pages
  Atomic<std::uint64_t> write_claims_;
  Atomic<std::uint32_t> throttled_;  // who waits in throttle()
  WaitQueue frames_queue_;
  RangeLock turn_;  // FIFO of those who wait for frames; only its holder accumulates
  std::unique_ptr<Flusher> flusher_;
};

}  // namespace quire
