// Set-up, submission and reaping of one io_uring.
#include "device/ring.h"

#include <cerrno>
#include <ctime>

#include "base/check.h"

namespace quire {
namespace {

// Wanted most first: completions run when their thread asks for them (6.1), without interrupting it (5.19), at all.
constexpr unsigned kSetupFlags[] = {
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN,
    IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,
    0,
};

}  // namespace

int Ring::open(unsigned entries) {
  CHECK(!is_open());
  int rc = -EINVAL;
  {
    ForkGuard guard;
    for (unsigned flags : kSetupFlags) {
      io_uring_params params{};
      params.flags = flags;
      rc = io_uring_queue_init_params(entries, &ring_, &params);
      if (rc != -EINVAL) break;
    }
    if (rc < 0) return -rc;
    guard.add(guarded_, ring_.ring_fd);
  }
  // The ring by its number within this thread: no look-up of a descriptor for each call. Not needed to work.
  io_uring_register_ring_fd(&ring_);
  return 0;
}

void Ring::close() {
  if (!is_open() || device_in_forked_child()) return;
  ForkGuard guard;
  guard.remove(guarded_);
  io_uring_queue_exit(&ring_);
}

void Ring::prepare(const TransferStep& step, void* tag) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  CHECK(sqe != nullptr);
  const bool read = step.op == IoOp::read;
  const int opcode =
      step.vectored ? (read ? IORING_OP_READV : IORING_OP_WRITEV) : (read ? IORING_OP_READ : IORING_OP_WRITE);
  io_uring_prep_rw(opcode, sqe, step.fd, step.address, step.length, step.offset);
  io_uring_sqe_set_data(sqe, tag);
}

void Ring::submit_and_wait(unsigned wanted) {
  for (;;) {
    const int rc = wanted == 0 ? io_uring_submit_and_get_events(&ring_) : io_uring_submit_and_wait(&ring_, wanted);
    if (rc >= 0 || rc == -EINTR) return;
    // Anything else would be a bug in here, and what is in flight could not be waited for.
    CHECK(rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM);
    io_uring_get_events(&ring_);  // a refused submission ran no completions: they are what gives memory back
    if (io_uring_cq_ready(&ring_) > 0) return;
    const timespec pause{0, 100'000};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace quire
