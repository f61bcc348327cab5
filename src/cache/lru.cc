// List handling of the LRU; the policy is isolate().
#include "cache/lru.h"

namespace quire {

LockClass lru_lock_class{"lru"};

void Lru::link_hot_locked(Folio& folio) {
  const std::uint32_t id = pool_.id(folio);
  folio.next_id = hot_;
  folio.previous_id = FolioPool::kNone;
  if (hot_ != FolioPool::kNone) pool_.folio(hot_).previous_id = id;
  hot_ = id;
  if (cold_ == FolioPool::kNone) cold_ = id;
}

void Lru::unlink_locked(Folio& folio) {
  if (folio.previous_id != FolioPool::kNone) {
    pool_.folio(folio.previous_id).next_id = folio.next_id;
  } else {
    hot_ = folio.next_id;
  }
  if (folio.next_id != FolioPool::kNone) {
    pool_.folio(folio.next_id).previous_id = folio.previous_id;
  } else {
    cold_ = folio.previous_id;
  }
}

void Lru::add(Folio& folio) {
  MutexLock lock(mutex_);
  if ((folio.flags.fetch_or(kOnLru, memory_order_relaxed) & kOnLru) != 0) return;
  link_hot_locked(folio);
  size_.store(size_.load(memory_order_relaxed) + 1, memory_order_relaxed);
}

void Lru::remove(Folio& folio) {
  MutexLock lock(mutex_);
  if ((folio.flags.fetch_and(~kOnLru, memory_order_relaxed) & kOnLru) == 0) return;
  unlink_locked(folio);
  size_.store(size_.load(memory_order_relaxed) - 1, memory_order_relaxed);
}

std::uint32_t Lru::isolate(std::span<Folio*> out, std::uint32_t* scanned) {
  std::uint32_t got = 0;
  std::uint32_t looked = 0;
  MutexLock lock(mutex_);
  const std::uint32_t most = size_.load(memory_order_relaxed);
  while (cold_ != FolioPool::kNone && looked < kScanBatch && looked < most && got < out.size()) {
    Folio& folio = pool_.folio(cold_);
    ++looked;
    unlink_locked(folio);
    const std::uint32_t flags = folio.flags.load(memory_order_relaxed);
    const bool idle = !referenced(folio) && (flags & (kUnstable | kLocked)) == 0 &&
                      folio.refs.load(memory_order_relaxed) == 1 && try_lock_folio(folio);
    if (!idle) {
      if (referenced(folio)) clear_referenced(folio);
      link_hot_locked(folio);
      continue;
    }
    folio.flags.fetch_and(~kOnLru, memory_order_relaxed);
    size_.store(size_.load(memory_order_relaxed) - 1, memory_order_relaxed);
    out[got++] = &folio;
  }
  *scanned = looked;
  return got;
}

}  // namespace quire
