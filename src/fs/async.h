// Asynchronous reads, writes and syncs: submitted by any thread, reaped by any. Guarantees: R1, R2, as the calls that
// wait; a request takes effect at one instant between its submission and its callback.
//
//   submit --served at once------------------------------------------------> done --reap: callback--> free
//     |  \--absent pages: submitted--> [filling] --I/O thread--> runnable --reap: tried--> done
//     |  \--direct, locks free: submitted--> [on the device] --who collects--> done
//     |                                                             \--not to be had at once--v
//     \--has to wait for something--------------------------------> queued --worker: the call that waits--> done
//
// No request holds a lock across time that the program decides: a direct one (direct.h) has its locks from submission
// to the device's completion, detached, and gives them up soon after, whoever reaps or does not: its end is collected
// (device/aio_queue.h) by who reaps, before it looks for anything to reap, or by the queue's stand-in. Where the kernel
// has no such I/O, or would have to wait, the I/O thread sends it and gives up its locks. A read whose pages are absent
// has them filled as readahead fills, by the I/O thread, and is then run by whoever reaps, as the read that it is,
// without waiting: only that counts for R1. Whatever is not to be had at once (a lock, frames, a page that another fill
// is bringing, the dirty limit) is waited for by a worker (sync/workers.h), which runs the ordinary call.
//
// Who owns a request: its submitter until it is handed on; while it is filling, the fill; in a list, the list's mutex;
// then whoever took it from there. One owner at a time, so its fields are plain.
// Races, and what closes each:
//   a fill ends before submit() has left the request     submit touches it no more once fill_for has taken it
//   and its callback closes the handle                   the handle counts the submission until submit has left it
//   evicted or truncated between fill and run            the run is a read of its own: what is missing then is queued
//   a reaper sleeps as something becomes ready           it prepares, looks at both lists, then waits; pushes wake
//   close() beside requests of the handle                it waits for the count in the handle, and hands what only a
//                                                        reaper would run to the workers
//   done and freed by a reaper while its worker still    the handle's count goes down before the request is in the
//   touches it                                           list; from the push on only the engine is touched, which
//                                                        outlives its workers, and a fill's end by drain_ahead
//   the eventfd swallows a push or an end                a reap reads it at its end, and when it waited there; only
//                                                        then it looks; and writes it again if it leaves something,
//                                                        or calls back before it has looked at all
//   two reapers wait at the eventfd, one reads it        one at a time waits there (polling_), the others for it
//   a wake-up, or an end whose ring another has read,    it says so, then looks whether its ticket is stale (O4), and
//   as one is about to wait there                        at what has ended
//   nobody reaps while close() waits                     it urges the stand-in
// Locks: its own, a leaf. Callbacks run with nothing held.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "device/aio_queue.h"
#include "device/fork_guard.h"
#include "fs/direct.h"
#include "fs/open_file.h"
#include "sync/wait_queue.h"
#include "sync/workers.h"

namespace quire {

using AsyncDone = void (*)(void* argument, ssize_t result);  // a count or -errno

struct AsyncRequest : Work {
  enum class Kind : std::uint8_t { read, write, sync };
  Kind kind = Kind::read;
  unsigned io_flags = 0;     // IoFlag
  OpenFile* file = nullptr;  // until done
  void* buffer = nullptr;
  std::size_t count = 0;
  std::uint64_t offset = 0;
  AsyncDone done = nullptr;
  void* argument = nullptr;
  // The engine's.
  bool missed = false;  // a read: its pages had to be fetched
  class AsyncEngine* engine = nullptr;
  AsyncRequest* next_ready = nullptr;
  std::int64_t result = 0;
  std::unique_ptr<char[]> message;  // of a failure
  std::optional<DirectIo> direct;   // while it is on the device
  DirectExtent extent;              // of a direct write: what is written
  Atomic<unsigned> left;            // of its requests there
};

// As it stands in messages.
inline const char* name_of(AsyncRequest::Kind kind) {
  constexpr const char* kNames[] = {"read", "write", "sync"};
  return kNames[static_cast<unsigned>(kind)];
}

class AsyncEngine {
 public:
  // A sentence for a failure, as report_error leaves it.
  using Describe = void (*)(const AsyncRequest& request, int errnum);

