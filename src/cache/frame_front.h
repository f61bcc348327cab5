// Fronts of the pool: small stacks of free single frames, one for each thread, so that a miss that takes one frame does
// not take the pool's mutex. A front is filled from the pool and emptied into it in batches (folio_pool.cc).
// Guarantees: M1.  Locks: a front's mutex > the pool's.
//
// A front belongs to a thread slot only by habit: its mutex is its own thread's nearly always, and costs what an
// uncontended one costs; where there are more slots than fronts, several share one. So anybody may empty any front, and
// does when the pool has run dry: no frame is out of a taker's reach because it lies in another thread's front, or in
// one whose thread has ended.
//
// What lies in fronts does not merge in the buddy, hence their bounds: all of them together hold a sixteenth of the
// frames at most, and caches too small for one batch have none.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "quire/result.h"
#include "sync/annotations.h"
#include "sync/mutex.h"
#include "sync/thread_slot.h"

namespace quire {

extern LockClass frame_front_lock_class;

struct alignas(64) FrameFront {
  static constexpr std::uint32_t kFrames = 32;          // it holds at most
  static constexpr std::uint32_t kBatch = kFrames / 2;  // moved between it and the pool at once

  Mutex mutex{frame_front_lock_class};
  Atomic<std::uint32_t> count;  // written under the mutex; anybody may load it
  std::array<std::uint32_t, kFrames> ids GUARDED_BY(mutex);

  void push(std::uint32_t id) REQUIRES(mutex) {
    const std::uint32_t n = count.load(memory_order_relaxed);
    ids[n] = id;
    count.store(n + 1, memory_order_relaxed);
  }
  std::uint32_t pop() REQUIRES(mutex) {
    const std::uint32_t n = count.load(memory_order_relaxed) - 1;
    count.store(n, memory_order_relaxed);
    return ids[n];
  }
};

class FrameFronts {
 public:
  static constexpr std::uint32_t kShare = 16;  // of the frames, one in so many may lie in fronts
  static constexpr std::uint32_t kMost = 64;   // fronts

  // For a pool of `frames` frames. ENOMEM.
  Status create(std::uint32_t frames);

  // The calling thread's; null where there are none.
  FrameFront* mine() { return size_ == 0 ? nullptr : &fronts_[static_cast<std::uint32_t>(thread_slot()) % size_]; }
  std::uint32_t size() const { return size_; }
  FrameFront& operator[](std::uint32_t i) { return fronts_[i]; }

  // Frames in all of them, exact while nobody takes or gives.
  std::uint32_t count() const;

 private:
  std::unique_ptr<FrameFront[]> fronts_;
  std::uint32_t size_ = 0;
};

}  // namespace quire
