// Fill: folios are instantiated and read from the backing, one I/O for many waiters. Guarantees: R1, R2.
//
// A batch holds the invalidate lock (instantiate) over its pages from before it inserts a folio until the folio is
// uptodate or has failed: no folio can be instantiated over blocks that a range operation is freeing. Its folios are
// inserted locked and odd; others find them and wait for the folio lock. Of a mapping with a verifier they are verified
// before they are uptodate (verifier.h).
// Locks: invalidate (instantiate, unless the context covers it) > folio (the batch's new ones, ascending) > backing.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>

#include "cache/mapping.h"
#include "cache/verifier.h"
#include "quire/result.h"

namespace quire {

// A batch of new folios: planned, read, finished. On the stack of a synchronous fill, or on the heap (readahead).
class FillBatch {
 public:
  static constexpr std::size_t kMaxFolios = 128;  // 512 KiB of single-page folios
  static constexpr std::size_t kMaxPages = 1024;  // 4 MiB
  static constexpr std::size_t kMaxRequests = 32;
  static constexpr std::uint64_t kRequestBytes = 512 * 1024;  // at most, so that the device works on several at once

  explicit FillBatch(Mapping& mapping) : mapping_(mapping) {}
  ~FillBatch() {}
  FillBatch(const FillBatch&) = delete;
  FillBatch& operator=(const FillBatch&) = delete;

  // Instantiates the absent pages of [first, last], as far as frames and room go, in folios of at most 2^order pages;
  // pages that are there are passed over. mark_page: the first new folio from it on gets the readahead mark
  // (none: UINT64_MAX). flags: for all of them, as insert_new's. Returns 0, or ENOMEM if the index ran out of memory:
  // what was inserted before stands.
  int insert(std::uint64_t first, std::uint64_t last, FrameReservation& frames, unsigned order, std::uint64_t mark_page,
             std::uint32_t flags = 0);
  std::uint64_t reached() const { return reached_; }  // the page that insert() would have gone on with
  bool marked() const { return marked_; }
  // One folio that is in the mapping but failed before: locked and referenced by the caller, given back so.
  void adopt(Folio& folio) { folios_[count_++] = &folio; }

  Backing& backing() const { return *mapping_.backing; }
  std::size_t count() const { return count_; }
  Folio& folio(std::size_t i) { return *folios_[i]; }
  // Maps the folios and builds device requests. Holes are zeroed here. An errno if the backing cannot map.
  int plan();
  std::span<Request* const> requests() const { return {request_list_.data(), request_count_}; }
  // All requests are done. What is good for that folio alone?
  bool read_well(std::size_t i);
  // Was nothing of [offset, end) read, so that it is zeros? Bytes in the file, of its folios.
  bool is_hole(std::uint64_t offset, std::uint64_t end) const;
  // Folios become uptodate, or stay as they are where theirs failed, or the check (may be null) says so. The first
  // errno, or 0.
  int finish(const FillCheck* check);
  // Unlocks the folios and drops the batch's references. `async`: the locks were detached.
  void release(bool async);
  void detach_locks();

 private:
  bool add_request(const Extent& extent, std::size_t* at);
  void look_at_requests();
  void settle(std::size_t index, bool ok);

  Mapping& mapping_;
  std::size_t count_ = 0;
  std::size_t request_count_ = 0;
  std::size_t vector_count_ = 0;
  std::uint64_t reached_ = 0;
  bool marked_ = false;
  std::uint64_t backing_size_ = 0;  // when planned: past it is zero
  std::uint64_t planned_to_ = 0;    // folios from here on (bytes) have no request: they stay unfilled
  int plan_error_ = 0;
  bool looked_ = false;  // the next two are known
  int read_error_ = 0;   // of the first request that failed
  std::bitset<kMaxFolios> failed_;
  std::array<Folio*, kMaxFolios> folios_;
  union {
    Request requests_[kMaxRequests];  // made as they are needed: a fill of one folio needs one
  };
  std::array<Request*, kMaxRequests> request_list_;
  std::array<std::uint64_t, kMaxRequests> file_offsets_;
  std::array<iovec, kMaxFolios + kMaxRequests> vectors_;
};

struct Filled {
  Folio* first = nullptr;  // of the first page, referenced so that reclaim cannot take it back; null: it was there
  std::uint64_t end = 0;   // the page after the last that was instantiated
};

// Fills the absent pages of [first, last] and waits; the calling thread submits and reaps. Uses frames of the
// reservation, which has at least one, in folios of at most 2^order pages; passes over what is there. A folio whose I/O
// failed stays unfilled: wait_uptodate tells its own error. ENOMEM: not even the first page found room in the index. No
// folio lock may be held.
Result<Filled> fill_range(Mapping& mapping, std::uint64_t first, std::uint64_t last, FrameReservation& frames,
                          const CacheContext& context, unsigned order = 0, std::uint64_t mark_page = UINT64_MAX);

// What is verified together is best filled together: [first, last] grows to whole units, within the file, where the
// mapping has a verifier.
void widen_to_units(const Mapping& mapping, std::uint64_t* first, std::uint64_t* last);

// Waits until the folio (referenced) is uptodate, filling it again if an earlier fill failed. ESTALE if it was removed
// meanwhile, or is a large one that failed, and is removed now: look the page up again, and fill it by itself.
Status wait_uptodate(Mapping& mapping, Folio& folio, std::uint64_t page, const CacheContext& context);

struct AheadFilled {
  std::uint64_t end;       // the page after the last that is there now, or on its way
  bool inserted = false;   // any page
  bool submitted = false;  // any I/O
};

// Readahead of [first, last]: asynchronous, as far as the budget (PageCache::ahead), the invalidate lock and frames are
// to be had at once. In pieces of at most kAheadPages, so that a reader waits for its own piece only. The first new
// folio from `mark_page` on gets the readahead mark. owner: as CacheContext::owner.
inline constexpr std::uint64_t kAheadPages = FillBatch::kMaxFolios;
AheadFilled fill_ahead(Mapping& mapping, std::uint64_t first, std::uint64_t last, unsigned order,
                       std::uint64_t mark_page, std::uint32_t owner = 0);

struct ReadRange {
  std::uint64_t first, last;             // pages
  unsigned order = 0;                    // of the folios, at most
  std::uint64_t mark_page = UINT64_MAX;  // the first new folio from here on gets the readahead mark
};

// What somebody asked for and waits for elsewhere: submits the absent pages of the range as far as one batch goes,
// waiting for nothing. If that says `submitted`, `ended(argument)` runs once, when all of it is done, well or not: on
// quire's I/O thread or, where bytes are verified, on whichever thread has done that, maybe this one before this call
// returns. It may only record and wake. Else nothing is under way: nothing was absent, or only holes, which
// are filled now, or locks, frames or memory were not to be had.
AheadFilled fill_for(Mapping& mapping, const ReadRange& wanted, std::uint32_t owner, void (*ended)(void*),
                     void* argument);

// For others who submit what may outlive their call: counted until its very end, after which nothing of the mapping is
// touched.
inline void ahead_begun(Mapping& mapping) { mapping.ahead.fetch_add(1, memory_order_relaxed); }
void ahead_ended(Mapping& mapping);

// Waits until no readahead, nor anything else submitted here, of this mapping is in flight; the caller keeps new ones
// from starting.
void drain_ahead(Mapping& mapping);

}  // namespace quire
