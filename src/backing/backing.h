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
#include "sync/hole_lock.h"

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
  // What offset, lengths and memory of a direct_only request must be multiples of, in bytes, a power of two; 0: the
  // device takes none. It may refuse one all the same (-EINVAL). Changes when the first writer opens the file.
  virtual unsigned direct_alignment() const { return 0; }

  // The extent that covers offset, clipped to [offset, offset + length). Past size(): a hole. What reads as zeros may
  // be called written, if its address does, too.
  virtual Result<Extent> map(std::uint64_t offset, std::uint64_t length) = 0;
  // The same, and what is called written holds data: for who writes less than a block. A host tells no hole from an
  // unwritten extent: both are unwritten, or both holes, and their address is good. It is asked for what is not known
  // yet, which may take as long as writing back all that it has cached of the file. Asked without the locks, the answer
  // may be outdated.
  virtual Result<Extent> map_exact(std::uint64_t offset, std::uint64_t length) { return map(offset, length); }
  // Makes [offset, offset + length), whole blocks, writable: allocates, or replaces what is shared. Returns the first
  // extent, clipped; the caller repeats for the rest. Nothing the file reads as changes before commit.
  // Every block is prepared that is written as a whole. Bytes within one go in place, to where map_exact says, and only
  // if it is written there and not shared; nothing is prepared for them.
  virtual Result<Extent> prepare(std::uint64_t offset, std::uint64_t length) = 0;
  // The device holds the data of [offset, offset + length): from now on the file reads as it. Grows size() to cover
  // min(offset + length, end_of_file) where end_of_file is the cache's size. Of the first and the last block the range
  // may cover a part: one that was written in place.
  virtual Status commit(std::uint64_t offset, std::uint64_t length, std::uint64_t end_of_file) = 0;
  // In the place of commit, if the write failed: the device may hold any of it or none. Some of it is the file's by
  // now where the host's own write came half way.
  virtual void write_failed(std::uint64_t offset, std::uint64_t length) {
    static_cast<void>(offset), static_cast<void>(length);
  }
  // After a write that was to pass the end of the file and failed: where it came half way, the file has `size` bytes
  // again. Nothing past them is being read, written or committed.
  virtual void cut_back(std::uint64_t size) { static_cast<void>(size); }
  // False: a hole that is written to is the file's before its bytes are on the device. The device then keeps plain
  // writes (path any or through_host; executed, not submitted) apart from direct I/O by itself; for direct_only
  // requests the caller does, by begin_direct: those go to written blocks alone, and holes are filled by write_through.
  virtual bool unwritten_extents() const { return true; }
  // Around direct_only requests, reads and writes, from before they are sent to their completion; end_direct by any
  // thread, before the file may be closed. False: somebody fills a hole, and `wait` is not set. Under no other hold on
  // the same file in this thread; no plain writes to it in between.
  virtual bool begin_direct(DirectHold& hold, bool wait) {
    static_cast<void>(hold), static_cast<void>(wait);
    return true;
  }
  virtual void end_direct(DirectHold& hold) { static_cast<void>(hold); }
  // In the place of prepare and a request, before commit: writes through the host's cache, where there is one; holes
  // and unwritten blocks as a whole. Without unwritten extents it is on the device when this returns, and no direct I/O
  // of the file was under way. May wait for that, so never on quire's I/O thread.
  virtual Status write_through(std::uint64_t offset, std::span<const iovec> buffers);
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
