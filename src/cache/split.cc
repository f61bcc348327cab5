// See split.h.
#include "cache/split.h"

#include <cerrno>

#include "base/defect.h"
#include "base/error.h"

namespace quire {
namespace {

// part(first page, order) for each part of the folio but the first: as BasicXArray::split_locked cuts its entry.
template <typename Part>
void for_each_other_part(const Folio& folio, unsigned whole, std::uint64_t page, unsigned order, Part part) {
  const std::uint64_t begin = folio.index.load(memory_order_relaxed);
  std::uint64_t first = begin;
  for (unsigned size = whole; size > order;) {
    --size;
    const std::uint64_t middle = first + (std::uint64_t{1} << size);
    if (page < middle) {
      part(middle, size);
    } else {
      if (first != begin) part(first, size);
      first = middle;
    }
  }
  if (first != begin) part(first, order);
}

unsigned first_part_order(const Folio& folio, unsigned whole, std::uint64_t page, unsigned order) {
  const std::uint64_t inside = page - folio.index.load(memory_order_relaxed);
  while (whole > order) {
    --whole;
    if (inside >= std::uint64_t{1} << whole) break;  // the half before it stays whole
  }
  return whole;
}

}  // namespace

Status split_folio(Mapping& mapping, Folio& folio, std::uint64_t page, unsigned order, std::span<const HeldPage> held) {
  DCHECK(folio.has(kLocked));
  DCHECK(folio_is(folio, &mapping, page));
  const unsigned whole = folio.order.load(memory_order_relaxed);
  if (whole <= order) return {};
  if (!folio.has(kUptodate) || folio.has(kWriteback)) return fail(EBUSY);
  const auto all = static_cast<std::uint32_t>(2 + held.size());
  std::uint32_t ours = all;
  if (!folio.refs.compare_exchange(ours, 0, memory_order_acquire, memory_order_relaxed)) {
    if (!has_defect(Defect::split_despite_references)) return fail(EBUSY);
    folio.refs.fetch_sub(all, memory_order_relaxed);
  }

  PageCache& cache = mapping.cache;
  const std::uint64_t begin = folio.index.load(memory_order_relaxed);
  const auto part_of = [&](std::uint64_t first) -> Folio& { return (&folio)[first - begin]; };
  cache.ahead.settle(folio);  // the charge is for its whole size
  const bool keeps_even = has_defect(Defect::split_without_odd_sequence);
  if (!keeps_even) begin_change(folio);
  {
    MutexLock lock(mapping.pages.mutex());
    const std::uint64_t unread = referenced(folio) ? 0 : kReferenced;
    const std::uint32_t inherited = folio.flags.load(memory_order_relaxed) & (kUptodate | kUnstable);
    const bool shown =
        has_defect(Defect::split_shows_unmade_parts) && mapping.pages.split_locked(page, order, sizeof(Folio)).ok();
    // Complete and locked before the index shows them: a writer may try the lock of what it finds there.
    for_each_other_part(folio, whole, page, order, [&](std::uint64_t first, unsigned part_order) {
      Folio& part = part_of(first);
      DCHECK(part.sequence.odd());
      part.sequence.begin_life();
      part.index.store(first, memory_order_relaxed);
      part.order.store(part_order, memory_order_relaxed);
      part.hit_word.store(hit_word_of(first, part_order) - unread, memory_order_relaxed);
      part.flags.store(kLocked | inherited, memory_order_relaxed);
      part.written_epoch = folio.written_epoch;
      part.mapping.store(&mapping, memory_order_relaxed);
      part.refs.store(1, memory_order_release);
    });
    if (!shown && !mapping.pages.split_locked(page, order, sizeof(Folio)).ok()) {
      for_each_other_part(folio, whole, page, order, [&](std::uint64_t first, unsigned) {
        Folio& part = part_of(first);
        part.refs.store(0, memory_order_relaxed);
        part.mapping.store(nullptr, memory_order_relaxed);
        part.flags.store(0, memory_order_relaxed);
      });
      if (!keeps_even) end_change(folio);
      folio.refs.fetch_add(all, memory_order_release);
      return fail(ENOMEM);
    }
    const unsigned first_order = first_part_order(folio, whole, page, order);
    folio.order.store(first_order, memory_order_relaxed);
    folio.hit_word.store(hit_word_of(begin, first_order) - unread, memory_order_relaxed);
  }
  std::uint32_t kept = 2;  // the first part's: the mapping's, and the caller's
  for (const HeldPage& one : held) {
    *one.folio = &folio;
    for_each_other_part(folio, whole, page, order, [&](std::uint64_t first, unsigned part_order) {
      if (one.page - first < std::uint64_t{1} << part_order) *one.folio = &part_of(first);
    });
    if (*one.folio == &folio) {
      ++kept;
    } else {
      (*one.folio)->refs.fetch_add(1, memory_order_relaxed);  // before reclaim can get its lock
    }
  }
  Folio* parts[kMaxOrder];
  std::size_t count = 0;
  for_each_other_part(folio, whole, page, order, [&](std::uint64_t first, unsigned) {
    Folio& part = part_of(first);
    lock_acquired(folio_lock_class, &part, LockKey{mapping.id, first});
    parts[count++] = &part;
  });
  cache.eviction.split(folio, std::span(parts, count));
  for (Folio* part : std::span(parts, count)) {
    part->sequence.write_end();
    unlock_folio(*part);
  }
  if (!keeps_even) end_change(folio);
  folio.refs.fetch_add(kept, memory_order_release);
  cache.stats.count(Counter::folio_splits);
  return {};
}

}  // namespace quire
