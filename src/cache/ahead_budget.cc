// Grants, and the sweep that finds out what has been used. See ahead_budget.h.
#include "cache/ahead_budget.h"

#include <algorithm>

#include "cache/page_cache.h"
#include "sync/clock.h"

namespace quire {

std::uint32_t AheadBudget::left() const {
  const std::uint32_t limit = limit_.load(memory_order_relaxed);
  return limit - std::min(limit, used_.load(memory_order_relaxed));
}

std::uint32_t AheadBudget::room_for(std::uint32_t want) {
  if (left() / 2 < want) sweep(want * 2);
  const std::uint32_t room = std::min(want, left() / 2);
  return room < std::min(want, kLeastGrant) ? 0 : room;
}

std::uint32_t AheadBudget::take(std::uint32_t want) {
  if (left() / 2 < want) sweep(want * 2);
  std::uint32_t used = used_.load(memory_order_relaxed);
  for (;;) {
    const std::uint32_t limit = limit_.load(memory_order_relaxed);
    const std::uint32_t grant = std::min(want, (limit - std::min(limit, used)) / 2);
    if (grant < std::min(want, kLeastGrant)) return 0;
    if (used_.compare_exchange(used, used + grant, memory_order_relaxed, memory_order_relaxed)) return grant;
  }
}

std::uint32_t AheadBudget::settle_slow(Folio& folio) {
  // Before the flag goes: a split, which may follow at once, makes the folio smaller (and settles it first itself).
  const auto pages = static_cast<std::uint32_t>(folio.pages());
  const std::uint32_t old = folio.flags.fetch_and(~(kAhead | kAheadSeen), memory_order_acq_rel);
  if ((old & kAhead) == 0) return 0;
  give_back(pages);
  return pages;
}

// The folio is referenced by us. Returns the pages given back.
std::uint32_t AheadBudget::look_at(Folio& folio) {
  if (referenced(folio)) return settle_slow(folio);
  if (!ageing_.load(memory_order_relaxed)) return 0;
  if (folio.has(kAheadSeen)) return settle_slow(folio);
  folio.flags.fetch_or(kAheadSeen, memory_order_relaxed);
  return 0;
}

// Turns come as fast as windows are asked for; pages age by the clock.
void AheadBudget::begin_turn() {
  const std::int64_t now = clock_ns(CLOCK_MONOTONIC_COARSE);
  const bool due = now - ageing_ns_.load(memory_order_relaxed) >= patience_ns_;
  if (due) ageing_ns_.store(now, memory_order_relaxed);
  ageing_.store(due, memory_order_relaxed);
}

void AheadBudget::sweep(std::uint32_t wanted) {
  constexpr std::uint32_t kStepsPerPage = 4;  // looks; most are at folios that were never read ahead
  const std::uint32_t end = cache_.pool.touched_frames();
  if (end == 0 || used() == 0) return;
  std::uint32_t found = 0;
  for (std::uint32_t steps = std::min(end, wanted * kStepsPerPage); steps != 0 && found < wanted; --steps) {
    std::uint32_t id = hand_.load(memory_order_relaxed);
    if (id >= end) {
      id = 0;
      begin_turn();
    }
    Folio& folio = cache_.pool.folio(id);
    std::uint32_t stride = 1;
    if (folio.has(kAhead) && try_get_folio(folio)) {
      stride = static_cast<std::uint32_t>(folio.pages());
      found += look_at(folio);
      cache_.put_folio(folio);
    }
    hand_.store(id + stride, memory_order_relaxed);
  }
}

}  // namespace quire
