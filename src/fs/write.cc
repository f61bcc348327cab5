// Writing a file. A resident folio is written under the range lock and its own lock alone; everything else reserves
// frames and claims its share of the dirty limit first, with nothing held. Guarantees: R1, R2, D1.
// Locks: range (exclusive; to infinity from min(size, offset) where the write ends past the size) > what cache takes.
#include <algorithm>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "cache/buffered_write.h"
#include "cache/flusher.h"
#include "cache/writeback.h"
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
};

// One atomic write of at most max_operation_bytes.
Result<WrittenAt> write_piece(OpenFile& file, std::span<const iovec> vectors, UserBuffer& from, std::uint64_t offset,
                              std::size_t count, bool whole, unsigned io_flags) {
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
    status =
        write_locked(mapping, from, range.offset(), clipped, frames, CacheContext{.owner = brought_in(file, io_flags)});
  }
  range.release();
  cache.dirty.unclaim(folios);
  QUIRE_TRY(status);
  return WrittenAt{clipped, range.offset()};
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
  UserBuffer from(vectors);
  std::size_t done = 0;
  std::uint64_t first = 0, end = 0;
  while (done < count) {
    const std::size_t want =
        std::min<std::uint64_t>(count - done, cache.max_operation_bytes());  // now: a resize changes it
    const auto written = write_piece(file, vectors, from, offset + done, want, want == count, io_flags);
    if (!written.ok()) {
      if (done == 0) return fail(written.errnum());
      break;
    }
    if (done == 0) first = written.value().offset;
    end = written.value().offset + written.value().count;
    done += written.value().count;
    if (written.value().count < want) break;  // kIoWithin: the file ended there, and what comes later is not ours
  }
  if (done == 0) return done;
  if ((io_flags & kIoDropBehind) != 0) drop_behind_write(file, ByteRange{first, end});
  QUIRE_TRY(sync_as_opened(file, ByteRange{first, end}, io_flags));
  return done;
}

}  // namespace quire
