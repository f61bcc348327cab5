// One io_uring: made, driven and torn down by one thread, which is the only one that submits and reaps. So requests
// need no ordering inside a ring; who hands them between threads orders them (io_thread.h). Locks: the fork guard's, in
// open and close only.
#pragma once

#include <liburing.h>

#include <climits>

#include "device/fork_guard.h"
#include "device/transfer.h"

namespace quire {

class Ring {
 public:
  Ring() = default;
  ~Ring() { close(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // 0 or the errno of io_uring_setup: ENOSYS, EPERM, ENOMEM, EMFILE, ...
  int open(unsigned entries);
  // By the thread that opened it, with nothing in flight.
  void close();
  bool is_open() const { return guarded_.fd() >= 0; }

  // A table of `slots` for fixed buffers, all empty. 0, or the errno of a kernel that has none (before 5.19) or no
  // memory.
  int make_buffer_table(unsigned slots);
  // With nothing in flight: what was pinned is free when this returns, not some time after close().
  void drop_buffer_table();
  // Entries submitted from now on that name `slot` mean this buffer (none for 0 bytes); those in flight keep theirs.
  // Pins the buffer. 0 or an errno: ENOMEM (also past RLIMIT_MEMLOCK), EFAULT, ...
  int set_buffer(unsigned slot, void* address, std::size_t bytes);
  bool has_vectored_fixed();  // 6.15
  bool all_submitted() const { return io_uring_sq_ready(&ring_) == 0; }

  // Adds an entry. The caller keeps what is in flight within `entries`, so there is always room.
  void prepare(const TransferStep& step, void* tag);

  // Submits what was prepared and returns when at least `wanted` completions may be reaped; earlier after a signal or
  // where the kernel is short of memory, so the caller counts. wanted 0: collects what is there.
  void submit_and_wait(unsigned wanted);

  bool anything_ended() const { return io_uring_cq_ready(&ring_) > 0; }

  // Runs each(tag, rc) for every completion that is there, or the first `most`.
  template <typename Each>
  void reap(Each&& each, unsigned most = UINT_MAX) {
    for (unsigned n = 0; n < most && anything_ended(); ++n) {
      const io_uring_cqe& cqe = ring_.cq.cqes[*ring_.cq.khead & *ring_.cq.kring_mask];
      void* const tag = io_uring_cqe_get_data(&cqe);
      const int rc = cqe.res;
      io_uring_cq_advance(&ring_, 1);  // before `each`, which may take long
      each(tag, rc);
    }
  }

 private:
  io_uring ring_{};
  GuardedFd guarded_;
};

}  // namespace quire
