// Writeback and flush of a mapping. Guarantees: D1, R3.
//
// A folio goes dirty -> writeback -> unflushed -> clean (mapping.h); only a flush of the backing that began after the
// write ended makes it clean, and a failed write or flush makes it dirty again, so that a later sync can succeed.
// Locks: invalidate (instantiate, for each batch to its completion, unless the context covers it) > folio (one at a
// time, to flip the state) > backing. flush_mutex is held across a flush, with none of these inside but the xarray's.
#pragma once

#include <cstdint>

#include "cache/mapping.h"
#include "quire/result.h"

namespace quire {

// How far a writeback has come.
struct WritebackCursor {
  std::uint64_t page = 0;   // where to go on
  std::uint64_t pages = 0;  // that were dirty, or in writeback by others
  int error = 0;            // the first there was
};

// Writes back the dirty folios in [at->page, last_page], about max_pages at most. Returns whether that was all:
// at->page is then last_page + 1, or 0 on wrap. Folios in writeback by others are waited for if `wait`, else skipped.
// Errors are recorded for the handles.
bool write_back_some(Mapping& mapping, WritebackCursor* at, std::uint64_t last_page, std::uint64_t max_pages, bool wait,
                     const CacheContext& context);

// Waits until none of [first_page, last_page] is being written.
void wait_for_writeback(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page);

// The first dirty page from *page on; false if there is none up to last_page.
bool next_dirty(Mapping& mapping, std::uint64_t* page, std::uint64_t last_page);
inline constexpr std::uint64_t kWritebackBatchPages = 1024;  // what goes to the device together, at most

// The last page that can be dirty now: who writes back to here does not follow an appender.
inline std::uint64_t last_page_now(const Mapping& mapping) {
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  return size == 0 ? 0 : (size - 1) >> kPageShift;
}

// All of [first_page, last_page], waiting for what others are writing.
Status write_back(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, const CacheContext& context);

// The backing learns of a larger size by the writeback of the bytes that made it larger. Writes back as much as it
// takes for the backing's size to reach min(end, the size), end in bytes. Before an operation that drops dirty folios
// up to there, or asks the backing for what lies there.
Status write_back_size(Mapping& mapping, std::uint64_t end);

// Makes durable what was written back before the call. No I/O if nothing was.
Status flush(Mapping& mapping, bool data_only);

// write_back and flush, again if another thread's flush failed in between: on success all of [first_page, last_page]
// that was dirty at the call is durable.
Status sync_range(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, bool data_only,
                  const CacheContext& context = {});

// --- errors, each told once to every handle ---

// What a new handle has seen: errors nobody was told of yet are still told to it.
std::uint64_t sample_error(const Mapping& mapping);
void record_error(Mapping& mapping, int errnum);
// The error recorded since *seen, or 0; advances *seen.
int check_error(Mapping& mapping, Atomic<std::uint64_t>& seen);

}  // namespace quire
