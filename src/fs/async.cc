// Requests on their way. See async.h.
#include "fs/async.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/defect.h"
#include "base/error.h"
#include "cache/buffered_read.h"
#include "sync/rcu.h"
#include "sync/view_region.h"

namespace quire {

namespace {

constinit LockClass async_class{"async requests"};
constinit LockClass event_class{"async eventfd"};
constexpr unsigned kWorkers = 4;

// The first page of [first, last] that is not there, or last + 1; kBeingFilled if one before it is not yet uptodate.
constexpr std::uint64_t kBeingFilled = UINT64_MAX;
std::uint64_t first_absent(Mapping& mapping, std::uint64_t first, std::uint64_t last) {
  RcuReadLock rcu;
  for (std::uint64_t page = first; page <= last;) {
    const Folio* folio = folio_of(mapping.pages.load(page));
    if (folio == nullptr) return page;
    if (!folio->has(kUptodate)) return kBeingFilled;
    page = std::max(page + 1, folio->index.load(memory_order_relaxed) + folio->pages());
  }
  return last + 1;
}

// On a host that fills holes before it has their bytes, only what needs none filled goes to the device by itself.
bool fills_no_hole(Backing& backing, const DirectExtent& extent) {
  if (backing.unwritten_extents()) return true;
  const auto mapped = backing.map_exact(extent.low, extent.high - extent.low);
  return mapped.ok() && mapped.value().kind == ExtentKind::written && mapped.value().length == extent.high - extent.low;
}

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

// From here on the request is somebody else's.
void AsyncEngine::start(AsyncRequest& request) {
  // What lies in a view is copied by way of the cache, which may wait.
  const bool plain = request.kind != AsyncRequest::Kind::sync && !touches_views(request.buffer, request.count);
  if (plain && run_at_once(request)) return make_ready(request, Ready::done);
  if (plain && wide_) {
    if (goes_direct(*request.file, request.io_flags) ? start_direct(request) : start_fill(request)) return;
  }
  queue(request);
}

// What can be done without waiting: true, and its result stands. False: nothing was done.
bool AsyncEngine::run_at_once(AsyncRequest& request) {
  OpenFile& file = *request.file;
  Mapping& mapping = file.inode->mapping;
  if (request.count == 0) return settle(request, std::size_t{0}), true;
  if (request.kind == AsyncRequest::Kind::write) {
    if (file.data_sync || file.full_sync || file.no_reuse.load(memory_order_relaxed)) return false;
    if (goes_direct(file, request.io_flags)) return false;
    const iovec v{request.buffer, request.count};
    const auto written = file_write(file, std::span(&v, 1), request.offset, request.io_flags | kIoNoWait);
    if (!written.ok() && written.errnum() == EAGAIN) {
      clear_cause();
      return false;
    }
    return settle(request, written), true;
  }
  char* const to = static_cast<char*>(request.buffer);
  const ssize_t hit = read_fast(mapping, to, request.count, request.offset);
  if (hit != kSlow) {
    request.missed ? cache_.stats.count_slow_read(request.count) : cache_.stats.count_hit(request.count);
    return settle(request, static_cast<std::size_t>(hit)), true;
  }
  if (request.count > cache_.max_operation_bytes() || file.no_reuse.load(memory_order_relaxed)) return false;
  RangeGuard range(file.inode->range);
  if (!range.try_acquire(request.offset, request.offset + request.count - 1, kShared)) return false;
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (request.offset >= size) {
    range.release();  // before the handle may go
    return settle(request, std::size_t{0}), true;
  }
  const std::size_t wanted = std::min<std::uint64_t>(request.count, size - request.offset);
  const iovec v{request.buffer, wanted};
  UserBuffer buffer(std::span(&v, 1));
  const std::uint64_t first = request.offset >> kPageShift;
  const std::uint64_t last = (request.offset + wanted - 1) >> kPageShift;
  if (!has_defect(Defect::runnable_trusts_its_fill)) {
    if (first_absent(mapping, first, last) != last + 1) return false;  // or it would be copied in part for nothing
    if (read_resident(mapping, buffer, request.offset, wanted) != wanted) return false;
  } else if (request.missed) {
    static_cast<void>(read_resident(mapping, buffer, request.offset, wanted));
  } else {
    return false;
  }
  range.release();
  cache_.stats.count_slow_read(request.count);
  return settle(request, wanted), true;
}

// Submits what is absent of the pages that the request needs: all of a read's, the edges of a write. True: filled() has
// or will have the request.
bool AsyncEngine::start_fill(AsyncRequest& request) {
  OpenFile& file = *request.file;
  Mapping& mapping = file.inode->mapping;
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (request.offset >= size) return false;
  const std::uint64_t file_pages = round_up(size, kPageSize) >> kPageShift;
  std::uint64_t first = request.offset >> kPageShift;
  const std::uint64_t end = std::min<std::uint64_t>(request.offset + request.count, size);
  std::uint64_t last = (end - 1) >> kPageShift;
  const bool is_read = request.kind == AsyncRequest::Kind::read;
  if (!is_read) {
    if (file.append) return false;
    // The first edge that has to be read; of a second, if that is absent too, a worker takes care.
    const bool first_whole = (request.offset & (kPageSize - 1)) == 0 && end - request.offset >= kPageSize;
    const bool last_whole = (request.offset + request.count) % kPageSize == 0;
    if (first_whole && last_whole) return false;
    first = last = first_whole ? last : first;
  }
  const std::uint64_t absent = first_absent(mapping, first, last);
  if (absent == kBeingFilled || absent > last) return false;
  request.missed = true;
  ReadRange wanted{absent, last};
  ReadaheadPlan plan{last, UINT64_MAX};
  if (is_read) {
    plan = plan_miss(mapping, &file.readahead, absent, last, file_pages);
    wanted.last = plan.last;
    wanted.order = plan.order;
    wanted.mark_page = plan.mark;
  }
  const std::uint32_t owner = brought_in(file, request.io_flags);
  // It may be done and reaped at once, and its handle closed by the callback: the state that is noted below is in
  // there.
  file.submitted.fetch_add(1, memory_order_relaxed);
  const AheadFilled filling = fill_for(mapping, wanted, owner, &AsyncEngine::filled, &request);
  note_filled(plan, filling.end);
  if (file.submitted.fetch_sub(1, memory_order_release) == 1) ready_.wake_all();
  if (filling.submitted) return true;
  if (!filling.inserted || !run_at_once(request)) return false;
  make_ready(request, Ready::done);  // holes, filled now
  return true;
}

// Of a direct request, what needs nothing but its locks and the device: aligned, and with no folio in its way. True:
// direct_done() has or will have it.
bool AsyncEngine::start_direct(AsyncRequest& request) {
  OpenFile& file = *request.file;
  Mapping& mapping = file.inode->mapping;
  const Backing& backing = *mapping.backing;
  const bool is_read = request.kind == AsyncRequest::Kind::read;
  const auto memory = reinterpret_cast<std::uintptr_t>(request.buffer);
  if (!is_aligned(request.offset | request.count | memory, sector_of(backing))) return false;
  if (backing.direct_alignment() == 0 || request.count > cache_.max_operation_bytes()) return false;
  if (!is_read && (file.append || file.data_sync || file.full_sync)) return false;
  const std::uint64_t end = request.offset + request.count;
  const auto extent_now = [&] {
    if (is_read) return DirectExtent{false, request.offset, end};
    const auto extent = direct_extent(mapping, request.offset, end);
    if (extent.ok()) return extent.value();
    clear_cause();
    return DirectExtent{true, request.offset, end};
  };
  DirectExtent& extent = request.extent;
  extent = extent_now();
  if (extent.cached) return false;
  DirectIo& io = request.direct.emplace(*file.inode);
  const Status locked = is_read ? io.lock_to_read(extent.low, extent.high - extent.low, false)
                                : io.lock_to_write(extent.low, extent.high - extent.low, false, false);
  const auto give_up = [&] {
    io.unlock();
    request.direct.reset();
    return false;
  };
  if (!locked.ok()) {
    request.direct.reset();
    return false;
  }
  // Inside what the backing has: the end of the file, and growth, are for who may wait.
  if (extent.high > std::min(mapping.size.load(memory_order_acquire), backing.size())) return give_up();
  const DirectExtent held = extent;
  extent = extent_now();
  if (extent.cached || !extent.within(held) || io.resident(extent.low, extent.high)) return give_up();
  char* from_or_to = static_cast<char*>(request.buffer);
  if (extent.low != request.offset || extent.high != end) {
    if (!PrivateMemory::may_have_more(cache_, extent.high - extent.low)) return give_up();
    const iovec v{request.buffer, request.count};
    UserBuffer user(std::span(&v, 1));
    if (!compose(io, user, request.offset, end, extent).ok()) return give_up();
    from_or_to = io.memory.bytes();
    cache_.stats.count(Counter::direct_grown);
  }
  const auto planned = io.plan(is_read ? IoOp::read : IoOp::write, from_or_to, extent.low, extent.high);
  if (!planned.ok() || planned.value() != extent.high || io.requests().empty()) return give_up();
  if (!is_read && !fills_no_hole(*mapping.backing, extent)) return give_up();
  if (!io.begin_device(false)) return give_up();
  const auto requests = io.requests();
  request.left.store(static_cast<unsigned>(requests.size()), memory_order_relaxed);
  for (Request* part : requests) {
    part->context = &request;
    part->done = [](Request& done) {
      AsyncRequest& whole = *static_cast<AsyncRequest*>(done.context);
      if (whole.left.fetch_sub(1, memory_order_acq_rel) == 1) whole.engine->direct_done(whole);
    };
  }
  io.detach();
  ahead_begun(mapping);
  mapping.backing->device().submit(requests);
  return true;
}

// On the I/O thread: waits for nothing.
void AsyncEngine::direct_done(AsyncRequest& request) {
  int errnum;
  static_cast<void>(request.direct->outcome(&errnum));
  request.direct->end_device();
  if (errnum == EINVAL) {  // the host does not take it so: a worker sends it through the host, under the same locks
    queue(request);
  } else {
    settle_direct(request);
  }
}

void AsyncEngine::settle_direct(AsyncRequest& request) {
  Mapping& mapping = request.file->inode->mapping;
  DirectIo& io = *request.direct;
  const bool is_read = request.kind == AsyncRequest::Kind::read;
  int errnum;
  const std::uint64_t good = io.outcome(&errnum);
  const DirectExtent extent = request.extent;
  if (!is_read && errnum != 0) direct_failed(mapping, extent);
  if (!is_read && errnum == 0) errnum = commit_direct(mapping, extent.low, extent.high).errnum();
  cache_.stats.count(is_read ? Counter::direct_reads : Counter::direct_writes);
  io.unlock();
  request.direct.reset();
  if (errnum == 0 || (is_read && good > request.offset)) {
    complete(request, is_read ? good - request.offset : request.count);
  } else {
    complete(request, fail(errnum));
  }
  ahead_ended(mapping);  // last: the handle, and with it the mapping, may go from here on
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
  if (request.file->submitted.fetch_sub(1, memory_order_release) == 1) ready_.wake_all();
}

void AsyncEngine::make_ready(AsyncRequest& request, Ready as) {
  bool was_empty;
  {
    MutexLock lock(mutex_);
    was_empty = done_.first == nullptr && runnable_.first == nullptr;
    (as == Ready::done ? done_ : runnable_).push(request);
  }
  if (was_empty) signal_event();
  ready_.wake_all();
}

AsyncRequest* AsyncEngine::take_ready(bool* is_done) {
  MutexLock lock(mutex_);
  AsyncRequest* request = done_.pop();
  *is_done = request != nullptr;
  return request != nullptr ? request : runnable_.pop();
}

bool AsyncEngine::anything_ready() {
  MutexLock lock(mutex_);
  return done_.first != nullptr || runnable_.first != nullptr;
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
      } else {
        queue(*request);
      }
      continue;
    }
    if (ran >= min || outstanding() == 0) break;
    const std::uint32_t ticket = ready_.prepare();
    if (!has_defect(Defect::reap_waits_without_a_look) && (anything_ready() || outstanding() == 0)) {
      ready_.cancel();
    } else {
      ready_.wait(ticket);
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
  if (last) ready_.wake_all();  // who waits for more than there are
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
    ready_.wait(ticket);
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
    ready_.wait(ticket);
  }
  ready_.cancel();
}

}  // namespace quire
