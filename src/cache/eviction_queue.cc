// Folios and the policy's entries. See eviction_queue.h.
#include "cache/eviction_queue.h"

#include <algorithm>

#include "base/error.h"

namespace quire {

LockClass eviction_lock_class{"eviction"};

Status EvictionQueue::create(std::uint32_t max_frames, std::uint32_t frames) {
  MutexLock lock(mutex_);
  QUIRE_TRY(eviction_.create(max_frames));
  if (frames != max_frames) eviction_.resize(frames);
  return {};
}

void EvictionQueue::resize(std::uint32_t frames) {
  MutexLock lock(mutex_);
  eviction_.resize(frames);
}

bool EvictionQueue::Frames::test_and_clear_referenced(std::uint32_t id) {
  Folio& folio = pool.folio(id);
  if (!referenced(folio)) return false;
  if (ahead != nullptr) ahead->settle(folio);
  clear_referenced(folio);
  return true;
}

bool EvictionQueue::Frames::try_take(std::uint32_t id) {
  Folio& folio = pool.folio(id);
  const std::uint32_t flags = folio.flags.load(memory_order_relaxed);
  const std::uint32_t idle = (flags & kViewed) != 0 ? 2 : 1;  // references: the mapping's, the views'
  return (flags & (kUnstable | kLocked)) == 0 && folio.refs.load(memory_order_relaxed) == idle && try_lock_folio(folio);
}

bool EvictionQueue::add(Folio& folio, std::uint64_t ghost, bool prefetched) {
  MutexLock lock(mutex_);
  if ((folio.flags.fetch_or(kEvictable, memory_order_relaxed) & kEvictable) != 0) return false;
  const bool returned = eviction_.is_live(ghost);
  eviction_.admit(pool_.id(folio), ghost,
                  Admission{.order = folio.order.load(memory_order_relaxed), .prefetched = prefetched});
  size_.store(size_.load(memory_order_relaxed) + 1, memory_order_relaxed);
  return returned;
}

void EvictionQueue::remove(Folio& folio) {
  MutexLock lock(mutex_);
  if ((folio.flags.fetch_and(~kEvictable, memory_order_relaxed) & kEvictable) == 0) return;
  eviction_.remove(pool_.id(folio));
  size_.store(size_.load(memory_order_relaxed) - 1, memory_order_relaxed);
}

void EvictionQueue::split(Folio& folio, std::span<Folio* const> parts) {
  MutexLock lock(mutex_);
  if (!folio.has(kEvictable)) return;
  for (Folio* part : parts) {
    eviction_.split_off(pool_.id(folio), pool_.id(*part), part->order.load(memory_order_relaxed));
    part->flags.fetch_or(kEvictable, memory_order_relaxed);
  }
  eviction_.shrink(pool_.id(folio), folio.order.load(memory_order_relaxed));
  size_.store(size_.load(memory_order_relaxed) + static_cast<std::uint32_t>(parts.size()), memory_order_relaxed);
}

void EvictionQueue::replace(Folio& folio, Folio& by) {
  MutexLock lock(mutex_);
  if ((folio.flags.fetch_and(~kEvictable, memory_order_relaxed) & kEvictable) == 0) return;
  eviction_.move(pool_.id(folio), pool_.id(by));
  by.flags.fetch_or(kEvictable, memory_order_relaxed);
}

std::uint32_t EvictionQueue::isolate(std::span<Victim> out, std::uint32_t frames, std::uint32_t* scanned) {
  std::uint32_t got = 0;
  std::uint64_t taken = 0;
  *scanned = 0;
  MutexLock lock(mutex_);
  const std::uint32_t most = std::min(kScanBatch, size());  // each once, if none can be taken
  while (got < out.size() && taken < frames && *scanned < most) {
    std::uint32_t looked = 0;
    std::uint64_t ghost = 0;
    const std::uint32_t id = eviction_.evict(frames_, most - *scanned, &looked, &ghost);
    *scanned += looked;
    if (id == Eviction::kNone) break;
    Folio& folio = pool_.folio(id);
    folio.flags.fetch_and(~kEvictable, memory_order_relaxed);
    size_.store(size_.load(memory_order_relaxed) - 1, memory_order_relaxed);
    out[got++] = Victim{&folio, ghost};
    taken += folio.pages();
  }
  return got;
}

void EvictionQueue::put_back(Folio& folio) {
  MutexLock lock(mutex_);
  folio.flags.fetch_or(kEvictable, memory_order_relaxed);
  eviction_.put_back(pool_.id(folio));
  size_.store(size_.load(memory_order_relaxed) + 1, memory_order_relaxed);
}

std::uint64_t EvictionQueue::take(Folio& folio) {
  MutexLock lock(mutex_);
  folio.flags.fetch_and(~kEvictable, memory_order_relaxed);
  size_.store(size_.load(memory_order_relaxed) - 1, memory_order_relaxed);
  return eviction_.take(pool_.id(folio));
}

GhostAge EvictionQueue::ghost_age() {
  MutexLock lock(mutex_);
  return eviction_.ghost_age();
}

}  // namespace quire
