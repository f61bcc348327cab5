// Host files without unwritten extents: plain writes that may fill holes, and direct I/O beside them. See
// sync/hole_lock.h for what goes wrong there. Locks: the host holes lock, exclusive around what may fill a hole, shared
// around other plain writes; neither around fills of the cache and readahead, which read pages that nobody writes back
// or writes to meanwhile (the invalidate lock), and which may not wait.
#include <fcntl.h>

#include <array>
#include <cerrno>

#include "base/check.h"
#include "base/error.h"
#include "host/host_backing.h"

namespace quire {
namespace {

// Requests of a batch that go one way, sent as they are enough.
class Group {
 public:
  bool add(Request* request) {
    requests_[count_++] = request;
    return count_ == requests_.size();
  }
  std::span<Request* const> take() {
    const std::size_t count = count_;
    count_ = 0;
    return std::span(requests_.data(), count);
  }

 private:
  std::array<Request*, 64> requests_;
  std::size_t count_ = 0;
};

void check_fills_no_hole(std::span<Request* const> batch) {
  for (const Request* request : batch) CHECK(request->op == IoOp::read || request->path == IoPath::direct_only);
}

}  // namespace

Device& HostBacking::device() {
  if (properties_.unwritten_extents) return file_device();
  return hole_device_;
}

bool HostBacking::begin_direct(DirectHold& hold, bool wait) {
  return properties_.unwritten_extents || holes_.begin_direct(hold, wait);
}

void HostBacking::end_direct(DirectHold& hold) {
  if (hold.held) holes_.end_direct(hold);
}

// In doubt, yes.
bool HostBacking::may_fill_hole(const Request& request) {
  if (request.path == IoPath::through_host) return true;  // and who asks for that may rely on what it implies here
  const std::uint64_t end = request.offset + request.length();
  for (std::uint64_t at = request.offset; at < end;) {
    const auto extent = map_exact(at, end - at);
    if (!extent.ok() || extent.value().kind != ExtentKind::written || extent.value().length == 0) return true;
    at += extent.value().length;
  }
  return false;
}

// Through the host's cache, and from there to the device before anybody may read or write directly.
void HostBacking::fill_holes(std::span<Request* const> batch) {
  for (Request* request : batch) request->path = IoPath::through_host;
  holes_.lock();
  file_device().execute(batch);
  for (Request* request : batch) {
    if (request->result <= 0) continue;
    constexpr unsigned kWhole = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    int rc;
    do {
      rc = sync_file_range(current_fd(), static_cast<off_t>(request->offset), request->result, kWhole);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0) request->result = -errno;
  }
  holes_.unlock();
}

void HostBacking::HoleDevice::execute(std::span<Request* const> batch) {
  FileDevice& file = backing_.file_device();
  Group filling, plain, others;
  const auto send_filling = [&] {
    if (const auto group = filling.take(); !group.empty()) backing_.fill_holes(group);
  };
  const auto send_plain = [&] {
    const auto group = plain.take();
    if (group.empty()) return;
    DirectHold hold;
    backing_.holes_.begin_direct(hold, true);
    file.execute(group);
    backing_.holes_.end_direct(hold);
  };
  for (Request* request : batch) {
    if (request->op == IoOp::read || request->path == IoPath::direct_only) {
      if (others.add(request)) file.execute(others.take());
    } else if (backing_.may_fill_hole(*request)) {
      if (filling.add(request)) send_filling();
    } else if (plain.add(request)) {
      send_plain();
    }
  }
  file.execute(others.take());
  send_plain();
  send_filling();
}

void HostBacking::HoleDevice::submit(std::span<Request* const> batch) {
  check_fills_no_hole(batch);
  backing_.file_device().submit(batch);
}

void HostBacking::HoleDevice::submit_to_collect(AioQueue& queue, std::span<Request* const> batch) {
  check_fills_no_hole(batch);
  backing_.file_device().submit_to_collect(queue, batch);
}

Status HostBacking::write_through(std::uint64_t offset, std::span<const iovec> buffers) {
  Request request;
  request.op = IoOp::write;
  request.path = IoPath::through_host;
  request.offset = offset;
  request.buffers = buffers;
  Request* const batch[] = {&request};
  device().execute(batch);
  if (request.result < 0) return Status::error(static_cast<int>(-request.result));
  CHECK(static_cast<std::uint64_t>(request.result) == request.length());  // continued until it is whole
  return {};
}

}  // namespace quire
