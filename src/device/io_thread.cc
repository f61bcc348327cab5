// quire's I/O thread: hand-over of requests, the loop over the ring, and the plain loop.
#include "device/io_thread.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "base/check.h"
#include "base/error.h"

namespace quire {
namespace {

// The head of the stack while the thread sleeps or is about to: an address that no request has.
Request asleep_marker;
Request* const kAsleep = &asleep_marker;

// Where so many bytes of one file are at the host, its next request waits. Some virtual disks take all that they are
// given, and what comes meanwhile, before they tell of any end: then who works on what was read, and asks for more as
// that goes on (readahead of what is verified, above all), and the disk would take turns at being idle. Enough for
// 10 GB/s at 0.4 ms.
constexpr std::uint64_t kMostBytes = 4 << 20;

// Ends that are looked at before what was submitted meanwhile goes out: the host works on that while `done` of the
// others (which may hash a page) runs.
constexpr unsigned kMostEnds = 8;

}  // namespace

// On the stack of who waits for it.
struct IoThread::Withdrawal {
  Request request;
  IoThread* io;
  const void* address;
  std::size_t bytes;
  Atomic<bool> ended;
};

Result<std::unique_ptr<IoThread>> IoThread::create(const IoThreadOptions& options) {
  CHECK(options.depth > 0);
  CHECK(options.stats != nullptr);
  std::unique_ptr<IoThread> made(new (std::nothrow) IoThread(options));
  if (made == nullptr) return fail(ENOMEM);
  {
    ForkGuard guard;
    const int fd = eventfd(0, EFD_CLOEXEC);  // blocking: a ring polls it, the plain loop sleeps in it
    if (fd < 0) return fail(errno);
    guard.add(made->event_, fd);
  }
  QUIRE_TRY(made->thread_.start([io = made.get()] { io->run(); }, "quire-io"));
  return made;
}

IoThread::~IoThread() {
  if (device_in_forked_child()) {
    thread_.forget();
    return;
  }
  if (thread_.running()) {
    // The write to the eventfd orders it: the thread looks again after reading that.
    stopping_.store(true, memory_order_release);
    wake_up();
    thread_.join();
    CHECK(pushed_.load(memory_order_acquire) != kAsleep);
    CHECK(pending_ == nullptr);
    CHECK(withdrawals_ == nullptr);
    CHECK(in_flight_ == 0);
  }
  if (event_.fd() < 0) return;
  ForkGuard guard;
  ::close(guard.remove(event_));
}

void IoThread::submit(Request* newest, Request* oldest) {
  Request* head = pushed_.load(memory_order_relaxed);
  do {
    oldest->next = head == kAsleep ? nullptr : head;
  } while (!pushed_.compare_exchange(head, newest, memory_order_release, memory_order_relaxed));
  if (head == kAsleep) wake_up();  // the requests may be done and gone by now
}

void IoThread::withdraw(const void* address, std::size_t bytes) {
  fixed_.withdraw(address, bytes);
  if (device_in_forked_child()) return;
  Withdrawal withdrawal;
  withdrawal.io = this;
  withdrawal.address = address;
  withdrawal.bytes = bytes;
  withdrawal.request.done = &withdrawn;
  withdrawal.request.context = &withdrawal;
  submit(&withdrawal.request, &withdrawal.request);
  wake_up();  // it may sleep without the mark
  for (;;) {
    const std::uint32_t ticket = withdrawal_ended_.prepare();
    if (withdrawal.ended.load(memory_order_acquire)) {  // pairs with withdrawn()
      withdrawal_ended_.cancel();
      return;
    }
    withdrawal_ended_.wait(ticket);
  }
}

void IoThread::withdrawn(Request& request) {
  auto& withdrawal = *static_cast<Withdrawal*>(request.context);
  IoThread& io = *withdrawal.io;
  // Release: who then punches does so after the drop. From here on the withdrawal may be gone.
  withdrawal.ended.store(true, memory_order_release);
  io.withdrawal_ended_.wake_all();
}

void IoThread::run() {
  if (options_.use_io_uring && ring_.open(options_.depth + 1) == 0) {
    IoStats::add(options_.stats->ring_setups);
    fixed_.open(ring_);
    loop_with_ring();
    fixed_.close(ring_);
    ring_.close();  // by the thread that made it
  } else {
    if (options_.use_io_uring) IoStats::add(options_.stats->engine_fallbacks);
    loop_plain();
  }
}

bool IoThread::take() {
  // Acquire: pairs with the push. Also the way from asleep to awake.
  Request* stack = pushed_.exchange(nullptr, memory_order_acquire);
  if (stack == nullptr || stack == kAsleep) return false;
  Request* first = nullptr;
  Request* last = nullptr;
  while (stack != nullptr) {  // a stack is newest first
    Request* const next = stack->next;
    // A withdrawal waits behind no request: its caller may hold what others need.
    Request*& list = stack->done == &withdrawn ? withdrawals_ : first;
    if (&list == &first && last == nullptr) last = stack;
    stack->next = list;
    list = stack;
    stack = next;
  }
  if (first == nullptr) return true;
  if (pending_ == nullptr) {
    pending_ = first;
  } else {
    pending_last_->next = first;
  }
  pending_last_ = last;
  return true;
}

bool IoThread::fall_asleep() {
  Request* expected = nullptr;
  return pushed_.compare_exchange(expected, kAsleep, memory_order_relaxed, memory_order_relaxed);
}

// For an end: nothing that could begin was pushed since take(), and no withdrawal is left.
bool IoThread::may_wait() { return withdrawals_ == nullptr && (in_flight_ == options_.depth || fall_asleep()); }

void IoThread::loop_with_ring() {
  for (;;) {
    take();
    const bool stopping = stopping_.load(memory_order_acquire);
    if (end_withdrawals()) start_pending();
    if (in_flight_ == 0 && pending_ == nullptr) {
      // Idle: the thread sleeps in the eventfd itself, outside io_uring_enter, which some tools run all threads behind.
      if (armed_) {
        if (!ring_.anything_ended()) wake_up();  // ends the ring's read
      } else {
        if (take()) continue;  // a callback just run submitted again
        if (stopping) return;
        if (fall_asleep()) wait_for_wake_up();
        continue;
      }
    } else if (!armed_ && !stopping) {
      arm_wake_up();
    }
    if (!ring_.anything_ended()) {
      ring_.submit_and_wait(may_wait() ? 1 : 0);  // 0: what is prepared goes out, and new requests join
    } else if (!ring_.all_submitted()) {
      ring_.submit_and_wait(0);
    }
    ring_.reap([this](void* tag, int rc) { completed(tag, rc); }, kMostEnds);
  }
}

void IoThread::start_pending() {
  while (pending_ != nullptr && in_flight_ < options_.depth) {
    Request* const request = pending_;
    pending_ = request->next;
    const FileTarget& target = transfer_target(*request);
    if (transfer_is_done(*request) || !target.use_io_uring) {
      plain_run(*request);
      request->done(*request);
      continue;
    }
    FileTurn& turn = target.turn;
    request->next = nullptr;
    (turn.last != nullptr ? turn.last->next : turn.first) = request;
    turn.last = request;
    start_of(turn);
  }
}

// While one waits, others of its file are at the host: their ends call this. (Where it was depth that stopped them, an
// end of another file does not: its room goes to who is pending.)
void IoThread::start_of(FileTurn& turn) {
  while (turn.first != nullptr && turn.bytes < kMostBytes && in_flight_ < options_.depth) {
    Request& request = *turn.first;
    turn.first = request.next;
    if (turn.first == nullptr) turn.last = nullptr;
    prepare(request);
    ++in_flight_;
    turn.bytes += request.length();
  }
}

void IoThread::prepare(Request& request) {
  TransferStep step = transfer_step(request);
  if (!transfer_fixed_refused(request)) transfer_note_fixed(request, fixed_.aim(ring_, step));
  ring_.prepare(step, &request);
}

// false: the kernel has no memory for entries that may name what is to be dropped. Again after some ends, and before
// more is begun.
bool IoThread::end_withdrawals() {
  if (withdrawals_ == nullptr) return true;
  if (!ring_.all_submitted()) ring_.submit_and_wait(0);
  if (!ring_.all_submitted()) return false;
  while (withdrawals_ != nullptr) {
    Request* const request = withdrawals_;
    withdrawals_ = request->next;
    const auto& withdrawal = *static_cast<Withdrawal*>(request->context);
    fixed_.drop(ring_, withdrawal.address, withdrawal.bytes);
    withdrawn(*request);
  }
  return true;
}

void IoThread::completed(void* tag, int rc) {
  if (tag == &wake_ups_) {
    armed_ = false;
    return;
  }
  auto* const request = static_cast<Request*>(tag);
  const TransferState after = transfer_stepped(*request, rc);
  if (after == TransferState::again) {
    prepare(*request);  // takes the place it had
    return;
  }
  --in_flight_;
  FileTurn& turn = transfer_target(*request).turn;
  turn.bytes -= request->length();
  start_of(turn);
  if (after == TransferState::again_plain) plain_run(*request);
  request->done(*request);  // may free the request
}

void IoThread::arm_wake_up() {
  ring_.prepare(TransferStep{IoOp::read, event_.fd(), false, &wake_ups_, sizeof wake_ups_, 0}, &wake_ups_);
  armed_ = true;
}

void IoThread::loop_plain() {
  for (;;) {
    const bool taken = take();
    while (withdrawals_ != nullptr) {
      Request* const request = withdrawals_;
      withdrawals_ = request->next;
      withdrawn(*request);
    }
    if (pending_ != nullptr) {
      Request* const request = pending_;
      pending_ = request->next;
      plain_run(*request);
      request->done(*request);
    } else if (!taken) {
      if (stopping_.load(memory_order_acquire)) return;
      if (fall_asleep()) wait_for_wake_up();
    }
  }
}

void IoThread::wake_up() {
  const std::uint64_t one = 1;
  ssize_t rc;
  do {
    rc = write(event_.fd(), &one, sizeof one);
  } while (rc < 0 && errno == EINTR);
}

void IoThread::wait_for_wake_up() {
  ssize_t rc;
  do {
    rc = read(event_.fd(), &wake_ups_, sizeof wake_ups_);
  } while (rc < 0 && errno == EINTR);
}

}  // namespace quire
