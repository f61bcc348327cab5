// See migrate.h.
#include "cache/migrate.h"

#include <algorithm>
#include <array>

#include "base/defect.h"
#include "cache/mapping.h"
#include "sync/rcu.h"

namespace quire {
namespace {

constexpr std::uint32_t kSearchBlocks = 64;  // of which the best is taken
// In one call, at most:
constexpr std::uint32_t kMostScanned = 64 * 1024;  // descriptors looked at: 4 MiB of them
constexpr std::uint32_t kMostBlocks = 64;          // rebuilt, with a grace period each
constexpr std::uint32_t kMostMoved = 2048;         // pages copied
constexpr std::uint32_t kNone = UINT32_MAX;

// With the lock, an answer; without it, a guess.
bool is_idle(const Folio& folio) {
  const std::uint32_t flags = folio.flags.load(memory_order_acquire);
  return (flags & kUptodate) != 0 && (flags & (kWriteback | kWasViewed)) == 0 &&
         folio.refs.load(memory_order_relaxed) == 1;
}

// The lock of a folio that is in an index; without a reference, as write_fast takes it, and for its reasons.
bool try_lock_idle(Folio& folio) {
  RcuReadLock rcu;
  if (Sequence::is_odd(folio.sequence.read_begin())) return false;
  if (!try_lock_folio(folio) && !has_defect(Defect::migration_despite_lock)) return false;
  if (folio.mapping.load(memory_order_relaxed) != nullptr && is_idle(folio)) return true;
  unlock_folio(folio);  // removed between the look and the lock, or in use
  return false;
}

// The folio's state goes over to the frame, and the frame into the index. Both are odd, the folio is locked and frozen.
void replace_in_index(Mapping& mapping, Folio& folio, Folio& frame) {
  const std::uint64_t page = folio.index.load(memory_order_relaxed);
  const bool early = has_defect(Defect::migration_of_state_seen_before);
  const std::uint32_t seen = early ? folio.flags.load(memory_order_relaxed) : 0;
  MutexLock lock(mapping.pages.mutex());
  const std::uint32_t now = folio.flags.fetch_and(~(kAhead | kAheadSeen), memory_order_acq_rel);
  const std::uint32_t state =
      (early ? seen : now) & (kUptodate | kUnstable | kReadahead | kAhead | kAheadSeen | kDropBehind | kOwnerMask);
  frame.index.store(page, memory_order_relaxed);
  frame.hit_word.store(folio.hit_word.load(memory_order_relaxed), memory_order_relaxed);
  // Locked before the index shows it: a writer may try the lock of what it finds there.
  frame.flags.store(kLocked | state, memory_order_relaxed);
  frame.written_epoch = folio.written_epoch;
  frame.mapping.store(&mapping, memory_order_relaxed);
  static_cast<void>(mapping.pages.store_locked(page, XEntry::from_pointer(&frame)));  // over an entry: cannot fail
  folio.mapping.store(nullptr, memory_order_relaxed);
}

}  // namespace

bool migrate_folio(PageCache& cache, Folio& folio, Folio& frame) {
  DCHECK(frame.sequence.odd());
  DCHECK(frame.refs.load(memory_order_relaxed) == 0);
  frame.sequence.begin_life();
  const std::size_t size = frame.size_bytes();
  const bool early = has_defect(Defect::migration_copies_unlocked);
  if (early) racy_copy_to_folio(frame.bytes(), folio.bytes(), size);
  if (!try_lock_idle(folio)) return false;
  if (folio.size_bytes() != size) {  // split since the caller looked
    unlock_folio(folio);
    return false;
  }
  // Even: hits go on, and bytes change only under the lock.
  if (!early) racy_copy_to_folio(frame.bytes(), folio.bytes(), size);
  std::uint32_t one = 1;
  if (!folio.refs.compare_exchange(one, 0, memory_order_acquire, memory_order_relaxed)) {
    if (!has_defect(Defect::migration_despite_references)) {
      unlock_folio(folio);
      return false;
    }
    folio.refs.fetch_sub(1, memory_order_relaxed);
  }
  Mapping& mapping = *folio.mapping.load(memory_order_relaxed);  // ours while we hold the lock of a folio of its own
  if (!has_defect(Defect::migration_without_odd_sequence)) begin_change(folio);
  replace_in_index(mapping, folio, frame);
  lock_acquired(folio_lock_class, &frame, LockKey{mapping.id, frame.index.load(memory_order_relaxed)});
  cache.eviction.replace(folio, frame);
  frame.sequence.write_end();
  frame.refs.store(1, memory_order_release);
  unlock_folio(frame);  // from here on the mapping may go
  unlock_folio(folio);
  cache.stats.count(Counter::migrations);
  return true;
}

namespace {

// How many frames of the block at `first` folios hold that look movable; kNone if others are in the way (frames in
// transit, folios in use). A guess: nothing holds still.
std::uint32_t frames_to_move(FolioPool& pool, std::uint32_t first, unsigned order) {
  const std::uint32_t end = first + (1u << order);
  std::uint32_t used = 0;
  for (std::uint32_t id = first; id < end;) {
    const Folio& folio = pool.folio(id);
    const std::uint32_t pages = 1u << std::min(folio.order.load(memory_order_relaxed), kMaxOrder);
    if (id + pages > end) return kNone;
    if (!folio.has(kFree)) {
      if (folio.mapping.load(memory_order_relaxed) == nullptr || folio.has(kLocked) || !is_idle(folio)) return kNone;
      used += pages;
    }
    id += pages;
  }
  return used;
}

// The block that takes the least to empty, of the next kSearchBlocks; kNone where none is at least half empty.
std::uint32_t find_block(PageCache& cache, unsigned order) {
  const std::uint32_t size = 1u << order;
  const std::uint32_t blocks = cache.pool.touched_frames() >> order;
  std::uint32_t best = kNone;
  std::uint32_t least = size / 2 + 1;
  std::uint32_t at = cache.rebuild_hand.load(memory_order_relaxed) >> order;
  for (std::uint32_t left = std::min(blocks, kSearchBlocks); left != 0; --left, ++at) {
    if (at >= blocks) at = 0;
    const std::uint32_t used = frames_to_move(cache.pool, at << order, order);
    if (used == 0 || used >= least) continue;  // 0: free as a whole
    best = at << order;
    least = used;
  }
  cache.rebuild_hand.store(at << order, memory_order_relaxed);
  return best;
}

// One block: what is free in it is held, what is used moved away; then all of it is freed as one.
class Rebuild {
 public:
  Rebuild(PageCache& cache, std::uint32_t first, unsigned order)
      : cache_(cache), first_(first), size_(1u << order), order_(order), held_(cache.pool) {}

