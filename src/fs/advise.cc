// Advice on a handle's reads, and what is done at once for it. No advice changes what a read returns.
// Locks: range (shared, by try) > what readahead takes by try; DONTNEED: writeback's, then folios by try.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "cache/drop.h"
#include "cache/flusher.h"
#include "cache/writeback.h"
#include "fs/open_file.h"

namespace quire {
namespace {

// Of bytes [offset, end): the pages that it touches.
void read_ahead_range(OpenFile& file, std::uint64_t offset, std::uint64_t end) {
  Mapping& mapping = file.inode->mapping;
  RangeGuard range(file.inode->range);
  // The size must hold still until the folios are in the index; whoever changes it just now is not waited for.
  if (!range.try_acquire(offset, end - 1, kShared)) return;
  end = std::min(end, mapping.size.load(memory_order_acquire));
  if (offset < end) read_ahead(mapping, offset >> kPageShift, (end - 1) >> kPageShift, file.owner_bits);
}

// As Linux: writeback of the range is begun, pages that the range covers only in part stay.
void drop_range(OpenFile& file, std::uint64_t offset, std::uint64_t end) {
  Mapping& mapping = file.inode->mapping;
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (end >= size) end = round_up(size, kPageSize);  // the last page is whole if the range reaches the end of the file
  const std::uint64_t first = round_up(offset, kPageSize) >> kPageShift;
  const std::uint64_t after = end >> kPageShift;
  if (first >= after) return;
  if (mapping.unstable_count.load(memory_order_acquire) != 0) {
    WritebackCursor at{.page = first};
    write_back_some(mapping, &at, after - 1, UINT64_MAX, false, CacheContext{});
    if (at.error != 0) set_failing(mapping, at.error);  // told by the next sync, like any failed writeback
  }
  drop_own_folios(mapping, first, after - 1, file.owner_bits, is_alone(file));
}

}  // namespace

void begin_handle(OpenFile& file, Inode& inode, bool alone) {
  file.inode = &inode;
  const std::uint32_t nth = inode.mapping.cache.owners.fetch_add(1, memory_order_relaxed);
  file.owner_bits = (nth % kOwners + 1) << kOwnerShift;
  file.opened_alone = alone;
  file.opened_as = inode.opens.fetch_add(1, memory_order_relaxed) + 1;
}

bool is_alone(const OpenFile& file) {
  return file.opened_alone && file.inode->opens.load(memory_order_relaxed) == file.opened_as;
}

void drop_behind(OpenFile& file, std::uint64_t offset) {
  constexpr std::uint64_t kFarthest = 4096;  // pages: two of the largest windows; what lies before was looked at
  const std::uint64_t page = offset >> kPageShift;
  const std::uint64_t before = file.dropped_to.exchange(page, memory_order_relaxed);
  if (page == 0 || before >= page) return;
  // Again over the part that was in a large folio when we last came by.
  const std::uint64_t overlap = std::min(before, std::uint64_t{1} << kMaxOrder);
  const std::uint64_t first = std::max(before - overlap, page - std::min(page, kFarthest));
  drop_own_folios(file.inode->mapping, first, page - 1, file.owner_bits, is_alone(file));
}

void drop_behind_read(OpenFile& file, std::uint64_t offset, std::uint64_t end) {
  Mapping& mapping = file.inode->mapping;
  if (end >= mapping.size.load(memory_order_acquire)) end = round_up(end, kPageSize);
  const std::uint64_t after = end >> kPageShift;  // a page that is read in part is read on
  if (offset >> kPageShift >= after) return;
  static_cast<void>(drop_finished(mapping, offset >> kPageShift, after - 1, is_alone(file)));
}

void drop_behind_write(OpenFile& file, ByteRange bytes) {
  Mapping& mapping = file.inode->mapping;
  mapping.cache.flusher().ask(mapping, bytes.first_page(), bytes.last_page(), true);
}

Status file_advise(OpenFile& file, std::uint64_t offset, std::uint64_t length, int advice) {
  QUIRE_TRY(check_not_forked(file.inode->mapping.cache));
  const std::uint64_t end = length == 0 || length > kMaxFileSize - offset ? kMaxFileSize : offset + length;
  Atomic<ReadaheadMode>& mode = file.readahead.mode;
  switch (advice) {
    case POSIX_FADV_NORMAL:
      mode.store(ReadaheadMode::normal, memory_order_relaxed);
      file.no_reuse.store(false, memory_order_relaxed);
      return {};
    case POSIX_FADV_SEQUENTIAL:
      mode.store(ReadaheadMode::sequential, memory_order_relaxed);
      return {};
    case POSIX_FADV_RANDOM:
      mode.store(ReadaheadMode::random, memory_order_relaxed);
      return {};
    case POSIX_FADV_NOREUSE:
      file.no_reuse.store(true, memory_order_relaxed);
      return {};
    case POSIX_FADV_WILLNEED:
      if (offset < end) read_ahead_range(file, offset, end);
      return {};
    case POSIX_FADV_DONTNEED:
      if (offset < end) drop_range(file, offset, end);
      return {};
    default:
      return fail_with(EINVAL, "%d is no advice: POSIX_FADV_NORMAL to POSIX_FADV_NOREUSE are", advice);
  }
}

}  // namespace quire
