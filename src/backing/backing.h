// What a file's bytes live in: extents over a device. Implementations: RamBacking, HostBacking (and the pool, later).
// Called by cache and fs only, per batch and never per byte. Offsets and lengths in bytes.
//
// Thread safety: every call from any thread. The caller orders them: map/prepare/commit of a range run under the
// invalidate lock (instantiate or stronger) over it, set_size under `remove` from the smaller size to the end.
// A hole or unwritten extent reads as zero and is never read from the device.
#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "device/device.h"
#include "quire/result.h"

namespace quire {

enum class ExtentKind : std::uint8_t { hole, unwritten, written };

struct Extent {
  std::uint64_t offset = 0;  // in the file
  std::uint64_t length = 0;
  std::uint64_t address = 0;  // on the device; meaningless for a hole
  ExtentKind kind = ExtentKind::hole;
  bool shared = false;  // another file or range refers to the same blocks: copy before write
};

class Backing {
 public:
  virtual ~Backing() = default;

  virtual Device& device() = 0;
  virtual std::uint64_t size() const = 0;      // bytes that the backing holds; the cache's size may be ahead of it
  virtual std::uint64_t max_size() const = 0;  // no write may end past it (EFBIG)
  virtual bool fixed_size() const = 0;         // a block device: neither grows nor shrinks
  virtual unsigned block_size() const = 0;     // allocation unit in bytes, a power of two, at most kPageSize
  // Writes end at a multiple of this many bytes, zeros past the end of the file; 1: exactly at the end of the file.
  virtual unsigned write_alignment() const = 0;

  // The extent that covers offset, clipped to [offset, offset + length). Past size(): a hole.
  virtual Result<Extent> map(std::uint64_t offset, std::uint64_t length) = 0;
  // Makes [offset, offset + length) writable: allocates, or replaces what is shared. Returns the first extent, clipped;
  // the caller repeats for the rest. Nothing the file reads as changes before commit.
  virtual Result<Extent> prepare(std::uint64_t offset, std::uint64_t length) = 0;
  // The device holds the data of [offset, offset + length): from now on the file reads as it. Grows size() to cover
  // min(offset + length, end_of_file) where end_of_file is the cache's size.
  virtual Status commit(std::uint64_t offset, std::uint64_t length, std::uint64_t end_of_file) = 0;
  // Truncates or extends (with a hole). Bytes past a smaller size are gone, also inside the last block.
  virtual Status set_size(std::uint64_t size) = 0;

  // --- Range operations: Linux's, with its argument rules where they depend on the file system (block alignment, what
  // is supported). The caller holds `remove` over all that changes, so nothing of it is being read or written on the
  // device, and has written back what the comment asks for. All of it happens or, on failure, as far as the backing
  // can, nothing. EOPNOTSUPP where there is no such operation. length > 0; offset + length <= max_size().

  // Blocks for [offset, offset + length), where there are none, that read as zero. May grow size() to offset + length
  // unless keep_size.
  virtual Status allocate(std::uint64_t offset, std::uint64_t length, bool keep_size);
  // Reads as zeros; whole blocks become holes. Bytes at the edges of blocks that are not whole are zeroed. size()
  // stays.
  virtual Status punch(std::uint64_t offset, std::uint64_t length);
  // Reads as zeros; blocks stay or become allocated. May grow size() to offset + length unless keep_size.
  virtual Status zero(std::uint64_t offset, std::uint64_t length, bool keep_size);
  // Blocks of its own for what is shared in the range. Nothing is dirty in it.
  virtual Status unshare(std::uint64_t offset, std::uint64_t length);
  // Takes the range out of the file, or inserts a hole there; what follows moves. Block-aligned, else EINVAL. Nothing
  // is dirty from offset on, and size() is the file's size.
  virtual Status collapse(std::uint64_t offset, std::uint64_t length);
  virtual Status insert(std::uint64_t offset, std::uint64_t length);
  // [offset, offset + length) of this file refers to the blocks of [from, from + length) of `source` (maybe this file,
  // ranges then disjoint). Aligned to blocks, but the end may be the end of the source and past that of this file.
  // Nothing of the source's range is dirty, and its size() reaches it. May grow size().
  virtual Status clone(Backing& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length);
  // The same for bytes that are equal in both (else EBADE), which thereby change nowhere. Nothing of either is dirty.
  // Returns how many bytes it compared and shared, at least one block.
  virtual Result<std::uint64_t> dedupe(Backing& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length);
  // Swaps [offset, offset + length) of this file with [at, at + length) of `other`. Block-aligned, inside both sizes
  // but for a common end of both. Nothing of either is dirty.
  virtual Status exchange(Backing& other, std::uint64_t at, std::uint64_t offset, std::uint64_t length);
  // The first byte at or after offset that is data (or lies in a hole; the end of the file is one). ENXIO: none, or
  // offset >= size(). Unwritten blocks may count as either.
  virtual Result<std::uint64_t> seek_data(std::uint64_t offset);
  virtual Result<std::uint64_t> seek_hole(std::uint64_t offset);

  // Durable: data, extents and size. Returns what the device or host said.
  virtual Status sync(bool data_only) = 0;
  virtual Status stat(struct stat* out) = 0;
};

}  // namespace quire
