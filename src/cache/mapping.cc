// Index and stability of a mapping's folios. Locks: xarray (inside, a leaf but for the lists of the flusher and of
// ghosts).
#include "cache/mapping.h"

#include "base/defect.h"
#include "cache/flusher.h"
#include "cache/views.h"
#include "sync/clock.h"
#include "sync/rcu.h"

namespace quire {

LockClass invalidate_lock_class{"invalidate", LockClass::Nesting::ascending};
LockClass flush_lock_class{"flush", LockClass::Nesting::ascending};

namespace {

Mapping::Hits hits_of(const PageCache& cache, std::uint64_t inode_id) {
  return Mapping::Hits{.entries = cache.lookaside.entries(),
                       .mask = cache.lookaside.mask(),
                       .first_place = Lookaside::first_place(inode_id),
                       .descriptors = cache.pool.descriptor_before(),
                       .bytes = cache.pool.bytes_before(),
                       .stats_id = cache.stats.id()};
}

}  // namespace

Mapping::Mapping(PageCache& page_cache, Backing& file_backing, std::uint64_t inode_id, std::uint64_t initial_size)
    : gate(inode_id),
      size(initial_size),
      pages(&page_cache.nodes),
      hits(hits_of(page_cache, inode_id)),
      address_base(page_cache.pool.address_base()),
      cache(page_cache),
      backing(&file_backing),
      id(inode_id),
      invalidate(invalidate_lock_class, kInvalidateModes, inode_id),
      flush_mutex(flush_lock_class, LockKey{inode_id, 0}) {}

Mapping::~Mapping() {
  cache.flusher().forget(*this);
  cache.ghosts.forget(*this);
  MutexLock lock(pages.mutex());  // a reclaimer may still be leaving its section over the last folio
  CHECK(page_count.load(memory_order_relaxed) == 0);
  cache.ghosts.removed(*this, ghost_count.load(memory_order_relaxed));
}

Folio* get_folio(Mapping& mapping, std::uint64_t page) {
  RcuReadLock rcu;
  for (;;) {
    Folio* folio = folio_of(mapping.pages.load(page));
    if (folio == nullptr) return nullptr;
    if (!try_get_folio(*folio)) {  // frozen by reclaim: the index is about to show it
      thread_yield();
      continue;
    }
    if (folio_is(*folio, &mapping, page)) return folio;
    mapping.cache.put_folio(*folio);  // recycled between lookup and reference
  }
}

namespace {

// Makes room for a folio of 2^order pages where only ghosts are, and returns one of them in *ghost. EEXIST if a folio
// is there, ENOMEM.
int take_ghosts_locked(Mapping& mapping, std::uint64_t page, unsigned order, std::uint64_t* ghost)
    REQUIRES(mapping.pages.mutex()) {
  const std::uint64_t last_page = page + ((std::uint64_t{1} << order) - 1);
  std::uint64_t at = page;
  bool folio = false, any = false;
  mapping.pages.for_each(page, last_page, [&](std::uint64_t, XEntry entry) {
    any = true;
    folio = entry.is_pointer();
    return !folio;
  });
  if (folio) return EEXIST;
  while (any) {
    const XEntry entry = mapping.pages.find(&at, last_page);
    if (entry.empty()) break;
    *ghost = entry.value();
    const unsigned found = mapping.pages.order_locked(at);
    if (found > order) {  // then it stays for the other pages
      if (!mapping.pages.split_locked(page, order, 0).ok()) return ENOMEM;
      mapping.cache.ghosts.added(mapping, found - order);
    }
    mapping.pages.erase_locked(at);
    mapping.cache.ghosts.removed(mapping);
  }
  return 0;
}

}  // namespace

Status insert_new(Mapping& mapping, Folio& frame, std::uint64_t page, std::uint32_t extra_flags, bool prefetched) {
  DCHECK(frame.sequence.odd());
  DCHECK(frame.refs.load(memory_order_relaxed) == 0);
  frame.sequence.begin_life();
  frame.index.store(page, memory_order_relaxed);
  const unsigned order = frame.order.load(memory_order_relaxed);
  DCHECK(is_aligned(page, frame.pages()));
  frame.hit_word.store(hit_word_of(page, order) - kReferenced, memory_order_relaxed);
  // Plain stores: nobody else locks a frame that is free or being prepared (write_fast looks at the sequence first).
  frame.flags.store(kLocked | extra_flags, memory_order_relaxed);
  frame.written_epoch = 0;
  frame.mapping.store(&mapping, memory_order_relaxed);
  std::uint64_t ghost = 0;
  {
    MutexLock lock(mapping.pages.mutex());
    int errnum = take_ghosts_locked(mapping, page, order, &ghost);
    if (errnum == 0 && !mapping.pages.store_range_locked(page, order, XEntry::from_pointer(&frame)).ok()) {
      errnum = ENOMEM;
    }
    if (errnum != 0) {
      frame.mapping.store(nullptr, memory_order_relaxed);
      frame.flags.store(0, memory_order_relaxed);
      return fail(errnum);
    }
    mapping.page_count.store(mapping.page_count.load(memory_order_relaxed) + frame.pages(), memory_order_relaxed);
    // Only now may others take references: the readahead budget's hand goes round the descriptors, not the index.
    frame.refs.store(2, memory_order_release);
  }
  mapping.cache.resident_added(frame.pages());
  lock_acquired(folio_lock_class, &frame, LockKey{mapping.id, page});
  if (mapping.cache.eviction.add(frame, ghost, prefetched)) mapping.cache.stats.count(Counter::refaults);
  return {};
}

namespace {

// The last step of a folio's stability: no unstable flag is left. Under the xarray lock.
void now_stable(Mapping& mapping, const Folio& folio) {
  const std::uint64_t left = mapping.unstable_count.load(memory_order_relaxed) - folio.pages();
  mapping.unstable_count.store(left, memory_order_relaxed);
  if (left == 0) mapping.failing.store(0, memory_order_relaxed);  // what could not be written is gone, or was after all
  mapping.cache.dirty.unstable_removed(folio.pages());
}

}  // namespace

void set_failing(Mapping& mapping, int errnum) {
  MutexLock lock(mapping.pages.mutex());
  const bool at_stake = mapping.unstable_count.load(memory_order_relaxed) != 0;
  mapping.failing.store(at_stake ? errnum : 0, memory_order_release);
}

void detach_folio(Mapping& mapping, Folio& folio, std::uint64_t ghost) {
  DCHECK(folio.has(kLocked));
  DCHECK(folio.mapping.load(memory_order_relaxed) == &mapping);
  DCHECK(!folio.has(kViewed));
  PageCache& cache = mapping.cache;  // the mapping may be gone once its xarray lock is released
  cache.eviction.remove(folio);
  cache.ahead.settle(folio);
  begin_change(folio);
  {
    MutexLock lock(mapping.pages.mutex());
    const std::uint64_t page = folio.index.load(memory_order_relaxed);
    if (ghost == 0) {
      mapping.pages.erase_locked(page);
    } else {
      static_cast<void>(mapping.pages.store_locked(page, XEntry::from_value(ghost)));  // over an entry: cannot fail
      cache.ghosts.added(mapping);
    }
    const std::uint32_t old = folio.flags.fetch_and(~(kUnstable | kUptodate | kReadahead), memory_order_relaxed);
    DCHECK((old & kWriteback) == 0);
    if ((old & kUnstable) != 0) now_stable(mapping, folio);
    mapping.page_count.store(mapping.page_count.load(memory_order_relaxed) - folio.pages(), memory_order_relaxed);
    cache.resident_removed(folio.pages());
    folio.mapping.store(nullptr, memory_order_relaxed);
  }
}

void remove_folio(Mapping& mapping, Folio& folio) {
  PageCache& cache = mapping.cache;
  take_folio_from_views(mapping, folio, true);
  detach_folio(mapping, folio);
  cache.put_folio(folio);  // the mapping's reference; the caller holds another
}

void remove_ghosts(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page) {
  constexpr int kSlice = 128;  // entries a turn of the index's mutex
  for (std::uint64_t page = first_page; page <= last_page;) {
    MutexLock lock(mapping.pages.mutex());
    if (mapping.ghost_count.load(memory_order_relaxed) == 0) return;
    for (int i = 0; i < kSlice && page <= last_page; ++i) {
      std::uint64_t last = 0;
      const XEntry entry = mapping.pages.find(&page, last_page, &last);
      if (entry.empty()) return;
      if (entry.is_value()) {
        mapping.pages.erase_locked(page);
        mapping.cache.ghosts.removed(mapping);
      }
      if (last == UINT64_MAX) return;
      page = last + 1;
    }
  }
}

void set_dirty(Mapping& mapping, Folio& folio) {
  DCHECK(folio.has(kLocked));
  if (folio.has(kDirty)) return;  // only end of writeback and removal clear it, and neither can come now
  bool first = false;
  {
    MutexLock lock(mapping.pages.mutex());
    const std::uint32_t old = folio.flags.fetch_or(kDirty, memory_order_relaxed);
    if ((old & kUnflushed) != 0) folio.flags.fetch_and(~kUnflushed, memory_order_relaxed);
    const std::uint64_t page = folio.index.load(memory_order_relaxed);
    mapping.pages.set_mark_locked(page, kMarkDirty);
    mapping.pages.clear_mark_locked(page, kMarkUnflushed);
    if ((old & kUnstable) == 0) {
      const std::uint64_t count = mapping.unstable_count.load(memory_order_relaxed);
      mapping.unstable_count.store(count + folio.pages(), memory_order_relaxed);
      first = count == 0;
      mapping.cache.dirty.unstable_added(folio.pages());
    }
    mapping.dirtied_ns.store(clock_ns(CLOCK_REALTIME_COARSE), memory_order_relaxed);
    if (first) {
      mapping.unstable_since_ns.store(clock_ns(CLOCK_MONOTONIC_COARSE), memory_order_relaxed);
      mapping.cache.flusher().add(mapping);
    }
  }
}

bool begin_writeback(Mapping& mapping, Folio& folio) {
  DCHECK(folio.has(kLocked));
  MutexLock lock(mapping.pages.mutex());
  const std::uint32_t old = folio.flags.load(memory_order_relaxed);
  if ((old & kDirty) == 0 || (old & kWriteback) != 0) return false;
  folio.flags.fetch_or(kWriteback, memory_order_relaxed);
  folio.flags.fetch_and(~kDirty, memory_order_relaxed);
  const std::uint64_t page = folio.index.load(memory_order_relaxed);
  mapping.pages.clear_mark_locked(page, kMarkDirty);
  mapping.pages.set_mark_locked(page, kMarkWriteback);
  return true;
}

void end_writeback(Mapping& mapping, Folio& folio, bool ok) {
  {
    MutexLock lock(mapping.pages.mutex());
    const std::uint64_t page = folio.index.load(memory_order_relaxed);
    if (has_defect(Defect::writeback_cleans_redirtied)) {
      folio.flags.fetch_and(~kDirty, memory_order_relaxed);
      mapping.pages.clear_mark_locked(page, kMarkDirty);
    }
    const bool dirty_again = folio.has(kDirty);
    if (!ok) {
      folio.flags.fetch_or(kDirty, memory_order_relaxed);
      mapping.pages.set_mark_locked(page, kMarkDirty);
    } else if (!dirty_again) {
      folio.flags.fetch_or(kUnflushed, memory_order_relaxed);
      folio.written_epoch = mapping.flush_epoch;
      mapping.pages.set_mark_locked(page, kMarkUnflushed);
    }
    folio.flags.fetch_and(~kWriteback, memory_order_release);  // last: at no instant does it look clean
    mapping.pages.clear_mark_locked(page, kMarkWriteback);
  }
  mapping.writeback_queue.wake_all();
}

std::uint32_t begin_flush_epoch(Mapping& mapping) {
  MutexLock lock(mapping.pages.mutex());
  return mapping.flush_epoch++;
}

namespace {

// A failed flush may have lost whatever had reached the device by then, of which the host says nothing a second time.
// What is being written may have: it is to be written again once it ends.
void redirty_writeback(Mapping& mapping) {
  MutexLock lock(mapping.pages.mutex());
  std::uint64_t page = 0;
  for (;;) {
    const XEntry entry = mapping.pages.find_marked(&page, UINT64_MAX, kMarkWriteback);
    if (entry.empty()) return;
    Folio& folio = *folio_of(entry);
    folio.flags.fetch_or(kDirty, memory_order_relaxed);
    mapping.pages.set_mark_locked(page, kMarkDirty);
    page = folio.index.load(memory_order_relaxed) + folio.pages();
    if (page == 0) return;
  }
}

}  // namespace

void end_flush(Mapping& mapping, std::uint32_t epoch, bool ok) {
  constexpr int kBatch = 64;  // folios a turn of the xarray lock
  const bool keeps_later = ok || has_defect(Defect::failed_flush_keeps_later_writes);
  if (!keeps_later) redirty_writeback(mapping);
  std::uint64_t page = 0;
  bool more = true;
  while (more) {
    MutexLock lock(mapping.pages.mutex());
    for (int i = 0; i < kBatch; ++i) {
      const XEntry entry = mapping.pages.find_marked(&page, UINT64_MAX, kMarkUnflushed);
      if (entry.empty()) {
        more = false;
        break;
      }
      Folio& folio = *folio_of(entry);
      const std::uint64_t next = folio.index.load(memory_order_relaxed) + folio.pages();
      // Of a failed flush, also what ended being written while it ran: it may have reached the device before.
      const bool before = static_cast<std::int32_t>(epoch - folio.written_epoch) >= 0;  // epochs wrap
      if (before || !keeps_later || has_defect(Defect::flush_cleans_later_writes)) {
        if (!ok) {  // dirty first: reclaim must at no instant see it clean
          folio.flags.fetch_or(kDirty, memory_order_relaxed);
          mapping.pages.set_mark_locked(page, kMarkDirty);
        }
        folio.flags.fetch_and(~kUnflushed, memory_order_release);
        mapping.pages.clear_mark_locked(page, kMarkUnflushed);
        if (ok) now_stable(mapping, folio);
      }
      if (next == 0) {
        more = false;
        break;
      }
      page = next;
    }
  }
  mapping.cache.progress();
}

}  // namespace quire
