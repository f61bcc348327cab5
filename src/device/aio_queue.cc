// Submission to the kernel's asynchronous I/O, collection, and the stand-in. See aio_queue.h.
#include "device/aio_queue.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>

#include "base/check.h"
#include "device/transfer.h"

namespace quire {
namespace {

constexpr std::int64_t kPatience = 10'000'000;  // ns in the kernel before the stand-in looks round again
constexpr unsigned kQuietTicks = 100;           // with nothing in flight, before it falls asleep
constexpr unsigned kEventsAtOnce = 64;

// What the kernel maps at the context's address for those who look before they call, as libaio and QEMU do.
struct Head {
  std::uint32_t id, slots;
  Atomic<std::uint32_t> first, end;  // collected up to, ended up to
  std::uint32_t magic, compatible, incompatible, length;
};
constexpr std::uint32_t kMagic = 0xa10a10a1;

int error_of(long rc) { return rc < 0 ? errno : 0; }

void ring(int fd) {
  const std::uint64_t one = 1;
  while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

}  // namespace

int AioQueue::open(unsigned depth, int event_fd) {
  CHECK(context_ == 0);
  depth_ = depth;
  event_fd_ = event_fd;
  {
    ForkGuard guard;
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return errno;
    guard.add(interrupt_, fd);
  }
  if (const int errnum = error_of(syscall(SYS_io_setup, depth, &context_)); errnum != 0) return errnum;
  const auto* const head = reinterpret_cast<const Head*>(context_);
  if (head->magic != kMagic || head->incompatible != 0) return ENOSYS;  // whoever looks there would call all the time
  return thread_.start([this] { stand_in(); }, "quire-aio").errnum();
}

AioQueue::~AioQueue() {
  if (device_in_forked_child()) {
    thread_.forget();
    return;
  }
  if (thread_.running()) {
    CHECK(in_flight_.load(memory_order_acquire) == 0);
    stopping_.store(true, memory_order_release);
    tick_.wake_all();
    thread_.join();
  }
  if (context_ != 0) syscall(SYS_io_destroy, context_);
  if (interrupt_.fd() < 0) return;
  ForkGuard guard;
  ::close(guard.remove(interrupt_));
}

bool AioQueue::submit(Request& request) {
  const TransferStep step = transfer_step(request);
  iocb entry{};
  entry.aio_data = reinterpret_cast<std::uintptr_t>(&request);
  if (step.vectored) {
    entry.aio_lio_opcode = step.op == IoOp::read ? IOCB_CMD_PREADV : IOCB_CMD_PWRITEV;
  } else {
    entry.aio_lio_opcode = step.op == IoOp::read ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
  }
  entry.aio_fildes = static_cast<std::uint32_t>(step.fd);
  entry.aio_buf = reinterpret_cast<std::uintptr_t>(step.address);
  entry.aio_nbytes = step.length;
  entry.aio_offset = static_cast<std::int64_t>(step.offset);
  entry.aio_rw_flags = RWF_NOWAIT;  // the submitter waits for nothing: what would ends with EAGAIN
  entry.aio_flags = IOCB_FLAG_RESFD;
  entry.aio_resfd = static_cast<std::uint32_t>(event_fd_);
  iocb* entries[] = {&entry};
  // Release: pairs with ended(), which the kernel orders but tools cannot see.
  if (in_flight_.fetch_add(1, memory_order_seq_cst) >= depth_ || syscall(SYS_io_submit, context_, 1, entries) != 1) {
    in_flight_.fetch_sub(1, memory_order_relaxed);
    return false;
  }
  IoStats::add(stats_.aio_requests);
  if (asleep_.load(memory_order_seq_cst)) tick_.wake_all();
  return true;
}

bool AioQueue::anything() const {
  if (in_flight_.load(memory_order_relaxed) == 0) return false;
  auto* const head = reinterpret_cast<Head*>(context_);
  return head->first.load(memory_order_relaxed) != head->end.load(memory_order_acquire);
}

unsigned AioQueue::collect() {
  collected_.fetch_add(1, memory_order_relaxed);
  return anything() ? take(0, 0) : 0;
}

unsigned AioQueue::take(unsigned at_least, std::int64_t timeout_ns) {
  std::array<io_event, kEventsAtOnce> events;
  const timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  unsigned taken = 0;
  for (;;) {
    const long got = syscall(SYS_io_getevents, context_, at_least, events.size(), events.data(), &timeout);
    CHECK(got >= 0 || errno == EINTR);
    for (long i = 0; i < got; ++i) ended(events[static_cast<std::size_t>(i)]);
    if (got > 0) taken += static_cast<unsigned>(got);
    if (got != static_cast<long>(events.size())) return taken;
    at_least = 0;
  }
}

void AioQueue::ended(const io_event& event) {
  auto& request = *reinterpret_cast<Request*>(event.data);
  in_flight_.fetch_sub(1, memory_order_acq_rel);  // first: from here on we see the request as its submitter left it
  // A device that cannot tell whether it would wait says that it cannot do it; the I/O thread does not ask.
  const std::int64_t rc = event.res == -EOPNOTSUPP ? -EAGAIN : event.res;
  const TransferState after = transfer_stepped(request, rc);
  if (after == TransferState::done) return request.done(request);  // which may free it
  request.next = nullptr;
  io_thread_.submit(&request, &request);
}

void AioQueue::wait() {
  waiting_.store(true, memory_order_relaxed);
  pollfd fds[] = {{event_fd_, POLLIN, 0}, {interrupt_.fd(), POLLIN, 0}};
  if (poll(fds, 2, -1) < 0 && errno != EINTR) {  // a limit of less than two descriptors; of memory
    const timespec pause{0, kTick};
    nanosleep(&pause, nullptr);
  }
  waiting_.store(false, memory_order_relaxed);
  std::uint64_t count;
  if ((fds[1].revents & POLLIN) != 0) static_cast<void>(!read(interrupt_.fd(), &count, sizeof count));
}

void AioQueue::interrupt() { ring(interrupt_.fd()); }

void AioQueue::urge() {
  urged_.fetch_add(1, memory_order_relaxed);
  tick_.wake_all();
}

void AioQueue::stand_in() {
  std::uint32_t seen = collected_.load(memory_order_relaxed);
  unsigned quiet = 0;
  for (;;) {
    const std::uint32_t ticket = tick_.prepare();
    if (stopping_.load(memory_order_acquire)) return tick_.cancel();
    const bool busy = in_flight_.load(memory_order_relaxed) != 0;
    const std::uint32_t collected = collected_.load(memory_order_relaxed);
    const bool attended =
        urged_.load(memory_order_relaxed) == 0 && (collected != seen || waiting_.load(memory_order_relaxed));
    seen = collected;
    quiet = busy ? 0 : quiet + 1;
    if (busy && !attended) {
      tick_.cancel();
      take(1, kPatience);
    } else if (quiet < kQuietTicks) {
      tick_.wait(ticket, kTick);
    } else {
      asleep_.store(true, memory_order_seq_cst);
      if (in_flight_.load(memory_order_seq_cst) == 0) {
        tick_.wait(ticket);
      } else {
        tick_.cancel();
      }
      asleep_.store(false, memory_order_relaxed);
      quiet = 0;
    }
  }
}

}  // namespace quire
