// Operations on two ranges whose blocks are shared or swapped: clone, dedupe, exchange. Guarantees: R1, R2, D1.
// Locks: range (both, in the order of inodes) > invalidate (remove, of what changes, in the same order) > flush, cache.
//
// What the backing has to find in place is written back under the range locks, which keep writers out, before the
// invalidate lock is taken: it then stays clean. Where folios are to go, the range locks reach to the edges of pages,
// so that no neighbour on the same page becomes dirty in between, and what was written is flushed, since a folio that
// is gone cannot become dirty again should a later flush fail.
#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "cache/invalidate.h"
#include "cache/writeback.h"
#include "fs/open_file.h"
#include "fs/two_ranges.h"

namespace quire {

namespace {

struct Range {
  std::uint64_t offset, end;
  std::uint64_t first_page() const { return offset >> kPageShift; }
  std::uint64_t last_page() const { return (end - 1) >> kPageShift; }
  std::uint64_t page_start() const { return round_down(offset, kPageSize); }
  std::uint64_t page_end() const { return round_up(end, kPageSize); }
};

Status check_two(const OpenFile& source, const OpenFile& target) {
  if (!source.readable) return fail_with(EBADF, "the source was not opened for reading");
  if (!target.writable) return fail_with(EBADF, "the target was not opened for writing");
  QUIRE_TRY(check_not_forked(source.inode->mapping.cache));
  if (&source.inode->mapping.cache != &target.inode->mapping.cache) {
    return fail_with(EXDEV, "the two files are open in two caches");
  }
  return {};
}

Status check_overlap(const OpenFile& a, Range in_a, const OpenFile& b, Range in_b) {
  if (a.inode != b.inode || in_a.end <= in_b.offset || in_b.end <= in_a.offset) return {};
  return fail_with(EINVAL, "the two ranges of this file overlap");
}

// An end inside a page may be the file's: the backing judges by the size that it knows.
Status write_back_range(Inode& inode, Range range) {
  QUIRE_TRY(write_back_size(inode.mapping, is_aligned(range.end, kPageSize) ? range.end : UINT64_MAX));
  return write_back(inode.mapping, range.first_page(), range.last_page(), CacheContext{});
}

// Locks [from, end) of the source (shared) and the target's range (exclusive, to whole pages; to infinity where it ends
// past the target's size). Returns the target's size.
std::uint64_t lock_for_change(TwoRanges& locks, OpenFile& source, Range from, OpenFile& target, Range to) {
  const Mapping& mapping = target.inode->mapping;
  for (;;) {
    const std::uint64_t seen = mapping.size.load(memory_order_acquire);
    const bool extends = to.end > seen;
    const std::uint64_t first = extends ? std::min(to.page_start(), seen) : to.page_start();
    const std::uint64_t last = extends ? kRangeEnd : to.page_end() - 1;
    locks.acquire({source.inode, from.page_start(), from.page_end() - 1, kShared},
                  {target.inode, first, last, kExclusive}, range_lock_of);
    const std::uint64_t size = mapping.size.load(memory_order_acquire);
    if (to.end <= size || (last == kRangeEnd && first <= size)) return size;
    locks.release();  // the end moved between the look and the lock
  }
}

}  // namespace

Status file_clone(OpenFile& source, std::uint64_t from, OpenFile& target, std::uint64_t offset, std::uint64_t length) {
  QUIRE_TRY(check_two(source, target));
  if (target.append) return fail_with(EBADF, "the target was opened for appending: nothing can be cloned into it");
  Mapping& source_mapping = source.inode->mapping;
  Mapping& mapping = target.inode->mapping;
  const std::uint64_t limit = mapping.backing->max_size();
  if (length == 0) {  // to the end of the source, wherever that is
    const std::uint64_t size = source_mapping.size.load(memory_order_acquire);
    if (from > size) return fail_with(EINVAL, "the source ends before the offset");
    if (from == size) return {};
    length = size - from;
  }
  if (from > kMaxFileSize - length) return fail_with(EINVAL, "offset plus length passes the largest off_t");
  if (offset >= limit || length > limit - offset) {
    return fail_with(EFBIG, "the target would grow past the largest that this file can be");
  }
  const Range in_source{from, from + length}, in_target{offset, offset + length};
  QUIRE_TRY(check_overlap(source, in_source, target, in_target));
  mapping.cache.stats.count(Counter::range_changes);

  TwoRanges locks;
  const std::uint64_t old_size = lock_for_change(locks, source, in_source, target, in_target);
  if (in_source.end > source_mapping.size.load(memory_order_acquire)) {
    return fail_with(EINVAL, "the source ends before the range does");
  }
  // Flushed: the target will stand on these bytes with no folio of its own that could become dirty again.
  QUIRE_TRY(sync_range(source_mapping, in_source.first_page(), in_source.last_page(), true));
  QUIRE_TRY(write_back_range(*source.inode, in_source));
  if (!is_aligned(in_target.offset, kPageSize) || !is_aligned(in_target.end, kPageSize)) {
    // Pages that stay in part: their other bytes must outlive the folio.
    QUIRE_TRY(sync_range(mapping, in_target.first_page(), in_target.first_page(), true));
    QUIRE_TRY(sync_range(mapping, in_target.last_page(), in_target.last_page(), true));
    // A range that ends inside a block may end at the target's end only: the backing judges by what it knows.
    QUIRE_TRY(write_back_size(mapping, old_size));
  }
  const bool grows = in_target.end > old_size;
  TwoRanges remove;  // of the source too: no writeback may go on in blocks that are shared from now on
  remove.acquire({source.inode, in_source.first_page(), in_source.last_page(), kRemove},
                 {target.inode, in_target.first_page(), grows ? kRangeEnd : in_target.last_page(), kRemove},
                 invalidate_lock_of);
  const Status cloned = mapping.backing->clone(*source_mapping.backing, from, offset, length);
  note_changed(mapping);
  note_changed(source_mapping);
  if (!cloned.ok()) {
    // The host may have done a part and say no more than that.
    remove_clean_folios(mapping, in_target.first_page(), in_target.last_page());
    return cloned;
  }
  if (grows) {
    replace_cache(mapping, in_target.first_page(), in_target.last_page(), in_target.end);
  } else {
    remove_folios(mapping, in_target.first_page(), in_target.last_page());
    mapping.cache.progress();
  }
  return {};
}

Result<std::uint64_t> file_dedupe(OpenFile& source, std::uint64_t from, OpenFile& target, std::uint64_t offset,
                                  std::uint64_t length) {
  QUIRE_TRY(check_two(source, target));
  if (from > kMaxFileSize - std::min(length, kMaxFileSize) || offset > kMaxFileSize - std::min(length, kMaxFileSize)) {
    return fail_with(EINVAL, "offset plus length passes the largest off_t");
  }
  if (length == 0) {
    if (from <= source.inode->mapping.size.load(memory_order_acquire)) return std::uint64_t{0};
    return fail_with(EINVAL, "the source ends before the offset");
  }
  const Range in_source{from, from + length}, in_target{offset, offset + length};
  QUIRE_TRY(check_overlap(source, in_source, target, in_target));
  Mapping& source_mapping = source.inode->mapping;
  Mapping& mapping = target.inode->mapping;
  mapping.cache.stats.count(Counter::range_changes);

  TwoRanges locks;  // writers are kept out of both; readers may go on, since no byte changes
  locks.acquire({source.inode, in_source.page_start(), in_source.page_end() - 1, kShared},
                {target.inode, in_target.page_start(), in_target.page_end() - 1, kShared}, range_lock_of);
  if (in_source.end > source_mapping.size.load(memory_order_acquire) ||
      in_target.end > mapping.size.load(memory_order_acquire)) {
    return fail_with(EINVAL, "a range ends past the end of its file");
  }
  QUIRE_TRY(sync_range(source_mapping, in_source.first_page(), in_source.last_page(), true));  // as for clone
  QUIRE_TRY(write_back_range(*source.inode, in_source));
  QUIRE_TRY(write_back_range(*target.inode, in_target));
  TwoRanges remove;  // no fill may be reading the blocks that are given up
  remove.acquire({source.inode, in_source.first_page(), in_source.last_page(), kRemove},
                 {target.inode, in_target.first_page(), in_target.last_page(), kRemove}, invalidate_lock_of);
  const auto shared = mapping.backing->dedupe(*source_mapping.backing, from, offset, length);
  if (shared.ok()) {
    note_changed(mapping);
    note_changed(source_mapping);
  }
  return shared;
}

Status file_exchange(OpenFile& a, std::uint64_t a_offset, OpenFile& b, std::uint64_t b_offset, std::uint64_t length) {
  QUIRE_TRY(check_two(a, b));
  QUIRE_TRY(check_two(b, a));
  if (a.append || b.append) return fail_with(EBADF, "a file opened for appending cannot be exchanged with another");
  if (a_offset > kMaxFileSize - std::min(length, kMaxFileSize) ||
      b_offset > kMaxFileSize - std::min(length, kMaxFileSize)) {
    return fail_with(EINVAL, "offset plus length passes the largest off_t");
  }
  if (length == 0) {  // nothing to do, if there is where to do it
    const bool inside = a_offset <= a.inode->mapping.size.load(memory_order_acquire) &&
                        b_offset <= b.inode->mapping.size.load(memory_order_acquire);
    if (inside && is_aligned(a_offset | b_offset, a.inode->mapping.backing->block_size())) return {};
    return fail_with(EINVAL, "an offset lies past the end of its file or inside a block");
  }
  const Range in_a{a_offset, a_offset + length}, in_b{b_offset, b_offset + length};
  QUIRE_TRY(check_overlap(a, in_a, b, in_b));
  Mapping& mapping_a = a.inode->mapping;
  Mapping& mapping_b = b.inode->mapping;
  mapping_a.cache.stats.count(Counter::range_changes);

  TwoRanges locks;
  locks.acquire({a.inode, in_a.page_start(), in_a.page_end() - 1, kExclusive},
                {b.inode, in_b.page_start(), in_b.page_end() - 1, kExclusive}, range_lock_of);
  if (in_a.end > mapping_a.size.load(memory_order_acquire) || in_b.end > mapping_b.size.load(memory_order_acquire)) {
    return fail_with(EINVAL, "a range ends past the end of its file");
  }
  for (const auto& [inode, range] : {std::pair{a.inode, in_a}, std::pair{b.inode, in_b}}) {
    QUIRE_TRY(sync_range(inode->mapping, range.first_page(), range.last_page(), true));
    QUIRE_TRY(write_back_range(*inode, range));
  }
  TwoRanges remove;
  remove.acquire({a.inode, in_a.first_page(), in_a.last_page(), kRemove},
                 {b.inode, in_b.first_page(), in_b.last_page(), kRemove}, invalidate_lock_of);
  QUIRE_TRY(mapping_a.backing->exchange(*mapping_b.backing, b_offset, a_offset, length));
  note_changed(mapping_a);
  note_changed(mapping_b);
  remove_folios(mapping_a, in_a.first_page(), in_a.last_page());
  remove_folios(mapping_b, in_b.first_page(), in_b.last_page());
  mapping_a.cache.progress();
  return {};
}

}  // namespace quire
