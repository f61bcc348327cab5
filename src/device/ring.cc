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

// Linux 6.15: one buffer's pieces, listed by an iovec array.
constexpr int kReadvFixed = 60;
constexpr int kWritevFixed = 61;

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

int Ring::make_buffer_table(unsigned slots) { return -io_uring_register_buffers_sparse(&ring_, slots); }

void Ring::drop_buffer_table() { io_uring_unregister_buffers(&ring_); }

int Ring::set_buffer(unsigned slot, void* address, std::size_t bytes) {
  const iovec buffer{address, bytes};
  const __u64 no_tag = 0;
  const int rc = io_uring_register_buffers_update_tag(&ring_, slot, &buffer, &no_tag, 1);
  return rc == 1 ? 0 : rc < 0 ? -rc : EAGAIN;
}

bool Ring::has_vectored_fixed() {
  io_uring_probe* const probe = io_uring_get_probe_ring(&ring_);
  if (probe == nullptr) return false;
  const bool has =
      io_uring_opcode_supported(probe, kReadvFixed) != 0 && io_uring_opcode_supported(probe, kWritevFixed) != 0;
  io_uring_free_probe(probe);
  return has;
}

void Ring::prepare(const TransferStep& step, void* tag) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  CHECK(sqe != nullptr);
  const bool read = step.op == IoOp::read;
  int opcode;
  if (step.buffer >= 0) {
    opcode =
        step.vectored ? (read ? kReadvFixed : kWritevFixed) : (read ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED);
  } else {
    opcode = step.vectored ? (read ? IORING_OP_READV : IORING_OP_WRITEV) : (read ? IORING_OP_READ : IORING_OP_WRITE);
  }
  io_uring_prep_rw(opcode, sqe, step.fd, step.address, step.length, step.offset);
  if (step.buffer >= 0) sqe->buf_index = static_cast<std::uint16_t>(step.buffer);
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
