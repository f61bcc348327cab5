// Writing a file. A resident folio is written under the range lock and its own lock alone; everything else reserves
// frames and claims its share of the dirty limit first, with nothing held. Guarantees: R1, R2, D1.
// A source in mapped views comes to private memory before all of that (bounce.h): R4.
// Locks: range (exclusive; to infinity from min(size, offset) where the write ends past the size) > what cache takes.
#include <algorithm>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "cache/buffered_write.h"
#include "cache/flusher.h"
#include "cache/views.h"
#include "cache/writeback.h"
#include "fs/bounce.h"
#include "fs/direct.h"
#include "fs/open_file.h"
#include "fs/write_range.h"

namespace quire {
namespace {

bool appends(const OpenFile& file, unsigned io_flags) {
  if ((io_flags & kIoAtOffset) != 0) return false;
  return file.append || (io_flags & kIoAppend) != 0;
}

struct WrittenAt {
  std::size_t count = 0;
  std::uint64_t offset = 0;
  int device_errnum = 0;  // it is in the cache, and was to be on the device as well: why it is not
};

// One atomic write of at most max_operation_bytes. In line, although there are two callers: a twenty-fifth of a write
// of 4 KiB.
[[gnu::always_inline]] inline Result<WrittenAt> write_piece(OpenFile& file, std::span<const iovec> vectors,
                                                            UserBuffer& from, std::uint64_t offset, std::size_t count,
                                                            bool whole, unsigned io_flags) {
  Inode& inode = *file.inode;
  Mapping& mapping = inode.mapping;
  PageCache& cache = mapping.cache;
  const bool append = appends(file, io_flags);
  const bool no_wait = (io_flags & kIoNoWait) != 0;
  WriteRange range(inode);
  const std::uint64_t limit = mapping.backing->max_size();
  const auto past_limit = [&] { return range.offset() > limit || count > limit - range.offset(); };

  // Near the limit on dirty folios a write may still change those that count against it already, unless they cannot be
  // written back, or somebody waits for them to be. (One that becomes stable just before it is made dirty again passes
  // the limit by one, for each writer at that moment.)
  const bool may_dirty = !cache.dirty.near(mapping);
  if (!may_dirty) cache.flusher().kick_background();
  if (whole && vectors.size() == 1 && count <= kPageSize && (io_flags & (kIoWithin | kIoDropBehind)) == 0 &&
      (may_dirty || (mapping.failing.load(memory_order_relaxed) == 0 && !cache.dirty.somebody_waits()))) {
    if (!append) prefetch_for_write(mapping, offset, count);
    QUIRE_TRY(range.acquire(offset, count, append, no_wait));
    if (past_limit()) return fail_with(EFBIG, "the write would end past the largest offset that this file can have");
    if (range.offset() + count > mapping.size.load(memory_order_acquire)) zero_past_end(mapping);
    if (write_fast(mapping, static_cast<const char*>(vectors[0].iov_base), count, range.offset(), may_dirty)) {
      cache.stats.count(Counter::writes_fast);
      return WrittenAt{count, range.offset()};
    }
    range.release();
  }
  if (no_wait) return fail(EAGAIN);

  const std::uint32_t folios = append ? static_cast<std::uint32_t>(count / kPageSize + 2) : write_frames(offset, count);
  constexpr auto kOrder = Defect::frames_reserved_under_range_lock;
  if (has_defect(kOrder)) QUIRE_TRY(range.acquire(offset, count, append, false));
  QUIRE_TRY(cache.dirty.claim(mapping, folios));
  FrameReservation frames(cache.pool);
  cache.reserve(frames, folios, cache.max_order());
  Status status = has_defect(kOrder) ? Status{} : range.acquire(offset, count, append, false);
  std::size_t clipped = count;
  if (status.ok() && (io_flags & kIoWithin) != 0) {
    const std::uint64_t size = mapping.size.load(memory_order_acquire);
    clipped = size <= offset ? 0 : std::min<std::uint64_t>(count, size - offset);
  }
  if (status.ok() && past_limit()) {
    status = fail_with(EFBIG, "the write would end past the largest offset that this file can have");
  } else if (status.ok() && clipped != 0) {
    if (range.offset() + clipped > mapping.size.load(memory_order_acquire)) zero_past_end(mapping);
    status =
        write_locked(mapping, from, range.offset(), clipped, frames, CacheContext{.owner = brought_in(file, io_flags)});
  }
  range.release();
  cache.dirty.unclaim(folios);
  QUIRE_TRY(status);
  return WrittenAt{clipped, range.offset()};
}

// The same, for those who do more besides.
[[gnu::noinline]] Result<WrittenAt> write_piece_plain(OpenFile& file, std::span<const iovec> vectors, UserBuffer& from,
                                                      std::uint64_t offset, std::size_t count, bool whole,
                                                      unsigned io_flags) {
  return write_piece(file, vectors, from, offset, count, whole, io_flags);
}

// Past the cache, or, where that is not to be had, through it and onto the device.
[[gnu::noinline]] Result<WrittenAt> write_piece_direct(OpenFile& file, std::span<const iovec> vectors, UserBuffer& from,
                                                       std::uint64_t offset, std::size_t count, bool whole,
                                                       unsigned io_flags) {
  const auto direct = write_direct(file, from, offset, count, appends(file, io_flags), io_flags);
  QUIRE_TRY(direct);
  if (!direct.value().cached) return WrittenAt{count, direct.value().offset};
  if ((io_flags & kIoNoWait) != 0) return fail(EAGAIN);
  auto written = write_piece_plain(file, vectors, from, offset, count, whole, io_flags | kIoDropBehind);
  QUIRE_TRY(written);
  WrittenAt at = written.value();
  if (at.count == 0) return at;
  const ByteRange bytes{at.offset, at.offset + at.count};
  const Status on_device = write_back(file.inode->mapping, bytes.first_page(), bytes.last_page(), CacheContext{});
  drop_behind_write(file, bytes);
  at.device_errnum = on_device.errnum();
  return at;
}

// What is not an ordinary write: past the cache, or from buffers some of which lie in views. Their bytes past the first
// `done` come to private memory first, as many as can be had.
[[gnu::cold, gnu::noinline]] Result<WrittenAt> write_piece_apart(OpenFile& file, std::span<const iovec> vectors,
                                                                 UserBuffer& given, std::size_t done,
                                                                 std::uint64_t offset, std::size_t count, bool whole,
                                                                 unsigned io_flags) {
  const bool direct = goes_direct(file, io_flags) && (io_flags & kIoWithin) == 0;
  const auto write = direct ? write_piece_direct : write_piece_plain;
  if (!touches_views(vectors)) return write(file, vectors, given, offset, count, whole, io_flags);
  assert_may_touch_views("a write from a view");
  PageCache& cache = file.inode->mapping.cache;
  BounceMemory memory(cache);
  QUIRE_TRY(memory.resize(count, (io_flags & kIoNoWait) != 0));
  RangeGuard early(file.inode->range);  // this and the frames for deliberate mistakes alone
  FrameReservation frames(cache.pool);
  if (has_defect(Defect::view_touched_under_lock)) early.acquire(offset, offset + count - 1, kExclusive);
  if (has_defect(Defect::bounce_after_reserve)) cache.reserve(frames, 1);
  const auto loaded = load_vectors(vectors, done, memory.first(count));
  QUIRE_TRY(loaded);
  early.release();
  const iovec v{memory.first(count).data(), loaded.value()};
  UserBuffer from(std::span(&v, 1));
  return write(file, std::span(&v, 1), from, offset, loaded.value(), true, io_flags);
}

}  // namespace

Result<std::size_t> file_write(OpenFile& file, std::span<const iovec> vectors, std::uint64_t offset,
                               unsigned io_flags) {
  if (!file.writable) return fail_with(EBADF, "the file was not opened for writing");
  PageCache& cache = file.inode->mapping.cache;
  QUIRE_TRY(check_not_forked(cache));
  const auto length = vectors_length(vectors);
  QUIRE_TRY(length);
  if (file.no_reuse.load(memory_order_relaxed)) io_flags |= kIoDropBehind;
  const bool append = appends(file, io_flags);
  std::size_t count = length.value();
  if (count == 0) return std::size_t{0};
  const Mapping& mapping = file.inode->mapping;
  const bool fixed = mapping.backing->fixed_size();
  const std::uint64_t limit = fixed ? mapping.size.load(memory_order_relaxed) : mapping.backing->max_size();
  if (append && fixed) return fail_with(ENOSPC, "a block device cannot grow");
  if (!append && count > limit - std::min(offset, limit)) {
    if (offset >= limit) {
      return fixed ? fail_with(ENOSPC, "offset %llu lies past the end of the block device (%llu bytes)",
                               static_cast<unsigned long long>(offset), static_cast<unsigned long long>(limit))
                   : fail_with(EFBIG, "offset %llu lies past the largest that this file can have (%llu)",
                               static_cast<unsigned long long>(offset), static_cast<unsigned long long>(limit));
    }
    count = limit - offset;  // as much as fits
  }
  const bool views = touches_views(vectors);
  const bool apart = views || goes_direct(file, io_flags);
  UserBuffer from(views ? std::span<const iovec>() : vectors);
  std::size_t done = 0;
  std::uint64_t first = 0, end = 0;
  while (done < count) {
    const std::size_t want = piece_of(file, count - done, io_flags);  // a resize changes it
    const auto written =
        __builtin_expect(apart, 0)
            ? write_piece_apart(file, vectors, from, done, offset + done, want, want == count, io_flags)
            : write_piece(file, vectors, from, offset + done, want, want == count, io_flags);
    if (!written.ok()) {
      if (done == 0) return fail(written.errnum());
      break;
    }
    if (done == 0 && written.value().device_errnum != 0) {
      // It stands in the cache, and is tried again: told here, and to the other handles by their next sync.
      static_cast<void>(check_error(file.inode->mapping, file.error_seen));
      return fail(written.value().device_errnum);
    }
    if (done == 0) first = written.value().offset;
    end = written.value().offset + written.value().count;
    done += written.value().count;
    if (written.value().device_errnum != 0) break;  // what has been counted is in the cache: a sync tells
    if (written.value().count < want) break;        // kIoWithin: the file ended there; or a view of the source did
  }
  if (done == 0) return done;
  if ((io_flags & kIoDropBehind) != 0) drop_behind_write(file, ByteRange{first, end});
  QUIRE_TRY(sync_as_opened(file, ByteRange{first, end}, io_flags));
  return done;
}

}  // namespace quire
