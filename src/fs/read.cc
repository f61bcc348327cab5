// Reading a file. Fast path first; else the range lock, shared over the whole read, which makes it atomic while its
// pieces are filled and copied one after the other. Into mapped views by way of private memory (bounce.h).
// Guarantees: R1, R2, R4.  Locks: range (shared) > what cache takes.
#include <limits.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "cache/buffered_read.h"
#include "fs/bounce.h"
#include "fs/direct.h"
#include "fs/open_file.h"

namespace quire {

Result<std::size_t> vectors_length(std::span<const iovec> vectors) {
  std::size_t sum = 0;
  for (const iovec& v : vectors) {
    if (v.iov_len > SSIZE_MAX - sum) return fail_with(EINVAL, "the buffers' lengths add up to more than SSIZE_MAX");
    sum += v.iov_len;
  }
  return sum;
}

Status check_not_forked(const PageCache& cache) {
  if (!cache.forked.load(memory_order_relaxed)) return {};
  return fail_with(ENOTRECOVERABLE,
                   "this process is a fork of the one that made the cache: a child may only exec or exit");
}

namespace {

Result<std::size_t> read_no_wait(Inode& inode, UserBuffer& to, std::uint64_t offset, std::size_t count) {
  Mapping& mapping = inode.mapping;
  RangeGuard range(inode.range);
  if (!range.try_acquire(offset, offset + count - 1, kShared)) return fail(EAGAIN);
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (offset >= size) return std::size_t{0};
  const std::size_t got = read_resident(mapping, to, offset, std::min<std::uint64_t>(count, size - offset));
  if (got == 0) return fail(EAGAIN);
  return got;
}

Result<std::size_t> read_slow(OpenFile& file, UserBuffer& to, std::uint64_t offset, std::size_t count,
                              unsigned io_flags) {
  Inode& inode = *file.inode;
  Mapping& mapping = inode.mapping;
  PageCache& cache = mapping.cache;
  // No frames yet: readers that waited for the lock with frames in hand would starve the one that has it.
  FrameReservation frames(cache.pool);
  if (has_defect(Defect::reader_keeps_frames)) cache.reserve(frames, 1);
  RangeGuard range(inode.range);
  range.acquire(offset, offset + count - 1, kShared);
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (offset >= size) return std::size_t{0};
  const auto got = read_locked(mapping, to, offset, std::min<std::uint64_t>(count, size - offset), frames,
                               &file.readahead, CacheContext{.owner = brought_in(file, io_flags)});
  if (file.no_reuse.load(memory_order_relaxed)) drop_behind(file, offset);
  if ((io_flags & kIoDropBehind) != 0 && got.ok()) drop_behind_read(file, offset, offset + got.value());
  return got;
}

// One atomic piece of at most max_operation_bytes.
Result<std::size_t> read_piece(OpenFile& file, std::span<const iovec> vectors, UserBuffer& to, std::uint64_t offset,
                               std::size_t count, bool whole, unsigned io_flags) {
  Mapping& mapping = file.inode->mapping;
  if ((io_flags & kIoMissed) != 0) {
    // counted already
  } else if (whole && vectors.size() == 1 && (io_flags & kIoDropBehind) == 0) {
    const ssize_t n = read_fast(mapping, static_cast<char*>(vectors[0].iov_base), count, offset);
    if (n != kSlow) {
      mapping.cache.stats.count_hit(count);
      return static_cast<std::size_t>(n);
    }
  } else {
    mapping.cache.stats.count(vectors.size() == 1 ? Counter::miss_too_long : Counter::miss_vector);
  }
  QUIRE_TRY(check_not_forked(mapping.cache));
  mapping.cache.stats.count_slow_read(count);
  if (goes_direct(file, io_flags)) return read_direct(file, to, offset, count, io_flags);
  if ((io_flags & kIoNoWait) != 0) return read_no_wait(*file.inode, to, offset, count);
  return read_slow(file, to, offset, count, io_flags);
}

// Some of the buffers lie in views: each piece is read into private memory, and goes to them when no lock is held.
[[gnu::cold, gnu::noinline]] Result<std::size_t> read_to_views(OpenFile& file, std::span<const iovec> vectors,
                                                               std::uint64_t offset, std::size_t count,
                                                               unsigned io_flags) {
  PageCache& cache = file.inode->mapping.cache;
  assert_may_touch_views("a read into a view");
  BounceMemory memory(cache);
  std::size_t done = 0;
  while (done < count) {
    const std::size_t want = piece_of(file, count - done, io_flags);
    const auto moved = [&]() -> Result<std::size_t> {
      QUIRE_TRY(memory.resize(want, (io_flags & kIoNoWait) != 0));
      const iovec v{memory.first(want).data(), want};
      UserBuffer to(std::span(&v, 1));
      const auto got = read_piece(file, std::span(&v, 1), to, offset + done, want, true, io_flags);
      QUIRE_TRY(got);
      return store_vectors(vectors, done, memory.first(got.value()));
    }();
    if (!moved.ok() && done == 0) return moved;
    if (!moved.ok()) break;
    done += moved.value();
    if (moved.value() < want) break;
  }
  return done;
}

}  // namespace

Result<std::size_t> file_read(OpenFile& file, std::span<const iovec> vectors, std::uint64_t offset, unsigned io_flags) {
  if (!file.readable) return fail_with(EBADF, "the file was not opened for reading");
  const auto length = vectors_length(vectors);
  QUIRE_TRY(length);
  const std::size_t count = std::min<std::uint64_t>(length.value(), kMaxFileSize - offset);
  if (count == 0) return std::size_t{0};
  if (__builtin_expect(touches_views(vectors), 0)) return read_to_views(file, vectors, offset, count, io_flags);
  const std::uint64_t most = file.inode->mapping.cache.max_operation_bytes();
  UserBuffer to(vectors);
  if (count <= most) return read_piece(file, vectors, to, offset, count, true, io_flags);
  std::size_t done = 0;
  while (done < count) {
    const std::size_t want = piece_of(file, count - done, io_flags);
    const auto got = read_piece(file, vectors, to, offset + done, want, false, io_flags);
    if (!got.ok()) {
      if (done != 0) return done;
      return got;
    }
    done += got.value();
    if (got.value() < want) break;
  }
  return done;
}

}  // namespace quire
