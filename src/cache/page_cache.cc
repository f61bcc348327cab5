// Memory of the cache: budget, reservations and reclaim.
// Locks: `turn_` (before all others), eviction, pool, and folio locks by try only.
#include "cache/page_cache.h"

#include <algorithm>
#include <bit>

#include "base/defect.h"
#include "base/error.h"
#include "cache/flusher.h"
#include "cache/mapping.h"
#include "cache/split.h"
#include "cache/views.h"
#include "sync/clock.h"
#include "sync/rcu.h"

namespace quire {

LockClass bounce_lock_class{"bounce turn"};

namespace {

LockClass turn_lock_class{"frame reservation"};
LockClass resize_lock_class{"resize"};
LockClass copy_lock_class{"copy turn"};
LockClass engine_lock_class{"view engine"};
constexpr RangeModes kTurnModes{{0, 0, 0, 0}};
constexpr std::size_t kNodeShare = 10;          // bytes of index for a folio of a dense file
constexpr std::size_t kFixedBytes = 64 * 1024;  // counters, mappings of a few files, the rings' bookkeeping
constexpr std::size_t kFrameCost = kPageSize + sizeof(Folio) + Lookaside::kBytesPerFrame + Eviction::kBytesPerFrame;
constexpr std::uint32_t kReclaimBatch = 64;
constexpr std::uint32_t kMostSpared = 4 * kReclaimBatch;  // folios in views, in one reclaim
constexpr std::uint32_t kLargestShare = 64;               // the largest folio is this part of the cache at most
constexpr std::int64_t kPollNs = 2'000'000;               // references are dropped without a wake-up: look again
constexpr std::uint64_t kMaxOperation = 16u << 20;
constexpr std::uint32_t kTrimSlack = 4;  // frames; the index of a small cache comes and goes by that much

}  // namespace

std::size_t PageCache::min_memory() { return kFixedBytes + kMinFrames * (kFrameCost + kNodeShare); }

PageCache::PageCache()
    : eviction(pool, &ahead),
      ghosts(*this),
      bounce_turn(bounce_lock_class, kTurnModes, 0),
      copy_turn(copy_lock_class),
      resize_mutex_(resize_lock_class),
      turn_(turn_lock_class, kTurnModes, 0),
      view_engine_mutex_(engine_lock_class) {}

PageCache::~PageCache() {
  {
    MutexLock lock(view_engine_mutex_);
    view_engine_.reset();
  }
  flusher_.reset();
  pool.registered_with(nullptr);
  io_thread.reset();
  while (ahead_leaving.load(memory_order_acquire) != 0) thread_yield();  // of devices with threads of their own
  if (pool.frames() != 0) pool.collect_retired();
  rcu_synchronize();  // index nodes go back to their store
}

namespace {

std::size_t frames_of(std::size_t memory) { return (memory - kFixedBytes) / (kFrameCost + kNodeShare); }

Status check_memory(std::size_t memory) {
  if (memory < PageCache::min_memory()) {
    return fail_with(EINVAL, "a cache of %zu bytes is too small to work: give it at least %zu bytes", memory,
                     PageCache::min_memory());
  }
  if (frames_of(memory) > Eviction::kMaxFrames) {
    return fail_with(EINVAL, "a cache of %zu bytes is too large: 512 GiB is the limit", memory);
  }
  return {};
}

unsigned order_of_largest(std::size_t frames) {
  unsigned order = 0;
  while (order < kMaxOrder && (std::size_t{kLargestShare} << (order + 1)) <= frames) ++order;
  return order;
}

}  // namespace

// The limits that follow from the memory. Others read each by itself, beside a resize some old and some new: each is
// a limit of one of the two sizes.
void PageCache::divide(std::size_t memory) {
  const auto frames = static_cast<std::uint32_t>(frames_of(memory));
  memory_.store(memory, memory_order_relaxed);
  frames_.store(frames, memory_order_relaxed);
  nodes.keep(spare_nodes());
  dirty.set_frames(frames);
  ahead.set_limit(frames / 4);
  pool.mean_to_use(frames);
}

Status PageCache::create(const PageCacheOptions& options) {
  QUIRE_TRY(check_memory(options.memory));
  const std::size_t frames = frames_of(options.memory);
  std::size_t most = std::clamp(frames_of(std::max(options.max_memory, options.memory)), frames,
                                std::max<std::size_t>(frames, Eviction::kMaxFrames));
  // Address space for the most it may be given; where that is not to be had, it cannot grow.
  if (!eviction.create(static_cast<std::uint32_t>(most), static_cast<std::uint32_t>(frames)).ok()) {
    most = frames;
    QUIRE_TRY(eviction.create(static_cast<std::uint32_t>(most), static_cast<std::uint32_t>(frames)));
  }
  if (!pool.create(static_cast<std::uint32_t>(most), static_cast<std::uint32_t>(frames)).ok()) {
    QUIRE_TRY(pool.create(static_cast<std::uint32_t>(frames)));
  }
  QUIRE_TRY(lookaside.create(static_cast<std::uint32_t>(frames)));
  divide(options.memory);
  set_max_order(order_of_largest(frames));
  if (options.io_thread) {
    auto io = IoThread::create(IoThreadOptions{
        .depth = options.io_depth, .use_io_uring = options.use_io_uring, .stats = &io_stats, .arena = pool.arena()});
    if (!io.ok()) return fail(io.errnum());
    io_thread = io.take();
    pool.registered_with(io_thread.get());
  }
  flusher_ = std::make_unique<Flusher>(*this);
  return flusher_->start();
}

Status PageCache::resize(std::size_t memory) {
  constexpr std::int64_t kPatience = 10'000'000'000;
  QUIRE_TRY(check_memory(memory));
  const std::size_t frames = frames_of(memory);
  if (frames > pool.frames()) {
    return fail_with(EINVAL, "this cache can be given %zu bytes at most: address space for more was not reserved",
                     pool.frames() * (kFrameCost + kNodeShare) + kFixedBytes);
  }
  MutexLock one(resize_mutex_);
  const bool shrinks = memory < this->memory();
  divide(memory);
  // Range operations widen their locks to the largest folio there can be: never more than at first.
  max_order_.store(std::min(order_of_largest(frames), largest_order_), memory_order_relaxed);
  eviction.resize(static_cast<std::uint32_t>(frames));
  progress();  // who waits may find that there is room now
  const std::int64_t until = clock_ns(CLOCK_MONOTONIC) + kPatience;
  while (shrinks && over_budget() && clock_ns(CLOCK_MONOTONIC) < until) {
    const std::uint32_t ticket = frames_queue_.prepare();
    flusher_->kick();
    frames_queue_.wait(ticket, kPollNs);
  }
  return {};
}

// Once: the flusher, whose round comes next, comes back while there is more to do. What must be in use is left alone,
// or beside readers who take it anew at once there would be no end.
void PageCache::trim() {
  fade_transient();
  if (!over_budget()) return;
  const std::uint32_t least = std::max(usable(), least_needed(0)), in_use = frames_in_use();
  if (in_use > least) reclaim(in_use - least);
  pool.drain_fronts();
  const std::uint32_t most = usable(), populated = pool.populated_frames();
  if (populated > most) pool.withhold(populated - most);
}

void PageCache::fade_transient() {
  constexpr std::int64_t kPause = 1'000'000'000;  // ns
  const std::int64_t now = clock_ns(CLOCK_MONOTONIC_COARSE);
  if (now - faded_ns_.load(memory_order_relaxed) < kPause) return;
  faded_ns_.store(now, memory_order_relaxed);
  prefetch_bytes_.fade();
  bounce_bytes_.fade();
}

bool PageCache::over_budget() const { return pool.populated_frames() > usable() + kTrimSlack; }

std::uint64_t PageCache::max_operation_bytes() const {
  return std::min<std::uint64_t>(kMaxOperation, memory() / 4);  // of the memory as given: callers count on it
}

// How many retired nodes may wait for a grace period, and how many freed ones are kept.
std::uint32_t PageCache::spare_nodes() const { return std::clamp<std::uint32_t>(frames() / 8, 16, 512); }

MemoryUse PageCache::memory_use() const {
  const std::uint64_t touched = pool.touched_frames();
  return MemoryUse{.arena = std::uint64_t{pool.populated_frames()} * kPageSize,
                   .descriptors = touched * (sizeof(Folio) + Eviction::kBytesPerFrame) +
                                  static_cast<std::uint64_t>(lookaside.memory_bytes()),
                   .index = static_cast<std::uint64_t>(nodes.bytes() + nodes.kept_bytes()),
                   .files = static_cast<std::uint64_t>(file_bytes_.load(memory_order_relaxed)),
                   .prefetch = static_cast<std::uint64_t>(prefetch_bytes_.now()),
                   .bounce = static_cast<std::uint64_t>(bounce_bytes_.now()),
                   .counters = static_cast<std::uint64_t>(stats.memory_bytes())};
}

std::int64_t PageCache::metadata_bytes() const {
  const MemoryUse use = memory_use();
  return static_cast<std::int64_t>(use.descriptors + use.index + use.counters);
}

// The frames that may be in use just now. A sparse file's index costs more than kNodeShare a folio, ten thousand open
// files cost something whatever is cached of them, and descriptors stay once they were used: then fewer may be.
std::uint32_t PageCache::usable() const {
  const MemoryUse use = memory_use();
  const std::size_t transient = static_cast<std::size_t>(prefetch_bytes_.of_late() + bounce_bytes_.of_late());
  // The lookaside comes in whole pages, which a small cache is not charged for.
  const std::size_t lookaside_bytes = static_cast<std::size_t>(lookaside.memory_bytes());
  const std::size_t spared = lookaside_bytes - std::min(lookaside_bytes, frames() * Lookaside::kBytesPerFrame);
  const std::size_t other =
      use.index + use.descriptors - spared + std::max<std::size_t>(kFixedBytes, use.files + transient + use.counters);
  // A little is left for what comes between one look and the next.
  const std::size_t memory = this->memory() - round_down(this->memory() / 512, kPageSize);
  const std::size_t left = memory > other ? memory - other : 0;
  const std::size_t known = std::size_t{pool.touched_frames()} * kPageSize;  // of these the descriptors are in `other`
  const std::size_t quota = left <= known ? left / kPageSize : (known / kPageSize) + (left - known) / kFrameCost;
  // Progress comes first: a quarter of the frames is always usable, whatever the rest costs.
  return std::max<std::uint32_t>(frames() / 4, static_cast<std::uint32_t>(std::min<std::size_t>(quota, frames())));
}

// What must be in use at once lest everybody waits for everybody, whatever the budget says: frames that wait to be
// written or are held by who writes (they may want a range that a reader holds), what the first of those who wait came
// for, and some for readers. All beyond can be reclaimed. More than is usable only where other things than folios take
// most of the memory, or the cache became smaller beneath it.
std::uint32_t PageCache::least_needed(std::uint32_t wanted) const {
  const std::uint64_t needed = dirty.used() + std::max(frames() / 8, wanted);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(needed, pool.frames()));
}

