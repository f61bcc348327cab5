// The flusher: quire's thread that writes back what is dirty past the background limit, what somebody waits for, and
// what has been dirty for long. Guarantees: D1.
// Locks: its own mutex (a leaf, also under the xarray lock); no lock is held while it writes back.
#pragma once

#include <cstdint>

#include "quire/result.h"
#include "sync/mutex.h"
#include "sync/thread.h"
#include "sync/wait_queue.h"

namespace quire {

class PageCache;
struct Mapping;
extern LockClass flusher_lock_class;

class Flusher {
 public:
  explicit Flusher(PageCache& cache) : cache_(cache) {}
  ~Flusher();  // stops the thread
  Flusher(const Flusher&) = delete;
  Flusher& operator=(const Flusher&) = delete;
  Status start();

  void add(Mapping& mapping);     // its first folio became unstable
  void forget(Mapping& mapping);  // before it is destroyed; waits until the flusher has left it
  void kick();                    // somebody waits for memory or the dirty limit
  void kick_background();         // past the background limit; cheap when already kicked

  // Unstable folios of mappings whose last writeback failed.
  std::uint64_t failing_folios() const { return failing_folios_.load(memory_order_relaxed); }

 private:
  void run();
  bool visit_next(bool everything, bool waited_for, std::uint64_t* left);
  void round(bool everything, bool waited_for);
  void rebuild_blocks();
  void unlink_locked(Mapping& mapping) REQUIRES(mutex_);
  void link_last_locked(Mapping& mapping) REQUIRES(mutex_);

  PageCache& cache_;
  Thread thread_;
  Mutex mutex_{flusher_lock_class};
  Mapping* head_ GUARDED_BY(mutex_) = nullptr;  // the longest not visited
  Mapping* tail_ GUARDED_BY(mutex_) = nullptr;
  std::uint64_t listed_ GUARDED_BY(mutex_) = 0;
  WaitQueue queue_;              // the flusher sleeps here
  WaitQueue idle_queue_;         // forget() waits here for the flusher to leave a mapping
  Atomic<std::uint32_t> kicks_;  // waiters' requests not yet taken up
  Atomic<bool> background_kicked_;
  Atomic<std::uint64_t> failing_folios_;
  std::int64_t rebuild_after_ns_ = 0;  // the thread's own
  Atomic<bool> stop_;
};

}  // namespace quire
