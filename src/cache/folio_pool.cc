// The arena and the free, reserved and retired lists of frames.
#include "cache/folio_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "base/error.h"
#include "sync/rcu.h"

namespace quire {

LockClass folio_pool_lock_class{"folio pool"};

Folio* FrameReservation::take() {
  if (count_ == 0) return nullptr;
  Folio& folio = pool_.folio(head_);
  head_ = folio.next_id;
  --count_;
  return &folio;
}

void FrameReservation::put(Folio& folio) {
  folio.next_id = head_;
  head_ = pool_.id(folio);
  ++count_;
}

void FrameReservation::release() {
  if (count_ != 0) pool_.give_back(*this);
}

Status FolioPool::create(std::uint32_t frames) {
  const std::size_t bytes = std::size_t{frames} * kPageSize;
  const int fd = memfd_create("quire-arena", MFD_CLOEXEC);
  if (fd < 0) return fail_with(errno, "cannot create the arena of the cache (memfd_create): %m");
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    const int errnum = errno;
    close(fd);
    return fail_with(errnum, "cannot size the arena of the cache to %zu bytes: give the cache less memory", bytes);
  }
  arena_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  const int map_errno = errno;
  close(fd);  // the mapping keeps it
  if (arena_ == MAP_FAILED) {
    arena_ = nullptr;
    return fail_with(map_errno, "cannot map %zu bytes for the cache: give it less memory", bytes);
  }
  madvise(arena_, bytes, MADV_DONTFORK);  // a child gets errors from every call, and pays nothing for the arena
  void* descriptors = mmap(nullptr, std::size_t{frames} * sizeof(Folio), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (descriptors == MAP_FAILED) {
    const int errnum = errno;
    munmap(arena_, bytes);
    arena_ = nullptr;
    return fail_with(errnum, "cannot map the descriptors of %u frames: give the cache less memory", frames);
  }
  folios_ = static_cast<Folio*>(descriptors);  // constructed frame by frame, as take() first touches them
  frames_ = frames;
  free_count_.store(frames, memory_order_relaxed);
  return {};
}

FolioPool::~FolioPool() {
  if (arena_ != nullptr) munmap(arena_, std::size_t{frames_} * kPageSize);
  if (folios_ != nullptr) munmap(static_cast<void*>(folios_), std::size_t{frames_} * sizeof(Folio));
}

std::uint32_t FolioPool::take(FrameReservation& reservation, std::uint32_t want) {
  if (want == 0) return 0;
  MutexLock lock(mutex_);
  std::uint32_t taken = 0;
  std::uint32_t touched = touched_.load(memory_order_relaxed);
  for (; taken < want; ++taken) {
    Folio* folio;
    if (free_head_ != kNone) {
      folio = &folios_[free_head_];
      free_head_ = folio->next_id;
    } else if (touched < frames_) {
      folio = new (&folios_[touched]) Folio;
      folio->address = static_cast<char*>(arena_) + std::size_t{touched} * kPageSize;
      folio->sequence.write_begin();  // born odd: free
      ++touched;
    } else {
      break;
    }
    reservation.put(*folio);
  }
  touched_.store(touched, memory_order_relaxed);
  free_count_.store(free_count_.load(memory_order_relaxed) - taken, memory_order_relaxed);
  return taken;
}

void FolioPool::push_free_locked(Folio& folio) {
  folio.next_id = free_head_;
  free_head_ = id(folio);
}

void FolioPool::give_back(FrameReservation& reservation) {
  MutexLock lock(mutex_);
  const std::uint32_t count = reservation.count();
  while (Folio* folio = reservation.take()) push_free_locked(*folio);
  free_count_.store(free_count_.load(memory_order_relaxed) + count, memory_order_relaxed);
}

void FolioPool::retire(Folio& folio) {
  DCHECK(folio.sequence.odd());
  DCHECK(folio.mapping.load(memory_order_relaxed) == nullptr);
  std::uint32_t head = retired_head_.load(memory_order_relaxed);
  do {
    folio.next_id = head;  // pushes only ever race with pushes and with taking the whole stack: no ABA
  } while (!retired_head_.compare_exchange(head, id(folio), memory_order_release, memory_order_relaxed));
  retired_count_.fetch_add(1, memory_order_relaxed);
}

std::uint32_t FolioPool::collect_retired() {
  std::uint32_t head = retired_head_.exchange(kNone, memory_order_acquire);
  if (head == kNone) return 0;
  rcu_synchronize();  // fast readers that found one of them have left
  std::uint32_t freed = 0;
  MutexLock lock(mutex_);
  while (head != kNone) {
    Folio& folio = folios_[head];
    head = folio.next_id;
    push_free_locked(folio);
    ++freed;
  }
  free_count_.store(free_count_.load(memory_order_relaxed) + freed, memory_order_relaxed);
  retired_count_.fetch_sub(freed, memory_order_relaxed);
  return freed;
}

}  // namespace quire
