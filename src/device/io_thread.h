// quire's own I/O thread: takes requests from any thread, keeps up to `depth` of them at the host and runs their
// `done`. What others may wait for goes through here, since a request submitted by a caller's thread is cancelled when
// that thread exits. Locks: none that a caller could hold; `done` runs on the thread and may submit again, but never
// wait.
//
// Hand-over: a stack of requests with two special heads.
//   empty --push--> list --take--> empty        (the thread is awake)
//   empty --sleep--> asleep --push--> list      (and the pusher wakes it through the eventfd)
// The push is a release and the take an acquire, so the thread sees the request and the bytes to be written as the
// submitter left them.
#pragma once

#include <cstdint>
#include <memory>

#include "device/fork_guard.h"
#include "device/ring.h"
#include "quire/result.h"
#include "sync/atomic.h"
#include "sync/thread.h"

namespace quire {

struct IoThreadOptions {
  unsigned depth = 128;      // requests in flight at most; more wait in order
  bool use_io_uring = true;  // false: system calls, one at a time
  IoStats* stats = nullptr;
};

class IoThread {
 public:
  // Errors: EMFILE, ENFILE, ENOMEM, EAGAIN (no thread to be had).
  static Result<std::unique_ptr<IoThread>> create(const IoThreadOptions& options);
  // Runs everything submitted to its end first. Every submit() has returned, and only `done` callbacks call it again.
  ~IoThread();
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  // Begun requests (transfer.h), linked through next from the newest to the oldest, which runs first. Never waits.
  void submit(Request* newest, Request* oldest);

 private:
  explicit IoThread(const IoThreadOptions& options) : options_(options) {}
  void run();
  void loop_with_ring();
  void loop_plain();
  bool take();  // moves what was pushed behind pending_; false if nothing was
  bool fall_asleep();
  void start_pending();
  void completed(void* tag, int rc);
  void arm_wake_up();
  void wake_up();
  void wait_for_wake_up();

  const IoThreadOptions options_;
  GuardedFd event_;
  Thread thread_;
  Atomic<Request*> pushed_;  // by any thread; see above
  Atomic<bool> stopping_;    // set by the destructor before its wake-up

  // The thread's own.
  Ring ring_;
  Request* pending_ = nullptr;  // in order of arrival
  Request* pending_last_ = nullptr;
  unsigned in_flight_ = 0;
  bool armed_ = false;          // a read of the eventfd is in the ring
  std::uint64_t wake_ups_ = 0;  // where that read stores
};

}  // namespace quire
