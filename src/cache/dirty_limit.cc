// See dirty_limit.h.
#include "cache/dirty_limit.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/error.h"
#include "cache/flusher.h"
#include "cache/mapping.h"
#include "sync/clock.h"

namespace quire {
namespace {

LockClass line_lock_class{"dirty limit"};
constexpr RangeModes kLineModes{{0, 0, 0, 0}};
constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kPollNs = 10'000'000;
constexpr std::int64_t kCredit = 2'000'000;       // what a sleep that took too long is made up for
constexpr std::int64_t kShortestPause = 300'000;  // less is not worth a sleep: the clock keeps it for the next write
constexpr std::int64_t kLongestPause = 40'000'000;
constexpr std::int64_t kMostAhead = kSecond;  // how far the clock runs ahead: a rate that was wrong is forgotten soon
constexpr std::uint64_t kTellingPages = 512;  // fewer say more of the flush than of the device

}  // namespace

DirtyLimit::DirtyLimit(PageCache& cache) : cache_(cache), line_(line_lock_class, kLineModes, 0) {}

void DirtyLimit::set_frames(std::uint32_t frames) {
  hard_.store(frames / 2, memory_order_relaxed);
  background_.store(frames / 8, memory_order_relaxed);
}

void DirtyLimit::measured(std::uint64_t pages, std::int64_t ns) {
  if (pages < kTellingPages || ns <= 0) return;
  const std::uint64_t rate = pages * kSecond / static_cast<std::uint64_t>(ns);
  const std::uint64_t before = rate_.load(memory_order_relaxed);
  rate_.store(std::max<std::uint64_t>(before == 0 ? rate : (before * 3 + rate) / 4, 1), memory_order_relaxed);
}

void DirtyLimit::progress() {
  room_queue_.wake_all();
  if (writable() <= background()) pace_queue_.wake_all();
}

bool DirtyLimit::is_near(const Mapping& mapping) const {
  return writable() >= background() || mapping.failing.load(memory_order_relaxed) != 0 || stuck() > most_in_all();
}

// What `pages` more take on the writers' clock, which runs at the device's rate times a factor that falls from 2 at the
// background limit over 1 half way to an eighth.
std::int64_t DirtyLimit::cost_ns(std::uint32_t pages) const {
  constexpr std::int64_t kOne = 256;
  const auto now = static_cast<std::int64_t>(writable());
  const auto low = static_cast<std::int64_t>(background()), high = static_cast<std::int64_t>(hard());
  const std::int64_t half = std::max<std::int64_t>((high - low) / 2, 1);
  const std::int64_t factor = std::clamp(kOne + kOne * (low + half - now) / half, kOne / 8, 2 * kOne);
  const double seconds = static_cast<double>(pages) / static_cast<double>(rate());
  return static_cast<std::int64_t>(seconds * static_cast<double>(kSecond * kOne / factor));
}

void DirtyLimit::pace(std::uint32_t pages) {
  if (rate() == 0 || writable() <= background()) return;
  const std::int64_t cost = cost_ns(pages);
  const std::int64_t now = clock_ns(CLOCK_MONOTONIC);
  std::int64_t due = due_ns_.load(memory_order_relaxed);
  std::int64_t start, next;
  do {
    start = std::max(due, now - kCredit);
    next = std::min(start + cost, now + kMostAhead);
  } while (!due_ns_.compare_exchange(due, next, memory_order_relaxed, memory_order_relaxed));
  if (start - now < kShortestPause) return;
  cache_.stats.count(Counter::paced);
  const std::int64_t until = std::min(start, now + kLongestPause);
  for (;;) {
    const std::uint32_t ticket = pace_queue_.prepare();
    const std::int64_t left = until - clock_ns(CLOCK_MONOTONIC);
    if (left <= 0 || writable() <= background()) {
      pace_queue_.cancel();
      return;
    }
    pace_queue_.wait(ticket, left);
  }
}

// claims: those that came before. Two loads of what a resize changes may be of two sizes: a claim by either is right.
bool DirtyLimit::has_room(const Mapping& mapping, std::uint64_t claims, std::uint32_t pages) const {
  const std::uint64_t hard = this->hard();
  const std::uint64_t most = hard - hard / 16;
  const std::uint64_t unstable = this->unstable();
  const std::uint64_t all = unstable + claims + pages;
  if (mapping.failing.load(memory_order_acquire) != 0) return all <= most;
  const std::uint64_t stuck = std::min(this->stuck(), unstable);
  const std::uint64_t healthy = unstable - stuck + claims;
  if (healthy != 0 && healthy + pages > std::max(most - std::min(stuck, most), hard / 4)) return false;
  return stuck == 0 || all <= most_in_all();
}

bool DirtyLimit::try_claim(const Mapping& mapping, std::uint32_t pages) {
  const std::uint64_t claims = claims_.fetch_add(pages, memory_order_relaxed);
  if (has_room(mapping, claims, pages)) return true;
  claims_.fetch_sub(pages, memory_order_relaxed);
  return false;
}

Status DirtyLimit::wait_for_room(Mapping& mapping, std::uint32_t pages) {
  constexpr std::uint32_t kEnough = 2;  // of these began, and ended, after we came
  RangeGuard line(line_);
  const std::uint64_t attempts_before = mapping.flusher_attempts.load(memory_order_acquire);
  const std::uint32_t rounds_before = rounds_.load(memory_order_acquire);
  for (;;) {
    const bool failing = mapping.failing.load(memory_order_acquire) != 0;
    if (failing) {
      line.release();
    } else if (!line.request().held()) {
      line.acquire(0, 0, 0);
    }
    const std::uint32_t ticket = room_queue_.prepare();
    if (try_claim(mapping, pages)) {
      room_queue_.cancel();
      return {};
    }
    const bool tried = mapping.flusher_attempts.load(memory_order_acquire) >= attempts_before + kEnough;
    const int error = mapping.failing.load(memory_order_acquire);  // anew: it may have been written meanwhile
    if (failing && tried && error != 0) {
      room_queue_.cancel();
      return fail_with(EIO,
                       "writeback of this file keeps failing (errno %d) and the dirty limit of %llu bytes is reached: "
                       "nothing is lost, mend the cause and sync",
                       error, static_cast<unsigned long long>(hard() * kPageSize));
    }
    const std::uint64_t stuck = this->stuck();
    // A claim may be larger than that by itself, once the cache has become smaller: then it waits until it is alone.
    if (stuck != 0 && stuck + pages > most_in_all() && rounds_.load(memory_order_acquire) - rounds_before >= kEnough) {
      room_queue_.cancel();
      return fail_with(EIO,
                       "%llu bytes of other files, whose writeback keeps failing, take most of the cache: nothing is "
                       "lost, mend the cause and sync, or give the cache more memory",
                       static_cast<unsigned long long>(stuck * kPageSize));
    }
    cache_.stats.count(Counter::throttled);
    cache_.flusher().kick();
    room_queue_.wait(ticket, kPollNs);
  }
}

Status DirtyLimit::claim(Mapping& mapping, std::uint32_t pages) {
  if (mapping.failing.load(memory_order_relaxed) == 0) pace(pages);
  if (somebody_waits() || !try_claim(mapping, pages)) {
    waiting_.fetch_add(1, memory_order_relaxed);
    const Status waited = wait_for_room(mapping, pages);
    waiting_.fetch_sub(1, memory_order_relaxed);
    QUIRE_TRY(waited);
  }
  if (past_background()) cache_.flusher().kick_background();
  return {};
}

}  // namespace quire
