// The frames: one memfd arena and one descriptor per frame, both at fixed addresses for the life of the cache.
// Guarantees: R2 (type stability), M1.  Locks: memory_.mutex > mutex_; a front's mutex > mutex_.
//
// A frame is taken into a FrameReservation (before any lock is held, see PageCache::reserve), becomes a folio, and goes
// back through `retire` after its last reference: it becomes free only once a grace period has passed, so that a fast
// reader that still copies from it sees the old bytes and never another file's.
// Somebody may have pinned a frame that was in a mapped view (kWasViewed), and read or write it long after: so its
// memory goes back to the host first, and the frame gets other memory with its next use. What the kernel keeps all the
// same (a part of a huge page that is pinned) is put aside, and tried again when the next such frames come.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "cache/buddy.h"
#include "cache/folio.h"
#include "cache/frame_front.h"
#include "cache/frame_memory.h"
#include "device/fork_guard.h"
#include "quire/result.h"
#include "sync/mutex.h"

namespace quire {

class FolioPool;
class IoThread;
extern LockClass folio_pool_lock_class;

// Frames that belong to one operation and to no mapping. Given back at its end.
class FrameReservation {
 public:
  explicit FrameReservation(FolioPool& pool) : pool_(pool) {}
  ~FrameReservation() { release(); }
  FrameReservation(const FrameReservation&) = delete;
  FrameReservation& operator=(const FrameReservation&) = delete;

  FolioPool& pool() { return pool_; }
  std::uint32_t count() const { return count_; }
  // A block of 2^order frames, cut from a larger one if need be; null where there is none.
  Folio* take(unsigned order = 0);
  unsigned max_order() const;  // of what take() can give; 0 also when empty
  void put(Folio& folio);
  void release();  // gives the rest back

 private:
  friend class FolioPool;
  FolioPool& pool_;
  std::uint32_t used_ = 0;                          // bit by order: its list is not empty
  std::uint32_t count_ = 0;                         // frames
  std::array<std::uint32_t, kMaxOrder + 1> heads_;  // by order: frame numbers, linked through next_id
};

class FolioPool {
 public:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  static constexpr std::uint32_t kFewFrames = 512;  // ready and unused: 2 MiB, read in 1 ms at best

  FolioPool() = default;
  ~FolioPool();
  FolioPool(const FolioPool&) = delete;
  FolioPool& operator=(const FolioPool&) = delete;

  // Maps the arena and descriptors for `frames` frames; memory is used as frames are first taken. in_use: how many of
  // them are meant to be used for now.
  Status create(std::uint32_t frames, std::uint32_t in_use);
  Status create(std::uint32_t frames) { return create(frames, frames); }
  // More, or fewer, of them are. Frames that have no memory are taken, and made ready, only up to that many in all.
  void mean_to_use(std::uint32_t frames) {
    if (meant_.load(memory_order_relaxed) != frames) meant_.store(frames, memory_order_relaxed);
  }

  // Adds up to `want` free frames to the reservation, in blocks of at most 2^max_order, as large as there are; returns
  // how many. Waits for nothing but memory that is being made ready, if frames that were never used are taken faster
  // than that. A few single frames come from the thread's front; where the pool runs dry, from everybody's.
  std::uint32_t take(FrameReservation& reservation, std::uint32_t want, unsigned max_order = 0);
  // A few single frames go to the thread's front.
  void give_back(FrameReservation& reservation);
  // All of them become free blocks, merged with their neighbours.
  void free_blocks(FrameReservation& reservation);
  // Adds all free blocks inside the block of 2^order frames that begins at `first`, to keep them from others.
  void take_free_of(FrameReservation& reservation, std::uint32_t first, unsigned order);
  // What lies in fronts becomes free blocks. Returns the number of frames.
  std::uint32_t drain_fronts();
  // The last reference to a removed folio is gone: free after a grace period. Never waits; any thread, any lock.
  void retire(Folio& folio);
  // Makes the next frames ready if few are left; on a thread of quire's own, so that no reader waits for it. `stop` is
  // looked at between pieces.
  void prepare_ahead(const Atomic<bool>& stop);
  bool prepare_due() const {
    const std::uint32_t prepared = memory_.prepared();
    return prepared < meant_.load(memory_order_relaxed) && prepared - touched_.load(memory_order_relaxed) < kFewFrames;
  }
  // Makes a huge page of small ones that had to do when memory was wanted at once, and that are used by now; false:
  // there are none.
  bool gather_small();
  bool has_small() const {
    const std::uint32_t first = memory_.first_small();
    return first != kNone && first + FrameMemory::kHugeFrames <= touched_.load(memory_order_relaxed);
  }

  // Gives the memory of up to `want` free frames back to the host, in blocks as large as there are: a huge page is
  // better not split. They are taken again only where no other frame that was used before is free, and get new memory
  // then. Returns how many.
  std::uint32_t withhold(std::uint32_t want);
  // Whose ring has the arena registered: it is told before memory goes and before it is used again. Null: nobody's.
  void registered_with(IoThread* io_thread) { io_thread_ = io_thread; }
  std::uint32_t withheld() const { return withheld_count_.load(memory_order_relaxed); }
  // Frames that have memory, as far as is known here: used once and not withheld, or made ready.
  std::uint32_t populated_frames() const {
    const std::uint32_t gone = withheld() - std::min(withheld(), going_.load(memory_order_relaxed));
    return std::max(touched_.load(memory_order_relaxed), memory_.huge_end()) - gone;
  }

