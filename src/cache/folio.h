// Folio: the descriptor of a frame (or of 2^order frames) of the cache. Descriptors lie at fixed addresses for the life
// of the cache (type-stable), so a speculative reader never faults. Guarantees: R1, R2.
//
// States (the functions behind the arrows; "odd" is the folio's sequence):
//   free (odd, no mapping) --insert_new--> filling (odd, locked, mapping set) --make_uptodate--> uptodate (even)
//   uptodate --begin_change--> changing (odd, locked) --end_change--> uptodate
//   filling or uptodate --remove_folio--> removed (odd, no mapping) --last put_folio, grace period--> free
//   uptodate --migrate_folio--> removed, and a free frame uptodate in its place (migrate.h)
//   A fill that fails leaves the folio in the mapping, unlocked and still odd: whoever wants it fills it again.
// So: even implies uptodate, and bytes, index, order and mapping change only while odd, under the folio lock.
// Whoever gets the lock of a removed folio (a waiter) finds no mapping, and leaves the sequence alone.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/check.h"
#include "sync/atomic.h"
#include "sync/futex.h"
#include "sync/lock_class.h"
#include "sync/sequence.h"

namespace quire {

struct Mapping;

inline constexpr unsigned kMaxOrder = 9;  // of a folio: 2 MiB

extern LockClass folio_lock_class;

// Flags. Who may change them: kLocked, kWaiters: lock functions; kUptodate, kReadahead set: under the folio lock;
// kAhead, kAheadSeen: AheadBudget, and set for a new folio; the owner: for a new folio only; kDropBehind set: for a new
// folio only, cleared under the folio lock; kViewed, kWasViewed: views.h;
// kDirty, kWriteback, kUnflushed: under the mapping's xarray lock together with the marks; a clean folio becomes dirty
// only under the folio lock as well (what a failed write or flush makes dirty again was unstable all along).
enum FolioFlag : std::uint32_t {
  kLocked = 1u << 0,
  kWaiters = 1u << 1,  // somebody sleeps on the flags word
  kUptodate = 1u << 2,
  kDirty = 1u << 3,        // newer than the backing
  kWriteback = 1u << 4,    // being written; may be dirty again
  kUnflushed = 1u << 5,    // written, but no flush has succeeded since: as good as dirty
  kReadahead = 1u << 6,    // its first reader starts the next window
  kEvictable = 1u << 7,    // in the eviction queue; under its mutex
  kFree = 1u << 8,         // the first of a block in the pool's free lists; under the pool's mutex
  kAhead = 1u << 9,        // read ahead, and not known to have been used: counts in the AheadBudget
  kAheadSeen = 1u << 10,   // so it was when the budget's hand last came by
  kDropBehind = 1u << 11,  // brought in by who wants it once: goes as soon as it is clean, unless others use it
  kViewed = 1u << 12,      // may be in mapped views, for which it has one reference (views.h)
  kWasViewed = 1u << 13,   // was in one, in this life: its memory goes back to the host before its next
};
// The handle that brought the folio in, as far as 12 bits tell; 0: none, or not known any more.
inline constexpr unsigned kOwnerShift = 20;
inline constexpr std::uint32_t kOwners = 4095;
inline constexpr std::uint32_t kOwnerMask = kOwners << kOwnerShift;
inline constexpr std::uint32_t kUnstable = kDirty | kWriteback | kUnflushed;  // must not be dropped

struct alignas(64) Folio {
  Sequence sequence;
  Atomic<Mapping*> mapping;
  Atomic<std::uint64_t> index;     // in pages
  Atomic<std::uint64_t> hit_word;  // what a short hit compares: see hit_word_of
  Atomic<std::uint32_t> flags;
  Atomic<std::uint32_t> refs;       // one for the mapping, one for each user; 0 while free
  std::uint32_t next_id = 0;        // list links by frame number: free, retired and
  std::uint32_t previous_id = 0;    //   reservation lists (their owner)
  Atomic<std::uint32_t> order;      // a folio's size always comes from here
  std::uint32_t written_epoch = 0;  // flush epoch of its last write, 0: none yet; under the xarray lock
  void* address = nullptr;          // of its bytes in the arena; never changes

