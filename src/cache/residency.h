// What of a file is in the cache, as runs of whole pages in one state: for people who watch, not for the I/O paths.
//
// Locks: none; RCU, over at most kSliceEntries entries of the index at a time. Beside concurrent changes each folio is
// reported as it was at some instant of the call, different folios at different instants: a folio that is there
// throughout is always reported, one that comes or goes meanwhile may be or not.
#pragma once

#include <cstdint>
#include <span>

#include "cache/mapping.h"
#include "quire/quire.h"

namespace quire {

// Where a walk has got to.
struct ResidencyCursor {
  std::uint64_t page = 0;  // the next to be looked at
  bool done = false;       // nothing lies there or beyond
};

// Fills `out` with runs from the cursor on, ascending, neighbours of one state and order merged; looks at max_entries
// entries of the index at most. Returns how many runs; the cursor stands after the last. A run that goes on there is
// continued by the next call's first.
std::size_t find_residency(const Mapping& mapping, ResidencyCursor& at, std::span<quire_residency_run> out,
                           std::uint64_t max_entries = UINT64_MAX);

// Adds `run` to the `count` of `out`, to the last one if it goes on there. False: there is no room.
bool append_run(const quire_residency_run& run, std::span<quire_residency_run> out, std::size_t* count);

}  // namespace quire
