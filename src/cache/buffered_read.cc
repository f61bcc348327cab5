// The fast path of reads (see buffered_read.h) and the copying half of the slow one.
#include "cache/buffered_read.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "sync/rcu.h"

namespace quire {
namespace {

constexpr std::size_t kRcuBytes = 16 * 1024;  // copied in one read section, so that grace periods stay short

struct FoundFolio {
  const Folio* folio;
  std::uint64_t sequence;
};

// Looks a page up and checks that it may be copied from. Null: *why says why not. Inside RCU.
inline Folio* find_for_copy(Mapping& mapping, std::uint64_t page, std::uint64_t* sequence, Counter* why) {
  Folio* folio = folio_of(mapping.pages.load(page));
  if (__builtin_expect(folio == nullptr, 0)) {
    *why = Counter::miss_absent;
    return nullptr;
  }
  *sequence = folio->sequence.read_begin();
  if (__builtin_expect(Sequence::is_odd(*sequence), 0)) {
    *why = Counter::miss_changing;
    return nullptr;
  }
  if (__builtin_expect(!folio_is(*folio, &mapping, page), 0)) {
    *why = Counter::miss_identity;  // recycled between lookup and load of the sequence
    return nullptr;
  }
  const std::uint32_t flags = folio->flags.load(memory_order_relaxed);
  if (__builtin_expect((flags & kReadahead) != 0, 0)) {
    *why = Counter::miss_readahead_mark;
    return nullptr;
  }
  if (__builtin_expect((flags & kReferenced) == 0, 0)) folio->flags.fetch_or(kReferenced, memory_order_relaxed);
  return folio;
}

[[gnu::cold, gnu::noinline]] ssize_t slow(Mapping& mapping, Counter why) {
  mapping.cache.stats.count(why);
  return kSlow;
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
      Counter why;
      Folio* folio = find_for_copy(mapping, at >> kPageShift, &sequence, &why);
      if (folio == nullptr) return slow(mapping, why);
      if (folios == kFastFolios) return slow(mapping, Counter::miss_too_long);
      const std::uint64_t inside = at - (folio->index.load(memory_order_relaxed) << kPageShift);
      const std::size_t part = std::min<std::size_t>(n - copied, folio->size_bytes() - inside);
      found[folios++] = FoundFolio{folio, sequence};
      racy_copy_from_folio(to + copied, folio->bytes() + inside, part);
      copied += part;
    }
  }
  validate_fence();
  for (std::size_t i = 0; i < folios; ++i) {
    // Descriptors are type-stable and sequences never repeat: comparing outside RCU is sound.
    if (!found[i].folio->sequence.unchanged(found[i].sequence)) return slow(mapping, Counter::miss_changed);
  }
  if (!mapping.gate.unchanged(gate)) return slow(mapping, Counter::miss_changed);
  if (reaches_end && mapping.size.load(memory_order_relaxed) != size) return slow(mapping, Counter::miss_changed);
  return static_cast<ssize_t>(n);
}

}  // namespace

