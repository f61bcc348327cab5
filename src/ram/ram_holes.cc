// Writes without prepare, and a store without unwritten extents: there a hole's block is the file's, and its poison
// in sight, before the bytes are on the device. See backing.h. Locks: the host holes lock around the filling of holes,
// the store's only around its maps.
#include <algorithm>
#include <cerrno>

#include "base/check.h"
#include "base/error.h"
#include "ram/ram_backing.h"

namespace quire {
namespace {

// Bytes [begin, end) of them all.
std::vector<iovec> part_of(std::span<const iovec> buffers, std::uint64_t begin, std::uint64_t end) {
  std::vector<iovec> part;
  std::uint64_t at = 0;
  for (const iovec& buffer : buffers) {
    const std::uint64_t from = std::max(begin, at), to = std::min(end, at + buffer.iov_len);
    if (from < to) part.push_back({static_cast<char*>(buffer.iov_base) + (from - at), to - from});
    at += buffer.iov_len;
  }
  return part;
}

std::uint64_t length_of(std::span<const iovec> buffers) {
  std::uint64_t sum = 0;
  for (const iovec& buffer : buffers) sum += buffer.iov_len;
  return sum;
}

}  // namespace

bool RamBacking::begin_direct(DirectHold& hold, bool wait) {
  return unwritten_extents() || holes_.begin_direct(hold, wait);
}

void RamBacking::end_direct(DirectHold& hold) {
  if (hold.held) holes_.end_direct(hold);
}

Status RamBacking::show_holes(BlockRange range, std::vector<std::uint64_t>* made) {
  MutexLock lock(store_.mutex_);
  QUIRE_TRY(make_room_locked(range, holes_locked(range)));
  for (std::uint64_t at = range.first; at < range.end; ++at) {
    if (blocks_.find(at) != blocks_.end()) continue;
    blocks_[at] = Block{store_.allocate_locked(), true};
    made->push_back(at);
  }
  return {};
}

Status RamBacking::write_blocks(std::uint64_t offset, std::span<const iovec> buffers) {
  const std::uint64_t unit = store_.block_size_, end = offset + length_of(buffers);
  for (std::uint64_t at = offset; at < end;) {
    const std::uint64_t whole_end = end / unit * unit;
    const bool whole = aligned(at) && whole_end > at;
    const std::uint64_t stop = whole ? whole_end : std::min(end, (at / unit + 1) * unit);
    const auto extent = whole ? prepare(at, stop - at) : map_exact(at, stop - at);
    QUIRE_TRY(extent);
    CHECK(extent.value().kind == ExtentKind::written);
    if (!whole) CHECK(!extent.value().shared);
    const std::vector<iovec> part = part_of(buffers, at - offset, at - offset + extent.value().length);
    Request request;
    request.op = IoOp::write;
    request.path = IoPath::through_host;
    request.offset = extent.value().address;
    request.buffers = part;
    Request* const batch[] = {&request};
    device().execute(batch);
    if (request.result < 0) return Status::error(static_cast<int>(-request.result));
    at += extent.value().length;
  }
  return {};
}

Status RamBacking::write_through(std::uint64_t offset, std::span<const iovec> buffers) {
  if (unwritten_extents()) return write_blocks(offset, buffers);
  std::vector<std::uint64_t> made;
  holes_.lock();
  Status status = show_holes(touched(offset, length_of(buffers)), &made);
  QUIRE_STEP_HERE(io, this);  // the poison is there to be read
  if (status.ok()) status = write_blocks(offset, buffers);
  if (!status.ok()) {
    MutexLock lock(store_.mutex_);
    for (const std::uint64_t at : made) drop_locked(blocks_, at, at + 1);
  }
  holes_.unlock();
  return status;
}

}  // namespace quire
