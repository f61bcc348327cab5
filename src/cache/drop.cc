// See drop.h.
#include "cache/drop.h"

#include "sync/rcu.h"

namespace quire {
namespace {

// Whose folios go.
struct Wanted {
  std::uint32_t owner;  // 0: those with kDropBehind
  bool alone;
  bool has(const Folio& folio) const {
    const std::uint32_t flags = folio.flags.load(memory_order_acquire);
    if ((flags & kViewed) != 0) return false;  // others use it, or may
    if (owner == 0) return (flags & kDropBehind) != 0 && (alone || !referenced(folio));
    return (flags & kOwnerMask) == owner && (alone || (!referenced(folio) && folio.written_epoch == 0));
  }
};

enum class Outcome : std::uint8_t { dropped, not_wanted, busy };

// The caller's reference goes in any case.
Outcome drop_one(Mapping& mapping, Folio& folio, const Wanted& wanted) {
  PageCache& cache = mapping.cache;
  if (!wanted.has(folio) || !try_lock_folio(folio)) {
    const bool busy = wanted.has(folio);
    cache.put_folio(folio);
    return busy ? Outcome::busy : Outcome::not_wanted;
  }
  // Locked: no clean one becomes dirty now, and none is written to.
  const bool ours = folio.mapping.load(memory_order_relaxed) == &mapping && wanted.has(folio);
  std::uint32_t ours_and_the_mappings = 2;
  if (!ours || (folio.flags.load(memory_order_acquire) & kUnstable) != 0 ||
      !folio.refs.compare_exchange(ours_and_the_mappings, 0, memory_order_acquire, memory_order_relaxed)) {
    unlock_folio(folio);
    cache.put_folio(folio);
    return ours ? Outcome::busy : Outcome::not_wanted;
  }
  detach_folio(mapping, folio);
  unlock_folio(folio);
  cache.pool.retire(folio);
  return Outcome::dropped;
}

std::uint64_t drop(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, const Wanted& wanted,
                   bool* busy) {
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
      } else {
        const Outcome outcome = drop_one(mapping, *folio, wanted);
        if (outcome == Outcome::dropped) dropped += pages;
        *busy |= outcome == Outcome::busy;
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
  bool busy = false;
  return owner == 0 ? 0 : drop(mapping, first_page, last_page, Wanted{owner, alone}, &busy);
}

bool drop_finished(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, bool alone) {
  bool busy = false;
  drop(mapping, first_page, last_page, Wanted{0, alone}, &busy);
  return !busy;
}

}  // namespace quire
