// Buffered write: private memory into folios. Guarantees: R1, R2.
//
// The caller (fs) holds the range lock exclusively over the bytes, to infinity from min(size, offset) where the write
// ends past the size, and has reserved the frames and thrown in its dirty claim before that lock.
//   one folio          lock, odd, copy, even
//   up to 64 folios    lock all, ascending; all odd before the first changes, none even before the last has: writers of
//                      other ranges run side by side, and no reader sees a part
//   more               lock all; the gate is closed over the range while each folio changes in turn
// Edge folios that are covered in part are filled before any folio is locked. The size changes inside the odd section
// (or closed gate) of what grows with it. Nothing is changed when an error is returned.
// Locks: (range) > invalidate (instantiate, fills of edges only) > folios, ascending > gate > xarray.
#pragma once

#include <cstdint>

#include "cache/mapping.h"
#include "cache/user_buffer.h"
#include "quire/result.h"

namespace quire {

inline constexpr std::uint64_t kFewFolios = 64;

// Starts to fetch what write_fast will store to, so that the misses of the processor's caches pass beside the locks
// before it. A hint: any offset.
void prefetch_for_write(const Mapping& mapping, std::uint64_t offset, std::size_t count);

// Overwrites or appends inside one resident, uptodate folio whose lock is free, and that is unstable already unless
// `may_dirty`. False: nothing done, take write_locked.
bool write_fast(Mapping& mapping, const char* from, std::size_t count, std::uint64_t offset, bool may_dirty);

// Frames that write_locked may need for [offset, offset + count).
constexpr std::uint32_t write_frames(std::uint64_t offset, std::uint64_t count) {
  return static_cast<std::uint32_t>(((offset + count - 1) >> kPageShift) - (offset >> kPageShift) + 1);
}

// Writes all of [offset, offset + count) or nothing. Errors: EIO and others from filling an edge, ENOMEM (index).
Status write_locked(Mapping& mapping, UserBuffer& from, std::uint64_t offset, std::size_t count,
                    FrameReservation& frames, const CacheContext& context);

}  // namespace quire
