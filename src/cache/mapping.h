// Mapping: the cached folios of one file, its gate and size, and its invalidate lock. Guarantees: R1, R3, D1.
//
// Who may change what:
//   size            the holder of the range lock (fs) from min(old, new) to the end, inside an odd folio sequence or a
//                   closed gate of what changes with it
//   pages           insertion: under the invalidate lock (instantiate) or the exclusive range lock over the page;
//                   removal: under the folio lock; marks: with the flags (folio.h)
//   invalidate      instantiate: fill, readahead, writeback; direct: direct writes; remove: range operations
// Lifetime: owned by an inode (fs); destroyed when no handle is open, no folio is left and nobody has it pinned.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "backing/backing.h"
#include "cache/folio.h"
#include "cache/mapping_list.h"
#include "cache/page_cache.h"
#include "sync/gate.h"
#include "sync/range_lock.h"
#include "sync/wait_queue.h"
#include "xarray/xarray.h"

namespace quire {

extern LockClass invalidate_lock_class;
extern LockClass flush_lock_class;
extern LockClass views_lock_class;

// Modes of the invalidate lock; ranges in pages, inclusive.
enum InvalidateMode : std::uint8_t { kInstantiate = 0, kDirect = 1, kRemove = 2 };
inline constexpr RangeModes kInvalidateModes{{0b001, 0b010, 0b000, 0}};

// Marks of the index.
inline constexpr unsigned kMarkDirty = 0, kMarkWriteback = 1, kMarkUnflushed = 2;

// What the caller of nested work already holds of this mapping's invalidate lock: nested fills and writeback are told,
// and never take it again over that range.
struct CacheContext {
  const RangeRequest* held = nullptr;  // in pages; null: nothing
  std::uint32_t owner = 0;             // the handle's bits of Folio::flags and kDropBehind, for what is brought in
  bool covers(std::uint64_t first_page, std::uint64_t last_page) const {
    return held != nullptr && held->covers(first_page, last_page);
  }
};

// What the flusher was asked to write back before its time: the pages [first, last].
struct AskedWriteback {
  std::uint64_t first = UINT64_MAX;
  std::uint64_t last = 0;
  bool drop = false;  // and to drop of it what is to be dropped behind
  void add(const AskedWriteback& more) {
    first = std::min(first, more.first);
    last = std::max(last, more.last);
    drop |= more.drop;
  }
};

class FillVerifier;
struct View;

// The mapped views of a file; views.h has the rules.
struct MappingViews {
  Mutex mutex{views_lock_class};
  View* first GUARDED_BY(mutex) = nullptr;
  Atomic<bool> any;  // there are, or were
};

struct Mapping {
  Mapping(PageCache& page_cache, Backing& file_backing, std::uint64_t inode_id, std::uint64_t initial_size);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // The line that every fast read loads; written only by what changes the size or many folios.
  alignas(64) Gate gate;
  Atomic<std::uint64_t> size;  // i_size, bytes
  XArray pages;
  // All else that a short hit loads on its way (read_hit.h), on one line.
  struct alignas(64) Hits {
    const Atomic<std::uint32_t>* entries;  // of the cache's Lookaside
    std::uint64_t mask;
    std::uint64_t first_place;
    const Folio* descriptors;  // of entry 0, which is nobody's; the frames' follow
    const char* bytes;         // of entry 0, which has none
    std::uint64_t stats_id;
  };
  const Hits hits;
  const std::uintptr_t address_base;  // FolioPool::address_base

  PageCache& cache;
  Backing* backing;  // replaced only while no handle is open (fs)
  const std::uint64_t id;
  RangeLock invalidate;
  Atomic<std::uint64_t> page_count;        // in the cache; under the xarray lock
  Atomic<std::uint64_t> unstable_count;    // of them, of unstable folios; under the xarray lock
  Atomic<std::int64_t> dirtied_ns;         // realtime of the last clean-to-dirty transition
  Atomic<std::int64_t> unstable_since_ns;  // monotonic, of the first unstable folio since all was stable

  // Writeback errors, as a counter with the last errno: each handle keeps what it has seen. See writeback_error.h.
  Atomic<std::uint64_t> error_sequence;
  Atomic<int> failing;                     // errno while the last writeback or flush failed, else 0
  WaitQueue writeback_queue;               // a folio left writeback
  Atomic<std::uint32_t> ahead;             // readahead windows in flight
  Mutex flush_mutex;                       // one flush at a time
  Atomic<bool> backing_changed;            // extents or size changed since the last flush began; see note_changed
  Atomic<bool> metadata_changed;           // anything at all, since the last full flush (not data only) began
  Atomic<std::uint64_t> flush_failures;    // written under flush_mutex
  Atomic<std::uint64_t> flusher_attempts;  // times the flusher tried to write this file back
  std::uint32_t flush_epoch = 1;           // under the xarray lock: bumped when a flush begins

