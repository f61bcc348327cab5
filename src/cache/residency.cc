// The walk over the index, in slices. See residency.h.
#include "cache/residency.h"

#include <algorithm>

#include "sync/rcu.h"

namespace quire {
namespace {

constexpr std::uint64_t kSliceEntries = 512;  // a read section holds up the freeing of frames and nodes: 50 us of it

// Of a folio found in the index within this read section: until it ends the descriptor is of that folio's life, or of
// its end. kGone: it has left the mapping meanwhile.
constexpr std::uint32_t kGone = UINT32_MAX;
std::uint32_t state_of(const Mapping& mapping, const Folio& folio, std::uint64_t page) {
  const std::uint32_t flags = folio.flags.load(memory_order_acquire);
  if (!folio_is(folio, &mapping, page)) return kGone;
  if ((flags & kUptodate) == 0) {
    if (folio_of(mapping.pages.load(page)) != &folio) return kGone;  // removal takes the entry away before the flag
    return QUIRE_RUN_FILLING;
  }
  if ((flags & kWriteback) != 0) return QUIRE_RUN_WRITEBACK;
  if ((flags & kDirty) != 0) return QUIRE_RUN_DIRTY;
  if ((flags & kUnflushed) != 0) return QUIRE_RUN_UNFLUSHED;
  return QUIRE_RUN_CLEAN;
}

// The next entry at or after the cursor, as a run; the cursor stays. False: there is none. Gone: a run of length 0.
bool next_run(const Mapping& mapping, const ResidencyCursor& at, quire_residency_run* run, std::uint64_t* next_page) {
  std::uint64_t page = at.page, last = 0;
  const XEntry entry = mapping.pages.find(&page, UINT64_MAX, &last);
  if (entry.empty()) return false;
  *next_page = last + 1;  // 0 after the last page there is
  std::uint32_t state = QUIRE_RUN_GHOST, order = 0;
  if (const Folio* folio = folio_of(entry)) {
    state = state_of(mapping, *folio, page);
    order = folio->order.load(memory_order_relaxed);
  }
  const std::uint64_t pages = state == kGone ? 0 : last - page + 1;
  *run = quire_residency_run{page << kPageShift, pages << kPageShift, state, order};
  return true;
}

}  // namespace

bool append_run(const quire_residency_run& run, std::span<quire_residency_run> out, std::size_t* count) {
  if (*count != 0) {
    quire_residency_run& last = out[*count - 1];
    if (last.offset + last.length == run.offset && last.state == run.state && last.order == run.order) {
      last.length += run.length;
      return true;
    }
  }
  if (*count == out.size()) return false;
  out[(*count)++] = run;
  return true;
}

std::size_t find_residency(const Mapping& mapping, ResidencyCursor& at, std::span<quire_residency_run> out,
                           std::uint64_t max_entries) {
  std::size_t count = 0;
  while (!at.done && max_entries != 0) {
    RcuReadLock rcu;
    for (std::uint64_t i = std::min(max_entries, kSliceEntries); i != 0; --i, --max_entries) {
      quire_residency_run run;
      std::uint64_t next_page = 0;
      if (!next_run(mapping, at, &run, &next_page)) {
        at.done = true;
        return count;
      }
      if (run.length != 0 && !append_run(run, out, &count)) return count;
      at.page = next_page;
      if (next_page == 0) {
        at.done = true;
        return count;
      }
    }
  }
  return count;
}

}  // namespace quire
