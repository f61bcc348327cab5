// What the blocks of a host file are: the written map's answer, or the host's. See host_backing.h and written_map.h.
// Locks: none of ours while the host is asked.
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>

#include "base/error.h"
#include "host/host_backing.h"

namespace quire {
namespace {

constexpr unsigned kExtents = 64;  // asked for at once

// FIEMAP's variable length, in place.
struct ExtentRequest {
  alignas(fiemap) std::byte room[sizeof(fiemap) + kExtents * sizeof(fiemap_extent)] = {};
};

// Of what the host has only in its cache, or in a form of its own, it says no more than that it is there: data.
BlockState state_of(const fiemap_extent& extent) {
  if ((extent.fe_flags & FIEMAP_EXTENT_UNWRITTEN) != 0) return BlockState::absent;
  return (extent.fe_flags & FIEMAP_EXTENT_SHARED) != 0 ? BlockState::shared : BlockState::written;
}

}  // namespace

// One chunk, by the host. With SYNC: a page that is dirty in the host's cache over an unwritten extent is data, and
// would be called unwritten before it is written back. Blocks past the end, which hosts keep for what may come, are
// nobody's yet.
Status HostBacking::load_states(std::uint64_t chunk, BlockStates* states) {
  const std::uint64_t unit = block_size(), first = chunk * BlockStates::kCount;
  const std::uint64_t end = std::min((first + BlockStates::kCount) * unit, round_up(size(), unit));
  *states = BlockStates();
  states->set(0, BlockStates::kCount, BlockState::absent);
  std::uint64_t flags = FIEMAP_FLAG_SYNC;
  for (std::uint64_t at = first * unit; at < end;) {
    ExtentRequest memory;
    auto* const request = new (memory.room) fiemap{};
    request->fm_start = at;
    request->fm_length = end - at;
    request->fm_flags = static_cast<std::uint32_t>(flags);
    request->fm_extent_count = kExtents;
    if (ioctl(current_fd(), FS_IOC_FIEMAP, request) != 0) {
      if (errno == EINTR) continue;
      return Status::error(errno);
    }
    flags = 0;
    const std::uint64_t before = at;
    for (unsigned i = 0; i < request->fm_mapped_extents; ++i) {
      const fiemap_extent& extent = request->fm_extents[i];
      const std::uint64_t begin = std::max<std::uint64_t>(at, extent.fe_logical);
      at = std::min<std::uint64_t>(end, extent.fe_logical + extent.fe_length);
      if (begin < at) states->set(begin / unit - first, (at + unit - 1) / unit - first, state_of(extent));
      if ((extent.fe_flags & FIEMAP_EXTENT_LAST) != 0) return {};
    }
    if (request->fm_mapped_extents < kExtents || at == before) return {};
  }
  return {};
}

Result<Extent> HostBacking::map_exact(std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t unit = block_size();
  const std::uint64_t end = std::min<std::uint64_t>(round_up(size(), unit), kMaxFileSize);
  if (offset >= end) return Extent{.offset = offset, .length = length};
  Extent extent{.offset = offset, .length = std::min(length, end - offset), .address = offset};
  extent.kind = ExtentKind::written;
  if (fixed_size() || tells_no_blocks_.load(memory_order_relaxed)) return extent;

  WrittenMap* const map = options_.written_map;
  const std::uint64_t block = offset / unit, stop = (offset + extent.length + unit - 1) / unit;
  WrittenMap::Run run{BlockState::unknown, 0};
  if (map != nullptr) run = map->look(written_, block, stop);
  if (run.state == BlockState::unknown) {
    const std::uint64_t chunk = block / BlockStates::kCount, start = chunk * BlockStates::kCount;
    const std::uint64_t generation = map != nullptr ? map->begin_load(written_, chunk) : 0;
    BlockStates states;
    if (const Status loaded = load_states(chunk, &states); !loaded.ok()) {
      const int errnum = loaded.errnum();
      if (errnum != EOPNOTSUPP && errnum != ENOTTY && errnum != EBADR) {
        return fail_with(errnum, "the host does not tell where data are: %s", std::strerror(errnum));
      }
      tells_no_blocks_.store(true, memory_order_relaxed);
      return extent;
    }
    if (generation != 0) map->end_load(written_, chunk, generation, states);
    run.state = states.get(block - start);
    run.end = start + states.end_of_run(block - start, std::min(stop - start, BlockStates::kCount));
  }
  if (run.state == BlockState::absent) {
    extent.kind = unwritten_extents() ? ExtentKind::unwritten : ExtentKind::hole;
  }
  extent.shared = run.state == BlockState::shared;
  extent.length = std::min(extent.length, run.end * unit - offset);
  return extent;
}

void HostBacking::forget(std::uint64_t offset, std::uint64_t end) {
  if (options_.written_map == nullptr) return;
  const std::uint64_t unit = block_size();
  options_.written_map->forget(written_, offset / unit, end / unit + (end % unit != 0 ? 1 : 0));
}

}  // namespace quire
