// The arena and the free, reserved and retired lists of frames.
#include "cache/folio_pool.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>
#include <utility>

#include "base/defect.h"
#include "base/error.h"
#include "device/io_thread.h"
#include "sync/rcu.h"

namespace quire {

LockClass folio_pool_lock_class{"folio pool"};

namespace {

constexpr std::size_t kHugePage = FrameMemory::kHugePage;
constexpr std::uint32_t kHugeFrames = FrameMemory::kHugeFrames;

// Shared memory of fd, or private memory for fd < 0, at an address where huge pages fit. Null: errno says why.
void* map_aligned(std::size_t bytes, int fd) {
  const std::size_t room = bytes + kHugePage;
  void* reserved = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return nullptr;
  char* start = static_cast<char*>(reserved);
  char* aligned = reinterpret_cast<char*>(round_up(reinterpret_cast<std::uintptr_t>(start), kHugePage));
  char* end = aligned + round_up(bytes, kPageSize);
  if (aligned != start) munmap(start, static_cast<std::size_t>(aligned - start));
  if (end != start + room) munmap(end, static_cast<std::size_t>(start + room - end));
  const int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* mapped = mmap(aligned, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd, 0);
  if (mapped != MAP_FAILED) return mapped;
  const int errnum = errno;
  munmap(aligned, static_cast<std::size_t>(end - aligned));
  errno = errnum;
  return nullptr;
}

// One more than the frames: see descriptor_before().
std::size_t descriptors_size(std::uint32_t frames) { return (std::size_t{frames} + 1) * sizeof(Folio); }

}  // namespace

Folio* FrameReservation::take(unsigned order) {
  if ((used_ >> order) == 0) return nullptr;
  unsigned found = order + static_cast<unsigned>(std::countr_zero(used_ >> order));
  Folio& folio = pool_.folio(heads_[found]);
  heads_[found] = folio.next_id;
  if (folio.next_id == FolioPool::kNone) used_ &= ~(1u << found);
  count_ -= 1u << found;
  while (found > order) {
    --found;
    Folio& half = pool_.folio(pool_.id(folio) + (1u << found));
    half.order.store(found, memory_order_relaxed);
    put(half);
  }
  folio.order.store(order, memory_order_relaxed);
  return &folio;
}

void FrameReservation::put(Folio& folio) {
  const unsigned order = folio.order.load(memory_order_relaxed);
  folio.next_id = (used_ >> order & 1) != 0 ? heads_[order] : FolioPool::kNone;
  heads_[order] = pool_.id(folio);
  used_ |= 1u << order;
  count_ += 1u << order;
}

unsigned FrameReservation::max_order() const {
  return used_ == 0 ? 0 : static_cast<unsigned>(std::bit_width(used_)) - 1;
}

void FrameReservation::release() {
  if (count_ != 0) pool_.give_back(*this);
}

Status FolioPool::create(std::uint32_t frames, std::uint32_t in_use) {
  QUIRE_TRY(fronts_.create(in_use));
  std::unique_ptr<std::uint16_t[]> areas(new (std::nothrow) std::uint16_t[frames / kHugeFrames + 1]());
  if (areas == nullptr) return fail(ENOMEM);
  const std::size_t bytes = std::size_t{frames} * kPageSize;
  QUIRE_TRY(map_arena(bytes));
  if (const Status memory = memory_.create(static_cast<char*>(arena_), frames); !memory.ok()) {
    munmap(std::exchange(arena_, nullptr), bytes);
    return memory;
  }
  const std::size_t descriptor_bytes = descriptors_size(frames);
  void* descriptors = map_aligned(descriptor_bytes, -1);
  if (descriptors == nullptr) {
    const int errnum = errno;
    munmap(arena_, bytes);
    arena_ = nullptr;
    return fail_with(errnum, "cannot map the descriptors of %u frames: give the cache less memory", frames);
  }
  const std::size_t used_bytes = descriptors_size(in_use);
  if (used_bytes >= kHugePage / 2) madvise(descriptors, round_up(used_bytes, kPageSize), MADV_HUGEPAGE);
  folios_ = static_cast<Folio*>(descriptors) + 1;  // constructed frame by frame, as take() first touches them
  frames_ = frames;
  mean_to_use(in_use);
  {
    MutexLock lock(mutex_);
    free_.use(folios_);
    areas_ = std::move(areas);
  }
  free_count_.store(frames, memory_order_relaxed);
  return {};
}

Status FolioPool::map_arena(std::size_t bytes) {
  rlimit largest{};
  if (getrlimit(RLIMIT_FSIZE, &largest) == 0 && bytes > largest.rlim_cur) {  // to try would be SIGXFSZ
    return fail_with(EFBIG, "the limit on file sizes is below the arena's %zu bytes: raise it (ulimit -f)", bytes);
  }
  close_arena();  // of an attempt with more frames
  {
    ForkGuard guard;
    const int fd = memfd_create("quire-arena", MFD_CLOEXEC);
    if (fd < 0) return fail_with(errno, "cannot create the arena of the cache (memfd_create): %m");
    guard.add(arena_fd_, fd);  // views are mapped from it
  }
  if (ftruncate(arena_fd(), static_cast<off_t>(bytes)) != 0) {
    return fail_with(errno, "cannot size the arena of the cache to %zu bytes: give the cache less memory", bytes);
  }
  arena_ = map_aligned(bytes, arena_fd());
  if (arena_ == nullptr) return fail_with(errno, "cannot map %zu bytes for the cache: give it less memory", bytes);
  madvise(arena_, bytes, MADV_DONTFORK);  // a child gets errors from every call, and pays nothing for the arena
  return {};
}

void FolioPool::close_arena() {
  if (arena_fd() < 0 || device_in_forked_child()) return;
  ForkGuard guard;
  ::close(guard.remove(arena_fd_));
}

FolioPool::~FolioPool() {
  withheld_.release();  // before what its links lie in
  aside_.release();
  close_arena();
  if (arena_ != nullptr) munmap(arena_, std::size_t{frames_} * kPageSize);
  if (folios_ != nullptr) munmap(static_cast<void*>(folios_ - 1), descriptors_size(frames_));
}

void FolioPool::prepare(std::uint32_t first) {
  const std::uint32_t meant = meant_.load(memory_order_relaxed), populated = populated_frames();
  memory_.prepare(first, meant > populated ? meant - populated : 0);
}

void FolioPool::prepare_ahead(const Atomic<bool>& stop) {
  while (prepare_due() && !stop.load(memory_order_relaxed)) prepare(memory_.prepared());
}

bool FolioPool::gather_small() {
  MutexLock lock(memory_.mutex);
  if (!has_small()) return false;
  const std::uint32_t first = memory_.first_small();
  if (has_withheld(first)) {  // a huge page would give those memory
    memory_.pass_first();
    return true;
  }
  void* const start = folios_[first].bytes();
  if (io_thread_ != nullptr) io_thread_->withdraw(start, kHugePage);  // its pins would stand in the way
  memory_.gather_first();
  if (io_thread_ != nullptr) io_thread_->offer(start, kHugePage);
  return true;
}

bool FolioPool::has_withheld(std::uint32_t first) {
  MutexLock lock(mutex_);
  return areas_[first / kHugeFrames] != 0;
}

std::uint32_t FolioPool::take(FrameReservation& reservation, std::uint32_t want, unsigned max_order) {
  std::uint32_t taken = max_order == 0 && want <= FrameFront::kBatch ? take_from_front(reservation, want) : 0;
  while (taken < want) {
    const std::uint32_t prepared = memory_.prepared();
    const std::uint32_t got = take_prepared(reservation, want - taken, max_order, prepared);
    taken += got;
    if (got != 0) continue;
    const bool no_room = prepared > touched_.load(memory_order_relaxed);  // for more that has memory
    if (prepared != frames_ && !no_room) {
      prepare(prepared);
    } else if (drain_fronts() == 0) {
      break;
    }
  }
  return taken;
}

std::uint32_t FolioPool::take_from_front(FrameReservation& reservation, std::uint32_t want) {
  FrameFront* const front = fronts_.mine();
  if (front == nullptr) return 0;
  MutexLock lock(front->mutex);
  if (front->count.load(memory_order_relaxed) < want) fill_front(*front, want);
  const std::uint32_t got = std::min(want, front->count.load(memory_order_relaxed));
  for (std::uint32_t i = 0; i < got; ++i) reservation.put(folios_[front->pop()]);
  return got;
}

// Up to a batch, of frames that were used before; of others no more than are wanted now.
void FolioPool::fill_front(FrameFront& front, std::uint32_t want) {
  const std::uint32_t prepared = memory_.prepared();
  const std::uint32_t before = front.count.load(memory_order_relaxed);
  std::uint32_t count = before;
  MutexLock lock(mutex_);
  for (; count < FrameFront::kBatch; ++count) {
    const std::uint32_t id = count < want || free_.has(0) ? take_block_locked(0, prepared) : kNone;
    if (id == kNone) break;
    front.push(id);
  }
  free_count_.store(free_count_.load(memory_order_relaxed) - (count - before), memory_order_relaxed);
}

void FolioPool::empty_front(FrameFront& front, std::uint32_t count) {
  MutexLock lock(mutex_);
  for (std::uint32_t i = 0; i < count; ++i) free_.free(front.pop(), 0);
  free_count_.store(free_count_.load(memory_order_relaxed) + count, memory_order_relaxed);
}

std::uint32_t FolioPool::drain_fronts() {
  std::uint32_t drained = 0;
  for (std::uint32_t i = 0; i < fronts_.size(); ++i) {
    FrameFront& front = fronts_[i];
    if (front.count.load(memory_order_relaxed) == 0) continue;
    MutexLock lock(front.mutex);
    const std::uint32_t count = front.count.load(memory_order_relaxed);
    empty_front(front, count);
    drained += count;
  }
  return drained;
}

// Makes the descriptors of the frames before `end`, which are then the caller's.
void FolioPool::touch_locked(std::uint32_t end) {
  for (std::uint32_t id = touched_.load(memory_order_relaxed); id < end; ++id) {
    Folio* folio = new (&folios_[id]) Folio;
    folio->address = static_cast<char*>(arena_) + std::size_t{id} * kPageSize;
    folio->sequence.write_begin();  // born odd: free
  }
  touched_.store(end, memory_order_release);  // who goes round the descriptors finds them made
  free_.extend(end);
}

// The frames [first, end), which lie in no list, in blocks as large as their alignment allows.
void FolioPool::free_range_locked(std::uint32_t first, std::uint32_t end) {
  while (first < end) {
    const auto aligned = static_cast<unsigned>(std::countr_zero(first));
    const unsigned order = std::min({aligned, static_cast<unsigned>(std::bit_width(end - first)) - 1, kMaxOrder});
    free_.free(first, order);
    first += 1u << order;
  }
}

// A block from the free lists, or of frames never used before; kNone where there is none of that order.
std::uint32_t FolioPool::take_block_locked(unsigned order, std::uint32_t prepared) {
  if (free_.has(order)) return free_.take(order);
  const std::uint32_t size = 1u << order;
  const std::uint32_t populated = populated_frames(), meant = meant_.load(memory_order_relaxed);
  const std::uint32_t room = meant > populated ? meant - populated : 0;
  if (Folio* block = size <= room ? withheld_.take(order) : nullptr) {
    withheld_count_.fetch_sub(size, memory_order_relaxed);
    areas_[id(*block) / kHugeFrames] = static_cast<std::uint16_t>(areas_[id(*block) / kHugeFrames] - size);
    if (io_thread_ != nullptr) io_thread_->offer(block->bytes(), block->size_bytes());
    add_free(size);  // as if it had been: the caller counts what it takes
    return id(*block);
  }
  const std::uint32_t touched = touched_.load(memory_order_relaxed);
  const std::uint64_t aligned = round_up(touched, size);
  if (aligned + size > prepared) return kNone;
  const auto first = static_cast<std::uint32_t>(aligned);
  const std::uint32_t ready = std::max(touched, memory_.huge_end());
  if (first + size > ready && first + size - ready > room) return kNone;
  touch_locked(first + size);
  free_range_locked(touched, first);  // what was skipped
  folios_[first].order.store(order, memory_order_relaxed);
  return first;
}

std::uint32_t FolioPool::take_prepared(FrameReservation& reservation, std::uint32_t want, unsigned max_order,
                                       std::uint32_t prepared) {
  MutexLock lock(mutex_);
  std::uint32_t taken = 0;
  unsigned order = max_order;
  while (taken < want) {
    order = std::min(order, static_cast<unsigned>(std::bit_width(want - taken)) - 1);
    const std::uint32_t id = take_block_locked(order, prepared);
    if (id != kNone) {
      reservation.put(folios_[id]);
      taken += 1u << order;
    } else if (order-- == 0) {
      break;
    }
  }
  free_count_.store(free_count_.load(memory_order_relaxed) - taken, memory_order_relaxed);
  return taken;
}

void FolioPool::take_free_of(FrameReservation& reservation, std::uint32_t first, unsigned order) {
  const std::uint32_t end = first + (1u << order);
  const std::uint32_t before = reservation.count();
  MutexLock lock(mutex_);
  for (std::uint32_t id = first; id < end;) {
    Folio& folio = folios_[id];
    const std::uint32_t size = folio.has(kFree) ? 1u << folio.order.load(memory_order_relaxed) : 1;
    if (size > end - id) break;  // a free block that is larger
    if (folio.has(kFree)) {
      free_.take_at(id);
      reservation.put(folio);
    }
    id += size;
  }
  const std::uint32_t taken = reservation.count() - before;
  free_count_.store(free_count_.load(memory_order_relaxed) - taken, memory_order_relaxed);
}

bool FolioPool::give_to_front(FrameReservation& reservation) {
  const std::uint32_t count = reservation.count();
  if (reservation.max_order() != 0 || count > FrameFront::kBatch) return false;
  FrameFront* const front = fronts_.mine();
  if (front == nullptr) return false;
  MutexLock lock(front->mutex);
  const std::uint32_t there = front->count.load(memory_order_relaxed);
  if (there + count > FrameFront::kFrames) empty_front(*front, std::min(there, FrameFront::kBatch));
  for (std::uint32_t i = 0; i < count; ++i) front->push(id(*reservation.take()));
  return true;
}

void FolioPool::give_back(FrameReservation& reservation) {
  if (!give_to_front(reservation)) free_blocks(reservation);
}

void FolioPool::free_blocks(FrameReservation& reservation) {
  MutexLock lock(mutex_);
  const std::uint32_t count = reservation.count();
  while (reservation.count() != 0) {
    Folio& folio = *reservation.take(reservation.max_order());
    free_.free(id(folio), folio.order.load(memory_order_relaxed));
  }
  add_free(count);
}

void FolioPool::retire(Folio& folio) {
  DCHECK(folio.sequence.odd());
  DCHECK(folio.mapping.load(memory_order_relaxed) == nullptr);
  // Before the push: from then on it is whoever collects it's.
  retired_count_.fetch_add(static_cast<std::uint32_t>(folio.pages()), memory_order_relaxed);
  std::uint32_t head = retired_head_.load(memory_order_relaxed);
  do {
    folio.next_id = head;  // pushes only ever race with pushes and with taking the whole stack: no ABA
  } while (!retired_head_.compare_exchange(head, id(folio), memory_order_release, memory_order_relaxed));
}

// Blocks of up to `want` frames that are free, the largest first.
void FolioPool::take_free_locked(FrameReservation& reservation, std::uint32_t want) {
  unsigned order = kMaxOrder;
  while (reservation.count() < want) {
    order = std::min(order, static_cast<unsigned>(std::bit_width(want - reservation.count())) - 1);
    if (free_.has(order)) {
      reservation.put(folios_[free_.take(order)]);
    } else if (order-- == 0) {
      return;
    }
  }
}

void FolioPool::add_free(std::uint32_t count) {
  free_count_.store(free_count_.load(memory_order_relaxed) + count, memory_order_relaxed);
}

// A huge page of which a part goes is split, if the kernel can do that just now; if not (somebody has it pinned), it
// keeps its memory. Once all of it is withheld it goes as a whole, whatever came of the parts.
void FolioPool::keep_withheld_locked(Folio& block) {
  withheld_.put(block);
  const std::uint32_t area = id(block) / kHugeFrames;
  areas_[area] = static_cast<std::uint16_t>(areas_[area] + block.pages());
  const bool partial = block.pages() != kHugeFrames;
  if (!partial || areas_[area] != kHugeFrames) return;
  // Under the mutex: nobody takes one of its frames meanwhile.
  madvise(static_cast<char*>(arena_) + std::size_t{area} * kHugePage, kHugePage, MADV_REMOVE);
}

std::uint32_t FolioPool::withhold(std::uint32_t want) {
  FrameReservation blocks(*this);
  {
    MutexLock lock(mutex_);
    // What is ready and was never used has memory as well.
    const std::uint32_t ready = memory_.huge_end();
    if (touched_.load(memory_order_relaxed) < ready) {
      const std::uint32_t touched = touched_.load(memory_order_relaxed);
      touch_locked(ready);
      free_range_locked(touched, ready);
    }
    take_free_locked(blocks, want);
    // Withheld from here on: nobody is to take them for frames in use meanwhile.
    going_.fetch_add(blocks.count(), memory_order_relaxed);
    withheld_count_.fetch_add(blocks.count(), memory_order_relaxed);
    free_count_.store(free_count_.load(memory_order_relaxed) - blocks.count(), memory_order_relaxed);
  }
  std::uint32_t given = 0;
  while (blocks.count() != 0) {
    Folio& block = *blocks.take(blocks.max_order());
    const auto frames = static_cast<std::uint32_t>(block.pages());
    MutexLock no_gathering(memory_.mutex);
    if (io_thread_ != nullptr) io_thread_->withdraw(block.bytes(), block.size_bytes());
    if (madvise(block.bytes(), block.size_bytes(), MADV_REMOVE) != 0) {
      if (io_thread_ != nullptr) io_thread_->offer(block.bytes(), block.size_bytes());
      blocks.put(block);  // and back with the rest
      withheld_count_.fetch_sub(blocks.count(), memory_order_relaxed);
      going_.fetch_sub(blocks.count(), memory_order_relaxed);
      break;
    }
    memory_.lost(id(block));
    MutexLock lock(mutex_);
    keep_withheld_locked(block);
    going_.fetch_sub(frames, memory_order_relaxed);
    given += frames;
  }
  return given;
}

std::uint32_t FolioPool::collect_retired() {
  std::uint32_t head = retired_head_.exchange(kNone, memory_order_acquire);
  if (head == kNone) return 0;
  // Until fast readers that found one of them have left.
  if (!has_defect(Defect::frame_freed_without_grace_period)) rcu_synchronize();
  std::uint32_t freed = 0;
  FrameReservation seen(*this);
  {
    MutexLock lock(mutex_);
    while (head != kNone) {
      Folio& folio = folios_[head];
      head = folio.next_id;
      const unsigned order = folio.order.load(memory_order_relaxed);
      if (folio.has(kWasViewed) && !has_defect(Defect::viewed_frame_not_punched)) {
        seen.put(folio);
      } else {
        free_.free(id(folio), order);
        freed += 1u << order;
      }
    }
    add_free(freed);
    retired_count_.fetch_sub(freed + seen.count(), memory_order_relaxed);
  }
  return freed + (seen.count() != 0 ? scrub(seen) : 0);
}

// Whether the block's memory is gone: the next touch of it finds other memory.
bool FolioPool::punch(Folio& block) {
  std::array<unsigned char, kHugeFrames> present;
  MutexLock no_gathering(memory_.mutex);
  if (io_thread_ != nullptr) io_thread_->withdraw(block.bytes(), block.size_bytes());
  bool gone = madvise(block.bytes(), block.size_bytes(), MADV_REMOVE) == 0;
  memory_.lost(id(block));
  if (gone && mincore(block.bytes(), block.size_bytes(), present.data()) == 0) {
    gone = std::none_of(present.begin(), present.begin() + static_cast<std::ptrdiff_t>(block.pages()),
                        [](unsigned char page) { return (page & 1) != 0; });
  }
  if (io_thread_ != nullptr) io_thread_->offer(block.bytes(), block.size_bytes());
  return gone;
}

// Frees frames that were in a view once their memory is gone. Returns how many; the rest is put aside.
std::uint32_t FolioPool::scrub(FrameReservation& seen) {
  {
    MutexLock lock(mutex_);  // once more, what somebody had pinned
    while (aside_.count() != 0) seen.put(*aside_.take(aside_.max_order()));
    aside_count_.store(0, memory_order_relaxed);
  }
  FrameReservation clean(*this), pinned(*this);
  while (seen.count() != 0) {
    Folio& block = *seen.take(seen.max_order());
    (punch(block) ? clean : pinned).put(block);
  }
  const std::uint32_t freed = clean.count();
  free_blocks(clean);
  scrubbed_.fetch_add(freed, memory_order_relaxed);
  MutexLock lock(mutex_);
  while (pinned.count() != 0) aside_.put(*pinned.take(pinned.max_order()));
  aside_count_.store(aside_.count(), memory_order_relaxed);
  return freed;
}

}  // namespace quire
