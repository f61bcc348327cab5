// A plain LRU with one reference bit per folio (hits set at most that bit): second chance at the cold end.
// Locks: its own mutex, a leaf; held over at most kScanBatch folios.
#pragma once

#include <cstdint>
#include <span>

#include "cache/folio_pool.h"
#include "sync/mutex.h"

namespace quire {

extern LockClass lru_lock_class;

class Lru {
 public:
  static constexpr std::uint32_t kScanBatch = 64;

  explicit Lru(FolioPool& pool) : pool_(pool) {}

  void add(Folio& folio);     // at the hot end; the caller's folio is locked or new
  void remove(Folio& folio);  // no effect if not on the list

  // Looks at up to kScanBatch folios from the cold end. Referenced ones lose the bit and move to the hot end, so do
  // those in use; up to out.size() others are returned locked and off the list. Returns their number; *scanned is
  // how many were looked at (0: the list is empty).
  std::uint32_t isolate(std::span<Folio*> out, std::uint32_t* scanned);

  std::uint32_t size() const { return size_.load(memory_order_relaxed); }

 private:
  void link_hot_locked(Folio& folio) REQUIRES(mutex_);
  void unlink_locked(Folio& folio) REQUIRES(mutex_);

  FolioPool& pool_;
  Mutex mutex_{lru_lock_class};
  std::uint32_t hot_ GUARDED_BY(mutex_) = FolioPool::kNone;
  std::uint32_t cold_ GUARDED_BY(mutex_) = FolioPool::kNone;
  Atomic<std::uint32_t> size_;  // written under mutex_
};

}  // namespace quire