  // Whether the block is whole now. *moved grows by the pages that were.
  bool run(const Atomic<bool>& stop, std::uint32_t* moved) {
    cache_.pool.take_free_of(held_, first_, order_);
    const std::uint32_t used = used_now();
    if (used <= size_ / 2 && held_.count() + used == size_) move_all(stop);
    if (moved_ != 0) rcu_synchronize();  // until fast readers and writers that found one of them have left
    for (std::uint32_t i = 0; i < moved_; ++i) {
      *moved += static_cast<std::uint32_t>(gone_[i]->pages());
      held_.put(*gone_[i]);
    }
    const bool whole = held_.count() == size_;
    cache_.pool.free_blocks(held_);
    return whole;
  }

 private:
  template <typename Each>
  void for_each_folio(Each each) {
    for (std::uint32_t id = first_; id < first_ + size_;) {
      Folio& folio = cache_.pool.folio(id);
      const bool used = folio.mapping.load(memory_order_relaxed) != nullptr;
      const std::uint64_t pages = used ? folio.pages() : 1;  // a frame held, or the rest of such a block
      if (used && !each(folio)) return;
      id += static_cast<std::uint32_t>(pages);
    }
  }
  std::uint32_t used_now() {
    std::uint64_t used = 0;
    for_each_folio([&](Folio& folio) {
      used += folio.pages();
      return true;
    });
    return static_cast<std::uint32_t>(used);
  }
  void move_all(const Atomic<bool>& stop) {
    for_each_folio([&](Folio& folio) { return !stop.load(memory_order_relaxed) && move(folio); });
  }
  bool move(Folio& folio);

  PageCache& cache_;
  const std::uint32_t first_, size_;
  const unsigned order_;
  FrameReservation held_;
  std::uint32_t moved_ = 0;
  std::array<Folio*, (1u << kMaxOrder) / 2> gone_;  // removed, until a grace period has passed
};

bool Rebuild::move(Folio& folio) {
  const unsigned order = folio.order.load(memory_order_relaxed);
  FrameReservation target(cache_.pool);
  cache_.pool.take(target, 1u << order, order);
  Folio* frame = target.take(order);
  if (frame == nullptr || moved_ == gone_.size()) return false;
  const bool inside = cache_.pool.id(*frame) - first_ < size_;  // freed meanwhile: it would be in the way there
  if (inside || !migrate_folio(cache_, folio, *frame)) {
    target.put(*frame);
    return false;
  }
  gone_[moved_++] = &folio;
  return true;
}

}  // namespace

std::uint32_t migrate_to_rebuild(PageCache& cache, unsigned order, const Atomic<bool>& stop) {
  FolioPool& pool = cache.pool;
  const std::uint32_t searches = std::max(1u, kMostScanned / kSearchBlocks >> order);
  std::uint32_t rebuilt = 0, moved = 0;
  if (pool.retired_frames() != 0) pool.collect_retired();
  for (std::uint32_t i = 0; i < searches && rebuilt < kMostBlocks && moved < kMostMoved; ++i) {
    if (stop.load(memory_order_relaxed) || pool.free_frames() < (1u << order)) break;
    pool.drain_fronts();  // what is free, but not in the buddy, is in the way
    const std::uint32_t first = find_block(cache, order);
    if (first != kNone && Rebuild(cache, first, order).run(stop, &moved)) ++rebuilt;
  }
  return rebuilt;
}

}  // namespace quire