  std::size_t size_bytes() const { return kPageSize << order.load(memory_order_relaxed); }
  std::uint64_t pages() const { return std::uint64_t{1} << order.load(memory_order_relaxed); }
  char* bytes() const { return static_cast<char*>(address); }
  bool has(std::uint32_t flag) const { return (flags.load(memory_order_acquire) & flag) != 0; }
};
static_assert(sizeof(Folio) == 64, "metadata per page is part of the contract");

// Identity: does the folio hold `page` of `mapping` just now? Under its lock, with a reference taken under RCU, or
// followed by a recheck of its sequence.
inline bool folio_is(const Folio& folio, const Mapping* mapping, std::uint64_t page) {
  if (folio.mapping.load(memory_order_relaxed) != mapping) return false;
  return page - folio.index.load(memory_order_relaxed) < folio.pages();
}

// --- the hit word: 2 * index, the order in the bits from kHitOrderShift; + 1 if it was read since reclaim last looked.
// Anybody may change bit 0 at any time (even of a folio that was recycled meanwhile: it then counts as read, or not).
// It is set only by who found no kReadahead, so that a hit need not look for that as well. ---

inline constexpr std::uint64_t kReferenced = 1;
inline constexpr unsigned kHitOrderShift = 58;  // pages have 51 bits
inline constexpr std::uint64_t hit_word_of(std::uint64_t page, unsigned order = 0) {
  return (std::uint64_t{order} << kHitOrderShift) + 2 * page + kReferenced;
}
// Of the hit word of a large folio that was read before: is `page` in it, and as its which one?
inline bool hit_word_covers(std::uint64_t word, std::uint64_t page, std::uint64_t* nth) {
  const std::uint64_t order = word >> kHitOrderShift;
  *nth = page - ((word & ((std::uint64_t{1} << kHitOrderShift) - 1)) >> 1);
  return (word & kReferenced) != 0 && (*nth >> order) == 0;
}
inline bool referenced(const Folio& folio) { return (folio.hit_word.load(memory_order_relaxed) & kReferenced) != 0; }
inline void set_referenced(Folio& folio) {
  if (!referenced(folio)) folio.hit_word.fetch_or(kReferenced, memory_order_relaxed);
}
inline void clear_referenced(Folio& folio) { folio.hit_word.fetch_and(~kReferenced, memory_order_relaxed); }

// --- the folio lock: bit 0 of flags, waiters sleep on the word ---

inline bool try_lock_folio(Folio& folio) {
  const bool got = (folio.flags.fetch_or(kLocked, memory_order_acquire) & kLocked) == 0;
#ifdef QUIRE_LOCK_VALIDATOR
  if (got) lock_acquired(folio_lock_class, &folio);
#endif
  return got;
}
void lock_folio(Folio& folio);  // waits
inline void unlock_folio(Folio& folio) {
  lock_released(&folio);
  const std::uint32_t old = folio.flags.fetch_and(~(kLocked | kWaiters), memory_order_release);
  DCHECK((old & kLocked) != 0);
  if ((old & kWaiters) != 0) futex_wake(folio.flags, kWakeAll);
}
// As unlock_folio for a folio whose lock was passed to a completion (lock_detach).
inline void unlock_folio_async(Folio& folio) {
  lock_released_async(&folio);
  const std::uint32_t old = folio.flags.fetch_and(~(kLocked | kWaiters), memory_order_release);
  if ((old & kWaiters) != 0) futex_wake(folio.flags, kWakeAll);
}
// Without taking the lock; the caller holds a reference. False: it is still locked after so long; less than 0: waits
// for as long as it takes.
bool wait_folio_unlocked(Folio& folio, std::int64_t timeout_ns = -1);

// --- changing bytes: locked, uptodate or about to be ---

inline void begin_change(Folio& folio) {
  if (!folio.sequence.odd()) folio.sequence.write_begin();  // a new folio was born odd
}
inline void end_change(Folio& folio) {
  // Release: slow readers look at the flag alone, and then at the bytes.
  if ((folio.flags.load(memory_order_relaxed) & kUptodate) == 0) folio.flags.fetch_or(kUptodate, memory_order_release);
  folio.sequence.write_end();
}

// --- references ---

// Fails on a folio that is free or frozen for removal. Inside RCU; the caller rechecks identity afterwards.
inline bool try_get_folio(Folio& folio) {
  std::uint32_t refs = folio.refs.load(memory_order_relaxed);
  while (refs != 0) {
    if (folio.refs.compare_exchange(refs, refs + 1, memory_order_acquire, memory_order_relaxed)) return true;
  }
  return false;
}

}  // namespace quire