// entitled: the first of those who wait.
std::uint32_t PageCache::take_within_budget(FrameReservation& reservation, std::uint32_t want, unsigned order,
                                            bool entitled) {
  const std::uint32_t most = std::max(usable(), least_needed(entitled ? reservation.count() + want : 0));
  std::uint32_t in_use = in_use_beside(pool.free_outside_fronts());
  if (in_use + want > most) in_use = frames_in_use();  // threads' fronts as well
  if (pool.populated_frames() > most + kTrimSlack) flusher_->kick_background();
  if (in_use >= most) return 0;
  pool.mean_to_use(most);
  const std::uint32_t taken = pool.take(reservation, std::min(want, most - in_use), order);
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
  // Two looks at each at most: those in use, or read meanwhile, come round again.
  std::uint32_t budget = 2 * eviction.size() + EvictionQueue::kScanBatch;
  std::uint32_t spared = 0;
  while (freed < want && budget != 0) {
    std::uint32_t scanned = 0;
    const std::uint32_t wanted = want - freed;
    const std::uint32_t got = eviction.isolate(std::span(victims, std::min(wanted, kReclaimBatch)), wanted, &scanned);
    stats.count(Counter::reclaim_scans, scanned);
    if (scanned == 0) break;
    budget -= std::min(budget, scanned);
    for (std::uint32_t i = 0; i < got; ++i) freed += give_up(victims[i], want - std::min(freed, want - 1), &spared);
  }
  stats.count(Counter::evictions, freed);
  if (freed != 0) pool.collect_retired();
  if (ghosts.due()) flusher_->kick_background();
  rcu_drain(spare_nodes());
  return freed;
}

