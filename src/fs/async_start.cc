// How a submitted request sets out: served at once, its absent pages' fills submitted, or itself sent to the device;
// and the end of one that was there. See async.h.
#include <algorithm>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "cache/buffered_read.h"
#include "fs/async.h"
#include "sync/rcu.h"
#include "sync/view_region.h"

namespace quire {

namespace {

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
  if (file.submitted.fetch_sub(1, memory_order_release) == 1) wake();
  if (filling.submitted) return true;
  if (!filling.inserted || !run_at_once(request)) return false;
  make_ready(request, Ready::done);  // holes, filled now
  return true;
}

// Of a direct request, what needs nothing but its locks and the device: aligned, and with no folio in its way. True:
// its locks are held, and its requests to the device are planned. False: nothing is held.
bool AsyncEngine::plan_direct(AsyncRequest& request) {
  OpenFile& file = *request.file;
  Mapping& mapping = file.inode->mapping;
  const Backing& backing = *mapping.backing;
  const bool is_read = request.kind == AsyncRequest::Kind::read;
  const auto memory = reinterpret_cast<std::uintptr_t>(request.buffer);
  if (!is_aligned(request.offset | request.count | memory, sector_of(backing))) return false;
  if (backing.direct_alignment() == 0 || request.count > cache_.max_operation_bytes()) return false;
  if (!is_read && (file.append || file.data_sync || file.full_sync)) return false;
  const std::uint64_t end = request.offset + request.count;
  const auto extent_now = [&](const DirectExtent* held) {
    if (is_read) return DirectExtent{false, request.offset, end};
    const auto extent = direct_extent(mapping, request.offset, end, held);
    if (extent.ok()) return extent.value();
    clear_cause();
    return DirectExtent{true, request.offset, end};
  };
  DirectExtent& extent = request.extent;
  extent = extent_now(nullptr);
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
  extent = extent_now(&held);
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
  return io.begin_device(false) || give_up();
}

// Sends what can be planned without waiting. True: direct_done() has or will have it.
bool AsyncEngine::start_direct(AsyncRequest& request) {
  if (!plan_direct(request)) return false;
  Mapping& mapping = request.file->inode->mapping;
  DirectIo& io = *request.direct;
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
  if (AioQueue* const queue = aio()) {
    mapping.backing->device().submit_to_collect(*queue, requests);
  } else {
    mapping.backing->device().submit(requests);
  }
  return true;
}

// On the thread that collects, or the I/O thread: waits for nothing.
void AsyncEngine::direct_done(AsyncRequest& request) {
  if (has_defect(Defect::direct_ends_when_reaped)) return make_ready(request, Ready::runnable);
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
    clear_cause();  // of what came short: this may be the program's thread
    complete(request, is_read ? good - request.offset : request.count);
  } else {
    complete(request, fail(errnum));
  }
  ahead_ended(mapping);  // last: the handle, and with it the mapping, may go from here on
}

}  // namespace quire
