// Truncate: backing first, then the cache at one instant. Guarantees: R1, R2.
// Locks: range (exclusive from min(old, new), or the folio that may hold it, to infinity) > invalidate (remove, the
// same in pages) > cache.
#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "cache/invalidate.h"
#include "cache/views.h"
#include "fs/open_file.h"

namespace quire {

Status file_truncate(OpenFile& file, std::uint64_t size) {
  if (!file.writable) return fail_with(EINVAL, "the file was not opened for writing");
  Inode& inode = *file.inode;
  Mapping& mapping = inode.mapping;
  QUIRE_TRY(check_not_forked(mapping.cache));
  if (mapping.backing->fixed_size()) return fail_with(EINVAL, "a block device has a fixed size");
  if (size > mapping.backing->max_size()) {
    return fail_with(EFBIG, "size %llu is past the largest that this file can have (%llu)",
                     static_cast<unsigned long long>(size),
                     static_cast<unsigned long long>(mapping.backing->max_size()));
  }
  const std::uint64_t alignment = mapping.cache.folio_alignment();
  RangeGuard range(inode.range);
  for (;;) {
    const std::uint64_t first = round_down(std::min(mapping.size.load(memory_order_acquire), size), alignment);
    range.acquire(first, kRangeEnd, kExclusive);
    if (std::min(mapping.size.load(memory_order_acquire), size) >= first) break;
    range.release();  // it shrank between the look and the lock
  }
  const std::uint64_t old_size = mapping.size.load(memory_order_acquire);
  RangeGuard remove(mapping.invalidate);
  remove.acquire(round_down(std::min(old_size, size), alignment) >> kPageShift, kRangeEnd, kRemove);
  take_from_views(mapping, remove.request().first(), remove.request().last());
  // Taking `remove` has drained writeback and fills. The backing may be behind: appended bytes not yet written.
  mapping.cache.stats.count(Counter::truncates);
  const Status changed = mapping.backing->set_size(size);
  if (!changed.ok()) return changed;  // the cache is as it was
  note_changed(mapping);
  if (size > old_size) zero_past_end(mapping);
  if (size != old_size) truncate_cache(mapping, size);
  return {};
}

}  // namespace quire