  // Waits for a grace period and frees what was retired before. Returns the number of frames freed. No lock held.
  std::uint32_t collect_retired();

  // A folio's bytes lie at its descriptor's address times 64 plus this (descriptors are 64 bytes, frames 4096, both
  // arrays contiguous): on the hit path the copy need not wait for the descriptor's cache line.
  std::uintptr_t address_base() const {
    return reinterpret_cast<std::uintptr_t>(arena_) - reinterpret_cast<std::uintptr_t>(folios_) * kFrameRatio;
  }
  static constexpr std::uintptr_t kFrameRatio = kPageSize / sizeof(Folio);

  // By lookaside entry, a frame's number + 1: before the first descriptor lies one that is nobody's and never changes;
  // before the first frame, nothing that may be touched.
  const Folio* descriptor_before() const { return folios_ - 1; }
  const char* bytes_before() const {
    return reinterpret_cast<const char*>(reinterpret_cast<std::uintptr_t>(arena_) - kPageSize);
  }

  int arena_fd() const { return arena_fd_.fd(); }  // the file behind it
  // All of it, most of which may be untouched yet.
  std::span<char> arena() const { return {static_cast<char*>(arena_), std::size_t{frames_} * kPageSize}; }

  Folio& folio(std::uint32_t id) { return folios_[id]; }
  std::uint32_t id(const Folio& folio) const { return static_cast<std::uint32_t>(&folio - folios_); }
  std::uint32_t frames() const { return frames_; }  // as created
  std::uint32_t free_frames() const { return std::min(frames_, free_outside_fronts() + fronts_.count()); }
  // Nearly as many, without a look at other threads' fronts.
  std::uint32_t free_outside_fronts() const { return free_count_.load(memory_order_relaxed); }
  // Were in a view, and wait until nobody has them pinned.
  std::uint32_t frames_aside() const { return aside_count_.load(memory_order_relaxed); }
  std::uint64_t scrubbed() const { return scrubbed_.load(memory_order_relaxed); }
  std::uint32_t retired_frames() const { return retired_count_.load(memory_order_relaxed); }
  // Frames whose descriptors and bytes were ever touched: what the arena and its metadata cost at most.
  std::uint32_t touched_frames() const { return touched_.load(memory_order_acquire); }
  // Bytes of the arena that lie in huge pages.
  std::uint64_t huge_bytes() const { return memory_.huge_frames() * kPageSize; }

 private:
  friend class FrameReservation;
  Status map_arena(std::size_t bytes);
  void close_arena();
  void prepare(std::uint32_t first);
  std::uint32_t take_prepared(FrameReservation& reservation, std::uint32_t want, unsigned max_order,
                              std::uint32_t prepared);
  std::uint32_t take_from_front(FrameReservation& reservation, std::uint32_t want);
  void fill_front(FrameFront& front, std::uint32_t want) REQUIRES(front.mutex);
  bool give_to_front(FrameReservation& reservation);
  void empty_front(FrameFront& front, std::uint32_t count) REQUIRES(front.mutex);
  std::uint32_t take_block_locked(unsigned order, std::uint32_t prepared) REQUIRES(mutex_);
  void take_free_locked(FrameReservation& reservation, std::uint32_t want) REQUIRES(mutex_);
  void free_range_locked(std::uint32_t first, std::uint32_t end) REQUIRES(mutex_);
  void add_free(std::uint32_t count) REQUIRES(mutex_);
  void keep_withheld_locked(Folio& block) REQUIRES(mutex_);
  void touch_locked(std::uint32_t end) REQUIRES(mutex_);
  bool has_withheld(std::uint32_t first);
  std::uint32_t scrub(FrameReservation& seen);
  bool punch(Folio& block);

  Folio* folios_ = nullptr;
  void* arena_ = nullptr;
  GuardedFd arena_fd_;
  std::uint32_t frames_ = 0;
  Mutex mutex_{folio_pool_lock_class};
  Buddy free_ GUARDED_BY(mutex_);     // frames that were used before
  FrameFronts fronts_;                // each under its own mutex, which comes before mutex_
  Atomic<std::uint32_t> free_count_;  // outside of fronts, the untouched included; written under mutex_
  Atomic<std::uint32_t> touched_;     // written under mutex_
  FrameMemory memory_;
  Atomic<std::uint32_t> meant_;                                // frames that may have memory
  IoThread* io_thread_ = nullptr;                              // set before there are readers
  std::unique_ptr<std::uint16_t[]> areas_ GUARDED_BY(mutex_);  // by huge page: how many of its frames are withheld
  FrameReservation withheld_{*this};                           // under mutex_; its blocks have no memory
  Atomic<std::uint32_t> withheld_count_;                       // those whose memory is just going included
  Atomic<std::uint32_t> going_;                                // of them, those
  Atomic<std::uint32_t> retired_head_{kNone};                  // a stack; taken whole
  Atomic<std::uint32_t> retired_count_;
  FrameReservation aside_{*this};  // under mutex_
  Atomic<std::uint32_t> aside_count_;
  Atomic<std::uint64_t> scrubbed_;
};

}  // namespace quire
