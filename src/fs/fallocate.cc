// Range operations on one file, and where its data and holes are. Guarantees: R1, R2, D1.
// Locks: range (exclusive; to infinity where the size changes or what follows moves) > invalidate (remove, the same in
// pages) > flush, cache.
//
// In each: the range lock; what must be on the backing is written back (where it is much, under `remove`, whose context
// the flush is told); `remove` drains fills and writeback; views
// show nothing of it any more (and nothing again until it is given up); the backing changes; only on success the cache
// does. On failure the cache is as it was, every dirty byte in it.
#include <linux/falloc.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "cache/invalidate.h"
#include "cache/views.h"
#include "cache/writeback.h"
#include "fs/open_file.h"
#include "fs/write_range.h"

namespace quire {

namespace {

constexpr int kModes = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE |
                       FALLOC_FL_UNSHARE_RANGE;

Status check_mode(int mode) {
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_UNSHARE_RANGE:
      return {};
    case FALLOC_FL_PUNCH_HOLE:
      if (keep_size) return {};
      return fail_with(EOPNOTSUPP, "FALLOC_FL_PUNCH_HOLE goes with FALLOC_FL_KEEP_SIZE only");
    case FALLOC_FL_COLLAPSE_RANGE:
    case FALLOC_FL_INSERT_RANGE:
      if (!keep_size) return {};
      return fail_with(EOPNOTSUPP, "collapsing and inserting change the size: not with FALLOC_FL_KEEP_SIZE");
    default:
      return fail_with(EOPNOTSUPP, "fallocate mode %#x is not one that quire knows", static_cast<unsigned>(mode));
  }
}

// After a change of the backing. If it failed otherwise than by a refusal, a host may have done a part: what is clean
// is dropped, so that the cache says what the host says; what is not stays, to be written again.
Status settle(Mapping& mapping, ByteRange bytes, Status status) {
  note_changed(mapping);
  const int errnum = status.errnum();
  if (errnum != 0 && errnum != EOPNOTSUPP && errnum != EINVAL) {
    remove_clean_folios(mapping, bytes.first_page(), bytes.last_page());
  }
  return status;
}

// Plain allocation, zeroing and unsharing: what may only grow the file.
Status change_in_place(Inode& inode, int mode, ByteRange bytes) {
  Mapping& mapping = inode.mapping;
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const std::uint64_t length = bytes.end - bytes.offset;
  WriteRange range(inode);
  // Around folios: a failure may drop them, and a writer of the same folio may count on one.
  const ByteRange around = bytes.around(mapping.cache.folio_alignment());
  QUIRE_TRY(range.acquire(around.offset, around.end - around.offset, false, false));
  const std::uint64_t old_size = mapping.size.load(memory_order_acquire);
  const std::uint64_t new_size = keep_size ? old_size : std::max(old_size, bytes.end);
  QUIRE_TRY(write_back_size(mapping, bytes.end));
  RangeGuard remove(mapping.invalidate);
  remove.acquire(round_down(std::min(bytes.offset, old_size), mapping.cache.folio_alignment()) >> kPageShift,
                 new_size == old_size ? around.last_page() : kRangeEnd, kRemove);
  take_from_views(mapping, remove.request().first(), remove.request().last());
  const CacheContext context{has_defect(Defect::flush_without_context) ? nullptr : &remove.request()};
  if (new_size > old_size) zero_past_end(mapping);
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case FALLOC_FL_ZERO_RANGE:
      QUIRE_TRY(settle(mapping, bytes, mapping.backing->zero(bytes.offset, length, keep_size)));
      zero_cache(mapping, bytes.offset, bytes.end, new_size == old_size ? 0 : new_size);
      return {};
    case FALLOC_FL_UNSHARE_RANGE:
      QUIRE_TRY(write_back(mapping, bytes.first_page(), bytes.last_page(), context));
      QUIRE_TRY(settle(mapping, bytes, mapping.backing->unshare(bytes.offset, length)));
      if (new_size != old_size) {  // as Linux does without KEEP_SIZE
        QUIRE_TRY(mapping.backing->set_size(new_size));
        note_changed(mapping);
      }
      break;
    default:
      QUIRE_TRY(settle(mapping, bytes, mapping.backing->allocate(bytes.offset, length, keep_size)));
  }
  if (new_size != old_size) truncate_cache(mapping, new_size);
  return {};
}

