// Direct reads and writes: between the device and the caller's memory, past the cache and coherent with it. Guarantees:
// R1, R2, R3.
//
// Units: a sector is what the backing's device asks direct requests to be aligned to, a block its unit of allocation.
// A direct operation holds the range lock over its bytes (shared to read, exclusive to write) and the invalidate lock
// in mode `direct` over its pages, both from before it looks for folios to the device's completion. What is resident
// goes through the cache: a read copies it from there; a write that meets any folio, or is not made of whole blocks, is
// a buffered write whose writeback it waits for. So no folio lies over bytes that a direct write changes:
//
//   meets                             could                            what closes it
//   fill, readahead of the page       put old bytes into a folio that  they hold `instantiate` from before they look
//                                     stays                            until the folio is filled
//   buffered write of a whole page,   the same                         it has the range lock over that page,
//   which takes no `instantiate`                                       exclusively
//   buffered write of other bytes of  lose one of the two              resident: we go through the cache; absent: its
//   a page                                                             edge fill waits for `direct`
//   writeback of a dirty folio        land after us                    there is a folio: we go through the cache; one
//                                                                      under way is waited for by `direct`
//   a folio that came or left since   -                                looked at again under both locks; then all is
//   it was looked for                                                  given up and begun again
//   truncate, punch, clone, dedupe    move or free blocks that are     they take `remove`, dedupe and writeback of
//                                     being read or written            shared blocks included: so reads take `direct`,
//                                                                      too
//   append, extending write           a size that is no more           the range lock reaches to infinity
//   fast read                         mix old and new                  it finds no folio, and waits for the range lock
//   a flush that began before         call our bytes durable           note_changed comes after the completion
//   a hole that is being filled, on   show what the disk held before   begin_direct; such holes are filled through the
//   hosts without unwritten extents                                    host, apart from all direct I/O of the file
//   an O_DIRECT write of the host's   fail the host's next fsync with  what quire sends through the host's cache is
//   over a page dirty in its cache    EIO                              under the same locks as what it sends past it
//
// A write of sectors that are not whole blocks goes in place where the block holds data of this file alone. A block
// that holds nothing yet is written whole, zeros around what is new: then the range is locked to the block's edges, so
// that two such writers do not zero each other's bytes (the host, left to itself, would let one write at a time into a
// file for that). Which blocks those are is looked up before the locks, to know what to lock, and again under them. A
// block that others share, or that the file ends in, goes through the cache.
//
// An operation that fails leaves each block old, new or torn, and the size as it was.
// Locks: range > invalidate (direct) > folio (one that failed to fill, to remove it) > gate (the size).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "cache/user_buffer.h"
#include "device/device.h"
#include "fs/open_file.h"
#include "fs/write_range.h"

namespace quire {

// Page-aligned memory for one operation, in the account of the cache.
class PrivateMemory {
 public:
  static constexpr std::size_t kMost = 256 * 1024;

  explicit PrivateMemory(PageCache& cache) : cache_(cache) {}
  ~PrivateMemory();
  PrivateMemory(const PrivateMemory&) = delete;
  PrivateMemory& operator=(const PrivateMemory&) = delete;

  // At most kMost of `wanted` bytes. Once made it stays as large as it is: the first asks for the most. ENOMEM.
  Status make(std::size_t wanted);
  // Would so much more, besides what all have now, stay within a 1/64 of the memory? For requests that nobody waits
  // for: their number is not that of any threads.
  static bool may_have_more(PageCache& cache, std::size_t wanted);
  char* bytes() { return bytes_; }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::size_t kShare = 64;

  PageCache& cache_;
  char* bytes_ = nullptr;
  std::size_t size_ = 0;
};

// What a direct write of [offset, end) has to lock and to write: more than that where a block at an edge holds nothing
// yet, and all of a stretch around it that is unwritten. As of now: good for as long as the locks over it are held.
struct DirectExtent {
  bool cached;  // it has to go through the cache
  std::uint64_t low, high;
  bool within(const DirectExtent& locked) const { return locked.low <= low && high <= locked.high; }
};
// held: what is locked; where less than a stretch is, it asks for none.
Result<DirectExtent> direct_extent(Mapping& mapping, std::uint64_t offset, std::uint64_t end,
                                   const DirectExtent* held = nullptr);
// Is there any on these pages just now?
bool any_folio(Mapping& mapping, std::uint64_t page, std::uint64_t last);

// The locks of one direct operation and its requests to the device. On the stack of a call that waits, or part of an
// asynchronous request, whose completion then owns it (detach).
class DirectIo {
 public:
  static constexpr std::size_t kMaxRequests = 8;

