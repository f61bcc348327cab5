// The range locks of an operation on two ranges, of two files or one: taken in the order of inodes. Two ranges of one
// file are locked as one that spans both, since a thread must not hold two requests that may meet.
#pragma once

#include <algorithm>
#include <optional>

#include "base/defect.h"
#include "fs/inode.h"

namespace quire {

struct RangeWanted {
  Inode* inode;
  std::uint64_t first, last;  // inclusive
  std::uint8_t mode;
};

// Locks of one class (the range or the invalidate lock of each inode), units as the lock's.
class TwoRanges {
 public:
  // `lock_of` gives an inode's lock. Waits.
  template <typename LockOf>
  void acquire(RangeWanted a, RangeWanted b, LockOf lock_of) {
    if (a.inode == b.inode) {
      one_.emplace(lock_of(*a.inode));
      one_->acquire(std::min(a.first, b.first), std::max(a.last, b.last), std::max(a.mode, b.mode));
      return;
    }
    if (a.inode->id > b.inode->id && !has_defect(Defect::two_files_in_call_order)) std::swap(a, b);
    one_.emplace(lock_of(*a.inode));
    one_->acquire(a.first, a.last, a.mode);
    other_.emplace(lock_of(*b.inode));
    other_->acquire(b.first, b.last, b.mode);
    other_inode_ = b.inode;
  }
  // What is held of this inode's lock.
  const RangeRequest* held_of(const Inode& inode) {
    return &(other_ && other_inode_ == &inode ? *other_ : *one_).request();
  }
  void release() {
    other_.reset();
    one_.reset();
  }

 private:
  std::optional<RangeGuard> one_, other_;
  const Inode* other_inode_ = nullptr;
};

inline RangeLock& range_lock_of(Inode& inode) { return inode.range; }
inline RangeLock& invalidate_lock_of(Inode& inode) { return inode.mapping.invalidate; }

// Locks `from` of the source (shared) and `to` of the target (exclusive; from its size or before to infinity where
// `end`, the operation's own, lies past that). Returns the target's size, which stays while it may be passed.
inline std::uint64_t lock_for_change(TwoRanges& locks, Inode& source, ByteRange from, Inode& target, ByteRange to,
                                     std::uint64_t end) {
  const Mapping& mapping = target.mapping;
  for (;;) {
    const std::uint64_t seen = mapping.size.load(memory_order_acquire);
    const bool extends = end > seen;
    const std::uint64_t first = extends ? std::min(to.offset, seen) : to.offset;
    locks.acquire({&source, from.offset, from.end - 1, kShared},
                  {&target, first, extends ? kRangeEnd : to.end - 1, kExclusive}, range_lock_of);
    const std::uint64_t size = mapping.size.load(memory_order_acquire);
    if (end <= size || (extends && first <= size)) return size;
    locks.release();  // the end moved between the look and the lock
  }
}

}  // namespace quire