// Of a folio much larger than what is wanted only as much goes; the rest is next. Returns the ghost for what goes,
// which is all of it where it cannot be cut. The caller holds the folio's lock.
std::uint64_t PageCache::cut(Mapping& mapping, const Victim& victim, std::uint32_t wanted) {
  constexpr unsigned kWorthIt = 2;  // orders: a quarter of it would do
  Folio& folio = *victim.folio;
  const auto order = static_cast<unsigned>(std::bit_width(wanted - 1));
  if (folio.order.load(memory_order_relaxed) < order + kWorthIt) return victim.ghost;
  std::uint32_t one = 1;
  if (!folio.refs.compare_exchange(one, 2, memory_order_acquire, memory_order_relaxed)) return victim.ghost;
  eviction.put_back(folio);  // where its parts come to stand beside it
  static_cast<void>(split_folio(mapping, folio, folio.index.load(memory_order_relaxed), order));
  const std::uint64_t ghost = eviction.take(folio);
  folio.refs.fetch_sub(1, memory_order_release);  // never the last: the mapping's goes under this lock only
  return ghost;
}

// A folio in views goes in two steps, since how its pages are used there is not seen: it is taken away from them, and
// passed over. Only who touches it again puts it there again. False: so it was, or it is in use. After many of them in
// one reclaim they go at once, or nothing would be found among much that is viewed.
bool PageCache::leaves_views(Mapping& mapping, Folio& folio, std::uint32_t* spared) {
  if ((folio.flags.load(memory_order_acquire) & kUnstable) != 0 || folio.refs.load(memory_order_relaxed) != 2) {
    return false;
  }
  return take_folio_from_views(mapping, folio, false) && (*spared)++ >= kMostSpared;
}

