// The hit path of short reads, in line: what quire_pread does before anything else. It calls nothing and says nothing:
// whoever fails it goes to read_fast, which serves every other case and counts why it cannot. Written for few
// instructions: one hit's misses of the processor's caches overlap with the next one's only as far as the processor
// sees ahead, 128 to 256 instructions on Zen 3. Guarantees: R1, R2.  Locks: none, nor RCU (lookaside.h).
//
// What each check closes:
//   gate odd                      a range operation is half way (anywhere: read_fast looks where)
//   size loaded, range within     (appends raise it inside the odd section of the folio they change)
//   folio's sequence odd          being filled, written or removed, or free
//   mapping, page                 a guess that is stale, another page's or nobody's; never read before
//   bytes into registers
//   sequence unchanged            written, removed or recycled since: all that was loaded under it is void
//   gate unchanged                a range operation came in between
// The size need not be looked at again: a read that ends before it and whose bytes did not change since is of an
// instant after the size was loaded, unless a truncate took them away, which changes the gate or the sequence.
#pragma once

#include "base/defect.h"
#include "cache/buffered_read.h"
#include "sync/rcu.h"

namespace quire {

// A hit by a thread whose last one was another cache's, or which shares its counters. Returns count.
[[gnu::cold]] ssize_t count_first_hit(const Mapping& mapping, std::size_t count);

// 1 to kRegisterBytes bytes inside one page and before the end of the file. The number of bytes, counted; or kSlow, for
// whatever reason. `to` may lie in a view: what is stored there is stored last, with nothing held.
[[gnu::always_inline]] inline ssize_t read_hit(const Mapping& mapping, char* to, std::size_t count,
                                               std::uint64_t offset);

namespace detail {

[[gnu::always_inline]] inline ssize_t look_for_hit(const Mapping& mapping, char* to, std::size_t count,
                                                   std::uint64_t offset) {
  const Mapping::Hits& hits = mapping.hits;
  std::uint64_t gate;
  if (__builtin_expect(!mapping.gate.read_begin_idle(&gate), 0)) return kSlow;
  // An offset that is negative, or so large that the sum wraps, fails one of these two.
  const std::uint64_t last = offset + (count - 1);
  if (__builtin_expect(last >= mapping.size.load(memory_order_acquire), 0)) return kSlow;
  if (__builtin_expect((last ^ offset) >= kPageSize, 0)) return kSlow;

  const std::uint64_t page = offset >> kPageShift;
  const std::uint64_t entry = hits.entries[(page + hits.first_place) & hits.mask].load(memory_order_acquire);
  const Folio& folio = hits.descriptors[entry];
  const std::uint64_t sequence = folio.sequence.read_begin();
  if (__builtin_expect(Sequence::is_odd(sequence), 0) && !has_defect(Defect::hit_of_odd_sequence)) return kSlow;
  // Both only ever grow: their sum is the same only if both are.
  const std::uint64_t sum = sequence + gate;
  std::uint64_t inside = offset & (kPageSize - 1);
  const std::uint64_t word = folio.hit_word.load(memory_order_relaxed);
  if (__builtin_expect(word != hit_word_of(page), 0)) {
    std::uint64_t nth;
    if (!hit_word_covers(word, page, &nth)) return kSlow;
    inside += nth << kPageShift;
  }
  const Mapping* const owner = folio.mapping.load(memory_order_relaxed);
  if (__builtin_expect(owner != &mapping, 0) && !has_defect(Defect::hit_without_identity)) return kSlow;
  // Where the bytes are the entry alone says: they are fetched beside the descriptor, not after it.
  const char* from = hits.bytes + (entry << kPageShift) + inside;
  const bool copied = copy_short_if_valid(to, from, count, [&] {
    validate_fence();
    if (has_defect(Defect::hit_without_sequence_recheck)) return mapping.gate.read_again() == gate;
    if (has_defect(Defect::hit_without_gate_recheck)) return folio.sequence.read_again() == sequence;
    return folio.sequence.read_again() + mapping.gate.read_again() == sum;
  });
  if (__builtin_expect(!copied, 0)) return kSlow;
  if (__builtin_expect(!Stats::count_short_hit(hits.stats_id, count), 0)) {
    const ssize_t counted = count_first_hit(mapping, count);
    if (counted < 0) __builtin_unreachable();  // known here, the caller's last call is a jump and saves no registers
    return counted;
  }
  return static_cast<ssize_t>(count);
}

}  // namespace detail

inline ssize_t read_hit(const Mapping& mapping, char* to, std::size_t count, std::uint64_t offset) {
#ifdef QUIRE_TSAN
  // The bytes may be a recycled frame's that a device just fills: they are thrown away, but only RCU explains that to
  // ThreadSanitizer. And none of it is held while the caller's memory is touched.
  char bounce[kRegisterBytes];
  ssize_t n;
  {
    RcuReadLock rcu;
    n = detail::look_for_hit(mapping, bounce, count, offset);
  }
  if (n > 0) std::memcpy(to, bounce, static_cast<std::size_t>(n));
  return n;
#else
  return detail::look_for_hit(mapping, to, count, offset);
#endif
}

}  // namespace quire
