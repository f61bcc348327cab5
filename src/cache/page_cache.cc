// Memory of the cache: budget, reservations, reclaim and the dirty limit.
// Locks: `turn_` (before all others), eviction, pool, and folio locks by try only.
#include "cache/page_cache.h"

#include <algorithm>

#include "base/defect.h"
#include "base/error.h"
#include "cache/flusher.h"
#include "cache/mapping.h"
#include "sync/rcu.h"

namespace quire {
namespace {

LockClass turn_lock_class{"frame reservation"};
LockClass copy_lock_class{"copy turn"};
constexpr RangeModes kTurnModes{{0, 0, 0, 0}};
constexpr std::size_t kNodeShare = 10;          // bytes of index for a folio of a dense file
constexpr std::size_t kFixedBytes = 64 * 1024;  // counters, mappings of a few files, the rings' bookkeeping
constexpr std::size_t kFrameCost = kPageSize + sizeof(Folio) + Lookaside::kBytesPerFrame + Eviction::kBytesPerFrame;
constexpr std::uint32_t kReclaimBatch = 64;
constexpr std::uint32_t kLargestShare = 64;  // the largest folio is this part of the cache at most
constexpr std::int64_t kPollNs = 2'000'000;  // references are dropped without a wake-up: look again
constexpr std::uint64_t kMaxOperation = 16u << 20;

}  // namespace

std::size_t PageCache::min_memory() { return kFixedBytes + kMinFrames * (kFrameCost + kNodeShare); }

PageCache::PageCache()
    : eviction(pool, &ahead), ghosts(*this), copy_turn(copy_lock_class), turn_(turn_lock_class, kTurnModes, 0) {}

PageCache::~PageCache() {
  flusher_.reset();
  io_thread.reset();
  if (pool.frames() != 0) pool.collect_retired();
  rcu_synchronize();  // index nodes go back to their store
}

Status PageCache::create(const PageCacheOptions& options) {
  if (options.memory < min_memory()) {
    return fail_with(EINVAL, "a cache of %zu bytes is too small to work: give it at least %zu bytes", options.memory,
                     min_memory());
  }
  memory_ = options.memory;
  const std::size_t frames = (memory_ - kFixedBytes) / (kFrameCost + kNodeShare);
  if (frames > Eviction::kMaxFrames) {
    return fail_with(EINVAL, "a cache of %zu bytes is too large: 512 GiB is the limit", memory_);
  }
  QUIRE_TRY(pool.create(static_cast<std::uint32_t>(frames)));
  QUIRE_TRY(lookaside.create(static_cast<std::uint32_t>(frames)));
  QUIRE_TRY(eviction.create(static_cast<std::uint32_t>(frames)));
  nodes.keep(spare_nodes());
  hard_dirty_ = frames / 2;
  background_dirty_ = frames / 8;
  ahead.set_limit(static_cast<std::uint32_t>(frames / 4));
  while (max_order_ < kMaxOrder && (std::size_t{kLargestShare} << (max_order_ + 1)) <= frames) ++max_order_;
  if (options.io_thread) {
    auto io = IoThread::create(
        IoThreadOptions{.depth = options.io_depth, .use_io_uring = options.use_io_uring, .stats = &io_stats});
    if (!io.ok()) return fail(io.errnum());
    io_thread = io.take();
  }
  flusher_ = std::make_unique<Flusher>(*this);
  return flusher_->start();
}

std::uint64_t PageCache::max_operation_bytes() const {
  return std::min<std::uint64_t>(kMaxOperation, memory_ / 4);  // of the memory as given: callers count on it
}

// How many retired nodes may wait for a grace period, and how many freed ones are kept.
std::uint32_t PageCache::spare_nodes() const { return std::clamp<std::uint32_t>(frames() / 8, 16, 512); }

std::int64_t PageCache::metadata_bytes() const {
  return static_cast<std::int64_t>(pool.touched_frames() * sizeof(Folio)) + nodes.bytes() + nodes.kept_bytes() +
         stats.memory_bytes() + lookaside.memory_bytes() +
         static_cast<std::int64_t>(pool.touched_frames() * Eviction::kBytesPerFrame);
}

std::uint32_t PageCache::take_within_budget(FrameReservation& reservation, std::uint32_t want, unsigned order) {
  // A sparse file's index costs more than kNodeShare a folio: then fewer frames may be used.
  const std::size_t index = static_cast<std::size_t>(nodes.bytes() + nodes.kept_bytes());
  const std::size_t fixed = index + std::max(kFixedBytes, static_cast<std::size_t>(stats.memory_bytes()));
  const std::size_t quota = memory_ > fixed ? (memory_ - fixed) / kFrameCost : 0;
  // Progress comes first: a quarter of the frames is always usable, whatever the index costs.
  const std::uint32_t usable =
      std::max<std::uint32_t>(frames() / 4, static_cast<std::uint32_t>(std::min<std::size_t>(quota, frames())));
  std::uint32_t in_use = frames() - pool.free_outside_fronts();
  if (in_use + want > usable) in_use = frames() - pool.free_frames();  // threads' fronts as well
  if (in_use >= usable) return 0;
  const std::uint32_t taken = pool.take(reservation, std::min(want, usable - in_use), order);
  if (pool.prepare_due()) flusher_->kick_background();
  if (order != 0 && (taken >> order) != 0 && reservation.max_order() < order) note_order_miss(order);
  return taken;
}

// Frames enough, but not together: the flusher moves folios until they are.
void PageCache::note_order_miss(unsigned order) {
  stats.count(Counter::order_misses);
  if (wanted_order.exchange(order, memory_order_relaxed) == 0) flusher_->kick_background();
}

std::uint32_t PageCache::reclaim(std::uint32_t want) {
  Victim victims[kReclaimBatch];
  std::uint32_t freed = 0;
  // One look at each at most: those in use, or read meanwhile, come round again.
  std::uint32_t budget = eviction.size() + EvictionQueue::kScanBatch;
  while (freed < want && budget != 0) {
    std::uint32_t scanned = 0;
    const std::uint32_t got = eviction.isolate(std::span(victims, std::min(want - freed, kReclaimBatch)), &scanned);
    stats.count(Counter::reclaim_scans, scanned);
    if (scanned == 0) break;
    budget -= std::min(budget, scanned);
    for (std::uint32_t i = 0; i < got; ++i) freed += give_up(victims[i]);
  }
  stats.count(Counter::evictions, freed);
  if (freed != 0) pool.collect_retired();
  if (ghosts.due()) flusher_->kick_background();
  rcu_drain(spare_nodes());
  return freed;
}

// Takes an isolated folio out of its mapping, unless it has come into use since. Returns the frames that became free.
std::uint32_t PageCache::give_up(const Victim& victim) {
  Folio& folio = *victim.folio;
  Mapping* mapping = folio.mapping.load(memory_order_relaxed);  // ours while we hold the folio lock
  std::uint32_t one = 1;
  if (has_defect(Defect::reclaim_without_freeze) && folio.refs.load(memory_order_relaxed) == 1) {
    folio.refs.store(one = 0, memory_order_relaxed);
  }
  if (mapping == nullptr || (folio.flags.load(memory_order_acquire) & kUnstable) != 0 ||
      !folio.refs.compare_exchange(one, 0, memory_order_acquire, memory_order_relaxed)) {
    if (mapping != nullptr) eviction.add(folio, victim.ghost, false);
    unlock_folio(folio);
    return 0;
  }
  // Frozen: nobody can get a reference any more, so whoever holds one never sees its folio reclaimed.
  const auto pages = static_cast<std::uint32_t>(folio.pages());
  detach_folio(*mapping, folio, ghosts.room() ? victim.ghost : 0);
  unlock_folio(folio);
  pool.retire(folio);
  return pages;
}

void PageCache::folio_unused(Folio& folio) {
  pool.retire(folio);
  if (pool.retired_frames() >= kReclaimBatch) frames_queue_.wake_all();
}

bool PageCache::try_reserve(FrameReservation& reservation, std::uint32_t want, unsigned order) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    take_within_budget(reservation, want - reservation.count(), order);
    if (reservation.count() == want) return true;
    if (pool.retired_frames() != 0 && pool.collect_retired() != 0) continue;
    if (reclaim(std::max(want - reservation.count(), kReclaimBatch / 2)) == 0) break;
  }
  take_within_budget(reservation, want - reservation.count(), order);
  return reservation.count() == want;
}

