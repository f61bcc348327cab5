// Requests on their way. See async.h.
#include "fs/async.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/defect.h"
#include "base/error.h"

namespace quire {

namespace {

constinit LockClass async_class{"async requests"};
constinit LockClass event_class{"async eventfd"};
constexpr unsigned kWorkers = 4;

}  // namespace

void AsyncEngine::List::push(AsyncRequest& request) {
  request.next_ready = nullptr;
  (last != nullptr ? last->next_ready : first) = &request;
  last = &request;
}

AsyncRequest* AsyncEngine::List::pop() {
  AsyncRequest* const request = first;
  if (request == nullptr) return nullptr;
  first = request->next_ready;
  if (first == nullptr) last = nullptr;
  return request;
}

AsyncEngine::AsyncEngine(PageCache& cache, unsigned most, bool wide, Describe describe)
    : cache_(cache),
      most_(most),
      wide_(wide),
      describe_(describe),
      mutex_(async_class),
      event_(-1),
      event_mutex_(event_class),
      workers_(kWorkers, "quire-async") {}

AsyncEngine::~AsyncEngine() {
  workers_.end();  // before the eventfd: one may be about to write to it
  aio_queue_.reset();
  {
    MutexLock lock(mutex_);
    CHECK(outstanding_ == 0);
    while (free_ != nullptr) delete std::exchange(free_, free_->next_ready);
    cache_.charge_files(-static_cast<std::int64_t>(allocated_ * sizeof(AsyncRequest)));
  }
  if (event_fd_.fd() < 0) return;
  ForkGuard guard;
  ::close(guard.remove(event_fd_));
}

Result<AsyncRequest*> AsyncEngine::allocate(const AsyncRequest& wanted) {
  QUIRE_TRY(workers_.start());
  AsyncRequest* request = nullptr;
  {
    MutexLock lock(mutex_);
    if (outstanding_ == most_) {
      return fail_with(EAGAIN, "%u requests are submitted and not yet reaped: reap some first", most_);
    }
    ++outstanding_;
    request = free_;
    if (request != nullptr) free_ = request->next_ready;
  }
  if (request == nullptr) {
    request = new (std::nothrow) AsyncRequest;
    MutexLock lock(mutex_);
    if (request == nullptr) {
      --outstanding_;
      return fail(ENOMEM);
    }
    ++allocated_;
    cache_.charge_files(sizeof(AsyncRequest));
  }
  request->kind = wanted.kind;
  request->io_flags = wanted.io_flags;
  request->file = wanted.file;
  request->buffer = wanted.buffer;
  request->count = wanted.count;
  request->offset = wanted.offset;
  request->done = wanted.done;
  request->argument = wanted.argument;
  request->missed = false;
  request->engine = this;
  return request;
}

Status AsyncEngine::submit(const AsyncRequest& wanted) {
  OpenFile& file = *wanted.file;
  QUIRE_TRY(check_not_forked(cache_));
  if (wanted.kind == AsyncRequest::Kind::read && !file.readable) {
    return fail_with(EBADF, "the file was not opened for reading");
  }
  if (wanted.kind == AsyncRequest::Kind::write && !file.writable) {
    return fail_with(EBADF, "the file was not opened for writing");
  }
  const auto request = allocate(wanted);
  QUIRE_TRY(request);
  file.submitted.fetch_add(1, memory_order_relaxed);
  cache_.stats.count(Counter::async_submitted);
  start(*request.value());
  return {};
}

// On the I/O thread.
void AsyncEngine::filled(void* argument) {
  AsyncRequest& request = *static_cast<AsyncRequest*>(argument);
  request.engine->make_ready(request, Ready::runnable);
}

void AsyncEngine::queue(AsyncRequest& request) {
  cache_.stats.count(Counter::async_queued);
  request.run = [](Work& work) {
    AsyncRequest& mine = static_cast<AsyncRequest&>(work);
    mine.engine->run_waiting(mine);
  };
  workers_.submit(request);
}

void AsyncEngine::run_waiting(AsyncRequest& request) {
  if (request.direct.has_value()) {
    request.direct->send_through_host();
    request.file->inode->mapping.backing->device().execute(request.direct->requests());
    return settle_direct(request);
  }
  const iovec v{request.buffer, request.count};
  switch (request.kind) {
    case AsyncRequest::Kind::read:
      return complete(request, file_read(*request.file, std::span(&v, 1), request.offset, request.io_flags));
    case AsyncRequest::Kind::write:
      return complete(request, file_write(*request.file, std::span(&v, 1), request.offset, request.io_flags));
    case AsyncRequest::Kind::sync:
      const Status synced = file_sync(*request.file, false);
      return complete(request, synced.ok() ? Result<std::size_t>(std::size_t{0}) : fail(synced.errnum()));
  }
}

void AsyncEngine::complete(AsyncRequest& request, const Result<std::size_t>& result) {
  settle(request, result);
  make_ready(request, Ready::done);
}

// The result stands, and the handle is used no more.
void AsyncEngine::settle(AsyncRequest& request, const Result<std::size_t>& result) {
  if (result.ok()) {
    request.result = static_cast<std::int64_t>(result.value());
  } else {
    request.result = -result.errnum();
    if (describe_ != nullptr) {
      describe_(request, result.errnum());
      const char* const text = error_message();
      const std::size_t bytes = std::strlen(text) + 1;
      request.message.reset(new (std::nothrow) char[bytes]);
      if (request.message != nullptr) std::memcpy(request.message.get(), text, bytes);
    } else {
      clear_cause();
    }
  }
  // Release pairs with finish(): from here on the handle may be gone.
  if (request.file->submitted.fetch_sub(1, memory_order_release) == 1) wake();
}

void AsyncEngine::make_ready(AsyncRequest& request, Ready as) {
  bool was_empty;
  {
    MutexLock lock(mutex_);
    was_empty = done_.first == nullptr && runnable_.first == nullptr;
    (as == Ready::done ? done_ : runnable_).push(request);
  }
  if (was_empty) signal_event();
  wake();
}

AsyncRequest* AsyncEngine::take_ready(bool* is_done) {
  MutexLock lock(mutex_);
  AsyncRequest* request = done_.pop();
  *is_done = request != nullptr;
  return request != nullptr ? request : runnable_.pop();
}

bool AsyncEngine::anything_listed() {
  MutexLock lock(mutex_);
  return done_.first != nullptr || runnable_.first != nullptr;
}

// In a list, or ended at the device and not yet there.
bool AsyncEngine::anything_ready() {
  const AioQueue* const queue = aio_.load(memory_order_acquire);
  return (queue != nullptr && queue->anything()) || anything_listed();
}

// What went to the device and has ended there becomes done. False: nothing did.
bool AsyncEngine::collect() {
  AioQueue* const queue = aio_.load(memory_order_acquire);
  return queue != nullptr && queue->collect() != 0;
}

// Wakes who waits for a change that was made before.
void AsyncEngine::wake() {
  if (ready_.wake_all() && polling_.load(memory_order_acquire)) aio_.load(memory_order_acquire)->interrupt();
}

// A reaper's wait: for a wake-up since the ticket, or for an end at the device. In that case one waits at the eventfd,
// and lets another do so when it leaves.
void AsyncEngine::wait(std::uint32_t ticket) {
  AioQueue* const queue = aio_.load(memory_order_acquire);
  if (queue == nullptr || polling_.exchange(true, memory_order_acq_rel)) {
    ready_.wait(ticket);
    return;
  }
  if (!ready_.is_stale(ticket) && !anything_ready()) queue->wait();
  clear_event();
  // Others may wait for it, and a callback of ours take its time. What ended at the device signals it as it is listed.
  if (anything_listed()) signal_event();
  polling_.store(false, memory_order_release);
  ready_.cancel();
  ready_.wake_all();
}

// Of who does not reap: others see to what is on the device.
void AsyncEngine::wait_for_others(std::uint32_t ticket) {
  AioQueue* const queue = aio_.load(memory_order_acquire);
  if (queue != nullptr) queue->urge();
  ready_.wait(ticket);
  if (queue != nullptr) queue->calm();
}

// Made when it is first wanted. Null: there is none.
AioQueue* AsyncEngine::aio() {
  if (!aio_tried_.load(memory_order_acquire)) make_aio();
  return aio_.load(memory_order_acquire);
}

void AsyncEngine::make_aio() {
  if (cache_.io_thread == nullptr) return aio_tried_.store(true, memory_order_release);
  const auto event = event_fd();
  {
    MutexLock lock(event_mutex_);
    if (aio_tried_.load(memory_order_relaxed)) return;
    std::unique_ptr<AioQueue> made(new (std::nothrow) AioQueue(*cache_.io_thread, cache_.io_stats));
    if (event.ok() && made != nullptr && made->open(cache_.io_thread->depth(), event.value()) == 0) {
      aio_queue_ = std::move(made);
      aio_.store(aio_queue_.get(), memory_order_release);
    } else {
      IoStats::add(cache_.io_stats.engine_fallbacks);
      clear_cause();
    }
    aio_tried_.store(true, memory_order_release);
  }
  wake();  // who reaps may wait at the eventfd from here on
}

unsigned AsyncEngine::reap(unsigned min, unsigned max) {
  unsigned ran = 0;
  while (ran < max) {
    bool is_done;
    AsyncRequest* const request = take_ready(&is_done);
    if (request != nullptr) {
      if (is_done || run_at_once(*request)) {
        deliver(request);
        ++ran;
        if (device_in_forked_child()) return ran;  // forked in the callback
      } else {
        queue(*request);
      }
      continue;
    }
    if (collect()) continue;
    if (ran >= min || outstanding() == 0) break;
    const std::uint32_t ticket = ready_.prepare();
    if (!has_defect(Defect::reap_waits_without_a_look) && (anything_ready() || outstanding() == 0)) {
      ready_.cancel();
    } else {
      wait(ticket);
    }
  }
  clear_event();
  if (anything_ready()) signal_event();
  return ran;
}

void AsyncEngine::deliver(AsyncRequest* request) {
  const AsyncDone done = request->done;
  void* const argument = request->argument;
  const std::int64_t result = request->result;
  const std::unique_ptr<char[]> message = std::move(request->message);
  bool last;
  {
    MutexLock lock(mutex_);
    request->next_ready = free_;
    free_ = request;
    last = --outstanding_ == 0;
  }
  if (last) wake();  // who waits for more than there are
  if (message != nullptr) report_again(static_cast<int>(-result), message.get());
  done(argument, result);
}

Result<int> AsyncEngine::event_fd() {
  MutexLock lock(event_mutex_);
  if (event_fd_.fd() >= 0) return event_fd_.fd();
  {
    ForkGuard guard;
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return fail(errno);
    guard.add(event_fd_, fd);
  }
  event_.store(event_fd_.fd(), memory_order_release);
  if (anything_ready()) signal_event();  // what was pushed before it could be seen
  return event_fd_.fd();
}

void AsyncEngine::signal_event() {
  const int fd = event_.load(memory_order_acquire);
  if (fd < 0) return;
  const std::uint64_t one = 1;
  while (::write(fd, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void AsyncEngine::clear_event() {
  const int fd = event_.load(memory_order_acquire);
  if (fd < 0) return;
  std::uint64_t count;
  while (::read(fd, &count, sizeof count) < 0 && errno == EINTR) {
  }
}

void AsyncEngine::queue_runnable() {
  for (;;) {
    AsyncRequest* request;
    {
      MutexLock lock(mutex_);
      request = runnable_.pop();
    }
    if (request == nullptr) return;
    queue(*request);
  }
}

void AsyncEngine::finish(OpenFile& file) {
  if (has_defect(Defect::close_does_not_wait)) return;
  for (;;) {
    const std::uint32_t ticket = ready_.prepare();
    queue_runnable();  // other handles' too: what reaps must not be waited for
    if (file.submitted.load(memory_order_acquire) == 0) {
      ready_.cancel();
      return;
    }
    wait_for_others(ticket);
  }
}

unsigned AsyncEngine::outstanding() {
  MutexLock lock(mutex_);
  return outstanding_;
}

void AsyncEngine::discard() {
  for (;;) {
    const std::uint32_t ticket = ready_.prepare();
    queue_runnable();
    {
      MutexLock lock(mutex_);
      while (AsyncRequest* request = done_.pop()) {
        request->message.reset();
        request->next_ready = free_;
        free_ = request;
        --outstanding_;
      }
      if (outstanding_ == 0) break;
    }
    wait_for_others(ticket);
  }
  ready_.cancel();
}

}  // namespace quire
