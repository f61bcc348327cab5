// See drop.h.
#include "cache/drop.h"

#include "sync/rcu.h"

namespace quire {
namespace {

// Whose folios go. The folio is locked: no clean one becomes dirty now, and none is written to.
struct Wanted {
  std::uint32_t owner;  // 0: those with kDropBehind
  bool alone;
  bool has(const Folio& folio) const {
    const std::uint32_t flags = folio.flags.load(memory_order_acquire);
    if ((flags & kUnstable) != 0) return false;
    if (owner == 0) return (flags & kDropBehind) != 0 && (alone || !referenced(folio));
    return (flags & kOwnerMask) == owner && (alone || (!referenced(folio) && folio.written_epoch == 0));
  }
};

// The caller's reference goes in any case. Returns whether the folio went, too.
bool drop_one(Mapping& mapping, Folio& folio, const Wanted& wanted) {
  PageCache& cache = mapping.cache;
  if (!try_lock_folio(folio)) {
    cache.put_folio(folio);
    return false;
  }
  std::uint32_t ours_and_the_mappings = 2;
  if (folio.mapping.load(memory_order_relaxed) != &mapping || !wanted.has(folio) ||
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

std::uint64_t drop(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, const Wanted& wanted) {
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
      } else if (drop_one(mapping, *folio, wanted)) {
        dropped += pages;
      }
    }
    if (next <= page) break;  // the last page there is
    page = next;
  }
  if (dropped != 0) mapping.cache.progress();
  return dropped;
}

}  // namespace

std::uint64_t drop_own_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, std::uint32_t owner,
                              bool alone) {
  if (owner == 0) return 0;
  return drop(mapping, first_page, last_page, Wanted{owner, alone});
}

std::uint64_t drop_finished(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, bool alone) {
  return drop(mapping, first_page, last_page, Wanted{0, alone});
}

}  // namespace quire
