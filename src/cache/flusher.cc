// The flusher's rounds. A mapping is on the list while it may have unstable folios; the one visited longest ago is
// first.
#include "cache/flusher.h"

#include <algorithm>
#include <cerrno>

#include "cache/mapping.h"
#include "cache/migrate.h"
#include "cache/writeback.h"
#include "sync/clock.h"

namespace quire {

LockClass flusher_lock_class{"flusher list"};

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kExpire = 30 * kSecond;        // dirty for longer is written whether or not memory is short
constexpr std::int64_t kRetry = kSecond / 10;         // a failing file is tried again no sooner
constexpr std::int64_t kRebuildPause = kSecond / 10;  // between two searches for blocks to rebuild
constexpr std::uint64_t kMinSlice = 256;              // folios written before they are flushed, at least

std::int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC_COARSE); }

// Writes and flushes in slices, so that folios become clean while the rest is still being written.
void write_back_and_flush(Mapping& mapping, const Atomic<bool>& stop) {
  const std::uint64_t slice = std::max<std::uint64_t>(mapping.cache.frames() / 8, kMinSlice);
  const std::uint64_t last_page = last_page_now(mapping);
  std::uint64_t page = 0;
  int error = 0;
  bool done = false;
  while (!done && !stop.load(memory_order_acquire)) {
    done = write_back_some(mapping, &page, last_page, slice, false, CacheContext{}, &error);
    const Status flushed = flush(mapping, true);
    if (!flushed.ok() && error == 0) error = flushed.errnum();
  }
  set_failing(mapping, error);
}

}  // namespace

Status Flusher::start() {
  return thread_.start([this] { run(); }, "quire-flush");
}

Flusher::~Flusher() {
  if (!thread_.running()) return;
  stop_.store(true, memory_order_release);
  queue_.wake_all();
  thread_.join();
}

void Flusher::link_last_locked(Mapping& mapping) {
  mapping.dirty_previous = tail_;
  mapping.dirty_next = nullptr;
  (tail_ != nullptr ? tail_->dirty_next : head_) = &mapping;
  tail_ = &mapping;
  mapping.on_dirty_list = true;
  ++listed_;
}

void Flusher::unlink_locked(Mapping& mapping) {
  (mapping.dirty_previous != nullptr ? mapping.dirty_previous->dirty_next : head_) = mapping.dirty_next;
  (mapping.dirty_next != nullptr ? mapping.dirty_next->dirty_previous : tail_) = mapping.dirty_previous;
  mapping.on_dirty_list = false;
  --listed_;
}

void Flusher::add(Mapping& mapping) {
  MutexLock lock(mutex_);
  if (!mapping.on_dirty_list) link_last_locked(mapping);
}

void Flusher::forget(Mapping& mapping) {
  for (;;) {
    const std::uint32_t ticket = idle_queue_.prepare();
    {
      MutexLock lock(mutex_);
      if (!mapping.flusher_inside) {
        if (mapping.on_dirty_list) unlink_locked(mapping);
        idle_queue_.cancel();
        return;
      }
    }
    idle_queue_.wait(ticket);
  }
}

void Flusher::kick() {
  kicks_.fetch_add(1, memory_order_release);
  queue_.wake_all();
}

void Flusher::kick_background() {
  if (background_kicked_.load(memory_order_relaxed)) return;
  if (!background_kicked_.exchange(true, memory_order_acq_rel)) queue_.wake_all();
}

// Takes the mapping visited longest ago, if it is worth it; false if the list is empty or `left` is used up.
bool Flusher::visit_next(bool everything, bool waited_for, std::uint64_t* left) {
  Mapping* mapping;
  bool due;
  {
    MutexLock lock(mutex_);
    if (head_ == nullptr || *left == 0) return false;
    --*left;
    mapping = head_;
    unlink_locked(*mapping);
    // set_dirty counts first and adds afterwards: a mapping dropped here at 0 is added again by whoever dirties it.
    if (mapping->unstable_count.load(memory_order_relaxed) == 0) return true;
    link_last_locked(*mapping);
    const std::int64_t now = now_ns();
    due = everything || now - mapping->unstable_since_ns.load(memory_order_relaxed) > kExpire;
    if (mapping->failing.load(memory_order_acquire) != 0) {
      due = now >= mapping->retry_after_ns;
      if (due) mapping->retry_after_ns = now + (waited_for ? kRetry : kSecond);
    }
    if (!due) return true;
    mapping->flusher_inside = true;  // not destroyed meanwhile: forget() waits
  }
  write_back_and_flush(*mapping, stop_);
  mapping->flusher_attempts.fetch_add(1, memory_order_release);
  {
    MutexLock lock(mutex_);
    mapping->flusher_inside = false;
    mapping->unstable_since_ns.store(now_ns(), memory_order_relaxed);  // what is dirty now was dirtied during the round
  }
  idle_queue_.wake_all();
  return true;
}

void Flusher::round(bool everything, bool waited_for) {
  std::uint64_t left;
  {
    MutexLock lock(mutex_);
    left = listed_;
  }
  while (!stop_.load(memory_order_acquire) && visit_next(everything, waited_for, &left)) {
    if (!waited_for && everything && cache_.unstable() * 2 < cache_.background_dirty()) break;
  }
  std::uint64_t failing = 0;
  {
    MutexLock lock(mutex_);
    for (Mapping* m = head_; m != nullptr; m = m->dirty_next) {
      if (m->failing.load(memory_order_acquire) != 0) failing += m->unstable_count.load(memory_order_relaxed);
    }
  }
  failing_folios_.store(failing, memory_order_relaxed);
  cache_.progress();
}

// Where large folios were wanted. After a search in vain a longer pause: what is fragmented stays so for a while.
void Flusher::rebuild_blocks() {
  const std::int64_t now = now_ns();
  if (cache_.wanted_order.load(memory_order_relaxed) == 0 || now < rebuild_after_ns_) return;
  const std::uint32_t order = cache_.wanted_order.exchange(0, memory_order_relaxed);
  const std::uint32_t rebuilt = migrate_to_rebuild(cache_, order, stop_);
  rebuild_after_ns_ = now + (rebuilt != 0 ? kRebuildPause : kSecond);
}

void Flusher::run() {
  while (!stop_.load(memory_order_acquire)) {
    const std::uint32_t ticket = queue_.prepare();
    const bool kicked = kicks_.load(memory_order_acquire) != 0;
    const bool background = background_kicked_.load(memory_order_acquire);
    if (kicked || background || stop_.load(memory_order_acquire)) {
      queue_.cancel();
    } else {
      queue_.wait(ticket, cache_.wanted_order.load(memory_order_relaxed) != 0 ? kRebuildPause : kSecond);
    }
    const bool waited_for = kicks_.exchange(0, memory_order_acquire) != 0;
    background_kicked_.store(false, memory_order_release);
    if (!waited_for) {
      cache_.pool.prepare_ahead(stop_);
      rebuild_blocks();
    }
    cache_.ghosts.sweep(stop_);
    round(waited_for || cache_.unstable() >= cache_.background_dirty(), waited_for);
  }
}

}  // namespace quire
