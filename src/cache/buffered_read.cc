// The fast path of reads (see buffered_read.h) and the copying half of the slow one.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/defect.h"
#include "base/error.h"
#include "cache/read_hit.h"
#include "sync/rcu.h"

namespace quire {

namespace {

// A fast read that gives up: counts why, returns kSlow. read_left_at looks again for the reason, so it may name another
// than the one that struck.
[[gnu::cold]] ssize_t read_left(Mapping& mapping, Counter why) {
  mapping.cache.stats.count(why);
  return kSlow;
}

[[gnu::cold]] ssize_t read_left_at(Mapping& mapping, std::uint64_t page) {
  RcuReadLock rcu;
  const Folio* folio = folio_of(mapping.pages.load(page));
  Counter why = Counter::miss_identity;
  if (folio == nullptr) {
    why = Counter::miss_absent;
  } else if (folio->sequence.odd()) {
    why = Counter::miss_changing;
  } else if (folio->has(kReadahead)) {
    why = Counter::miss_readahead_mark;
  }
  return read_left(mapping, why);
}

// A read that starts at or past the end: nothing to copy.
[[gnu::cold]] ssize_t read_past_end(Mapping& mapping, std::uint64_t gate, std::uint64_t size) {
  validate_fence();
  if (mapping.gate.unchanged(gate) && mapping.size.load(memory_order_relaxed) == size) return 0;
  return read_left(mapping, Counter::miss_changed);
}

// Looks a page up and checks that it may be copied from. Null: read_left_at() says why. Inside RCU.
[[gnu::always_inline]] inline const Folio* find_for_copy(Mapping& mapping, std::uint64_t page,
                                                         std::uint64_t* sequence) {
  Folio* folio = folio_of(mapping.pages.load(page));
  if (__builtin_expect(folio == nullptr, 0)) return nullptr;
  *sequence = folio->sequence.read_begin();
  if (__builtin_expect(Sequence::is_odd(*sequence), 0)) {  // being filled, written or removed
    if (!has_defect(Defect::fast_read_of_odd_sequence)) return nullptr;
  }
  // Split between the look into the index and the load of the sequence: the page is another folio's by now. (A removed
  // folio stays odd until a grace period has passed, so inside RCU it is nobody else's yet.)
  if (__builtin_expect(!folio_is(*folio, &mapping, page), 0) && !has_defect(Defect::fast_read_without_identity)) {
    return nullptr;
  }
  if (__builtin_expect(!referenced(*folio), 0)) {
    if (folio->has(kReadahead)) return nullptr;  // its first reader starts the next window
    set_referenced(*folio);
  }
  return folio;
}

// Where `offset` lies. For a folio of one page this does not wait for the descriptor to be loaded.
[[gnu::always_inline]] inline const char* page_bytes(const Mapping& mapping, const Folio* folio, std::uint64_t offset) {
  const std::size_t inside = __builtin_expect(folio->order.load(memory_order_relaxed) == 0, 1)
                                 ? offset & (kPageSize - 1)
                                 : offset - (folio->index.load(memory_order_relaxed) << kPageShift);
  return frame_bytes(mapping, folio) + inside;
}

// The rechecks, after validate_fence().
[[gnu::always_inline]] inline bool unchanged(const Folio& folio, std::uint64_t sequence) {
  return folio.sequence.unchanged(sequence) || has_defect(Defect::fast_read_without_sequence_recheck);
}
[[gnu::always_inline]] inline bool gate_unchanged(const Mapping& mapping, std::uint64_t gate) {
  return mapping.gate.unchanged(gate) || has_defect(Defect::fast_read_without_gate_recheck);
}
[[gnu::always_inline]] inline bool size_unchanged(const Mapping& mapping, std::uint64_t size) {
  return mapping.size.load(memory_order_relaxed) == size || has_defect(Defect::fast_read_without_size_recheck);
}

constexpr std::size_t kRcuBytes = 16 * 1024;  // copied in one read section, so that grace periods stay short

struct FoundFolio {
  const Folio* folio;
  std::uint64_t sequence;
};

// More than 1 KiB inside one page, copied straight out.
[[gnu::always_inline]] inline ssize_t read_fast_page(Mapping& mapping, char* to, std::size_t n, std::uint64_t offset,
                                                     std::uint64_t gate, std::uint64_t size, bool reaches_end) {
  std::uint64_t sequence;
  rcu_read_lock();
  const Folio* folio = find_for_copy(mapping, offset >> kPageShift, &sequence);
  if (__builtin_expect(folio == nullptr, 0)) {
    rcu_read_unlock();
    return read_left_at(mapping, offset >> kPageShift);
  }
  racy_copy_from_folio(to, page_bytes(mapping, folio, offset), n);
  validate_fence();
  bool same = unchanged(*folio, sequence) && gate_unchanged(mapping, gate);
  if (__builtin_expect(reaches_end, 0)) same = same && size_unchanged(mapping, size);
  rcu_read_unlock();
  if (__builtin_expect(!same, 0)) return read_left(mapping, Counter::miss_changed);
  return static_cast<ssize_t>(n);
}

// Several folios, copied straight out.
[[gnu::noinline]] ssize_t read_fast_long(Mapping& mapping, char* to, std::size_t n, std::uint64_t offset,
                                         std::uint64_t gate, std::uint64_t size, bool reaches_end) {
  FoundFolio found[kFastFolios];
  std::size_t folios = 0;
  std::size_t copied = 0;
  while (copied < n) {
    RcuReadLock rcu;
    const std::size_t section_end = std::min(n, copied + kRcuBytes);
    while (copied < section_end) {
      const std::uint64_t at = offset + copied;
      std::uint64_t sequence;
      const Folio* folio = find_for_copy(mapping, at >> kPageShift, &sequence);
      if (folio == nullptr) return read_left_at(mapping, at >> kPageShift);
      if (folios == kFastFolios) return read_left(mapping, Counter::miss_too_long);
      const std::uint64_t inside = at - (folio->index.load(memory_order_relaxed) << kPageShift);
      const std::size_t folio_size = folio->size_bytes();
      const bool shrank = inside >= folio_size;  // split since it was looked up
      if (shrank && !has_defect(Defect::long_read_trusts_the_order)) return read_left(mapping, Counter::miss_changed);
      const std::size_t part = std::min<std::size_t>(section_end - copied, folio_size - inside);
      found[folios++] = FoundFolio{folio, sequence};
      racy_copy_from_folio(to + copied, folio->bytes() + inside, part);
      copied += part;
    }
  }
  validate_fence();
  for (std::size_t i = 0; i < folios; ++i) {
    // Descriptors are type-stable and sequences never repeat: comparing outside RCU is sound.
    if (!unchanged(*found[i].folio, found[i].sequence)) return read_left(mapping, Counter::miss_changed);
  }
  if (!gate_unchanged(mapping, gate)) return read_left(mapping, Counter::miss_changed);
  if (reaches_end && !size_unchanged(mapping, size)) return read_left(mapping, Counter::miss_changed);
  return static_cast<ssize_t>(n);
}

// At most 1 KiB over two folios, through the stack.
[[gnu::noinline]] ssize_t read_fast_across(Mapping& mapping, char* to, std::size_t n, std::uint64_t offset,
                                           std::uint64_t gate, std::uint64_t size, bool reaches_end) {
  alignas(64) char bounce[kBounceBytes];  // no store that is loaded again may cross a line
  std::uint64_t sequence, sequence_next;
  {
    RcuReadLock rcu;
    const Folio* folio = find_for_copy(mapping, offset >> kPageShift, &sequence);
    if (folio == nullptr) return read_left_at(mapping, offset >> kPageShift);
    const std::uint64_t inside = offset - (folio->index.load(memory_order_relaxed) << kPageShift);
    const std::size_t folio_size = folio->size_bytes();
    if (inside >= folio_size) return read_left(mapping, Counter::miss_changed);  // split since it was looked up
    const std::size_t here = std::min(n, folio_size - inside);
    const std::uint64_t next_page = (offset + n - 1) >> kPageShift;
    const Folio* next = find_for_copy(mapping, next_page, &sequence_next);  // may be the same large folio
    if (next == nullptr) return read_left_at(mapping, next_page);
    racy_copy_from_folio(bounce, folio->bytes() + inside, here);
    racy_copy_from_folio(bounce + here, next->bytes(), n - here);
    validate_fence();
    if (!unchanged(*folio, sequence) || !unchanged(*next, sequence_next) || !gate_unchanged(mapping, gate) ||
        (reaches_end && !size_unchanged(mapping, size))) {
      return read_left(mapping, Counter::miss_changed);
    }
  }
  std::memcpy(to, bounce, n);
  return static_cast<ssize_t>(n);
}

// n <= kBounceBytes bytes, already clipped to `size`, through the stack.
ssize_t read_bounced(Mapping& mapping, char* to, std::size_t n, std::uint64_t offset, std::uint64_t gate,
                     std::uint64_t size, bool reaches_end) {
  if ((offset & (kPageSize - 1)) + n > kPageSize) {
    return read_fast_across(mapping, to, n, offset, gate, size, reaches_end);
  }
  alignas(64) char bounce[kBounceBytes];  // no store that is loaded again may cross a line
  const Folio* folio;
  {
    std::uint64_t sequence;
    RcuReadLock rcu;
    folio = find_for_copy(mapping, offset >> kPageShift, &sequence);
    if (folio == nullptr) return read_left_at(mapping, offset >> kPageShift);
    racy_copy_from_folio(bounce, page_bytes(mapping, folio, offset), n);
    if (has_defect(Defect::short_read_copies_past_count)) std::memcpy(to, bounce, n);
    validate_fence();
    if (!unchanged(*folio, sequence) || !gate_unchanged(mapping, gate) ||
        (reaches_end && !size_unchanged(mapping, size))) {
      return read_left(mapping, Counter::miss_changed);
    }
  }
  std::memcpy(to, bounce, n);
  if (n <= kRegisterBytes) note_place(mapping, offset >> kPageShift, *folio);
  return static_cast<ssize_t>(n);
}

}  // namespace

ssize_t count_first_hit(const Mapping& mapping, std::size_t count) {
  mapping.cache.stats.count_hit(count);
  return static_cast<ssize_t>(count);
}

ssize_t read_fast(Mapping& mapping, char* to, std::size_t count, std::uint64_t offset) {
  DCHECK(!touches_views(to, count));
  std::uint64_t gate;
  if (__builtin_expect(!mapping.gate.read_begin(offset, offset + count, &gate), 0)) {
    if (!has_defect(Defect::fast_read_of_odd_gate)) return read_left(mapping, Counter::miss_gate);
  }
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  const bool reaches_end = offset + count > size;
  if (offset >= size) return read_past_end(mapping, gate, size);
  const std::size_t n = std::min<std::uint64_t>(count, size - offset);
  if (n > (kFastFolios - 1) * kPageSize) return read_left(mapping, Counter::miss_too_long);
  if (n <= kBounceBytes) return read_bounced(mapping, to, n, offset, gate, size, true);
  if ((offset & (kPageSize - 1)) + n <= kPageSize) {
    return read_fast_page(mapping, to, n, offset, gate, size, reaches_end);
  }
  return read_fast_long(mapping, to, n, offset, gate, size, reaches_end);
}

Result<std::size_t> read_locked(Mapping& mapping, UserBuffer& to, std::uint64_t offset, std::size_t count,
                                FrameReservation& frames, ReadaheadState* readahead, const CacheContext& context) {
  PageCache& cache = mapping.cache;
  const std::uint64_t file_pages = round_up(mapping.size.load(memory_order_acquire), kPageSize) >> kPageShift;
  const std::uint64_t last_page = (offset + count - 1) >> kPageShift;
  std::size_t copied = 0;
  std::uint64_t fresh_end =
      0;  // before it, filled for us just now: the policy knows, and its bit is for who comes next
  int errnum = 0;
  bool small = false;  // a large folio could not be filled: page by page, so that only the bad ones fail
  while (copied < count && errnum == 0) {
    const std::uint64_t at = offset + copied;
    const std::uint64_t page = at >> kPageShift;
    Folio* folio = get_folio(mapping, page);
    if (folio == nullptr) {
      const ReadaheadPlan plan = plan_miss(mapping, readahead, page, last_page, file_pages);
      const unsigned order = small ? 0 : plan.order;
      const std::uint64_t last = std::min(plan.last, page + (FillBatch::kMaxPages - 1));
      cache.reserve_for_read(frames, static_cast<std::uint32_t>(last - page + 1), order);
      const auto filled = fill_range(mapping, page, last, frames, context, order, plan.mark);
      frames.release();  // nothing is held while the next piece waits for more
      if (!filled.ok()) {
        errnum = filled.errnum();
        break;
      }
      note_filled(plan, filled.value().end);
      folio = filled.value().first;
      if (folio == nullptr) continue;  // somebody else was there first
      fresh_end = std::min(filled.value().end, last_page + 1);
    }
    if (folio->has(kReadahead) && (folio->flags.fetch_and(~kReadahead, memory_order_relaxed) & kReadahead) != 0) {
      start_next_window(mapping, readahead, *folio, file_pages, context.owner);
    }
    const Status ready = wait_uptodate(mapping, *folio, page, context);
    if (ready.ok()) {
      if (page >= fresh_end) set_referenced(*folio);
      cache.ahead.settle(*folio);
      const std::uint64_t inside = at - (folio->index.load(memory_order_relaxed) << kPageShift);
      const std::size_t part = std::min<std::size_t>(count - copied, folio->size_bytes() - inside);
      to.copy_from_folio(folio->bytes() + inside, part);
      copied += part;
    } else if (ready.errnum() == ESTALE) {
      small = true;
    } else {
      errnum = ready.errnum();
    }
    cache.put_folio(*folio);
  }
  if (copied == 0 && errnum != 0) return fail(errnum);
  return copied;
}

std::size_t read_resident(Mapping& mapping, UserBuffer& to, std::uint64_t offset, std::size_t count) {
  std::size_t copied = 0;
  while (copied < count) {
    const std::uint64_t at = offset + copied;
    Folio* folio = get_folio(mapping, at >> kPageShift);
    if (folio == nullptr) break;
    const bool ready = folio->has(kUptodate);
    if (ready) {
      if (folio->has(kReadahead))
        folio->flags.fetch_and(~kReadahead, memory_order_relaxed);  // this reader may not wait
      const std::uint64_t inside = at - (folio->index.load(memory_order_relaxed) << kPageShift);
      const std::size_t part = std::min<std::size_t>(count - copied, folio->size_bytes() - inside);
      to.copy_from_folio(folio->bytes() + inside, part);
      copied += part;
    }
    mapping.cache.put_folio(*folio);
    if (!ready) break;
  }
  return copied;
}

}  // namespace quire
