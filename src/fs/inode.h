// Inode: one file of a cache, with its range lock over its mapping. Guarantees: R1, R5.
//
// Range lock: bytes, inclusive; shared for slow reads, exclusive for writes and range operations. Operations that move
// the end lock from the smaller of the old and new size to infinity and read the size again under the lock.
// Lock order: range (inode id, offset) > invalidate (inode id, page) > folios (inode id, index) > gate > xarray.
#pragma once

#include <cstdint>
#include <memory>

#include "backing/backing.h"
#include "cache/mapping.h"
#include "sync/range_lock.h"

namespace quire {

extern LockClass range_lock_class;

enum RangeMode : std::uint8_t { kShared = 0, kExclusive = 1 };
inline constexpr RangeModes kRangeModes{{0b01, 0b00, 0, 0}};

// Bytes [offset, end), not empty.
struct ByteRange {
  std::uint64_t offset, end;
  std::uint64_t first_page() const { return offset >> kPageShift; }
  std::uint64_t last_page() const { return (end - 1) >> kPageShift; }
  std::uint64_t page_start() const { return round_down(offset, kPageSize); }
  std::uint64_t page_end() const { return round_up(end, kPageSize); }
  ByteRange around(std::uint64_t alignment) const { return {round_down(offset, alignment), round_up(end, alignment)}; }
};

struct Inode {
  Inode(PageCache& cache, std::unique_ptr<Backing> file_backing, std::uint64_t inode_id)
      : id(inode_id),
        backing(std::move(file_backing)),
        mapping(cache, *backing, inode_id, backing->size()),
        range(range_lock_class, kRangeModes, inode_id) {}

  const std::uint64_t id;            // unique in the process; orders locks
  std::unique_ptr<Backing> backing;  // replaced only while no handle is open
  Mapping mapping;
  RangeLock range;
  Atomic<std::uint64_t> opens;  // handles that there ever were
};

}  // namespace quire
