// Truncation and removal in the cache. See invalidate.h.
#include "cache/invalidate.h"

#include <algorithm>

#include "base/defect.h"
#include "cache/split.h"
#include "cache/views.h"
#include "sync/rcu.h"

namespace quire {
namespace {

// The folio that holds `page`, locked and referenced, or null. Removal is excluded by the caller's locks but for
// reclaim, which a reference keeps off.
Folio* get_locked_folio(Mapping& mapping, std::uint64_t page) {
  for (;;) {
    Folio* folio = get_folio(mapping, page);
    if (folio == nullptr) return nullptr;
    lock_folio(*folio);
    if (folio_is(*folio, &mapping, page)) return folio;
    unlock_folio(*folio);  // reclaimed before we got our reference
    mapping.cache.put_folio(*folio);
  }
}

// Cuts a folio that lies on both sides of the range's edge, so that the part at `page` lies inside. The caller's locks
// reach around every folio that meets the range, so whoever has a reference will let it go.
bool split_at_edge(Mapping& mapping, Folio& folio, std::uint64_t page, std::uint64_t last_page) {
  if (!folio.has(kUptodate)) return false;  // nothing in it to keep
  const unsigned order = order_within(page, last_page, folio.order.load(memory_order_relaxed));
  for (;;) {
    take_folio_from_views(mapping, folio, true);
    const Status split = split_folio(mapping, folio, page, order);
    if (split.ok() || split.errnum() != EBUSY) return split.ok();
    unlock_folio(folio);
    thread_yield();
    lock_folio(folio);
    if (!folio_is(folio, &mapping, page)) return true;
  }
}

void remove_matching(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, bool clean_only) {
  remove_ghosts(mapping, first_page, last_page);
  std::uint64_t page = first_page;
  while (page <= last_page) {
    {
      RcuReadLock rcu;
      if (mapping.pages.find(&page, last_page).empty()) return;
    }
    Folio* folio = get_locked_folio(mapping, page);
    std::uint64_t next = page + 1;
    if (folio != nullptr) {
      const std::uint64_t first = folio->index.load(memory_order_relaxed);
      next = first + folio->pages();
      DCHECK(!folio->has(kWriteback));  // drained by the invalidate lock
      const bool inside = first >= first_page && next - 1 <= last_page;
      if (!inside && !clean_only && split_at_edge(mapping, *folio, page, last_page)) {
        next = page;  // what was cut off is looked up again
      } else if (!inside && !clean_only && folio->has(kUnstable)) {
        // No memory to split it: its bytes outside are the only ones there are. The caller zeroes the rest (Edge).
      } else if (!clean_only || !folio->has(kUnstable)) {
        remove_folio(mapping, *folio);
      } else if (!has_defect(Defect::half_way_keeps_unflushed)) {
        set_dirty(mapping, *folio);  // written but not flushed: to be written again
      }
      unlock_folio(*folio);
      mapping.cache.put_folio(*folio);
    }
    if (next == 0) return;
    page = next;
  }
}

}  // namespace

void remove_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page) {
  remove_matching(mapping, first_page, last_page, false);
}

void remove_clean_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page) {
  remove_matching(mapping, first_page, last_page, true);
}

bool unstable_large_folio_at(Mapping& mapping, std::uint64_t page) {
  RcuReadLock rcu;
  const Folio* folio = folio_of(mapping.pages.load(page));
  return folio != nullptr && folio->order.load(memory_order_relaxed) != 0 && folio->has(kUnstable);
}

