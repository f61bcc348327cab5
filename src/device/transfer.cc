// Progress of one request over short transfers and fallbacks; the plain engine.
#include "device/transfer.h"

#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"

namespace quire {
namespace {

// Request::private_ while a FileDevice has the request.
enum Field : unsigned { kMoved, kIndexAndFlags, kWithin, kTarget };
constexpr std::uint64_t kDirect = std::uint64_t{1} << 63;  // in kIndexAndFlags, above the index of the current buffer
constexpr std::uint64_t kFinished = std::uint64_t{1} << 62;
constexpr std::uint64_t kFixed = std::uint64_t{1} << 61;         // a step went through a registered buffer
constexpr std::uint64_t kFixedRefused = std::uint64_t{1} << 60;  // from here on none does
constexpr std::uint64_t kIndexMask = kFixedRefused - 1;
constexpr std::size_t kMaxStepBytes = std::size_t{1} << 30;  // the kernel stops a transfer short of 2 GiB anyway

std::uint64_t index_of(const Request& request) { return request.private_[kIndexAndFlags] & kIndexMask; }

// Passes over used up (and empty) buffers. False when none is left.
bool settle(Request& request) {
  while (index_of(request) < request.buffers.size()) {
    if (request.private_[kWithin] < request.buffers[index_of(request)].iov_len) return true;
    ++request.private_[kIndexAndFlags];
    request.private_[kWithin] = 0;
  }
  return false;
}

void advance(Request& request, std::uint64_t bytes) {
  request.private_[kMoved] += bytes;
  while (bytes > 0 && settle(request)) {
    const std::uint64_t left = request.buffers[index_of(request)].iov_len - request.private_[kWithin];
    const std::uint64_t here = std::min(left, bytes);
    request.private_[kWithin] += here;
    bytes -= here;
  }
}

bool is_direct_capable(const Request& request, unsigned block) {
  std::uint64_t bits = request.offset;
  for (const iovec& buffer : request.buffers)
    bits |= reinterpret_cast<std::uintptr_t>(buffer.iov_base) | buffer.iov_len;
  return is_aligned(bits, block);
}

TransferState finish(Request& request, std::int64_t result) {
  IoStats& stats = *transfer_target(request).stats;
  const bool read = request.op == IoOp::read;
  IoStats::add(read ? stats.read_requests : stats.write_requests);
  if (result < 0) {
    // What cannot go direct is the caller's to send another way.
    const bool refused = result == -EINVAL && request.path == IoPath::direct_only;
    if (!refused) IoStats::add(stats.errors);
  } else {
    IoStats::add(read ? stats.read_bytes : stats.write_bytes, static_cast<std::uint64_t>(result));
  }
  const std::uint64_t flags = request.private_[kIndexAndFlags];
  if ((flags & kFixedRefused) != 0) {
    IoStats::add(stats.buffer_fallbacks);
  } else if ((flags & kFixed) != 0) {
    IoStats::add(stats.fixed_requests);
  }
  request.result = result;
  request.private_[kIndexAndFlags] |= kFinished;
  return TransferState::done;
}

// By syscall(2), not the C library's wrappers: ThreadSanitizer would take those for plain stores to frames that
// optimistic readers may be looking at. The kernel's are no more than a ring's.
std::int64_t call(const TransferStep& step) {
  long rc;
  if (step.vectored) {
    rc = syscall(step.op == IoOp::read ? SYS_preadv : SYS_pwritev, step.fd, step.address, step.length, step.offset, 0);
  } else {
    rc = syscall(step.op == IoOp::read ? SYS_pread64 : SYS_pwrite64, step.fd, step.address,
                 static_cast<std::size_t>(step.length), step.offset);
  }
  return rc < 0 ? -errno : rc;
}

}  // namespace

const FileTarget& transfer_target(const Request& request) {
  return *reinterpret_cast<const FileTarget*>(request.private_[kTarget]);
}

void transfer_note_fixed(Request& request, FixedUse use) {
  if (use == FixedUse::fixed) request.private_[kIndexAndFlags] |= kFixed;
  if (use == FixedUse::refused) request.private_[kIndexAndFlags] |= kFixedRefused;
}

bool transfer_fixed_refused(const Request& request) { return (request.private_[kIndexAndFlags] & kFixedRefused) != 0; }

bool transfer_is_done(const Request& request) { return (request.private_[kIndexAndFlags] & kFinished) != 0; }

bool transfer_is_direct(const Request& request) { return (request.private_[kIndexAndFlags] & kDirect) != 0; }

TransferState transfer_begin(Request& request, const FileTarget& target) {
  request.next = nullptr;
  request.private_[kMoved] = 0;
  request.private_[kIndexAndFlags] = 0;
  request.private_[kWithin] = 0;
  request.private_[kTarget] = reinterpret_cast<std::uintptr_t>(&target);
  // Offset -1 would mean "the file's position" to a ring.
  if (request.offset > kMaxFileSize) return finish(request, -EINVAL);
  if (!settle(request)) return finish(request, 0);
  const bool direct = request.path != IoPath::through_host && target.direct_fd >= 0 &&
                      is_direct_capable(request, target.direct_alignment);
  if (direct) request.private_[kIndexAndFlags] |= kDirect;
  if (!direct && request.path == IoPath::direct_only) return finish(request, -EINVAL);
  return TransferState::again;
}

TransferStep transfer_step(const Request& request) {
  const FileTarget& target = transfer_target(request);
  const std::uint64_t index = index_of(request);
  const std::uint64_t within = request.private_[kWithin];
  TransferStep step;
  step.op = request.op;
  step.fd = transfer_is_direct(request) ? target.direct_fd : target.buffered_fd;
  step.offset = request.offset + request.private_[kMoved];
  step.vectored = within == 0 && index + 1 < request.buffers.size();
  const iovec& buffer = request.buffers[index];
  if (step.vectored) {
    step.address = &buffer;
    step.length = static_cast<unsigned>(std::min<std::uint64_t>(request.buffers.size() - index, IOV_MAX));
  } else {
    step.address = static_cast<const char*>(buffer.iov_base) + within;
    step.length = static_cast<unsigned>(std::min<std::uint64_t>(buffer.iov_len - within, kMaxStepBytes));
  }
  return step;
}

TransferState transfer_stepped(Request& request, std::int64_t rc) {
  const bool direct = transfer_is_direct(request);
  if (rc < 0) {
    if (rc == -EINTR) return TransferState::again;
    if (rc == -EAGAIN) return TransferState::again_plain;  // a non-blocking descriptor; a system call waits
    const std::uint64_t flags = request.private_[kIndexAndFlags];
    if ((rc == -EFAULT || rc == -EOPNOTSUPP) && (flags & (kFixed | kFixedRefused)) == kFixed) {
      request.private_[kIndexAndFlags] |= kFixedRefused;  // a file that takes no registered buffers
      return TransferState::again;
    }
    if (rc != -EINVAL || !direct || request.path == IoPath::direct_only) return finish(request, rc);
    request.private_[kIndexAndFlags] &= ~kDirect;
    IoStats::add(transfer_target(request).stats->direct_fallbacks);
    return TransferState::again;
  }
  const auto moved = static_cast<std::int64_t>(request.private_[kMoved]);
  if (rc == 0) return finish(request, request.op == IoOp::read ? moved : -EIO);
  advance(request, static_cast<std::uint64_t>(rc));
  if (!settle(request)) return finish(request, moved + rc);
  // Short at an odd byte: most likely the end of the file. Only the other descriptor can tell.
  if (direct && !is_aligned(request.private_[kMoved], transfer_target(request).direct_alignment)) {
    if (request.path == IoPath::direct_only) return finish(request, request.op == IoOp::read ? moved + rc : -EINVAL);
    request.private_[kIndexAndFlags] &= ~kDirect;
  }
  return TransferState::again;
}

void plain_run(Request& request) {
  while (!transfer_is_done(request)) {
    const std::int64_t rc = call(transfer_step(request));
    // A system call that does not wait cannot be made to: its EAGAIN is the result.
    if (transfer_stepped(request, rc) == TransferState::again_plain) finish(request, rc);
  }
}

void transfer_fail(Request& request, const FileTarget& target, int errnum) {
  request.private_[kIndexAndFlags] = 0;
  request.private_[kTarget] = reinterpret_cast<std::uintptr_t>(&target);
  finish(request, -errnum);
}

}  // namespace quire
