// Direct reads and writes. See direct.h.
#include "fs/direct.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/defect.h"
#include "base/error.h"
#include "cache/buffered_read.h"
#include "cache/views.h"

namespace quire {
namespace {

constexpr int kMaxTurns = 3;  // a write that finds other folios each time goes through the cache

bool is_aligned_memory(const char* memory, std::uint64_t sector) {
  return is_aligned(reinterpret_cast<std::uintptr_t>(memory), sector);
}

// Runs what is planned, and again through the host what it refuses to do past its cache.
std::uint64_t run(Mapping& mapping, DirectIo& io, std::uint64_t nothing_done, int* errnum) {
  *errnum = 0;
  if (io.requests().empty()) return io.outcome(errnum);
  static_cast<void>(io.begin_device(true));
  mapping.backing->device().execute(io.requests());
  io.end_device();
  std::uint64_t good = io.outcome(errnum);
  if (*errnum == EINVAL) {
    io.send_through_host();
    mapping.backing->device().execute(io.requests());
    good = io.outcome(errnum);
  }
  return std::max(good, nothing_done);
}

// A read under its locks, run by run: what is resident from its folio, the rest from the device, straight into the
// caller's memory where sectors allow it. Returns how far it came.
class DirectReader {
 public:
  DirectReader(Inode& inode, DirectIo& io, UserBuffer& to, std::size_t count)
      : mapping_(inode.mapping),
        io_(io),
        to_(to),
        bounced_(count <= kBounceBytes),  // what fails leaves the caller's bytes as they were
        sector_(sector_of(*mapping_.backing)),
        file_end_(mapping_.backing->size()) {}

  std::uint64_t read(std::uint64_t offset, std::uint64_t end, int* errnum) {
    std::uint64_t at = offset;
    *errnum = 0;
    while (at < end && *errnum == 0) {
      Folio* const folio = next_folio(mapping_, at >> kPageShift, (end - 1) >> kPageShift);
      std::uint64_t start = end;
      if (folio != nullptr) {
        if (folio->has(kUptodate))
          start = folio->index.load(memory_order_relaxed) << kPageShift;
        else
          start = UINT64_MAX;  // its fill failed
      }
      if (folio != nullptr && start <= at) {
        at += copy(*folio, at, end);
      } else if (folio != nullptr && start == UINT64_MAX) {
        const std::uint64_t failed = folio->index.load(memory_order_relaxed);
        at = from_device(at, std::min(end, (failed + folio->pages()) << kPageShift), errnum);
      } else {
        at = from_device(at, std::min(end, start), errnum);
      }
      if (folio != nullptr) mapping_.cache.put_folio(*folio);
    }
    return at;
  }

 private:
  std::uint64_t copy(Folio& folio, std::uint64_t at, std::uint64_t end) {
    const std::uint64_t inside = at - (folio.index.load(memory_order_relaxed) << kPageShift);
    const std::uint64_t part = std::min<std::uint64_t>(end - at, folio.size_bytes() - inside);
    to_.copy_from_folio(folio.bytes() + inside, part);
    set_referenced(folio);
    return part;
  }

  std::uint64_t from_device(std::uint64_t at, std::uint64_t end, int* errnum) {
    // The unit in which the file ends holds bytes past it, which are not the caller's.
    const std::uint64_t straight_end = round_down(std::min(end, file_end_), sector_);
    std::size_t room = 0;
    char* const memory = to_.contiguous(&room);
    if (!bounced_ && at < straight_end && is_aligned(at, sector_) && is_aligned_memory(memory, sector_) &&
        room >= sector_) {
      const std::uint64_t stop = std::min(straight_end, at + round_down(room, sector_));
      const std::uint64_t good = transfer(memory, at, stop, errnum);
      to_.skip(good - at);
      return good;
    }
    const std::uint64_t low = round_down(at, sector_);
    const Status made = io_.memory.make(round_up(end, sector_) - low);
    if (!made.ok()) {
      *errnum = made.errnum();
      return at;
    }
    const std::uint64_t high = std::min(round_up(end, sector_), low + round_down(io_.memory.size(), sector_));
    const std::uint64_t good = std::min(end, transfer(io_.memory.bytes(), low, high, errnum));
    if (good <= at) return at;
    to_.copy_from_folio(io_.memory.bytes() + (at - low), good - at);
    return good;
  }