ssize_t read_fast(Mapping& mapping, char* to, std::size_t count, std::uint64_t offset) {
  std::uint64_t gate;
  if (__builtin_expect(!mapping.gate.read_begin(offset, offset + count, &gate), 0)) {
    return slow(mapping, Counter::miss_gate);
  }
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  std::size_t n = count;
  const bool reaches_end = offset + count > size;
  if (__builtin_expect(reaches_end, 0)) {
    if (offset >= size) {
      validate_fence();
      if (!mapping.gate.unchanged(gate) || mapping.size.load(memory_order_relaxed) != size) {
        return slow(mapping, Counter::miss_changed);
      }
      return 0;
    }
    n = size - offset;
  }
  if (n > kBounceBytes) {
    if (n > (kFastFolios - 1) * kPageSize) return slow(mapping, Counter::miss_too_long);
    return read_fast_long(mapping, to, n, offset, gate, size, reaches_end);
  }

  // The hot path: at most 1 KiB, so at most two folios.
  char bounce[kBounceBytes];
  std::uint64_t sequence, sequence_next = 0;
  const Folio* next = nullptr;
  Counter why;
  rcu_read_lock();
  const Folio* folio = find_for_copy(mapping, offset >> kPageShift, &sequence, &why);
  if (__builtin_expect(folio == nullptr, 0)) {
    rcu_read_unlock();
    return slow(mapping, why);
  }
  const std::uint64_t inside = offset - (folio->index.load(memory_order_relaxed) << kPageShift);
  const std::size_t here = folio->size_bytes() - inside;
  if (__builtin_expect(n <= here, 1)) {
    racy_copy_from_folio(bounce, folio->bytes() + inside, n);
  } else {
    next = find_for_copy(mapping, (offset + here) >> kPageShift, &sequence_next, &why);
    if (next == nullptr) {
      rcu_read_unlock();
      return slow(mapping, why);
    }
    racy_copy_from_folio(bounce, folio->bytes() + inside, here);
    racy_copy_from_folio(bounce + here, next->bytes(), n - here);
  }
  validate_fence();
  bool same = folio->sequence.unchanged(sequence) && mapping.gate.unchanged(gate);
  if (__builtin_expect(next != nullptr, 0)) same = same && next->sequence.unchanged(sequence_next);
  if (__builtin_expect(reaches_end, 0)) same = same && mapping.size.load(memory_order_relaxed) == size;
  rcu_read_unlock();
  if (__builtin_expect(!same, 0)) return slow(mapping, Counter::miss_changed);
  std::memcpy(to, bounce, n);
  return static_cast<ssize_t>(n);
}

Result<std::size_t> read_locked(Mapping& mapping, UserBuffer& to, std::uint64_t offset, std::size_t count,
                                FrameReservation& frames, ReadaheadState* readahead, const CacheContext& context) {
  PageCache& cache = mapping.cache;
  const std::uint64_t file_pages = round_up(mapping.size.load(memory_order_acquire), kPageSize) >> kPageShift;
  const std::uint64_t last_page = (offset + count - 1) >> kPageShift;
  std::size_t copied = 0;
  int errnum = 0;
  while (copied < count && errnum == 0) {
    const std::uint64_t at = offset + copied;
    const std::uint64_t page = at >> kPageShift;
    Folio* folio = get_folio(mapping, page);
    if (folio == nullptr) {
      const ReadaheadPlan plan = plan_miss(mapping, readahead, page, last_page, file_pages);
      const std::uint64_t last = std::min(plan.last, page + (FillBatch::kMaxFolios - 1));
      if (frames.count() == 0) cache.reserve_for_read(frames, static_cast<std::uint32_t>(last - page + 1));
      const Status filled = fill_range(mapping, page, last, frames, context, plan.mark);
      if (filled.ok()) continue;
      folio = get_folio(mapping, page);  // the error may be another page's
      if (folio == nullptr) errnum = filled.errnum();
      if (folio != nullptr && !folio->has(kUptodate)) errnum = filled.errnum();
      if (errnum != 0) {
        if (folio != nullptr) cache.put_folio(*folio);
        break;
      }
    }
    if (folio->has(kReadahead) && (folio->flags.fetch_and(~kReadahead, memory_order_relaxed) & kReadahead) != 0) {
      start_next_window(mapping, readahead, file_pages);
    }
    const Status ready = wait_uptodate(mapping, *folio, page, context);
    if (ready.ok()) {
      if (!folio->has(kReferenced)) folio->flags.fetch_or(kReferenced, memory_order_relaxed);
      const std::uint64_t inside = at - (folio->index.load(memory_order_relaxed) << kPageShift);
      const std::size_t part = std::min<std::size_t>(count - copied, folio->size_bytes() - inside);
      to.copy_from_folio(folio->bytes() + inside, part);
      copied += part;
    } else if (ready.errnum() != ESTALE) {
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
