// Copying a range between two files, or within one, each piece as one operation. Guarantees: R1.
// Locks: the cache's copy turn > range (source shared, target exclusive, in the order of inodes) > what cache takes.
//
// The source is read into private memory, and written from there, while both range locks are held. The target's frames
// are claimed (DirtyLimit) and reserved before any lock; the source's are had one fill at a time under the range locks,
// with the target's in hand: claims leave half of all frames to such readers. The private memory is at most one
// operation's, and one copy's at a time (the copy turn).
#include <algorithm>
#include <cerrno>
#include <memory>
#include <new>

#include "base/error.h"
#include "cache/buffered_read.h"
#include "cache/buffered_write.h"
#include "cache/views.h"
#include "fs/open_file.h"
#include "fs/two_ranges.h"

namespace quire {

namespace {

struct Piece {
  std::uint64_t from, offset;
  std::size_t length;
};

// Returns what was copied, less than asked for at the source's end.
Result<std::size_t> copy_locked(OpenFile& source, OpenFile& target, const Piece& piece, std::uint32_t folios) {
  Mapping& from = source.inode->mapping;
  Mapping& to = target.inode->mapping;
  PageCache& cache = to.cache;
  const std::unique_ptr<char[]> bytes(new (std::nothrow) char[piece.length]);
  if (bytes == nullptr) return fail(ENOMEM);
  FrameReservation target_frames(cache.pool), source_frames(cache.pool);
  cache.reserve(target_frames, folios, cache.max_order());
  TwoRanges locks;
  const ByteRange to_bytes{piece.offset, piece.offset + piece.length};
  lock_for_change(locks, *source.inode, {piece.from, piece.from + piece.length}, *target.inode, to_bytes, to_bytes.end);
  const std::uint64_t size = from.size.load(memory_order_acquire);
  if (piece.from >= size) return std::size_t{0};
  const iovec in{bytes.get(), static_cast<std::size_t>(std::min<std::uint64_t>(piece.length, size - piece.from))};
  UserBuffer reader(std::span(&in, 1));
  const auto got = read_locked(from, reader, piece.from, in.iov_len, source_frames, nullptr, CacheContext{});
  QUIRE_TRY(got);
  const iovec out{bytes.get(), got.value()};
  UserBuffer writer(std::span(&out, 1));
  if (piece.offset + got.value() > to.size.load(memory_order_acquire)) zero_past_end(to);
  QUIRE_TRY(write_locked(to, writer, piece.offset, got.value(), target_frames, CacheContext{}));
  return got;
}

Result<std::size_t> copy_piece(OpenFile& source, OpenFile& target, const Piece& piece) {
  Mapping& to = target.inode->mapping;
  const std::uint32_t folios = write_frames(piece.offset, piece.length);
  MutexLock turn(to.cache.copy_turn);  // before the claim: copies that wait must not use up the dirty limit
  QUIRE_TRY(to.cache.dirty.claim(to, folios));
  const auto copied = copy_locked(source, target, piece, folios);
  to.cache.dirty.unclaim(folios);
  return copied;
}

}  // namespace

Result<std::size_t> file_copy(OpenFile& source, std::uint64_t from, OpenFile& target, std::uint64_t offset,
                              std::size_t length) {
  if (!source.readable) return fail_with(EBADF, "the source was not opened for reading");
  if (!target.writable || target.append) {
    return fail_with(EBADF, "the target was not opened for writing at an offset");
  }
  Mapping& mapping = target.inode->mapping;
  QUIRE_TRY(check_not_forked(mapping.cache));
  if (&source.inode->mapping.cache != &mapping.cache) return fail_with(EXDEV, "the two files are open in two caches");
  const std::uint64_t size = source.inode->mapping.size.load(memory_order_acquire);
  if (from >= size || length == 0) return std::size_t{0};
  length = std::min<std::uint64_t>(length, size - from);
  const std::uint64_t limit =
      mapping.backing->fixed_size() ? mapping.size.load(memory_order_acquire) : mapping.backing->max_size();
  if (offset >= limit) {
    return fail_with(mapping.backing->fixed_size() ? ENOSPC : EFBIG, "the target cannot reach the offset");
  }
  length = std::min<std::uint64_t>(length, limit - offset);
  if (source.inode == target.inode && from < offset + length && offset < from + length) {
    return fail_with(EINVAL, "the two ranges of this file overlap");
  }
  std::size_t done = 0;
  while (done < length) {
    const std::size_t most = mapping.cache.max_operation_bytes();  // now: a resize changes it
    const auto copied = copy_piece(source, target, Piece{from + done, offset + done, std::min(most, length - done)});
    if (!copied.ok() && done == 0) return copied;
    if (!copied.ok() || copied.value() == 0) break;
    done += copied.value();
  }
  if (done != 0) QUIRE_TRY(sync_as_opened(target, ByteRange{offset, offset + done}));
  return done;
}

}  // namespace quire
