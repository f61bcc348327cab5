// quire's own I/O thread: takes requests from any thread, keeps up to `depth` of them at the host, of one file until
// they are 4 MiB, and runs their `done`. What others may wait for goes through here, since a request submitted by a
// caller's thread is cancelled when that thread exits. Locks: none that a caller could hold; `done` runs on the thread
// and may submit again, but never wait.
//
// Hand-over: a stack of requests with two special heads.
//   empty --push--> list --take--> empty        (the thread is awake)
//   empty --sleep--> asleep --push--> list      (and the pusher wakes it through the eventfd)
// A withdrawal (fixed_buffers.h) goes the same way, as a request whose `done` is a mark.
//
//   taken --> pending --depth and its file have room--> at the host --> done
//                \--its file has none--> waits in its FileTurn --an end of its file--^
//
// (Not drawn: what no ring can do runs when depth has room, by a system call.) Whoever waits in a turn has others of
// its file at the host before it. A withdrawal waits for no request that has not begun, and for no end.
//
// With all of depth in use the thread sleeps without being marked asleep: what is pushed then could not begin. Only a
// withdrawal could, and wakes it whatever the mark.
//
// The push is a release and the take an acquire, so the thread sees the request and the bytes to be written as the
// submitter left them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "device/fixed_buffers.h"
#include "device/fork_guard.h"
#include "device/ring.h"
#include "quire/result.h"
#include "sync/atomic.h"
#include "sync/thread.h"
#include "sync/wait_queue.h"

namespace quire {

struct IoThreadOptions {
  unsigned depth = 128;      // requests in flight at most; more wait in order
  bool use_io_uring = true;  // false: system calls, one at a time
  IoStats* stats = nullptr;
  std::span<char> arena = {};  // what most requests read into and write from: registered as it is used; outlives this
};

class IoThread {
 public:
  // Errors: EMFILE, ENFILE, ENOMEM, EAGAIN (no thread to be had).
  static Result<std::unique_ptr<IoThread>> create(const IoThreadOptions& options);
  // Runs everything submitted to its end first. Every submit() has returned, and only `done` callbacks call it again.
  ~IoThread();
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  unsigned depth() const { return options_.depth; }

  // Begun requests (transfer.h), linked through next from the newest to the oldest, which runs first. Never waits.
  void submit(Request* newest, Request* oldest);

  // Whole pages of the arena, which nobody uses and no request in flight names, before their memory is given back to
  // the host: when this returns, nothing goes to them by an old registration, nor pins them (once requests in flight to
  // their neighbours have ended), until offer(). Waits for the thread, so not for `done` callbacks, and with no lock
  // held that they may need. A page is not withdrawn twice without an offer between. In between, requests to their
  // neighbours go unregistered, and are counted.
  void withdraw(const void* address, std::size_t bytes);
  // They are to be used again. Before any request names them. Never waits.
  void offer(const void* address, std::size_t bytes) { fixed_.offer(address, bytes); }

 private:
  struct Withdrawal;
  explicit IoThread(const IoThreadOptions& options) : options_(options), fixed_(options.arena, *options.stats) {}
  void run();
  void loop_with_ring();
  void loop_plain();
  bool take();  // requests behind pending_, withdrawals to their own list; false if nothing was pushed
  bool fall_asleep();
  bool may_wait();
  void start_pending();
  void start_of(FileTurn& turn);
  void prepare(Request& request);
  bool end_withdrawals();
  static void withdrawn(Request& request);
  void completed(void* tag, int rc);
  void arm_wake_up();
  void wake_up();
  void wait_for_wake_up();

  const IoThreadOptions options_;
  GuardedFd event_;
  Thread thread_;
  Atomic<Request*> pushed_;  // by any thread; see above
  Atomic<bool> stopping_;    // set by the destructor before its wake-up
  WaitQueue withdrawal_ended_;
  FixedBuffers fixed_;  // what it says itself

  // The thread's own.
  Ring ring_;
  Request* pending_ = nullptr;  // in order of arrival
  Request* pending_last_ = nullptr;
  Request* withdrawals_ = nullptr;  // taken, not yet ended
  unsigned in_flight_ = 0;
  bool armed_ = false;          // a read of the eventfd is in the ring
  std::uint64_t wake_ups_ = 0;  // where that read stores
};

}  // namespace quire