  // One batch of requests for [from, end).
  std::uint64_t transfer(char* memory, std::uint64_t from, std::uint64_t end, int* errnum) {
    const auto planned = io_.plan(IoOp::read, memory, from, end);
    if (!planned.ok()) {
      *errnum = planned.errnum();
      return from;
    }
    return run(mapping_, io_, from, errnum);
  }

  Mapping& mapping_;
  DirectIo& io_;
  UserBuffer& to_;
  const bool bounced_;
  const std::uint64_t sector_, file_end_;
};

}  // namespace

Result<std::size_t> read_direct(OpenFile& file, UserBuffer& to, std::uint64_t offset, std::size_t count,
                                unsigned io_flags) {
  Inode& inode = *file.inode;
  Mapping& mapping = inode.mapping;
  DirectIo io(inode);
  QUIRE_TRY(io.lock_to_read(offset, count, (io_flags & kIoNoWait) == 0));
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (offset >= size) return std::size_t{0};
  mapping.cache.stats.count(Counter::direct_reads);
  int errnum;
  const std::uint64_t end = DirectReader(inode, io, to, count).read(offset, std::min(offset + count, size), &errnum);
  if (end == offset && errnum != 0) return fail(errnum);
  return end - offset;
}

Status compose(DirectIo& io, UserBuffer& from, std::uint64_t offset, std::uint64_t end, const DirectExtent& extent) {
  QUIRE_TRY(io.memory.make(extent.high - extent.low));
  char* const memory = io.memory.bytes();
  const bool grows = extent.low != offset || extent.high != end;
  if (grows) std::memset(memory, has_defect(Defect::direct_block_not_zeroed) ? 'x' : 0, extent.high - extent.low);
  from.copy_to_folio(memory + (offset - extent.low), end - offset);
  return {};
}

Status commit_direct(Mapping& mapping, std::uint64_t offset, std::uint64_t end) {
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  QUIRE_TRY(mapping.backing->commit(offset, end - offset, std::max(size, end)));
  note_changed(mapping);  // before a new size shows: whoever has seen it and syncs must flush
  if (end > size) {
    zero_past_end(mapping);
    {
      ClosedGate gate(mapping.gate, size, UINT64_MAX);
      mapping.size.store(end, memory_order_release);
    }
    note_grown(mapping);
  }
  return {};
}

void direct_failed(Mapping& mapping, const DirectExtent& extent) {
  mapping.backing->write_failed(extent.low, extent.high - extent.low);
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  if (extent.high > size) mapping.backing->cut_back(size);
  note_changed(mapping);  // what of it is on the device is read from now on, and has to be flushed as well
}

namespace {

// One stretch of memory to the device, in as many batches as it takes.
int write_stretch(Mapping& mapping, DirectIo& io, char* memory, std::uint64_t offset, std::uint64_t end) {
  Backing& backing = *mapping.backing;
  for (std::uint64_t done = offset; done < end;) {
    std::uint64_t stop = end;
    if (!backing.unwritten_extents()) {
      const auto extent = backing.map_exact(done, end - done);
      if (!extent.ok()) return extent.errnum();
      stop = done + extent.value().length;
      if (extent.value().kind != ExtentKind::written) {
        const iovec v{memory + (done - offset), stop - done};
        const Status filled = backing.write_through(done, std::span(&v, 1));
        if (!filled.ok()) return filled.errnum();
        done = stop;
        continue;
      }
    }
    const auto planned = io.plan(IoOp::write, memory + (done - offset), done, stop);
    if (!planned.ok()) return planned.errnum();
    int errnum;
    run(mapping, io, done, &errnum);
    if (errnum != 0) return errnum;
    done = planned.value();
  }
  return 0;
}

// Whole blocks: straight from the caller's memory where that is aligned, else by way of private memory.
int write_blocks(Mapping& mapping, DirectIo& io, UserBuffer& from, std::uint64_t offset, std::uint64_t end) {
  const std::uint64_t sector = sector_of(*mapping.backing);
  for (std::uint64_t at = offset; at < end;) {
    std::size_t room = 0;
    char* memory = from.contiguous(&room);
    std::uint64_t stop = std::min<std::uint64_t>(end, at + round_down(room, whole_block_of(*mapping.backing)));
    const bool straight = stop > at && is_aligned_memory(memory, sector);
    if (!straight) {
      const Status made = io.memory.make(end - at);
      if (!made.ok()) return made.errnum();
      memory = io.memory.bytes();
      stop = std::min<std::uint64_t>(end, at + io.memory.size());
      from.copy_to_folio(memory, stop - at);
    }
    const int errnum = write_stretch(mapping, io, memory, at, stop);
    if (errnum != 0) return errnum;
    if (straight) from.skip(stop - at);
    at = stop;
  }
  return 0;
}

// Sectors [offset, end) of blocks that are written in place or, to the extent's edges, whole.
int write_sectors(Mapping& mapping, DirectIo& io, UserBuffer& from, std::uint64_t offset, std::uint64_t end,
                  const DirectExtent& extent) {
  std::size_t room = 0;
  char* memory = from.contiguous(&room);
  const bool straight = extent.low == offset && extent.high == end && room >= end - offset &&
                        is_aligned_memory(memory, sector_of(*mapping.backing));
  if (straight) {
    from.skip(end - offset);
  } else {
    const Status made = compose(io, from, offset, end, extent);
    if (!made.ok()) return made.errnum();
    memory = io.memory.bytes();
  }
  return write_stretch(mapping, io, memory, extent.low, extent.high);
}

}  // namespace

Result<DirectWritten> write_direct(OpenFile& file, UserBuffer& from, std::uint64_t offset, std::size_t count,
                                   bool append, unsigned io_flags) {
  Inode& inode = *file.inode;
  Mapping& mapping = inode.mapping;
  const std::uint64_t block = whole_block_of(*mapping.backing);
  for (int turn = 0; turn < kMaxTurns; ++turn) {
    const std::uint64_t seen = append ? mapping.size.load(memory_order_acquire) : offset;
    const auto wanted = direct_extent(mapping, seen, seen + count);
    QUIRE_TRY(wanted);
    const DirectExtent locked = wanted.value();
    if (locked.cached || any_folio(mapping, locked.low >> kPageShift, (locked.high - 1) >> kPageShift)) break;
    DirectIo io(inode);
    // What grows to a block's edges does not append: it lies before the end.
    const bool grows =
        (locked.low != seen || locked.high != seen + count) && !has_defect(Defect::direct_range_not_grown);
    QUIRE_TRY(io.lock_to_write(grows ? locked.low : offset, grows ? locked.high - locked.low : count, append && !grows,
                               (io_flags & kIoNoWait) == 0));
    const std::uint64_t at = append ? mapping.size.load(memory_order_acquire) : offset;
    const std::uint64_t limit = mapping.backing->max_size();
    if (at > limit || count > limit - at) {
      return fail_with(EFBIG, "the write would end past the largest offset that this file can have");
    }
    const DirectExtent held = grows ? locked : DirectExtent{false, at, at + count};
    const auto now = direct_extent(mapping, at, at + count, &held);
    QUIRE_TRY(now);
    const DirectExtent extent = has_defect(Defect::direct_not_decided_again) ? locked : now.value();
    const bool is_held = extent.within(held) || has_defect(Defect::direct_range_not_grown);
    if (extent.cached || !is_held || io.resident(extent.low, extent.high)) {
      mapping.cache.stats.count(Counter::direct_retries);
      continue;
    }
    if (extent.low != at || extent.high != at + count) mapping.cache.stats.count(Counter::direct_grown);
    if (has_defect(Defect::direct_unlocks_before_completion)) io.unlock();
    UserBuffer bytes = from;
    int errnum = is_aligned(at | count, block) ? write_blocks(mapping, io, bytes, at, at + count)
                                               : write_sectors(mapping, io, bytes, at, at + count, extent);
    if (errnum == 0) {
      errnum = commit_direct(mapping, extent.low, extent.high).errnum();
    } else {
      direct_failed(mapping, extent);
    }
    if (errnum != 0) return fail(errnum);
    from = bytes;
    mapping.cache.stats.count(Counter::direct_writes);
    return DirectWritten{false, at};
  }
  mapping.cache.stats.count(Counter::direct_cached);
  return DirectWritten{true, offset};
}

}  // namespace quire
