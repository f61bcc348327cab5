// The range lock of what may move the end of a file: whoever writes or allocates past the size locks from the smaller
// of offset and size to infinity, and reads the size again under the lock. Locks: range (exclusive).
#pragma once

#include <algorithm>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "fs/inode.h"

namespace quire {

class WriteRange {
 public:
  explicit WriteRange(Inode& inode) : inode_(inode), range_(inode.range) {}

  // Locks [offset, offset + count), or to infinity where it ends past the size; for `append` the offset is the size.
  // EAGAIN if `no_wait` and it is not free.
  Status acquire(std::uint64_t offset, std::uint64_t count, bool append, bool no_wait) {
    for (;;) {
      const std::uint64_t seen = inode_.mapping.size.load(memory_order_acquire);
      const std::uint64_t at = append ? seen : offset;
      const bool extends = at + count > seen;
      const std::uint64_t first = extends ? std::min(at, seen) : at;
      const std::uint64_t last = extends ? kRangeEnd : at + count - 1;
      if (no_wait) {
        if (!range_.try_acquire(first, last, kExclusive)) return fail(EAGAIN);
      } else {
        range_.acquire(first, last, kExclusive);
      }
      const std::uint64_t size = inode_.mapping.size.load(memory_order_acquire);
      offset_ = append ? size : offset;
      if (has_defect(Defect::extender_keeps_old_size)) {
        offset_ = at;
        return {};
      }
      if (offset_ + count <= size ? range_.request().covers(offset_, offset_ + count - 1)
                                  : range_.request().covers(std::min(offset_, size), kRangeEnd)) {
        return {};
      }
      range_.release();  // the end moved between the look and the lock
      inode_.mapping.cache.stats.count(Counter::write_retries);
    }
  }
  std::uint64_t offset() const { return offset_; }
  void release() { range_.release(); }
  RangeRequest& request() { return range_.request(); }

 private:
  Inode& inode_;
  RangeGuard range_;
  std::uint64_t offset_ = 0;
};

}  // namespace quire
