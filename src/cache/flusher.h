// The flusher: quire's thread that writes back what is dirty past the background limit, what somebody waits for, and
// what has been dirty for long. Guarantees: D1.
// Locks: its list's (a leaf, also under the xarray lock); no lock is held while it writes back.
#pragma once

#include <cstdint>

#include "cache/mapping_list.h"
#include "cache/writeback_slice.h"
#include "quire/result.h"
#include "sync/thread.h"
#include "sync/wait_queue.h"

namespace quire {

class PageCache;
extern LockClass flusher_lock_class;
extern LockClass ask_lock_class;

class Flusher {
 public:
  explicit Flusher(PageCache& cache);
  ~Flusher();  // stops the thread
  Flusher(const Flusher&) = delete;
  Flusher& operator=(const Flusher&) = delete;
  Status start();

  void add(Mapping& mapping) { mappings_.add(mapping); }  // its first folio became unstable
  void forget(Mapping& mapping);  // before it is closed or destroyed; waits until the flusher has left it
  // Soon, without waiting for it: writes back [first, last] of the mapping. drop: the pages were just written by who
  // wants them once; once enough of that has come together it is written, flushed and dropped.
  void ask(Mapping& mapping, std::uint64_t first, std::uint64_t last, bool drop);
  void kick();             // somebody waits for memory or the dirty limit
  void kick_background();  // past the background limit; cheap when already kicked

 private:
  void run();
  void ask_again(Mapping& mapping, const AskedWriteback& asked);
  AskedWriteback take_asked(Mapping& mapping);
  void write_back_asked(Mapping& mapping, const AskedWriteback& asked);
  void write_back_and_flush(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page);
  bool visit_next(bool everything, bool waited_for, std::uint64_t* left);
  void round(bool everything, bool waited_for);
  void rebuild_blocks();
  void gather_small();

  PageCache& cache_;
  Thread thread_;
  WritebackHelper helper_;
  Mutex ask_mutex_;
  std::uint64_t to_drop_ GUARDED_BY(ask_mutex_) = 0;  // pages asked for with drop, since the last round
  Atomic<bool> asked_;
  MappingList mappings_;         // that may have unstable folios
  WaitQueue queue_;              // the flusher sleeps here
  Atomic<std::uint32_t> kicks_;  // waiters' requests not yet taken up
  Atomic<bool> background_kicked_;
  std::int64_t rebuild_after_ns_ = 0;  // the thread's own
  std::uint32_t touched_before_ = 0;   // the same
  std::uint64_t evicted_before_ = 0;
  std::int64_t gather_after_ns_ = 0;
  bool passed_failing_ = false;  // this round: one whose next try is not due
  Atomic<bool> stop_;
};

}  // namespace quire
