// See drop.h.
#include "cache/drop.h"

#include "sync/rcu.h"

namespace quire {
namespace {

// The folio is locked: no clean one becomes dirty now, and none is written to.
bool is_ours_and_idle(const Folio& folio, std::uint32_t owner, bool alone) {
  const std::uint32_t flags = folio.flags.load(memory_order_acquire);
  if (owner == 0 || (flags & kOwnerMask) != owner || (flags & kUnstable) != 0) return false;
  return alone || (!referenced(folio) && folio.written_epoch == 0);
}

// The caller's reference goes in any case. Returns whether the folio went, too.
bool drop_one(Mapping& mapping, Folio& folio, std::uint32_t owner, bool alone) {
  PageCache& cache = mapping.cache;
  if (!try_lock_folio(folio)) {
    cache.put_folio(folio);
    return false;
  }
  std::uint32_t ours_and_the_mappings = 2;
  if (folio.mapping.load(memory_order_relaxed) != &mapping || !is_ours_and_idle(folio, owner, alone) ||
      !folio.refs.compare_exchange(ours_and_the_mappings, 0, memory_order_acquire, memory_order_relaxed)) {
    unlock_folio(folio);
    cache.put_folio(folio);
    return false;
  }
  detach_folio(mapping, folio);
  unlock_folio(folio);
  cache.pool.retire(folio);
  return true;
}

}  // namespace

std::uint64_t drop_own_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, std::uint32_t owner,
                              bool alone) {
  std::uint64_t dropped = 0;
  for (std::uint64_t page = first_page; page <= last_page;) {
    {
      RcuReadLock rcu;
      if (mapping.pages.find(&page, last_page).empty()) break;
    }
    std::uint64_t next = page + 1;
    Folio* folio = get_folio(mapping, page);
    if (folio != nullptr) {
      const std::uint64_t first = folio->index.load(memory_order_relaxed);
      const std::uint64_t pages = folio->pages();
      next = first + pages;
      if (first < first_page || next - 1 > last_page) {
        mapping.cache.put_folio(*folio);
      } else if (drop_one(mapping, *folio, owner, alone)) {
        dropped += pages;
      }
    }
    if (next <= page) break;  // the last page there is
    page = next;
  }
  if (dropped != 0) mapping.cache.progress();
  return dropped;
}

}  // namespace quire
