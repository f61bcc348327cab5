// Memory for the arena's frames: huge pages made ready ahead of need; small ones, made huge later, where the machine
// takes long to find a huge one.
// Locks: mutex, before the pool's; held for milliseconds. Whoever takes memory away from frames holds it too.
//
// Frames are first used in order, so those before prepared() may be used and the next ones are made ready. A virtual
// machine may have given what is free in it back to its host, in blocks the size of a huge page, and then clearing one
// takes 4 to 9 ms where it takes 0.2 otherwise: too long for who waits for it. Small pages come from what is left of
// blocks that were broken up, which the host never got. So:
//
//             prepare: the last one was quick
//   nothing ----------------------------------> huge
//      |      prepare: it was slow, or failed    ^
//      +------------------------------> small ---+  gather, once what is cached stays
//
// Each kSmallSpan one huge page is tried again. gather() copies a huge page's worth of small ones in the kernel; who
// uses one of them meanwhile waits in a page fault, for as long as the huge page takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "quire/result.h"
#include "sync/atomic.h"
#include "sync/mutex.h"

namespace quire {

extern LockClass frame_memory_lock_class;

class FrameMemory {
 public:
  static constexpr std::size_t kHugePage = std::size_t{2} << 20;
  static constexpr std::uint32_t kHugeFrames = kHugePage / kPageSize;
  static constexpr std::uint32_t kNone = UINT32_MAX;
  static constexpr std::int64_t kQuick = 1'000'000;  // ns for a huge page

  // quick: a huge page that takes longer is slow.
  Status create(char* arena, std::uint32_t frames, std::int64_t quick = kQuick);

  // Frames before this one may be used: their bytes were written by who made them ready.
  std::uint32_t prepared() const { return prepared_.load(memory_order_acquire); }
  // No frame from here on was made ready in a huge page.
  std::uint32_t huge_end() const { return huge_end_.load(memory_order_relaxed); }
  std::uint64_t huge_frames() const { return huge_frames_.load(memory_order_relaxed); }

  // Makes the next frames ready, if there are any. first: what the caller saw as prepared(); another thread may have
  // been faster. room: how many more may have memory.
  void prepare(std::uint32_t first, std::uint32_t room);

  // The first frame of the first huge page's worth of small ones; kNone: there is none.
  std::uint32_t first_small() const { return first_small_.load(memory_order_relaxed); }
  // Makes those one huge page, unless the kernel cannot now (somebody has one pinned). They are not the first any more.
  void gather_first() REQUIRES(mutex);
  void pass_first() REQUIRES(mutex);  // leaves them as they are
  // Some of the memory around this frame was given back: it is no huge page any more.
  void lost(std::uint32_t frame) REQUIRES(mutex);

  Mutex mutex{frame_memory_lock_class};

 private:
  enum class Pages : std::uint8_t { unknown, small, huge };

  bool make_huge(std::uint32_t first) REQUIRES(mutex);
  void prepare_small(std::uint32_t first, std::uint32_t count) REQUIRES(mutex);

  char* arena_ = nullptr;
  std::uint32_t frames_ = 0;
  Atomic<std::uint32_t> prepared_;  // this and the next three are written under the mutex
  Atomic<std::uint32_t> huge_frames_;
  Atomic<std::uint32_t> huge_end_;
  Atomic<std::uint32_t> first_small_{kNone};
  std::unique_ptr<Pages[]> pages_ GUARDED_BY(mutex);  // by huge page; small: to be gathered
  std::int64_t quick_ = kQuick;
  bool try_huge_ GUARDED_BY(mutex) = true;
};

}  // namespace quire