Status punch_hole(Inode& inode, ByteRange bytes) {
  Mapping& mapping = inode.mapping;
  RangeGuard range(inode.range);
  const ByteRange around = bytes.around(mapping.cache.folio_alignment());
  range.acquire(around.offset, around.end - 1, kExclusive);
  QUIRE_TRY(write_back_size(mapping, bytes.end));
  RangeGuard remove(mapping.invalidate);
  remove.acquire(around.first_page(), around.last_page(), kRemove);
  take_from_views(mapping, around.first_page(), around.last_page());
  QUIRE_TRY(settle(mapping, bytes, mapping.backing->punch(bytes.offset, bytes.end - bytes.offset)));
  zero_cache(mapping, bytes.offset, bytes.end, 0);
  return {};
}

// Collapse and insert. From the page of the offset on everything is written back, flushed and, once the backing has
// moved it, dropped: folios never change their index while they live.
Status shift(Inode& inode, bool insert, ByteRange bytes) {
  Mapping& mapping = inode.mapping;
  const std::uint64_t length = bytes.end - bytes.offset;
  if (mapping.backing->fixed_size()) return fail_with(EOPNOTSUPP, "a block device cannot collapse or insert a range");
  RangeGuard range(inode.range);
  for (;;) {
    const std::uint64_t first =
        round_down(std::min(mapping.size.load(memory_order_acquire), bytes.offset), mapping.cache.folio_alignment());
    range.acquire(first, kRangeEnd, kExclusive);
    if (mapping.size.load(memory_order_acquire) >= first) break;
    range.release();  // it shrank between the look and the lock
  }
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (insert && bytes.offset >= size) return fail_with(EINVAL, "an insertion begins before the end of the file");
  if (!insert && bytes.end >= size) {
    return fail_with(EINVAL, "a collapse that reaches the end of the file would be a truncation: truncate it");
  }
  if (insert && length > mapping.backing->max_size() - size) {
    return fail_with(EFBIG, "the file would grow past the largest that it can be");
  }
  RangeGuard remove(mapping.invalidate);
  remove.acquire(bytes.around(mapping.cache.folio_alignment()).first_page(), kRangeEnd, kRemove);
  take_from_views(mapping, remove.request().first(), kRangeEnd);
  const CacheContext context{has_defect(Defect::flush_without_context) ? nullptr : &remove.request()};
  if (has_defect(Defect::cache_dropped_before_backing)) remove_folios(mapping, bytes.first_page(), UINT64_MAX);
  // Flushed too: what is dropped cannot become dirty again should a later flush fail.
  QUIRE_TRY(sync_range(mapping, bytes.first_page(), UINT64_MAX, true, context));
  const Status moved =
      insert ? mapping.backing->insert(bytes.offset, length) : mapping.backing->collapse(bytes.offset, length);
  if (!moved.ok()) {
    static_cast<void>(settle(mapping, ByteRange{bytes.offset, kMaxFileSize}, moved));
    if (mapping.backing->size() != size) truncate_cache(mapping, mapping.backing->size());  // it got half way
    return moved;
  }
  note_changed(mapping);
  replace_cache(mapping, bytes.first_page(), UINT64_MAX, insert ? size + length : size - length);
  return {};
}

// Zeros written through the cache, for a backing that cannot zero: piece by piece, each as atomic as a write.
Status write_zeros(OpenFile& file, int mode, ByteRange bytes) {
  static constexpr std::array<char, 64 * 1024> zeros{};
  constexpr std::size_t kVectors = 256;  // the largest operation
  Mapping& mapping = file.inode->mapping;
  std::array<iovec, kVectors> vectors;
  vectors.fill(iovec{const_cast<char*>(zeros.data()), zeros.size()});
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  for (std::uint64_t at = bytes.offset; at < bytes.end;) {
    std::uint64_t end =
        std::min(bytes.end, at + std::min<std::uint64_t>(kVectors * zeros.size(), mapping.cache.max_operation_bytes()));
    const std::size_t whole = (end - at) / zeros.size();
    std::size_t used = whole;
    if (const std::size_t rest = (end - at) % zeros.size(); rest != 0) vectors[used++].iov_len = rest;
    const auto written =
        file_write(file, std::span(vectors.data(), used), at, kIoAtOffset | (keep_size ? kIoWithin : 0U));
    vectors[whole < kVectors ? whole : 0].iov_len = zeros.size();
    QUIRE_TRY(written);
    if (written.value() < end - at) return {};  // the file ended there when it was zeroed: what came since stays
    at += written.value();
  }
  return {};
}

