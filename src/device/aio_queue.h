// Requests to host files that end wherever somebody collects them, by the kernel's asynchronous I/O (io_submit): their
// ends are noted in the interrupt, so who waits for one is woken once, and not by way of quire's I/O thread; and the
// thread that submits sends them itself. A ring (ring.h) would have only its own thread do both, or interrupt the
// system calls of that thread.
//
//   submit() --taken--> in flight --interrupt: noted, event_fd rung--> collect(), on any thread: `done`
//        \               \-----would have to wait, or is to be continued--v
//         \--not taken (full): the caller's----------------------> the I/O thread: `done` there
//
// Who collects: threads of the program while they wait or come again and again; else the stand-in, a thread of the
// queue's own, lest a request kept its locks for as long as the program likes. It looks every kTick whether anybody
// collected or waits to, and only when nobody did waits for ends itself:
//
//   asleep --submit()--> ticking <--nobody collects / somebody does again--> standing in
//     ^----quiet for long----/
//
// Races, and what closes each:
//   two collect one end            the kernel hands each out once
//   submit() as the stand-in       it says that it is asleep, then looks at in_flight_; submit() counts, then looks at
//   falls asleep                   whether it is: one of them comes first (sequentially consistent)
//   interrupt() before wait()      it stays readable; only who waits, one thread at a time, reads it
//   the eventfd is read by others  they look for ends after that, and ring it again for what they leave (fs/async.h)
//   an end is collected before     submit() touches the request no more once the kernel has it
//   submit() returned
// Locks: the fork guard's, in open and at the end. `done` runs with nothing held and never waits.
#pragma once

#include <linux/aio_abi.h>

#include <cstdint>

#include "device/fork_guard.h"
#include "device/io_thread.h"

namespace quire {

class AioQueue {
 public:
  // io_thread: for what cannot end here; outlives the queue, as stats does.
  AioQueue(IoThread& io_thread, IoStats& stats) : io_thread_(io_thread), stats_(stats) {}
  ~AioQueue();  // nothing is in flight, and no call under way: who submits may outlast what it sent
  AioQueue(const AioQueue&) = delete;
  AioQueue& operator=(const AioQueue&) = delete;

  // depth: requests in flight at most. event_fd, the caller's: readable once something has ended. 0 or an errno: ENOSYS
  // and EPERM (there is no such I/O here), EAGAIN (the system's limit, fs.aio-max-nr, or no thread), EMFILE, ENFILE,
  // ENOMEM.
  int open(unsigned depth, int event_fd);

  // A begun request (transfer.h) that goes past the host's cache. False: it was not taken, and is as it was.
  bool submit(Request& request);

  // Runs `done` of what has ended; returns how many did. Any thread; never waits.
  unsigned collect();
  bool anything() const;  // has ended, and is not collected

  // Sleeps until something has ended or interrupt() is called; now and then for nothing. One thread at a time. What is
  // readable on event_fd stays so.
  void wait();
  void interrupt();

  // From urge() to its calm() the stand-in collects whoever else does: for who waits without collecting.
  void urge();
  void calm() { urged_.fetch_sub(1, memory_order_relaxed); }

 private:
  static constexpr std::int64_t kTick = 1'000'000;  // ns

  void stand_in();
  unsigned take(unsigned at_least, std::int64_t timeout_ns);
  void ended(const io_event& event);

  IoThread& io_thread_;
  IoStats& stats_;
  aio_context_t context_ = 0;
  unsigned depth_ = 0;
  int event_fd_ = -1;
  GuardedFd interrupt_;
  Thread thread_;
  WaitQueue tick_;  // the stand-in's sleep
  Atomic<std::uint32_t> in_flight_;
  Atomic<std::uint32_t> collected_;  // calls of collect()
  Atomic<std::uint32_t> urged_;
  Atomic<bool> waiting_;  // a thread is in wait()
  Atomic<bool> asleep_;   // the stand-in is, or is about to be
  Atomic<bool> stopping_;
};

}  // namespace quire
