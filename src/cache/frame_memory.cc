// Huge pages ahead of need, small ones in their place, and what becomes of those. See frame_memory.h.
#include "cache/frame_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "base/bytes.h"
#include "sync/clock.h"

namespace quire {

LockClass frame_memory_lock_class{"frame memory"};

namespace {

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

constexpr std::uint32_t kMaxChunk = 4 * FrameMemory::kHugeFrames;    // frames made ready at once
constexpr std::uint32_t kSmallSpan = 32 * FrameMemory::kHugeFrames;  // as small ones, before a huge one is tried again

}  // namespace

Status FrameMemory::create(char* arena, std::uint32_t frames, std::int64_t quick) {
  MutexLock lock(mutex);
  pages_.reset(new (std::nothrow) Pages[frames / kHugeFrames + 1]());
  if (pages_ == nullptr) return fail(ENOMEM);
  quick_ = quick;
  arena_ = arena;
  frames_ = frames;
  return {};
}

// Does what shmem_enabled would, whatever that is set to. False: not now (no memory in one piece, somebody has a page
// pinned), or never, where the kernel does not know how.
bool FrameMemory::make_huge(std::uint32_t first) {
  char* const start = arena_ + std::size_t{first} * kPageSize;
  if (madvise(start, kHugePage, MADV_COLLAPSE) != 0) {
    if (errno == EINVAL) try_huge_ = false;
    return false;
  }
  pages_[first / kHugeFrames] = Pages::huge;
  huge_frames_.store(huge_frames_.load(memory_order_relaxed) + kHugeFrames, memory_order_relaxed);
  return true;
}

void FrameMemory::prepare_small(std::uint32_t first, std::uint32_t count) {
  const std::uint32_t end = first + std::min(frames_ - first, count);
  for (std::uint32_t at = first; try_huge_ && at + kHugeFrames <= end; at += kHugeFrames) {
    pages_[at / kHugeFrames] = Pages::small;
    if (first_small() == kNone) first_small_.store(at, memory_order_relaxed);
  }
  prepared_.store(end, memory_order_release);
}

void FrameMemory::prepare(std::uint32_t first, std::uint32_t room) {
  MutexLock lock(mutex);
  if (prepared_.load(memory_order_relaxed) != first || first == frames_) return;
  room = std::min(room, frames_ - first);
  if (!try_huge_ || room < kHugeFrames) {  // mapped page by page: the next ones, or all
    prepared_.store(try_huge_ ? first + std::min(frames_ - first, kHugeFrames) : frames_, memory_order_release);
    return;
  }
  const std::uint32_t wanted = std::clamp<std::uint32_t>(first / 4 / kHugeFrames * kHugeFrames, kHugeFrames, kMaxChunk);
  const std::uint32_t end = first + std::min(wanted, room / kHugeFrames * kHugeFrames);
  std::int64_t since = clock_ns(CLOCK_MONOTONIC);
  for (std::uint32_t at = first; at != end; at += kHugeFrames) {
    // An empty range is not collapsed: its first page must be there.
    *static_cast<volatile char*>(arena_ + std::size_t{at} * kPageSize) = 0;
    if (!make_huge(at)) return prepare_small(at, try_huge_ ? kSmallSpan : frames_);
    huge_end_.store(at + kHugeFrames, memory_order_relaxed);
    prepared_.store(at + kHugeFrames, memory_order_release);
    const std::int64_t now = clock_ns(CLOCK_MONOTONIC);
    if (now - since > quick_) return prepare_small(at + kHugeFrames, kSmallSpan);
    since = now;
  }
}

void FrameMemory::gather_first() {
  static_cast<void>(make_huge(first_small()));
  pass_first();
}

void FrameMemory::pass_first() {
  std::uint32_t area = first_small() / kHugeFrames;
  if (pages_[area] == Pages::small) pages_[area] = Pages::unknown;
  const std::uint32_t end = prepared_.load(memory_order_relaxed) / kHugeFrames;
  while (area != end && pages_[area] != Pages::small) ++area;
  first_small_.store(try_huge_ && area != end ? area * kHugeFrames : kNone, memory_order_relaxed);
}

void FrameMemory::lost(std::uint32_t frame) {
  if (std::exchange(pages_[frame / kHugeFrames], Pages::unknown) != Pages::huge) return;
  huge_frames_.store(huge_frames_.load(memory_order_relaxed) - kHugeFrames, memory_order_relaxed);
}

}  // namespace quire