  // most: requests submitted and not yet reaped. wide: the device serves many at once, without a thread for each.
  AsyncEngine(PageCache& cache, unsigned most, bool wide, Describe describe);
  ~AsyncEngine();  // none is outstanding
  AsyncEngine(const AsyncEngine&) = delete;
  AsyncEngine& operator=(const AsyncEngine&) = delete;

  // The handle's modes are checked as the calls that wait check them. EAGAIN: `most` are outstanding, reap some; or
  // there is no thread to be had. EBADF, ENOMEM, ENOTRECOVERABLE. On error nothing was submitted.
  Status submit(const AsyncRequest& wanted);

  // Runs callbacks of requests that are done, at most `max`; waits until at least `min` of them ran, or none is
  // outstanding. Returns how many ran.
  unsigned reap(unsigned min, unsigned max);

  // An eventfd that is readable while there is something to reap. The engine's.
  Result<int> event_fd();

  // Waits until all requests of the handle are done (not reaped), whoever reaps or not. No more are submitted
  // meanwhile.
  void finish(OpenFile& file);
  unsigned outstanding();
  void discard();  // waits until all are done, and forgets them: no callback runs

 private:
  enum class Ready : std::uint8_t { done, runnable };
  struct List {
    AsyncRequest* first = nullptr;
    AsyncRequest* last = nullptr;
    void push(AsyncRequest& request);
    AsyncRequest* pop();
  };

  Result<AsyncRequest*> allocate(const AsyncRequest& wanted);
  void start(AsyncRequest& request);
  bool start_fill(AsyncRequest& request);
  bool plan_direct(AsyncRequest& request);
  bool start_direct(AsyncRequest& request);
  void direct_done(AsyncRequest& request);
  void settle_direct(AsyncRequest& request);
  bool run_at_once(AsyncRequest& request);
  void queue(AsyncRequest& request);
  void run_waiting(AsyncRequest& request);
  void complete(AsyncRequest& request, const Result<std::size_t>& result);
  void settle(AsyncRequest& request, const Result<std::size_t>& result);
  void make_ready(AsyncRequest& request, Ready as) EXCLUDES(mutex_);
  AsyncRequest* take_ready(bool* is_done);
  bool anything_listed();
  bool anything_ready();
  void deliver(AsyncRequest* request);
  void queue_runnable();
  AioQueue* aio();
  void make_aio();
  bool collect();
  void wait(std::uint32_t ticket);
  void wait_for_others(std::uint32_t ticket);
  void wake();
  void signal_event();
  void clear_event();
  static void filled(void* request);

  PageCache& cache_;
  const unsigned most_;
  const bool wide_;
  const Describe describe_;
  Mutex mutex_;
  List done_ GUARDED_BY(mutex_), runnable_ GUARDED_BY(mutex_);
  AsyncRequest* free_ GUARDED_BY(mutex_) = nullptr;
  unsigned outstanding_ GUARDED_BY(mutex_) = 0;
  unsigned allocated_ GUARDED_BY(mutex_) = 0;
  WaitQueue ready_;     // something was made ready, done, or the last one reaped
  Atomic<int> event_;   // the eventfd, or -1
  GuardedFd event_fd_;  // the same
  Mutex event_mutex_;   // of who makes it
  Atomic<bool> aio_tried_;
  Atomic<AioQueue*> aio_;  // the next, once it is open
  Atomic<bool> polling_;   // a thread waits at the eventfd, or is about to
  std::unique_ptr<AioQueue> aio_queue_ GUARDED_BY(event_mutex_);
  Workers workers_;
};

}  // namespace quire