void truncate_cache(Mapping& mapping, std::uint64_t new_size) {
  const std::uint64_t old_size = mapping.size.load(memory_order_acquire);
  Folio* edge = nullptr;
  if (new_size < old_size) {
    remove_folios(mapping, round_up(new_size, kPageSize) >> kPageShift, UINT64_MAX);  // splits what lies on the edge
    edge = get_locked_folio(mapping, new_size >> kPageShift);
  }
  if (has_defect(Defect::edge_zeroed_before_gate) && edge != nullptr) {
    const std::uint64_t inside = new_size - (edge->index.load(memory_order_relaxed) << kPageShift);
    racy_zero_folio(edge->bytes() + inside, edge->size_bytes() - inside);
  }
  {
    ClosedGate gate(mapping.gate, std::min(old_size, new_size), UINT64_MAX);
    if (edge != nullptr && edge->has(kUptodate)) {
      const std::uint64_t inside = new_size - (edge->index.load(memory_order_relaxed) << kPageShift);
      begin_change(*edge);
      racy_zero_folio(edge->bytes() + inside, edge->size_bytes() - inside);
      end_change(*edge);
    }
    mapping.size.store(new_size, memory_order_release);
  }
  if (edge != nullptr) {
    unlock_folio(*edge);
    mapping.cache.put_folio(*edge);
  }
  if (new_size > old_size) note_grown(mapping);
  mapping.cache.progress();
}

namespace {

// The part of [offset, end) inside the folio that holds `page` and is not covered whole.
struct Edge {
  Folio* folio = nullptr;  // locked and referenced, or null: nothing to zero
  std::uint64_t low = 0, high = 0;

  void lock(Mapping& mapping, std::uint64_t page, std::uint64_t offset, std::uint64_t end) {
    folio = get_locked_folio(mapping, page);
    if (folio == nullptr) return;
    const std::uint64_t start = folio->index.load(memory_order_relaxed) << kPageShift;
    low = std::max(offset, start) - start;
    high = std::max(low, std::min<std::uint64_t>(end, start + folio->size_bytes()) - start);
  }
  bool holds_bytes() const { return folio != nullptr && low != high && folio->has(kUptodate); }
  void unlock(Mapping& mapping) {
    if (folio == nullptr) return;
    unlock_folio(*folio);
    mapping.cache.put_folio(*folio);
  }
};

}  // namespace

void zero_cache(Mapping& mapping, std::uint64_t offset, std::uint64_t end, std::uint64_t grow_to) {
  const std::uint64_t first_whole = round_up(offset, kPageSize) >> kPageShift;
  const std::uint64_t end_whole = end >> kPageShift;
  if (first_whole < end_whole) remove_folios(mapping, first_whole, end_whole - 1);

  Edge edges[2];  // also pages of a large folio that could not be split
  edges[0].lock(mapping, offset >> kPageShift, offset, end);
  if (edges[0].folio == nullptr || !folio_is(*edges[0].folio, &mapping, end_whole)) {
    edges[1].lock(mapping, end_whole, offset, end);
  }
  for (Edge& edge : edges) {
    if (has_defect(Defect::edge_zeroed_before_gate) && edge.holds_bytes()) {
      racy_zero_folio(edge.folio->bytes() + edge.low, edge.high - edge.low);
    }
  }
  {
    // Without grow_to the caller's range lock does not hold the size still: it is left alone.
    const std::uint64_t size = mapping.size.load(memory_order_acquire);
    const bool grows = grow_to > size;
    ClosedGate gate(mapping.gate, grows ? std::min(offset, size) : offset, grows ? UINT64_MAX : end);
    for (Edge& edge : edges) {
      if (edge.holds_bytes()) begin_change(*edge.folio);
    }
    for (Edge& edge : edges) {
      if (edge.holds_bytes()) racy_zero_folio(edge.folio->bytes() + edge.low, edge.high - edge.low);
    }
    if (grows) mapping.size.store(grow_to, memory_order_release);
    for (Edge& edge : edges) {
      if (edge.holds_bytes()) end_change(*edge.folio);
    }
  }
  for (Edge& edge : edges) edge.unlock(mapping);
  if (grow_to != 0) note_grown(mapping);
  mapping.cache.progress();
}

void replace_cache(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, std::uint64_t new_size) {
  remove_folios(mapping, first_page, last_page);
  const std::uint64_t old_size = mapping.size.load(memory_order_acquire);
  if (new_size != old_size) {
    ClosedGate gate(mapping.gate, std::min(old_size, new_size), UINT64_MAX);
    mapping.size.store(new_size, memory_order_release);
  }
  if (new_size > old_size) note_grown(mapping);
  mapping.cache.progress();
}

}  // namespace quire
