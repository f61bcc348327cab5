// The flusher's rounds.
#include "cache/flusher.h"

#include <algorithm>
#include <utility>

#include "cache/drop.h"
#include "cache/mapping.h"
#include "cache/migrate.h"
#include "cache/writeback.h"
#include "sync/clock.h"

namespace quire {

LockClass flusher_lock_class{"flusher list"};
LockClass ask_lock_class{"flusher questions"};

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kExpire = 30 * kSecond;        // dirty for longer is written whether or not memory is short
constexpr std::int64_t kRetry = kSecond / 10;         // a failing file is tried again no sooner
constexpr std::int64_t kRebuildPause = kSecond / 10;  // between two searches for blocks to rebuild
constexpr std::int64_t kGatherTime = kSecond / 20;  // for huge pages, each kRebuildPause: users of the small ones wait
constexpr std::uint64_t kFewEvictions = 512;        // between two looks
constexpr std::uint64_t kMinSlice = 256;            // pages written before they are flushed, at least
constexpr std::uint64_t kMostToDrop = 2048;         // pages that wait together to be written and dropped
constexpr std::uint64_t kWorthHelp = 2 * kWritebackBatchPages;

std::int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC_COARSE); }

}  // namespace

Flusher::Flusher(PageCache& cache)
    : cache_(cache), ask_mutex_(ask_lock_class), mappings_(flusher_lock_class, &Mapping::dirty_link) {}

Status Flusher::start() {
  return thread_.start([this] { run(); }, "quire-flush");
}

Flusher::~Flusher() {
  if (!thread_.running()) return;
  stop_.store(true, memory_order_release);
  queue_.wake_all();
  thread_.join();
}

void Flusher::kick() {
  kicks_.fetch_add(1, memory_order_release);
  queue_.wake_all();
}

void Flusher::kick_background() {
  if (background_kicked_.load(memory_order_relaxed)) return;
  if (!background_kicked_.exchange(true, memory_order_acq_rel)) queue_.wake_all();
}

void Flusher::ask(Mapping& mapping, std::uint64_t first, std::uint64_t last, bool drop) {
  const std::uint64_t enough = std::clamp<std::uint64_t>(cache_.frames() / 16, 1, kMostToDrop);
  bool kick;
  {
    MutexLock lock(ask_mutex_);
    mapping.asked.add(AskedWriteback{first, last, drop});
    mapping.is_asked.store(true, memory_order_release);
    if (drop) to_drop_ += last - first + 1;
    kick = !drop || to_drop_ >= enough;
    if (kick) to_drop_ = 0;
  }
  mappings_.add(mapping);
  if (!kick) return;
  if (!asked_.exchange(true, memory_order_acq_rel)) queue_.wake_all();
}

// In the next round, which nobody hurries.
void Flusher::ask_again(Mapping& mapping, const AskedWriteback& asked) {
  MutexLock lock(ask_mutex_);
  mapping.asked.add(asked);
  mapping.is_asked.store(true, memory_order_release);
}

void Flusher::forget(Mapping& mapping) {
  mappings_.forget(mapping);
  if (!mapping.is_asked.load(memory_order_acquire)) return;
  const AskedWriteback asked = take_asked(mapping);
  if (asked.drop) static_cast<void>(drop_finished(mapping, asked.first, asked.last, false));
}

AskedWriteback Flusher::take_asked(Mapping& mapping) {
  MutexLock lock(ask_mutex_);
  mapping.is_asked.store(false, memory_order_relaxed);
  return std::exchange(mapping.asked, AskedWriteback{});
}

void Flusher::write_back_asked(Mapping& mapping, const AskedWriteback& asked) {
  if (asked.drop) {
    write_back_and_flush(mapping, asked.first, asked.last);
    return;
  }
  WritebackSlice slice(mapping, asked.first, asked.last, UINT64_MAX);
  slice.work(stop_);
  const int error = slice.result().error;
  if (error != 0) set_failing(mapping, error);
}

// Writes and flushes in slices, so that folios become clean while the rest is still being written.
void Flusher::write_back_and_flush(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page) {
  const std::uint64_t pages = std::max<std::uint64_t>(cache_.frames() / 8, kMinSlice);
  // A part that could be written says nothing of the rest. As long as the file was: who appends is not waited for.
  const bool whole = first_page == 0 && last_page >= last_page_now(mapping);
  std::uint64_t page = first_page;
  int error = 0;
  bool more = true;
  while (more && !stop_.load(memory_order_acquire)) {
    const std::int64_t began = clock_ns(CLOCK_MONOTONIC);
    WritebackSlice slice(mapping, page, last_page, pages);
    const bool shared = mapping.unstable_count.load(memory_order_relaxed) >= kWorthHelp;
    if (shared) helper_.begin(slice);
    slice.work(stop_);
    if (shared) helper_.end();
    const Status flushed = flush(mapping, true);
    more = slice.next_page(&page);
    const WritebackCursor result = slice.result();
    if (error == 0) error = result.error;
    if (!flushed.ok() && error == 0) error = flushed.errnum();
    if (error == 0) cache_.dirty.measured(result.pages, clock_ns(CLOCK_MONOTONIC) - began);
  }
  if (error != 0 || whole) set_failing(mapping, error);
}