Result<ViewEngine*> PageCache::view_engine() {
  MutexLock lock(view_engine_mutex_);
  if (view_engine_ == nullptr) {
    auto made = ViewEngine::create(*this);
    QUIRE_TRY(made);
    view_engine_ = made.take();
  }
  return view_engine_.get();
}

// Takes an isolated folio out of its mapping, unless it has come into use since, or only a part of it that makes
// `wanted` frames. Returns the frames that became free.
std::uint32_t PageCache::give_up(Victim victim, std::uint32_t wanted, std::uint32_t* spared) {
  Folio& folio = *victim.folio;
  Mapping* mapping = folio.mapping.load(memory_order_relaxed);  // ours while we hold the folio lock
  if (mapping != nullptr && folio.has(kViewed) && !leaves_views(*mapping, folio, spared)) {
    eviction.add(folio, 0, false);
    unlock_folio(folio);
    return 0;
  }
  if (mapping != nullptr && (folio.flags.load(memory_order_acquire) & kUnstable) == 0) {
    victim.ghost = cut(*mapping, victim, wanted);
  }
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

bool PageCache::try_reserve(FrameReservation& reservation, std::uint32_t want, unsigned order, bool entitled) {
  for (int attempt = 0; attempt < 3; ++attempt) {
    take_within_budget(reservation, want - reservation.count(), order, entitled);
    if (reservation.count() == want) return true;
    if (pool.retired_frames() != 0 && pool.collect_retired() != 0) continue;
    const std::uint32_t least = std::clamp<std::uint32_t>(frames() / kMinFrames, 1, kReclaimBatch / 2);
    if (reclaim(std::max(want - reservation.count(), least)) == 0) break;
  }
  take_within_budget(reservation, want - reservation.count(), order, entitled);
  return reservation.count() == want;
}

void PageCache::reserve(FrameReservation& reservation, std::uint32_t want, unsigned order) {
  if (reservation.count() >= want) return;
  if (try_reserve(reservation, want, order)) return;
  reservation.release();  // whoever waits holds nothing, but for the head of the queue
  RangeGuard turn(turn_);
  turn.acquire(0, 0, 0);
  while (!try_reserve(reservation, want, order, true)) {
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

}  // namespace quire
