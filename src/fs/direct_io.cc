// The locks, the memory and the requests of one direct operation. See direct.h.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/bytes.h"
#include "base/defect.h"
#include "base/error.h"
#include "cache/invalidate.h"
#include "fs/direct.h"
#include "sync/rcu.h"

namespace quire {

Folio* next_folio(Mapping& mapping, std::uint64_t page, std::uint64_t last) {
  for (;;) {
    std::uint64_t at = page;
    {
      RcuReadLock rcu;
      for (;;) {
        const XEntry entry = mapping.pages.find(&at, last);
        if (entry.empty()) return nullptr;
        if (folio_of(entry) != nullptr) break;
        if (at == last) return nullptr;
        ++at;  // a ghost
      }
    }
    Folio* const folio = get_folio(mapping, at);
    if (folio != nullptr) return folio;  // else it has just left
  }
}

PrivateMemory::~PrivateMemory() {
  if (bytes_ == nullptr) return;
  std::free(bytes_);
  cache_.charge_bounce(-static_cast<std::int64_t>(size_));
}

Status PrivateMemory::make(std::size_t wanted) {
  if (bytes_ != nullptr) return {};
  size_ = round_up(std::min(wanted, kMost), kPageSize);
  bytes_ = static_cast<char*>(std::aligned_alloc(kPageSize, size_));
  if (bytes_ == nullptr) return fail(ENOMEM);
  cache_.charge_bounce(static_cast<std::int64_t>(size_));
  return {};
}

bool PrivateMemory::may_have_more(PageCache& cache, std::size_t wanted) {
  const auto most = std::max<std::int64_t>(kMost, static_cast<std::int64_t>(cache.memory() / kShare));
  return static_cast<std::int64_t>(wanted) <= most - cache.bounce_bytes();
}

bool any_folio(Mapping& mapping, std::uint64_t page, std::uint64_t last) {
  if (has_defect(Defect::direct_ignores_folios)) return false;
  Folio* const folio = next_folio(mapping, page, last);
  if (folio == nullptr) return false;
  mapping.cache.put_folio(*folio);
  return true;
}

namespace {

enum class Edge { in_place, whole, cached };

// How a part of the block at `start` is written.
Result<Edge> edge_of(Mapping& mapping, std::uint64_t start, std::uint64_t block) {
  Backing& backing = *mapping.backing;
  if (start + block > std::min(backing.size(), mapping.size.load(memory_order_acquire))) return Edge::cached;
  const auto extent = backing.map_exact(start, block);
  QUIRE_TRY(extent);
  if (extent.value().length < block || extent.value().shared) return Edge::cached;
  return extent.value().kind == ExtentKind::written ? Edge::in_place : Edge::whole;
}

// Where a write lies in a stretch that is allocated and all unwritten, the rest of that is zeroed along with it: for
// the host, to turn a block into a written one costs more than to write seven others, and those that come next to them
// find it done. As ext4 does where it would have to split an extent. Not where it would be in the way of anybody's
// folios.
constexpr std::uint64_t kZeroedTogether = 32 * 1024;

Result<bool> is_all_unwritten(Mapping& mapping, std::uint64_t start) {
  Backing& backing = *mapping.backing;
  const std::uint64_t end = start + kZeroedTogether;
  if (end > std::min(backing.size(), mapping.size.load(memory_order_acquire))) return false;
  if (!PrivateMemory::may_have_more(mapping.cache, kZeroedTogether)) return false;
  const auto extent = backing.map_exact(start, kZeroedTogether);
  QUIRE_TRY(extent);
  if (extent.value().kind != ExtentKind::unwritten || extent.value().shared) return false;
  return extent.value().length >= kZeroedTogether && !any_folio(mapping, start >> kPageShift, (end - 1) >> kPageShift);
}

}  // namespace

Result<DirectExtent> direct_extent(Mapping& mapping, std::uint64_t offset, std::uint64_t end,
                                   const DirectExtent* held) {
  Backing& backing = *mapping.backing;
  const std::uint64_t block = whole_block_of(backing);
  DirectExtent extent{false, offset, end};
  if (is_aligned(offset | end, block)) return extent;
  extent.cached = !is_aligned(offset | end, sector_of(backing)) || backing.direct_alignment() == 0 ||
                  round_up(end, block) - round_down(offset, block) > PrivateMemory::kMost;
  if (extent.cached) return extent;
  const std::uint64_t edges[2] = {round_down(offset, block), round_down(end, block)};
  const bool partial[2] = {edges[0] != offset, edges[1] != end && (edges[1] != edges[0] || edges[0] == offset)};
  for (int i = 0; i < 2; ++i) {
    if (!partial[i]) continue;
    const auto edge = edge_of(mapping, edges[i], block);
    QUIRE_TRY(edge);
    extent.cached |= edge.value() == Edge::cached;
    if (edge.value() != Edge::whole) continue;
    extent.low = std::min(extent.low, edges[i]);
    extent.high = std::max(extent.high, edges[i] + block);
  }
  const std::uint64_t around = round_down(extent.low, kZeroedTogether);
  if (extent.cached || (extent.low == offset && extent.high == end) || extent.high > around + kZeroedTogether) {
    return extent;
  }
  const DirectExtent stretch{false, around, around + kZeroedTogether};
  if (held != nullptr && !stretch.within(*held)) return extent;
  const auto together = is_all_unwritten(mapping, around);
  QUIRE_TRY(together);
  return together.value() ? stretch : extent;
}

Status DirectIo::lock_to_read(std::uint64_t offset, std::size_t count, bool wait) {
  const ByteRange bytes{offset, offset + count};
  if (wait) {
    read_range_.acquire(bytes.offset, bytes.end - 1, kShared);
    if (has_defect(Defect::direct_read_without_direct_mode)) return {};
    direct_.acquire(bytes.first_page(), bytes.last_page(), kDirect);
    return {};
  }
  if (!read_range_.try_acquire(bytes.offset, bytes.end - 1, kShared)) return fail(EAGAIN);
  if (direct_.try_acquire(bytes.first_page(), bytes.last_page(), kDirect)) return {};
  read_range_.release();
  return fail(EAGAIN);
}

Status DirectIo::lock_to_write(std::uint64_t offset, std::size_t count, bool append, bool wait) {
  QUIRE_TRY(write_range_.acquire(offset, count, append, !wait));
  const ByteRange bytes{write_range_.offset(), write_range_.offset() + count};
  const std::uint64_t size = inode_.mapping.size.load(memory_order_acquire);
  const bool extends = bytes.end > size;
  const std::uint64_t first = std::min(bytes.offset, extends ? size : bytes.offset) >> kPageShift;
  const std::uint64_t last = extends ? kRangeEnd : bytes.last_page();
  if (has_defect(Defect::direct_without_direct_mode)) return {};
  if (wait) {
    direct_.acquire(first, last, kDirect);
    return {};
  }
  if (direct_.try_acquire(first, last, kDirect)) return {};
  write_range_.release();
  return fail(EAGAIN);
}

void DirectIo::unlock() {
  direct_.release();
  write_range_.release();
  read_range_.release();
}

void DirectIo::detach() {
  inode_.mapping.invalidate.detach(direct_.request());
  if (read_range_.request().held()) inode_.range.detach(read_range_.request());
  if (write_range_.request().held()) inode_.range.detach(write_range_.request());
}

bool DirectIo::resident(std::uint64_t offset, std::uint64_t end) {
  if (has_defect(Defect::direct_looks_before_it_locks) || has_defect(Defect::direct_ignores_folios)) return false;
  Mapping& mapping = inode_.mapping;
  const ByteRange bytes{offset, end};
  while (Folio* folio = next_folio(mapping, bytes.first_page(), bytes.last_page())) {
    if (!folio->has(kUptodate)) {
      lock_folio(*folio);
      if (folio->mapping.load(memory_order_relaxed) == &mapping && !folio->has(kUptodate)) {
        remove_folio(mapping, *folio);
      }
      unlock_folio(*folio);
      mapping.cache.put_folio(*folio);
      continue;
    }
    mapping.cache.put_folio(*folio);
    return true;
  }
  return false;
}

namespace {

// Where [at, end) is to be written, or the first part of it. Whole blocks are prepared even where they stay in place:
// an earlier write that failed may have left others prepared for them, which commit would take.
Result<Extent> place(Backing& backing, std::uint64_t at, std::uint64_t end) {
  const std::uint64_t block = backing.block_size();
  if (is_aligned(at, block) && end - at >= block) return backing.prepare(at, round_down(end - at, block));
  return backing.map_exact(at, std::min(end, round_down(at, block) + block) - at);
}

}  // namespace

Result<std::uint64_t> DirectIo::plan(IoOp op, char* bytes, std::uint64_t offset, std::uint64_t end) {
  Backing& backing = *inode_.mapping.backing;
  count_ = 0;
  first_ = offset;
  file_end_ = backing.size();
  const bool past_cache = backing.direct_alignment() != 0;
  std::uint64_t at = offset;
  while (at < end && count_ < kMaxRequests) {
    const auto mapped = op == IoOp::read ? backing.map(at, end - at) : place(backing, at, end);
    QUIRE_TRY(mapped);
    const Extent& extent = mapped.value();
    if (op == IoOp::read && extent.kind != ExtentKind::written) {
      std::memset(bytes + (at - offset), 0, extent.length);
      at += extent.length;
      continue;
    }
    vectors_[count_] = iovec{bytes + (at - offset), extent.length};
    offsets_[count_] = at;
    Request& request = requests_[count_];
    request = Request{};
    request.op = op;
    request.path = past_cache ? IoPath::direct_only : IoPath::through_host;
    request.offset = extent.address;
    request.buffers = std::span(&vectors_[count_], 1);
    list_[count_] = &request;
    ++count_;
    at += extent.length;
  }
  list_count_ = count_;
  return planned_to_ = at;
}

std::uint64_t DirectIo::outcome(int* errnum) const {
  *errnum = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const Request& request = requests_[i];
    if (request.result < 0) {
      *errnum = static_cast<int>(-request.result);
      return offsets_[i];
    }
    const std::uint64_t got = offsets_[i] + static_cast<std::uint64_t>(request.result);
    const std::uint64_t wanted = offsets_[i] + vectors_[i].iov_len;
    if (got >= wanted) continue;
    if (request.op == IoOp::read && got >= file_end_) {  // a unit that the end lies in: the rest of it is zeros
      std::memset(static_cast<char*>(vectors_[i].iov_base) + request.result, 0, wanted - got);
      continue;
    }
    *errnum = EIO;
    (void)fail_with(EIO, "the file shrank underneath: its end was expected at byte %llu, and it ends at byte %llu",
                    static_cast<unsigned long long>(file_end_), static_cast<unsigned long long>(got));
    return got;
  }
  return planned_to_;
}

void DirectIo::send_through_host() {
  std::size_t again = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    if (requests_[i].result != -EINVAL) continue;
    requests_[i].path = IoPath::through_host;
    list_[again++] = &requests_[i];
  }
  list_count_ = again;
}

}  // namespace quire