  MappingLink dirty_link;           // of the flusher's list
  AskedWriteback asked;             // of the flusher (its ask_mutex_)
  Atomic<bool> is_asked;            // there is something in it
  std::int64_t retry_after_ns = 0;  // the flusher's own: when a failing file is tried again

  MappingViews views;

  FillVerifier* verifier = nullptr;  // set while no folio is here, and the owner's; null: bytes are taken as they are

  Atomic<std::uint64_t> ghost_count;  // value entries in the index; written under its mutex
  MappingLink ghost_link;             // of the list of mappings with ghosts
};

// The bytes of a frame of this mapping's cache, from the descriptor's address alone.
inline const char* frame_bytes(const Mapping& mapping, const Folio* folio) {
  return reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(folio) * FolioPool::kFrameRatio +
                                       mapping.address_base);
}

// The folio that the lookaside guesses for `page`: it may be any, or one that is free.
inline const Folio& guess_folio(const Mapping& mapping, std::uint64_t page) {
  const Mapping::Hits& hits = mapping.hits;
  return hits.descriptors[hits.entries[(page + hits.first_place) & hits.mask].load(memory_order_acquire)];
}

#ifdef QUIRE_SIM
inline constexpr bool kNoteEveryPlace = true;  // a schedule replays only if nothing outlives it
#else
inline constexpr bool kNoteEveryPlace = false;
#endif

// Lets the lookaside guess `folio` for `page`, unless the entry is another live folio's: then one time in eight, so
// that pages in turn do not write to one line each time.
inline void note_place(Mapping& mapping, std::uint64_t page, const Folio& folio) {
  const Folio& other = guess_folio(mapping, page);
  if (&other == &folio) return;
  if (!other.sequence.odd() && referenced(other)) {
    static thread_local std::uint32_t turns = 0;
    if (!kNoteEveryPlace && ++turns % 8 != 0) return;
  }
  mapping.cache.lookaside.note(mapping.hits.first_place + page, mapping.cache.pool.id(folio));
}

inline void note_changed(Mapping& mapping) {
  mapping.backing_changed.store(true, memory_order_release);
  mapping.metadata_changed.store(true, memory_order_release);
}

// --- lookup and insertion (mapping.cc) ---

inline Folio* folio_of(XEntry entry) { return entry.is_pointer() ? static_cast<Folio*>(entry.pointer()) : nullptr; }

// The folio that holds `page`, with a reference, or null. Takes RCU itself.
Folio* get_folio(Mapping& mapping, std::uint64_t page);

// Makes `frame` (a block from a reservation, free) the folio of the 2^order pages from `page` on, which is aligned to
// its size: filling, locked, with a reference for the caller besides the mapping's, in the eviction queue. EEXIST if
// one of them is there already, ENOMEM without memory for the index: the frame is then still the caller's. extra_flags:
// kReadahead, kAhead (charged to the budget by the caller) and an owner, or 0. prefetched: nobody has asked for it yet.
Status insert_new(Mapping& mapping, Folio& frame, std::uint64_t page, std::uint32_t extra_flags = 0,
                  bool prefetched = false);

// Takes the folio (locked, of this mapping) out: removed, odd, clean. detach_folio leaves the references alone (reclaim
// froze them at 0) and leaves `ghost` in the index (0: nothing); remove_folio drops the mapping's, the caller's own
// reference and the lock stay.
void detach_folio(Mapping& mapping, Folio& folio, std::uint64_t ghost = 0);
// Drops the ghosts of [first_page, last_page].
void remove_ghosts(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page);
void remove_folio(Mapping& mapping, Folio& folio);

// A fill or whole overwrite is complete: even, unlocked is left to the caller.
inline void make_uptodate(Folio& folio) { end_change(folio); }

// --- stability (mapping.cc); the folio is locked for set_dirty ---

void set_dirty(Mapping& mapping, Folio& folio);
// dirty -> writeback; false if it is not dirty or already in writeback. The folio is locked.
bool begin_writeback(Mapping& mapping, Folio& folio);
// writeback -> unflushed (ok) or dirty again.
void end_writeback(Mapping& mapping, Folio& folio, bool ok);
// A flush of all that was written in an epoch <= epoch ended: unflushed -> clean (ok) or dirty again.
void end_flush(Mapping& mapping, std::uint32_t epoch, bool ok);
std::uint32_t begin_flush_epoch(Mapping& mapping);
// The last writeback or flush of this file failed (0: succeeded). Only a file with something at stake is failing: else
// nothing but a later sync of it would end that, and its writers would wait for it (DirtyLimit).
void set_failing(Mapping& mapping, int errnum);

}  // namespace quire