void PageCache::reserve(FrameReservation& reservation, std::uint32_t want, unsigned order) {
  DCHECK(want <= frames() / 2);
  if (reservation.count() >= want) return;
  if (try_reserve(reservation, want, order)) return;
  reservation.release();  // whoever waits holds nothing, but for the head of the queue
  RangeGuard turn(turn_);
  turn.acquire(0, 0, 0);
  while (!try_reserve(reservation, want, order)) {
    stats.count(Counter::reservation_waits);
    const std::uint32_t ticket = frames_queue_.prepare();
    flusher_->kick();
    frames_queue_.wait(ticket, kPollNs);
  }
}

void PageCache::reserve_for_read(FrameReservation& reservation, std::uint32_t want, unsigned order) {
  want = std::min(want, std::max<std::uint32_t>(1, frames() / 8));
  if (reservation.count() >= want || try_reserve(reservation, want, order)) return;
  while (reservation.count() == 0) {
    stats.count(Counter::reservation_waits);
    const std::uint32_t ticket = frames_queue_.prepare();
    flusher_->kick();
    frames_queue_.wait(ticket, kPollNs);
    try_reserve(reservation, 1);
  }
}

Status PageCache::throttle(Mapping& mapping, std::uint32_t folios) {
  std::uint64_t attempts_before = 0;
  bool waited = false;
  for (;;) {
    const std::uint64_t claims = write_claims_.fetch_add(folios, memory_order_relaxed);
    const std::uint64_t stuck = flusher_->failing_folios();  // of files whose writeback fails: not this file's fault
    const std::uint64_t unstable = unstable_.load(memory_order_relaxed);
    const std::uint64_t healthy = unstable > stuck ? unstable - stuck : 0;
    const std::uint64_t room =
        std::max<std::uint64_t>(hard_dirty_ - std::min<std::uint64_t>(stuck, hard_dirty_), frames() / 8);
    const bool is_failing = mapping.failing.load(memory_order_acquire) != 0;
    const bool over = is_failing ? unstable + claims + folios > hard_dirty_ : healthy + claims + folios > room;
    if (!over || (!is_failing && healthy + claims == 0)) {
      if (unstable >= background_dirty_) flusher_->kick_background();
      return {};
    }
    write_claims_.fetch_sub(folios, memory_order_relaxed);
    if (is_failing && waited && mapping.flusher_attempts.load(memory_order_acquire) >= attempts_before + 2) {
      return fail_with(EIO,
                       "writeback of this file keeps failing (errno %d) and the dirty limit of %llu bytes is reached: "
                       "nothing is lost, mend the cause and sync",
                       mapping.failing.load(memory_order_relaxed),
                       static_cast<unsigned long long>(hard_dirty_ * kPageSize));
    }
    stats.count(Counter::throttled);
    // Two attempts later one has begun after we came, and failed.
    if (!waited) attempts_before = mapping.flusher_attempts.load(memory_order_acquire);
    waited = true;
    const std::uint32_t ticket = frames_queue_.prepare();
    flusher_->kick();
    throttled_.fetch_add(1, memory_order_relaxed);
    frames_queue_.wait(ticket, kPollNs * 5);
    throttled_.fetch_sub(1, memory_order_relaxed);
  }
}

void PageCache::unthrottle(std::uint32_t folios) { write_claims_.fetch_sub(folios, memory_order_relaxed); }

}  // namespace quire