  explicit DirectIo(Inode& inode)
      : memory(inode.mapping.cache),
        inode_(inode),
        read_range_(inode.range),
        write_range_(inode),
        direct_(inode.mapping.invalidate) {}

  // EAGAIN if not `wait` and not to be had at once. A write that passes the end locks to infinity; append: at the end.
  Status lock_to_read(std::uint64_t offset, std::size_t count, bool wait);
  Status lock_to_write(std::uint64_t offset, std::size_t count, bool append, bool wait);
  std::uint64_t offset() const { return write_range_.offset(); }  // of a write
  void unlock();
  void detach();

  // Is any byte of [offset, end) in the cache? Takes out what is there without bytes, since its fill failed. Under the
  // locks.
  bool resident(std::uint64_t offset, std::uint64_t end);

  // Requests for [offset, end), which are multiples of the sector, as is where `bytes` lie; as far as kMaxRequests go:
  // returns the end of what is planned. Reading, holes are zeroed here. Writing, the ends are multiples of the block,
  // or lie in blocks that are written in place.
  Result<std::uint64_t> plan(IoOp op, char* bytes, std::uint64_t offset, std::uint64_t end);
  std::span<Request* const> requests() const { return {list_.data(), list_count_}; }
  // Around their time at the device, under the locks (Backing::begin_direct). False: not to be had without waiting.
  bool begin_device(bool wait) { return inode_.backing->begin_direct(hold_, wait); }
  void end_device() { inode_.backing->end_direct(hold_); }
  // All of them are done: how far all is well, from the first offset on. errnum: of the first that is not, or 0.
  // EINVAL: the host takes no direct request after all.
  std::uint64_t outcome(int* errnum) const;
  void send_through_host();  // those that were refused, next time

  PrivateMemory memory;  // what does not go straight from or to the caller's

 private:
  Inode& inode_;
  RangeGuard read_range_;
  WriteRange write_range_;
  RangeGuard direct_;
  DirectHold hold_;
  std::uint64_t first_ = 0, planned_to_ = 0, file_end_ = 0;
  std::size_t count_ = 0;
  std::size_t list_count_ = 0;
  std::array<Request, kMaxRequests> requests_;
  std::array<Request*, kMaxRequests> list_;
  std::array<iovec, kMaxRequests> vectors_;
  std::array<std::uint64_t, kMaxRequests> offsets_;  // in the file
};

// One piece of at most max_operation_bytes. EAGAIN with kIoNoWait.
Result<std::size_t> read_direct(OpenFile& file, UserBuffer& to, std::uint64_t offset, std::size_t count,
                                unsigned io_flags);

struct DirectWritten {
  bool cached = false;  // nothing was done: this one goes through the cache
  std::uint64_t offset = 0;
};
// All of one piece, or nothing that counts.
Result<DirectWritten> write_direct(OpenFile& file, UserBuffer& from, std::uint64_t offset, std::size_t count,
                                   bool append, unsigned io_flags);

// The first folio that holds a page of [page, last], referenced; null: none.
Folio* next_folio(Mapping& mapping, std::uint64_t page, std::uint64_t last);

// The multiple that direct requests of this backing are made of; 1 where they go through the host.
inline std::uint64_t sector_of(const Backing& backing) { return std::max(backing.direct_alignment(), 1U); }
// What a direct write has to consist of.
inline std::uint64_t whole_block_of(const Backing& backing) {
  return std::max<std::uint64_t>(backing.block_size(), sector_of(backing));
}
// Into the private memory: what a write has for its extent, zeros around it. ENOMEM.
Status compose(DirectIo& io, UserBuffer& from, std::uint64_t offset, std::uint64_t end, const DirectExtent& extent);
// Under the locks, after the device has it: [offset, end) is the file's now, and the size at least `end`.
Status commit_direct(Mapping& mapping, std::uint64_t offset, std::uint64_t end);
// The same after a write that failed: some of it may be on the device.
void direct_failed(Mapping& mapping, const DirectExtent& extent);

}  // namespace quire
