// An arena as the fixed buffers of one ring (io_uring's registered buffers): the kernel looks up and pins their pages
// once instead of at each request. Between the I/O thread, which aims its requests through here, and its ring.
// Locks: none. A chunk's count of withdrawn pages is any thread's; all else is the ring's thread's alone.
//
// Registering pins (and so needs a limit that allows it: may_pin), so it follows use: a chunk is registered when the
// first request in it comes, and no further than that request's end, rounded up to kPiece, since the arena is used from
// its front. A page is never pinned more than kPiece ahead of use. Chunks are kPiece each, or larger where the kernel's
// table would not hold so many.
//
//   plain --aim--> registered --drop--> plain       and, beside it:   withdraw --> withdrawn pages --offer--> none
//
// A registered chunk keeps the pages that it had when it was registered. Where one of them is then taken from under the
// mapping (a hole punched in the arena's file), a request through the chunk would read into the page that is gone. So
// before that its owner calls withdraw(), waits until the ring's thread has called drop(), and only then punches; and
// calls offer() when the page is in use anew. What closes each race:
//   W1  The ring's thread finds a chunk usable just before a withdraw(): drop() comes later, on the same thread, and
//       the count is there before drop() is asked for. So nothing is registered or aimed at it after drop().
//   W2  Entries that were prepared, aimed at the chunk, but not submitted: drop() requires that there are none. What
//       was submitted keeps its pages, and cannot want a withdrawn one, which is free.
//   W3  offer() releases and aim() acquires: whoever registers the chunk anew pins the pages that came after the punch.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "device/io_stats.h"
#include "device/ring.h"
#include "device/transfer.h"
#include "sync/atomic.h"

namespace quire {

class FixedBuffers {
 public:
  static constexpr std::size_t kPiece = std::size_t{2} << 20;  // what a huge page is
  static constexpr unsigned kMaxSlots = 1u << 14;              // the kernel's limit for a ring
  static constexpr unsigned kRetryAfter = 4096;                // requests: what refused (memory, a limit) may have gone

  // No arena: everything is `elsewhere`. It begins at a multiple of a page, and stays mapped.
  FixedBuffers(std::span<char> arena, IoStats& stats, unsigned max_slots = kMaxSlots);
  FixedBuffers(const FixedBuffers&) = delete;
  FixedBuffers& operator=(const FixedBuffers&) = delete;

  // --- Any thread. Whole pages of the arena; a page is not withdrawn twice without an offer between.
  void withdraw(const void* address, std::size_t bytes) { change_withdrawn(address, bytes, true); }
  void offer(const void* address, std::size_t bytes) { change_withdrawn(address, bytes, false); }

  // --- The ring's thread.
  void open(Ring& ring);
  void close(Ring& ring);  // nothing is in flight
  // Where the step's bytes lie in the arena, makes it one through a registered buffer, which it registers if need be.
  // `refused`: they do, but it cannot, and the step is as it was.
  FixedUse aim(Ring& ring, TransferStep& step);
  // Registered no more: the chunks that the range touches. Every prepared entry has been submitted.
  void drop(Ring& ring, const void* address, std::size_t bytes);

 private:
  struct Chunk {
    Atomic<std::uint32_t> withdrawn;  // pages
    std::uint32_t pages = 0;          // registered, from the chunk's start
  };
  struct Bytes {
    std::uintptr_t first;
    std::uintptr_t end;
  };

  static Bytes bytes_of(const TransferStep& step);
  void change_withdrawn(const void* address, std::size_t bytes, bool withdrawn);
  std::size_t chunk_of(const void* address) const;
  bool reach(Ring& ring, std::size_t index, std::size_t end);
  void set_pages(Chunk& chunk, std::size_t pages);

  const std::uintptr_t base_;
  const std::size_t size_;
  IoStats& stats_;
  std::size_t chunk_bytes_ = kPiece;
  std::size_t chunk_count_ = 0;
  std::unique_ptr<Chunk[]> chunks_;
  bool open_ = false;      // the ring has a table; else all is refused
  bool vectored_ = false;  // the kernel takes several pieces of one buffer
  unsigned resting_ = 0;   // requests before the next try, after a refusal
};

}  // namespace quire
