// The one budget that all readahead of a cache draws on: pages read ahead, in flight or there, and not yet used. Each
// stream gets at most half of what is left, so windows shrink as streams come to share it, and what ten thousand
// handles read ahead together stays within a part of the frames.
//
// A page is charged before it is read, and the charge then goes with its folio, as the flag kAhead: whoever takes the
// flag away (its use on the slow path, removal for whatever cause, the sweep) gives the pages back, once. What was
// granted and came to no folio is given back by fill_ahead. So no failure can leak a charge: it ends with the folio.
//
// Hits know nothing of this: they set the reference bit. When room is short a hand goes round the descriptors, and
// takes the flag from what has been referenced meanwhile, and from what stays unused for tens of seconds: its stream
// has ended, or is so slow that eviction will decide. Thread safety: every call from any thread.  Locks: none.
#pragma once

#include <cstdint>

#include "cache/folio.h"

namespace quire {

class PageCache;

class AheadBudget {
 public:
  static constexpr std::uint32_t kLeastGrant = 4;  // pages: less is not worth a request of its own

  explicit AheadBudget(PageCache& cache) : cache_(cache) {}
  void set_limit(std::uint32_t pages) { limit_.store(pages, memory_order_relaxed); }

  // How much of `want` a window may have just now: at most half of what is left; 0 rather than too little.
  std::uint32_t room_for(std::uint32_t want);
  // The same, charged: to be passed on to folios, or given back.
  std::uint32_t take(std::uint32_t want);
  void give_back(std::uint32_t pages) { used_.fetch_sub(pages, memory_order_relaxed); }

  // The folio (locked, or referenced by the caller) is used, or goes.
  void settle(Folio& folio) {
    if (folio.has(kAhead)) settle_slow(folio);
  }

  void set_patience_ns(std::int64_t ns) { patience_ns_ = ns; }  // for tests: how long unused pages count, at least

  std::uint32_t used() const { return used_.load(memory_order_relaxed); }
  std::uint32_t limit() const { return limit_.load(memory_order_relaxed); }

 private:
  std::uint32_t settle_slow(Folio& folio);
  std::uint32_t look_at(Folio& folio);
  void begin_turn();
  void sweep(std::uint32_t wanted);
  std::uint32_t left() const;

  PageCache& cache_;
  Atomic<std::uint32_t> limit_;
  Atomic<std::uint32_t> used_;
  // The hand; races only make it look twice, or later.
  Atomic<std::uint32_t> hand_;      // the frame looked at next
  Atomic<bool> ageing_;             // in this turn, unused folios are marked, and those marked before forgotten
  Atomic<std::int64_t> ageing_ns_;  // when the last such turn began
  std::int64_t patience_ns_ = 10'000'000'000;
};

}  // namespace quire
