// See split.h.
#include "cache/split.h"

#include <cerrno>

#include "base/defect.h"
#include "base/error.h"

namespace quire {
namespace {

// One split, of a folio whose references are frozen and whose lock is the caller's.
class Split {
 public:
  Split(Mapping& mapping, Folio& folio, std::uint64_t page, unsigned order)
      : mapping_(mapping),
        folio_(folio),
        begin_(folio.index.load(memory_order_relaxed)),
        page_(page),
        whole_(folio.order.load(memory_order_relaxed)),
        order_(order) {}

  Status show_parts();
  std::uint32_t move_references(std::span<const HeldPage> held);
  void release_parts();

 private:
  template <typename Each>
  void for_each_other_part(Each each);
  unsigned first_part_order() const;
  Folio& part_at(std::uint64_t first_page) { return (&folio_)[first_page - begin_]; }
  void make_part(std::uint64_t first_page, unsigned order, std::uint64_t unread);

  Mapping& mapping_;
  Folio& folio_;
  const std::uint64_t begin_, page_;
  const unsigned whole_, order_;
};

// each(first page, order) of each part but the first: as BasicXArray::split_locked cuts its entry.
template <typename Each>
void Split::for_each_other_part(Each each) {
  std::uint64_t first = begin_;
  for (unsigned size = whole_; size > order_;) {
    --size;
    const std::uint64_t middle = first + (std::uint64_t{1} << size);
    if (page_ < middle) {
      each(middle, size);
    } else {
      if (first != begin_) each(first, size);
      first = middle;
    }
  }
  if (first != begin_) each(first, order_);
}

unsigned Split::first_part_order() const {
  unsigned size = whole_;
  while (size > order_) {
    --size;
    if (page_ - begin_ >= std::uint64_t{1} << size) break;  // the half before it stays whole
  }
  return size;
}

// unread: what its hit word lacks if nobody has read the whole. Complete and locked before the index shows it: a writer
// may try the lock of what it finds there.
void Split::make_part(std::uint64_t first_page, unsigned order, std::uint64_t unread) {
  Folio& part = part_at(first_page);
  DCHECK(part.sequence.odd());
  part.sequence.begin_life();
  part.index.store(first_page, memory_order_relaxed);
  part.order.store(order, memory_order_relaxed);
  part.hit_word.store(hit_word_of(first_page, order) - unread, memory_order_relaxed);
  part.flags.store(kLocked | (folio_.flags.load(memory_order_relaxed) &
                              (kUptodate | kUnstable | kDropBehind | kViewed | kWasViewed)),
                   memory_order_relaxed);
  part.written_epoch = folio_.written_epoch;
  part.mapping.store(&mapping_, memory_order_relaxed);
  part.refs.store(folio_.has(kViewed) ? 2 : 1, memory_order_release);  // the mapping's, the views'
}

// Makes the parts and lets the index show them; ENOMEM: then nothing has changed.
Status Split::show_parts() {
  XArray& pages = mapping_.pages;
  MutexLock lock(pages.mutex());
  const std::uint64_t unread = referenced(folio_) ? 0 : kReferenced;
  const bool shown =
      has_defect(Defect::split_shows_unmade_parts) && pages.split_locked(page_, order_, sizeof(Folio)).ok();
  for_each_other_part([&](std::uint64_t first_page, unsigned order) { make_part(first_page, order, unread); });
  if (!shown && !pages.split_locked(page_, order_, sizeof(Folio)).ok()) {
    for_each_other_part([&](std::uint64_t first_page, unsigned) {
      Folio& part = part_at(first_page);
      part.refs.store(0, memory_order_relaxed);
      part.mapping.store(nullptr, memory_order_relaxed);
      part.flags.store(0, memory_order_relaxed);
    });
    return fail(ENOMEM);
  }
  folio_.order.store(first_part_order(), memory_order_relaxed);
  folio_.hit_word.store(hit_word_of(begin_, first_part_order()) - unread, memory_order_relaxed);
  return {};
}

// Each of the caller's further references goes to the part that holds its page. Returns how many the first part keeps.
std::uint32_t Split::move_references(std::span<const HeldPage> held) {
  std::uint32_t kept = 0;
  for (const HeldPage& one : held) {
    *one.folio = &folio_;
    for_each_other_part([&](std::uint64_t first_page, unsigned order) {
      if (one.page - first_page < std::uint64_t{1} << order) *one.folio = &part_at(first_page);
    });
    if (*one.folio == &folio_) {
      ++kept;
    } else {
      (*one.folio)->refs.fetch_add(1, memory_order_relaxed);  // before reclaim can get its lock
    }
  }
  return kept;
}

// The parts go into the eviction queue, become even and are unlocked.
void Split::release_parts() {
  Folio* parts[kMaxOrder];
  std::size_t count = 0;
  for_each_other_part([&](std::uint64_t first_page, unsigned) {
    Folio& part = part_at(first_page);
    lock_acquired(folio_lock_class, &part, LockKey{mapping_.id, first_page});
    parts[count++] = &part;
  });
  mapping_.cache.eviction.split(folio_, std::span(parts, count));
  for (Folio* part : std::span(parts, count)) {
    part->sequence.write_end();
    unlock_folio(*part);
  }
}

}  // namespace

Status split_folio(Mapping& mapping, Folio& folio, std::uint64_t page, unsigned order, std::span<const HeldPage> held) {
  DCHECK(folio.has(kLocked));
  DCHECK(folio_is(folio, &mapping, page));
  if (folio.order.load(memory_order_relaxed) <= order) return {};
  if (!folio.has(kUptodate) || folio.has(kWriteback)) return fail(EBUSY);
  const std::uint32_t views = folio.has(kViewed) ? 1 : 0;
  const auto all = static_cast<std::uint32_t>(2 + held.size()) + views;  // the mapping's, the caller's, the views'
  std::uint32_t ours = all;
  if (!folio.refs.compare_exchange(ours, 0, memory_order_acquire, memory_order_relaxed)) {
    if (!has_defect(Defect::split_despite_references)) return fail(EBUSY);
    folio.refs.fetch_sub(all, memory_order_relaxed);
  }

  Split split(mapping, folio, page, order);
  mapping.cache.ahead.settle(folio);  // the charge is for its whole size
  const bool keeps_even = has_defect(Defect::split_without_odd_sequence);
  if (!keeps_even) begin_change(folio);
  const Status shown = split.show_parts();
  std::uint32_t kept = all;
  if (shown.ok()) {
    kept = 2 + views + split.move_references(held);
    split.release_parts();
    mapping.cache.stats.count(Counter::folio_splits);
  }
  if (!keeps_even) end_change(folio);
  folio.refs.fetch_add(kept, memory_order_release);
  return shown;
}

}  // namespace quire
