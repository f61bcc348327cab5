// OpenFile: a handle on an inode, and the operations on it. Thread safety: every operation from any thread.
// Errors are errno values; the sentence is built by whoever knows the cause (base/error.h).
#pragma once

#include <sys/stat.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "cache/readahead.h"
#include "fs/inode.h"
#include "quire/result.h"

namespace quire {

struct OpenFile {
  Inode* inode = nullptr;
  Mapping* short_hits = nullptr;  // the inode's mapping if readable: what quire_pread asks first
  bool readable = false;
  bool writable = false;
  bool append = false;                        // O_APPEND
  bool direct = false;                        // O_DIRECT
  bool data_sync = false, full_sync = false;  // O_DSYNC, O_SYNC
  Atomic<std::uint64_t> error_seen;           // of the mapping's error sequence
  ReadaheadState readahead;
  // What this handle brings into the cache is told from what others bring and use (advise.cc).
  std::uint32_t owner_bits = 0;      // of Folio::flags
  bool opened_alone = false;         // no other handle was open then
  std::uint64_t opened_as = 0;       // Inode::opens then, this one included
  Atomic<std::uint32_t> submitted;   // requests that are not done (async.h)
  Atomic<bool> no_reuse;             // reads drop what lies behind them
  Atomic<std::uint64_t> dropped_to;  // by them, pages
};

enum IoFlag : unsigned {
  kIoNoWait = 1,
  kIoAppend = 2,
  kIoDataSync = 4,
  kIoSync = 8,
  kIoMissed = 16,       // a read: the caller has just tried read_fast
  kIoAtOffset = 32,     // a write: at the offset, even through a handle that appends
  kIoDropBehind = 128,  // what this call brings into the cache goes again once it is used, and clean
  kIoDirect = 256,      // past the cache, whatever the handle says
  kIoBuffered = 512,    // through it, the same
  kIoStore = 1024,      // a write: a store to a view, which no handle's O_SYNC makes durable
  kIoWithin = 64,       // a write: as much as lies before the end of the file, which stays where it is
};

// --- read.cc ---
// Up to the vectors' length at offset. Splits at PageCache::max_operation_bytes. The buffers may lie in views
// (bounce.h): then the count is of what was stored there, EFAULT if nothing was; with kIoNoWait it is the file, not the
// views, that is not waited for.
Result<std::size_t> file_read(OpenFile& file, std::span<const iovec> to, std::uint64_t offset, unsigned io_flags);

// --- write.cc ---
// So too: the count is of what could be loaded and was written.
Result<std::size_t> file_write(OpenFile& file, std::span<const iovec> from, std::uint64_t offset, unsigned io_flags);

// --- truncate.cc ---
Status file_truncate(OpenFile& file, std::uint64_t size);

// --- fallocate.cc ---
// mode: FALLOC_FL_* as fallocate(2)'s, with its rules and errnos.
Status file_allocate(OpenFile& file, int mode, std::uint64_t offset, std::uint64_t length);
// The first data (or hole) at or after offset, as lseek(2)'s SEEK_DATA and SEEK_HOLE: ENXIO where there is none.
Result<std::uint64_t> file_seek(OpenFile& file, std::uint64_t offset, bool data);

// --- clone.cc: two files, or two ranges of one; locks in the order of inodes, then offsets ---
// FICLONERANGE's rules; length 0: to the end of the source.
Status file_clone(OpenFile& source, std::uint64_t from, OpenFile& target, std::uint64_t offset, std::uint64_t length);
// FIDEDUPERANGE's rules; how many bytes are shared now; EBADE if the ranges differ.
Result<std::uint64_t> file_dedupe(OpenFile& source, std::uint64_t from, OpenFile& target, std::uint64_t offset,
                                  std::uint64_t length);
Status file_exchange(OpenFile& a, std::uint64_t a_offset, OpenFile& b, std::uint64_t b_offset, std::uint64_t length);

// --- copy.cc ---
// copy_file_range(2)'s rules; how many bytes were copied: as one operation up to max_operation_bytes, less where the
// source ends.
Result<std::size_t> file_copy(OpenFile& source, std::uint64_t from, OpenFile& target, std::uint64_t offset,
                              std::size_t length);

// --- sync.cc ---
// Writes back and flushes; then tells this handle of an error that it has not been told of.
Status file_sync(OpenFile& file, bool data_only);
// The same without a handle's memory: for the last close and the cache's end.
Status inode_sync(Inode& inode);
// sync_file_range(2)'s rules and flags; length 0: to the end. EINVAL for other flags.
Status file_sync_range(OpenFile& file, std::uint64_t offset, std::uint64_t length, unsigned flags);
// After a change of these bytes: makes them durable if the handle (O_SYNC, O_DSYNC) or the call's flags ask for it. The
// handle is told of a failure here, and not again.
Status sync_as_opened(OpenFile& file, ByteRange bytes, unsigned io_flags = 0);

// --- advise.cc ---
// When a handle is opened; alone: no other is.
void begin_handle(OpenFile& file, Inode& inode, bool alone);
// Has no other handle of the file been open while this one was?
bool is_alone(const OpenFile& file);
// POSIX_FADV_*; length 0: to the end. EINVAL for other advice.
Status file_advise(OpenFile& file, std::uint64_t offset, std::uint64_t length, int advice);
// A read at `offset` of a handle that reads everything once: drops what it brought in and has read before there.
void drop_behind(OpenFile& file, std::uint64_t offset);
// A read (kIoDropBehind) of [offset, end) has ended: drops of it what such reads brought in.
void drop_behind_read(OpenFile& file, std::uint64_t offset, std::uint64_t end);
// A write that is wanted once has ended: its bytes are written back soon, then dropped.
void drop_behind_write(OpenFile& file, ByteRange bytes);
// The flags for what a call brings in.
inline std::uint32_t brought_in(const OpenFile& file, unsigned io_flags) {
  return file.owner_bits | ((io_flags & kIoDropBehind) != 0 ? std::uint32_t{kDropBehind} : 0U);
}

// --- stat: sync.cc ---
Status file_stat(OpenFile& file, struct stat* out);

// Does this call go past the cache? What is verified does not: it is verified there.
inline bool goes_direct(const OpenFile& file, unsigned io_flags) {
  if (file.inode->mapping.verifier != nullptr) return false;
  return (io_flags & kIoDirect) != 0 || (file.direct && (io_flags & kIoBuffered) == 0);
}

// How much of `left` bytes is one atomic piece. Past the cache an operation is split at whole pages, since what is not
// made of whole blocks goes through it.
inline std::size_t piece_of(const OpenFile& file, std::size_t left, unsigned io_flags) {
  const std::uint64_t most = file.inode->mapping.cache.max_operation_bytes();
  if (left <= most) return left;
  return goes_direct(file, io_flags) ? round_down(most, kPageSize) : most;
}

// Sum of the vectors' lengths; EINVAL if it passes SSIZE_MAX.
Result<std::size_t> vectors_length(std::span<const iovec> vectors);

// The child of a fork may not touch the cache: ENOTRECOVERABLE.
Status check_not_forked(const PageCache& cache);

}  // namespace quire
