// The hit path of reads, in line: what quire_pread does before anything else. buffered_read.h says what each check
// closes; buffered_read.cc has the longer shapes. Guarantees: R1, R2.  Locks: none.
#pragma once

#include "cache/buffered_read.h"
#include "sync/rcu.h"

namespace quire {

// A fast read that gives up: counts why, returns kSlow. read_left_at looks again for the reason, so it may name another
// than the one that struck.
[[gnu::cold]] ssize_t read_left(Mapping& mapping, Counter why);
[[gnu::cold]] ssize_t read_left_at(Mapping& mapping, std::uint64_t page);
// A read that starts at or past the end: nothing to copy.
[[gnu::cold]] ssize_t read_past_end(Mapping& mapping, std::uint64_t gate, std::uint64_t size);

// Looks a page up and checks that it may be copied from. Null: read_left_at() says why. Inside RCU.
[[gnu::always_inline]] inline const Folio* find_for_copy(Mapping& mapping, std::uint64_t page,
                                                         std::uint64_t* sequence) {
  Folio* folio = folio_of(mapping.pages.load(page));
  if (__builtin_expect(folio == nullptr, 0)) return nullptr;
  *sequence = folio->sequence.read_begin();
  if (__builtin_expect(Sequence::is_odd(*sequence), 0)) return nullptr;        // being filled, written or removed
  if (__builtin_expect(!folio_is(*folio, &mapping, page), 0)) return nullptr;  // recycled between lookup and load
  const std::uint32_t flags = folio->flags.load(memory_order_relaxed);
  if (__builtin_expect((flags & (kReadahead | kReferenced)) != kReferenced, 0)) {
    if ((flags & kReadahead) != 0) return nullptr;  // its first reader starts the next window
    folio->flags.fetch_or(kReferenced, memory_order_relaxed);
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

// 1 to kRegisterBytes bytes inside one page and before the end of the file. The number of bytes, or kSlow.
[[gnu::always_inline]] inline ssize_t read_hit(Mapping& mapping, char* to, std::size_t count, std::uint64_t offset) {
  std::uint64_t gate;
  if (__builtin_expect(!mapping.gate.read_begin(offset, offset + count, &gate), 0)) {
    return read_left(mapping, Counter::miss_gate);
  }
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (__builtin_expect(offset + count > size || (offset & (kPageSize - 1)) + count > kPageSize, 0)) {
    return read_fast(mapping, to, count, offset);
  }
  std::uint64_t sequence;
  rcu_read_lock();
  const Folio* folio = find_for_copy(mapping, offset >> kPageShift, &sequence);
  if (__builtin_expect(folio == nullptr, 0)) {
    rcu_read_unlock();
    return read_left_at(mapping, offset >> kPageShift);
  }
  const bool copied = copy_short_if_valid(to, page_bytes(mapping, folio, offset), count, [&] {
    validate_fence();
    const bool same = folio->sequence.unchanged(sequence) && mapping.gate.unchanged(gate);
    rcu_read_unlock();
    return same;
  });
  if (__builtin_expect(!copied, 0)) return read_left(mapping, Counter::miss_changed);
  return static_cast<ssize_t>(count);
}

}  // namespace quire
