// Operations on two ranges whose blocks are shared or swapped: clone, dedupe, exchange. Guarantees: R1, R2, D1.
// Locks: range (both, in the order of inodes) > invalidate (remove, of what changes, in the same order) > flush, cache.
//
// What the backing has to find in place is written back under the range locks, which keep writers out, before the
// invalidate lock is taken: it then stays clean. Where folios are to go, the locks reach around whatever folio may lie
// on an edge, so that no neighbour in the same folio becomes dirty in between, and what was written is flushed, since a
// folio that is gone cannot become dirty again should a later flush fail.
#include <algorithm>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "cache/invalidate.h"
#include "cache/views.h"
#include "cache/writeback.h"
#include "fs/open_file.h"
#include "fs/two_ranges.h"

namespace quire {

namespace {

// What is locked for a range: no folio lies in it and outside it.
ByteRange around_folios(const Inode& inode, ByteRange range) {
  return range.around(inode.mapping.cache.folio_alignment());
}

bool passes_largest(std::uint64_t offset, std::uint64_t length) {
  return length > kMaxFileSize || offset > kMaxFileSize - length;
}

Status check_two(const OpenFile& source, const OpenFile& target) {
  if (!source.readable) return fail_with(EBADF, "the source was not opened for reading");
  if (!target.writable) return fail_with(EBADF, "the target was not opened for writing");
  QUIRE_TRY(check_not_forked(source.inode->mapping.cache));
  if (&source.inode->mapping.cache != &target.inode->mapping.cache) {
    return fail_with(EXDEV, "the two files are open in two caches");
  }
  return {};
}

Status check_overlap(const OpenFile& a, ByteRange in_a, const OpenFile& b, ByteRange in_b) {
  if (a.inode != b.inode || in_a.end <= in_b.offset || in_b.end <= in_a.offset) return {};
  return fail_with(EINVAL, "the two ranges of this file overlap");
}

// An end inside a page may be the file's: the backing judges by the size that it knows.
Status write_back_range(Inode& inode, ByteRange range) {
  QUIRE_TRY(write_back_size(inode.mapping, is_aligned(range.end, kPageSize) ? range.end : UINT64_MAX));
  return write_back(inode.mapping, range.first_page(), range.last_page(), CacheContext{});
}

// Before blocks are shared or swapped under it. Flushed, because from then on no folio that could become dirty again
// stands behind the bytes; written back once more for the end inside a page, and for the size.
Status make_durable(Inode& inode, ByteRange range) {
  QUIRE_TRY(sync_range(inode.mapping, range.first_page(), range.last_page(), true));
  return write_back_range(inode, range);
}

// Under `remove`: what was stored through views since it was written back. Writeback protects each page, and a store to
// it from then on waits for `remove`; so what is durable at the end is all that was stored up to then.
Status write_stored(Inode& inode, ByteRange range, const RangeRequest* remove) {
  if (!inode.mapping.views.any.load(memory_order_relaxed) || has_defect(Defect::stores_not_written_again)) return {};
  return sync_range(inode.mapping, range.first_page(), range.last_page(), true, CacheContext{.held = remove});
}

// Under `remove`, before folios go: no view shows them any more, and what was stored through one since they were
// written back is durable as well. last_page: what `remove` reaches to.
Status take_stored(Inode& inode, ByteRange range, std::uint64_t last_page, const RangeRequest* remove) {
  take_from_views(inode.mapping, range.first_page(), last_page);
  return write_stored(inode, range, remove);
}

// Both ranges lie inside their files, whose ends the range locks hold.
Status check_inside(const OpenFile& a, ByteRange in_a, const OpenFile& b, ByteRange in_b) {
  if (in_a.end <= a.inode->mapping.size.load(memory_order_acquire) &&
      in_b.end <= b.inode->mapping.size.load(memory_order_acquire)) {
    return {};
  }
  return fail_with(EINVAL, "a range ends past the end of its file");
}

}  // namespace

namespace {

// Under the range locks; the source holds its range. old_size: of the target.
Status clone_locked(Inode& source, ByteRange in_source, Inode& target, ByteRange in_target, std::uint64_t old_size) {
  Mapping& mapping = target.mapping;
  QUIRE_TRY(make_durable(source, in_source));
  const bool inside_pages = !is_aligned(in_target.offset, kPageSize) || !is_aligned(in_target.end, kPageSize);
  if (inside_pages || unstable_large_folio_at(mapping, in_target.first_page()) ||
      unstable_large_folio_at(mapping, in_target.last_page())) {
    // Pages, and folios that cannot be split, that stay in part: their other bytes must outlive the folio.
    QUIRE_TRY(sync_range(mapping, in_target.first_page(), in_target.first_page(), true));
    QUIRE_TRY(sync_range(mapping, in_target.last_page(), in_target.last_page(), true));
  }
  // A range that ends inside a block may end at the target's end only: the backing judges by what it knows.
  if (inside_pages) QUIRE_TRY(write_back_size(mapping, old_size));
  const bool grows = in_target.end > old_size;
  TwoRanges remove;  // of the source too: no writeback may go on in blocks that are shared from now on
  const ByteRange around_source = around_folios(source, in_source), around_target = around_folios(target, in_target);
  remove.acquire({&source, around_source.first_page(), around_source.last_page(), kRemove},
                 {&target, around_target.first_page(), grows ? kRangeEnd : around_target.last_page(), kRemove},
                 invalidate_lock_of);
  QUIRE_TRY(write_stored(source, in_source, remove.held_of(source)));
  QUIRE_TRY(take_stored(target, around_target, grows ? kRangeEnd : around_target.last_page(), remove.held_of(target)));
  if (grows) zero_past_end(mapping);
  if (has_defect(Defect::cache_dropped_before_backing)) {
    remove_folios(mapping, in_target.first_page(), in_target.last_page());
  }
  const Status cloned = mapping.backing->clone(*source.mapping.backing, in_source.offset, in_target.offset,
                                               in_source.end - in_source.offset);
  note_changed(mapping);  // not the source: its bytes are as they were, and durable
  if (!cloned.ok()) {
    // The host may have done a part and say no more than that.
    remove_clean_folios(mapping, in_target.first_page(), in_target.last_page());
    if (mapping.backing->size() > old_size) {
      if (!mapping.backing->set_size(old_size).ok()) {
        truncate_cache(mapping, mapping.backing->size());  // then the file is longer, and says so
      }
      note_changed(mapping);
    }
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

}  // namespace

Status file_clone(OpenFile& source, std::uint64_t from, OpenFile& target, std::uint64_t offset, std::uint64_t length) {
  QUIRE_TRY(check_two(source, target));
  if (target.append) return fail_with(EBADF, "the target was opened for appending: nothing can be cloned into it");
  const Mapping& source_mapping = source.inode->mapping;
  const Mapping& mapping = target.inode->mapping;
  const std::uint64_t limit = mapping.backing->max_size();
  const bool to_the_end = length == 0;
  mapping.cache.stats.count(Counter::range_changes);
  for (;;) {
    if (to_the_end) {
      const std::uint64_t size = source_mapping.size.load(memory_order_acquire);
      if (from > size) return fail_with(EINVAL, "the source ends before the offset");
      if (from == size) return {};
      length = size - from;
    }
    if (passes_largest(from, length)) return fail_with(EINVAL, "offset plus length passes the largest off_t");
    if (offset >= limit || length > limit - offset) {
      return fail_with(EFBIG, "the target would grow past the largest that this file can be");
    }
    const ByteRange in_source{from, from + length}, in_target{offset, offset + length};
    QUIRE_TRY(check_overlap(source, in_source, target, in_target));
    TwoRanges locks;
    const std::uint64_t old_size =
        lock_for_change(locks, *source.inode, around_folios(*source.inode, in_source), *target.inode,
                        around_folios(*target.inode, in_target), in_target.end);
    const std::uint64_t source_size = source_mapping.size.load(memory_order_acquire);
    if (to_the_end && source_size != in_source.end) continue;  // its end moved between the look and the lock
    if (in_source.end > source_size) return fail_with(EINVAL, "the source ends before the range does");
    QUIRE_TRY(clone_locked(*source.inode, in_source, *target.inode, in_target, old_size));
    break;
  }
  return sync_as_opened(target, ByteRange{offset, offset + length});
}

Result<std::uint64_t> file_dedupe(OpenFile& source, std::uint64_t from, OpenFile& target, std::uint64_t offset,
                                  std::uint64_t length) {
  QUIRE_TRY(check_two(source, target));
  if (passes_largest(from, length) || passes_largest(offset, length)) {
    return fail_with(EINVAL, "offset plus length passes the largest off_t");
  }
  if (length == 0) {
    if (from <= source.inode->mapping.size.load(memory_order_acquire)) return std::uint64_t{0};
    return fail_with(EINVAL, "the source ends before the offset");
  }
  const ByteRange in_source{from, from + length}, in_target{offset, offset + length};
  QUIRE_TRY(check_overlap(source, in_source, target, in_target));
  Mapping& source_mapping = source.inode->mapping;
  Mapping& mapping = target.inode->mapping;
  mapping.cache.stats.count(Counter::range_changes);

  const ByteRange around_source = around_folios(*source.inode, in_source);
  const ByteRange around_target = around_folios(*target.inode, in_target);
  TwoRanges locks;  // writers are kept out of both; readers may go on, since no byte changes
  locks.acquire({source.inode, around_source.offset, around_source.end - 1, kShared},
                {target.inode, around_target.offset, around_target.end - 1, kShared}, range_lock_of);
  QUIRE_TRY(check_inside(source, in_source, target, in_target));
  QUIRE_TRY(make_durable(*source.inode, in_source));
  QUIRE_TRY(write_back_range(*target.inode, in_target));
  TwoRanges remove;  // no fill may be reading the blocks that are given up
  remove.acquire({source.inode, around_source.first_page(), around_source.last_page(), kRemove},
                 {target.inode, around_target.first_page(), around_target.last_page(), kRemove}, invalidate_lock_of);
  QUIRE_TRY(write_stored(*source.inode, in_source, remove.held_of(*source.inode)));
  QUIRE_TRY(write_stored(*target.inode, in_target, remove.held_of(*target.inode)));
  const auto shared = mapping.backing->dedupe(*source_mapping.backing, from, offset, length);
  if (shared.ok()) note_changed(mapping);
  return shared;
}

Status file_exchange(OpenFile& a, std::uint64_t a_offset, OpenFile& b, std::uint64_t b_offset, std::uint64_t length) {
  QUIRE_TRY(check_two(a, b));
  QUIRE_TRY(check_two(b, a));
  if (a.append || b.append) return fail_with(EBADF, "a file opened for appending cannot be exchanged with another");
  if (passes_largest(a_offset, length) || passes_largest(b_offset, length)) {
    return fail_with(EINVAL, "offset plus length passes the largest off_t");
  }
  if (length == 0) {  // nothing to do, if there is where to do it
    const bool inside = a_offset <= a.inode->mapping.size.load(memory_order_acquire) &&
                        b_offset <= b.inode->mapping.size.load(memory_order_acquire);
    if (inside && is_aligned(a_offset | b_offset, a.inode->mapping.backing->block_size())) return {};
    return fail_with(EINVAL, "an offset lies past the end of its file or inside a block");
  }
  const ByteRange in_a{a_offset, a_offset + length}, in_b{b_offset, b_offset + length};
  QUIRE_TRY(check_overlap(a, in_a, b, in_b));
  Mapping& mapping_a = a.inode->mapping;
  Mapping& mapping_b = b.inode->mapping;
  mapping_a.cache.stats.count(Counter::range_changes);

  const ByteRange around_a = around_folios(*a.inode, in_a), around_b = around_folios(*b.inode, in_b);
  TwoRanges locks;
  locks.acquire({a.inode, around_a.offset, around_a.end - 1, kExclusive},
                {b.inode, around_b.offset, around_b.end - 1, kExclusive}, range_lock_of);
  QUIRE_TRY(check_inside(a, in_a, b, in_b));
  QUIRE_TRY(make_durable(*a.inode, in_a));
  QUIRE_TRY(make_durable(*b.inode, in_b));
  TwoRanges remove;
  remove.acquire({a.inode, around_a.first_page(), around_a.last_page(), kRemove},
                 {b.inode, around_b.first_page(), around_b.last_page(), kRemove}, invalidate_lock_of);
  QUIRE_TRY(take_stored(*a.inode, around_a, around_a.last_page(), remove.held_of(*a.inode)));
  QUIRE_TRY(take_stored(*b.inode, around_b, around_b.last_page(), remove.held_of(*b.inode)));
  QUIRE_TRY(mapping_a.backing->exchange(*mapping_b.backing, b_offset, a_offset, length));
  note_changed(mapping_a);
  note_changed(mapping_b);
  remove_folios(mapping_a, in_a.first_page(), in_a.last_page());
  remove_folios(mapping_b, in_b.first_page(), in_b.last_page());
  mapping_a.cache.progress();
  remove.release();
  locks.release();
  QUIRE_TRY(sync_as_opened(a, in_a));
  return sync_as_opened(b, in_b);
}

}  // namespace quire
