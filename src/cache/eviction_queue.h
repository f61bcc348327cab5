// The folios that may be given up, in the order of the policy (eviction.h). Locks: its own mutex, a leaf; held over at
// most kScanBatch folios looked at, and what the policy's hand looks at on the way.
#pragma once

#include <cstdint>
#include <span>

#include "cache/ahead_budget.h"
#include "cache/eviction.h"
#include "cache/folio_pool.h"
#include "sync/mutex.h"

namespace quire {

extern LockClass eviction_lock_class;

// A folio that was given up: locked, and in nobody's list. `ghost` is what to leave in the index for it, 0: nothing.
struct Victim {
  Folio* folio;
  std::uint64_t ghost;
};

class EvictionQueue {
 public:
  static constexpr std::uint32_t kScanBatch = 64;

  explicit EvictionQueue(FolioPool& pool, AheadBudget* ahead = nullptr) : frames_(pool, ahead), pool_(pool) {}
  Status create(std::uint32_t max_frames, std::uint32_t frames);
  Status create(std::uint32_t frames) { return create(frames, frames); }
  void resize(std::uint32_t frames);  // how many are in use now, at most

  // A folio that came in; locked or new. ghost: what the index held in its place, or 0. prefetched: nobody has asked
  // for it yet, so the first use that is found is its first. Returns whether it came back soon enough to count.
  bool add(Folio& folio, std::uint64_t ghost, bool prefetched);
  void remove(Folio& folio);  // no effect if it is not here
  // The parts were cut off the folio, with orders of their own (all locked): as old as it, and beside it.
  void split(Folio& folio, std::span<Folio* const> parts);
  // The folio's page is now in `by` (both locked): it takes the folio's place.
  void replace(Folio& folio, Folio& by);

  // Looks at up to kScanBatch folios and takes up to out.size() of them, until they have `frames` together or more;
  // those in use are passed over. Returns their number; *scanned is how many were looked at (0: there are none).
  std::uint32_t isolate(std::span<Victim> out, std::uint32_t frames, std::uint32_t* scanned);
  // The victim (locked) that isolate() gave last stays, as the next one, to be cut; then what is left of it goes.
  void put_back(Folio& folio);
  std::uint64_t take(Folio& folio);  // returns its ghost

  // How old a ghost may be just now: ask about many without the mutex.
  GhostAge ghost_age();

  std::uint32_t size() const { return size_.load(memory_order_relaxed); }  // folios

 private:
  // What the policy asks of frames.
  struct Frames {
    Frames(FolioPool& folio_pool, AheadBudget* budget) : pool(folio_pool), ahead(budget) {}
    bool test_and_clear_referenced(std::uint32_t id);
    bool try_take(std::uint32_t id);
    FolioPool& pool;
    AheadBudget* ahead;  // is told of what was used, before the bit that tells goes; may be null
  };

  Frames frames_;
  FolioPool& pool_;
  Mutex mutex_{eviction_lock_class};
  Eviction eviction_ GUARDED_BY(mutex_);
  Atomic<std::uint32_t> size_;  // written under mutex_
};

}  // namespace quire