Status change(OpenFile& file, int mode, ByteRange bytes) {
  Inode& inode = *file.inode;
  switch (mode & kModes) {
    case FALLOC_FL_PUNCH_HOLE:
      return punch_hole(inode, bytes);
    case FALLOC_FL_COLLAPSE_RANGE:
    case FALLOC_FL_INSERT_RANGE:
      return shift(inode, (mode & FALLOC_FL_INSERT_RANGE) != 0, bytes);
    case FALLOC_FL_ZERO_RANGE: {
      const Status zeroed = change_in_place(inode, mode, bytes);
      if (zeroed.ok() || zeroed.errnum() != EOPNOTSUPP) return zeroed;
      return write_zeros(file, mode, bytes);
    }
    default:
      return change_in_place(inode, mode, bytes);
  }
}

}  // namespace

Status file_allocate(OpenFile& file, int mode, std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return fail_with(EINVAL, "the length is zero");
  QUIRE_TRY(check_mode(mode));
  if (!file.writable) return fail_with(EBADF, "the file was not opened for writing");
  const Mapping& mapping = file.inode->mapping;
  QUIRE_TRY(check_not_forked(mapping.cache));
  const bool fixed = mapping.backing->fixed_size();
  const std::uint64_t limit = fixed ? mapping.size.load(memory_order_acquire) : mapping.backing->max_size();
  if (offset >= limit || length > limit - offset) {
    if (!fixed || offset >= limit || (mode & FALLOC_FL_KEEP_SIZE) == 0) {
      return fail_with(fixed ? EINVAL : EFBIG, "the range ends past the largest offset that this file can have, %llu",
                       static_cast<unsigned long long>(limit));
    }
    length = limit - offset;  // of a block device, what there is
  }
  const ByteRange bytes{offset, offset + length};
  mapping.cache.stats.count(Counter::range_changes);
  QUIRE_TRY(change(file, mode, bytes));
  return sync_as_opened(file, bytes);  // what was moved was flushed before, and the move goes with any flush
}

namespace {

// Does the cache hold bytes of the page that the backing may not know?
bool ahead_of_backing(Mapping& mapping, std::uint64_t page) {
  RcuReadLock rcu;
  const Folio* folio = folio_of(mapping.pages.load(page));
  return folio != nullptr && folio->has(kDirty | kWriteback);
}

// The first byte at or after offset of which the cache is ahead; UINT64_MAX: none.
std::uint64_t next_ahead(Mapping& mapping, std::uint64_t offset) {
  std::uint64_t next = UINT64_MAX;
  MutexLock lock(mapping.pages.mutex());  // both marks at one instant: a failed write moves a page between them
  for (const unsigned mark : {kMarkDirty, kMarkWriteback}) {
    std::uint64_t page = offset >> kPageShift;
    if (!mapping.pages.find_marked(&page, kMaxFileSize >> kPageShift, mark).empty()) {
      next = std::min(next, std::max(offset, page << kPageShift));
    }
  }
  return next;
}

// In each of these the cache is asked before the backing: what is written back in between the backing knows.
Result<std::uint64_t> find_data(Mapping& mapping, std::uint64_t offset, std::uint64_t size) {
  const std::uint64_t cached = next_ahead(mapping, offset);
  const auto stored = mapping.backing->seek_data(offset);
  if (!stored.ok() && stored.errnum() == EOPNOTSUPP) return offset;  // all is data
  if (!stored.ok() && stored.errnum() != ENXIO) return stored;
  const std::uint64_t found = std::min(cached, stored.ok() ? stored.value() : UINT64_MAX);
  if (found >= size) return fail_with(ENXIO, "there is no data from here to the end of the file");
  return found;
}

Result<std::uint64_t> find_hole(Mapping& mapping, std::uint64_t offset, std::uint64_t size) {
  for (std::uint64_t at = offset; at < size;) {
    if (ahead_of_backing(mapping, at >> kPageShift)) {
      at = ((at >> kPageShift) + 1) << kPageShift;
      continue;
    }
    const auto stored = mapping.backing->seek_hole(at);
    if (!stored.ok() && stored.errnum() == ENXIO) return at;  // past all that the backing holds
    if (!stored.ok() && stored.errnum() == EOPNOTSUPP) break;
    if (!stored.ok() || stored.value() == at) return stored;
    at = stored.value();
  }
  return size;
}

}  // namespace

Result<std::uint64_t> file_seek(OpenFile& file, std::uint64_t offset, bool data) {
  Mapping& mapping = file.inode->mapping;
  QUIRE_TRY(check_not_forked(mapping.cache));
  if (offset >= kMaxFileSize) return fail_with(ENXIO, "the offset lies past the end of the file");
  RangeGuard range(file.inode->range);
  range.acquire(offset, kRangeEnd, kShared);
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (offset >= size) return fail_with(ENXIO, "the offset lies past the end of the file");
  return data ? find_data(mapping, offset, size) : find_hole(mapping, offset, size);
}

}  // namespace quire
