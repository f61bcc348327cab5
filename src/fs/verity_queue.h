// Fills of one file whose reads are done and whose bytes are to be verified: who runs them. Guarantees: V1.
//
//   pushed --worker, or a reader that helps: try_to_end--> gone
//                         \--hashes of others are missing--> aside --progress()--> pushed again
//
// A fill is in one list or with the one thread that runs it. Races, and what closes each:
//   hashes are settled between a fill's look and its being set aside   it notes the count of progress() before it
//                                                                      looks; where that has changed it is pushed again
//   the queue goes while a worker is about to leave it                 it waits until all are out, and each says so
//                                                                      under the mutex as the last that it does here
// Locks: its own, a leaf; nothing is held while a fill runs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cache/verifier.h"
#include "sync/annotations.h"
#include "sync/mutex.h"
#include "sync/wait_queue.h"
#include "sync/workers.h"

namespace quire {

class VerityQueue {
 public:
  explicit VerityQueue(Workers& workers);
  ~VerityQueue();  // no fill is left, and none comes
  VerityQueue(const VerityQueue&) = delete;
  VerityQueue& operator=(const VerityQueue&) = delete;

  void push(PendingFill& fill);  // for a worker, or who helps
  void run(PendingFill& fill);   // now, on this thread
  void help(const Folio& folio);
  void progress();  // hashes were settled: what was set aside may go on

 private:
  static constexpr std::size_t kRunners = Workers::kMost;
  struct Runner : Work {
    VerityQueue* queue = nullptr;
    bool busy = false;  // submitted or running; under the mutex
  };
  struct List {
    PendingFill* first = nullptr;
    PendingFill* last = nullptr;
    void push(PendingFill& fill);
    PendingFill* pop();
  };

  PendingFill* pop(std::uint64_t* seen);
  void run(PendingFill& fill, std::uint64_t seen);
  Work* idle_runner_locked() REQUIRES(mutex_);
  void run_all(Runner& runner);

  Workers& workers_;
  Mutex mutex_;
  List ready_ GUARDED_BY(mutex_), aside_ GUARDED_BY(mutex_);
  std::uint64_t settled_ GUARDED_BY(mutex_) = 0;  // calls of progress()
  std::array<Runner, kRunners> runners_;
  WaitQueue left_;  // a runner is idle
};

}  // namespace quire