// The mapping visited longest ago, if it is worth it; false if the list is empty or `left` is used up.
bool Flusher::visit_next(bool everything, bool waited_for, std::uint64_t* left) {
  using Visit = MappingList::Visit;
  bool whole = false;
  const auto decide = [&](Mapping& mapping) {
    const bool asked = mapping.is_asked.load(memory_order_acquire);
    if (mapping.unstable_count.load(memory_order_relaxed) == 0 && !asked) return Visit::drop;
    const std::int64_t now = now_ns();
    whole = everything || now - mapping.unstable_since_ns.load(memory_order_relaxed) > kExpire;
    if (mapping.failing.load(memory_order_acquire) != 0) {
      whole = now >= mapping.retry_after_ns;
      if (whole) mapping.retry_after_ns = now + (waited_for ? kRetry : kSecond);
      passed_failing_ |= !whole;
      return whole ? Visit::enter : Visit::pass_over;
    }
    return whole || asked ? Visit::enter : Visit::pass_over;
  };
  Mapping* mapping;
  if (*left == 0 || !mappings_.next(decide, &mapping)) return false;
  --*left;
  if (mapping == nullptr) return true;
  const AskedWriteback asked = take_asked(*mapping);
  if (whole) {
    write_back_and_flush(*mapping, 0, last_page_now(*mapping));
    mapping->unstable_since_ns.store(now_ns(), memory_order_relaxed);  // what is dirty now was dirtied meanwhile
  } else {
    write_back_asked(*mapping, asked);
  }
  if (asked.drop && !drop_finished(*mapping, asked.first, asked.last, false)) ask_again(*mapping, asked);
  mapping->flusher_attempts.fetch_add(1, memory_order_release);
  mappings_.leave(*mapping);
  return true;
}

void Flusher::round(bool everything, bool waited_for) {
  const DirtyLimit& dirty = cache_.dirty;
  passed_failing_ = false;
  std::uint64_t left = mappings_.size();
  while (!stop_.load(memory_order_acquire) && visit_next(everything, waited_for, &left)) {
    if (!waited_for && everything) everything = dirty.writable() * 2 >= dirty.background();  // the asked for, still
  }
  std::uint64_t failing = 0;
  mappings_.for_each([&](const Mapping& mapping) {
    if (mapping.failing.load(memory_order_acquire) != 0) {
      failing += mapping.unstable_count.load(memory_order_relaxed);
    }
  });
  const bool news = failing != dirty.stuck();
  cache_.dirty.set_stuck(failing);
  if (everything && !passed_failing_) cache_.dirty.round_ended();
  // Who waits was woken by what was written. Woken each time they would ask for the next round at once.
  if (news) cache_.progress();
}

// Where large folios were wanted. After a search in vain a longer pause: what is fragmented stays so for a while.
void Flusher::rebuild_blocks() {
  const std::int64_t now = now_ns();
  if (cache_.wanted_order.load(memory_order_relaxed) == 0 || now < rebuild_after_ns_) return;
  const std::uint32_t order = cache_.wanted_order.exchange(0, memory_order_relaxed);
  const std::uint32_t rebuilt = migrate_to_rebuild(cache_, order, stop_);
  rebuild_after_ns_ = now + (rebuilt != 0 ? kRebuildPause : kSecond);
}

// Where frames had to do with small pages: once what is cached stays. Beside a stream nothing would be won.
void Flusher::gather_small() {
  if (now_ns() < gather_after_ns_) return;
  gather_after_ns_ = now_ns() + kRebuildPause;
  const std::uint32_t touched = cache_.pool.touched_frames();
  const std::uint64_t evicted = cache_.stats.sum(Counter::evictions);
  const bool grew = std::exchange(touched_before_, touched) != touched;
  if (evicted - std::exchange(evicted_before_, evicted) > kFewEvictions || grew) return;
  const std::int64_t until = clock_ns(CLOCK_MONOTONIC) + kGatherTime;
  const auto wanted = [&] {
    return stop_.load(memory_order_relaxed) || kicks_.load(memory_order_relaxed) != 0 ||
           background_kicked_.load(memory_order_relaxed);
  };
  while (!wanted() && cache_.pool.gather_small() && clock_ns(CLOCK_MONOTONIC) < until) {
  }
}

void Flusher::run() {
  while (!stop_.load(memory_order_acquire)) {
    const std::uint32_t ticket = queue_.prepare();
    const bool kicked = kicks_.load(memory_order_acquire) != 0;
    if (kicked || background_kicked_.load(memory_order_acquire) || asked_.load(memory_order_acquire) ||
        stop_.load(memory_order_acquire)) {
      queue_.cancel();
    } else {
      const bool work = cache_.wanted_order.load(memory_order_relaxed) != 0 || cache_.pool.has_small();
      queue_.wait(ticket, work ? kRebuildPause : kSecond);
    }
    const bool waited_for = kicks_.exchange(0, memory_order_acquire) != 0;
    const bool background = background_kicked_.exchange(false, memory_order_acq_rel);
    asked_.store(false, memory_order_release);  // before the mappings are looked at
    if (!waited_for) {
      cache_.pool.prepare_ahead(stop_);
      rebuild_blocks();
      if (!background && cache_.pool.has_small()) gather_small();
    }
    cache_.ghosts.sweep(stop_);
    cache_.trim();
    round(waited_for || cache_.dirty.past_background(), waited_for);
  }
}

}  // namespace quire
