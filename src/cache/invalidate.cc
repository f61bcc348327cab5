// Truncation and removal in the cache. See invalidate.h.
#include "cache/invalidate.h"

#include <algorithm>

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

}  // namespace

void remove_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page) {
  std::uint64_t page = first_page;
  while (page <= last_page) {
    {
      RcuReadLock rcu;
      if (mapping.pages.find(&page, last_page).empty()) return;
    }
    Folio* folio = get_locked_folio(mapping, page);
    std::uint64_t next = page + 1;
    if (folio != nullptr) {
      next = folio->index.load(memory_order_relaxed) + folio->pages();
      DCHECK(!folio->has(kWriteback));  // drained by the invalidate lock
      remove_folio(mapping, *folio);
      unlock_folio(*folio);
      mapping.cache.put_folio(*folio);
    }
    if (next == 0) return;
    page = next;
  }
}

void truncate_cache(Mapping& mapping, std::uint64_t new_size) {
  const std::uint64_t old_size = mapping.size.load(memory_order_acquire);
  Folio* edge = nullptr;
  if (new_size < old_size && !is_aligned(new_size, kPageSize)) {
    edge = get_locked_folio(mapping, new_size >> kPageShift);
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
  if (new_size < old_size) remove_folios(mapping, round_up(new_size, kPageSize) >> kPageShift, UINT64_MAX);
  mapping.cache.progress();
}

}  // namespace quire
