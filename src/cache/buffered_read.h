// Buffered read. Hits are lock-free (sequence check); misses fill under the invalidate lock. Guarantees: R1, R2.
//
// The fast path, inside RCU, and what each check closes:
//   gate odd over the range            a range operation is half way
//   size loaded, range clipped         (appends raise it inside the odd section of the folio they change)
//   folio's sequence odd               being filled, written or removed
//   identity after the sequence        a second line: RCU keeps frames from being recycled between lookup and load
//   readahead mark                     its first reader starts the next window (slow path)
//   copy
//   sequences, gate unchanged          a writer or range operation came in between
//   size unchanged if reached          an append or truncate moved the end that we clipped to
// Up to 1 KiB goes through the stack, so that bytes past the returned count stay as they were and none that fails its
// check gets out. Longer reads copy straight out, leaving RCU every 16 KiB (removed frames are freed only after a grace
// period, so what is copied is this file's); everything is rechecked at the end.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "cache/fill.h"
#include "cache/mapping.h"
#include "cache/readahead.h"
#include "cache/user_buffer.h"
#include "quire/result.h"

namespace quire {

inline constexpr std::size_t kBounceBytes = 1024;
inline constexpr std::size_t kFastFolios = 257;  // a read of 1 MiB at any offset
inline constexpr std::size_t kFastBytes = (kFastFolios - 1) * kPageSize;
inline constexpr ssize_t kSlow = -1;

// The number of bytes read, or kSlow (counted by reason). No lock, no wait, no system call; no view behind `to`.
ssize_t read_fast(Mapping& mapping, char* to, std::size_t count, std::uint64_t offset);

// The range lock is held (shared or stronger) over [offset, offset + count), which lies before the end of the file:
// what is resident is copied, the rest filled piece by piece. Returns what was copied, or the error of the first piece.
Result<std::size_t> read_locked(Mapping& mapping, UserBuffer& to, std::uint64_t offset, std::size_t count,
                                FrameReservation& frames, ReadaheadState* readahead, const CacheContext& context);

// As read_locked, but stops at what is not resident or not to be had without waiting.
std::size_t read_resident(Mapping& mapping, UserBuffer& to, std::uint64_t offset, std::size_t count);

}  // namespace quire
