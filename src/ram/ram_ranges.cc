// Range operations of the ram backing on one file: on its extent map, and on the bytes of those blocks that a range
// ends in. Every operation first counts the blocks it will take, so that it fails before it has changed anything.
// Locks: the store's, which orders all operations on all its files. ram_sharing.cc has those on two ranges.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "ram/ram_backing.h"

namespace quire {
namespace {

using ull = unsigned long long;  // for printf

Failure misaligned(std::uint64_t unit, std::uint64_t offset, std::uint64_t length) {
  return fail_with(EINVAL, "offset %llu and length %llu must be multiples of the block size, %llu",
                   static_cast<ull>(offset), static_cast<ull>(length), static_cast<ull>(unit));
}

}  // namespace

std::vector<RamBacking::BlockMap::node_type> RamBacking::take_out(BlockMap& blocks, BlockRange range) {
  std::vector<BlockMap::node_type> nodes;
  for (auto it = blocks.lower_bound(range.first); it != blocks.end() && it->first < range.end;) {
    nodes.push_back(blocks.extract(it++));
  }
  return nodes;
}

void RamBacking::put_in(BlockMap& blocks, std::vector<BlockMap::node_type> nodes, std::uint64_t distance) {
  for (BlockMap::node_type& node : nodes) {
    node.key() += distance;
    const bool inserted = blocks.insert(std::move(node)).inserted;
    CHECK(inserted);
  }
}

RamBacking::BlockRange RamBacking::touched(std::uint64_t offset, std::uint64_t length) const {
  const std::uint64_t unit = store_.block_size_;
  return {offset / unit, (offset + length + unit - 1) / unit};
}

Status RamBacking::make_room_locked(BlockRange range, std::uint64_t needed, std::uint64_t soon_free) {
  const auto first = pending_.lower_bound(range.first), end = pending_.lower_bound(range.end);
  const std::uint64_t room =
      store_.available_locked() + soon_free + static_cast<std::uint64_t>(std::distance(first, end));
  if (needed > room) {
    return fail_with(ENOSPC, "this takes %llu blocks, and only %llu are free", static_cast<ull>(needed),
                     static_cast<ull>(room));
  }
  drop_locked(pending_, range.first, range.end);
  return {};
}

std::uint64_t RamBacking::holes_locked(BlockRange range) const {
  const auto first = blocks_.lower_bound(range.first), end = blocks_.lower_bound(range.end);
  return range.end - range.first - static_cast<std::uint64_t>(std::distance(first, end));
}

std::vector<std::uint64_t> RamBacking::written_locked(BlockRange range) const {
  std::vector<std::uint64_t> numbers;
  for (auto it = blocks_.lower_bound(range.first); it != blocks_.end() && it->first < range.end; ++it) {
    if (it->second.written) numbers.push_back(it->second.number);
  }
  return numbers;
}

void RamBacking::fill_holes_locked(BlockRange range) {
  auto it = blocks_.lower_bound(range.first);
  for (std::uint64_t at = range.first; at < range.end; ++at) {
    if (it != blocks_.end() && it->first == at) {
      ++it;
      continue;
    }
    const std::uint64_t number = store_.allocate_locked();
    CHECK(number != RamStore::kNoBlock);  // there is room
    blocks_.emplace_hint(it, at, Block{number, false});
  }
}

void RamBacking::zero_part_locked(BlockMap::value_type& block, std::uint64_t offset, std::uint64_t end) {
  if (!block.second.written) return;
  const std::uint64_t unit = store_.block_size_;
  const std::uint64_t start = block.first * unit;
  const std::uint64_t from = std::max(offset, start), to = std::min(end, start + unit);
  const std::uint64_t own = store_.own_locked(block.second.number);
  CHECK(own != RamStore::kNoBlock);  // there is room
  block.second.number = own;
  (void)store_.memory_.fill(own * unit + (from - start), to - from, 0);
}

Status RamBacking::allocate(std::uint64_t offset, std::uint64_t length, bool keep_size) {
  if (!unwritten_extents()) return Backing::allocate(offset, length, keep_size);
  MutexLock lock(store_.mutex_);
  const BlockRange range = touched(offset, length);
  QUIRE_TRY(make_room_locked(range, holes_locked(range)));
  fill_holes_locked(range);
  if (!keep_size) size_ = std::max(size_, offset + length);
  return {};
}

Status RamBacking::punch(std::uint64_t offset, std::uint64_t length) {
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  const std::uint64_t end = offset + length;
  const BlockRange range = touched(offset, length);
  const std::uint64_t whole_first = (offset + unit - 1) / unit;
  const BlockRange whole{whole_first, std::max(whole_first, end / unit)};
  std::vector<std::uint64_t> edges;
  std::uint64_t soon_free = 0;
  for (auto it = blocks_.lower_bound(range.first); it != blocks_.end() && it->first < range.end; ++it) {
    if (it->first >= whole.first && it->first < whole.end) {
      soon_free += !store_.shared_locked(it->second.number);
    } else if (it->second.written) {
      edges.push_back(it->second.number);
    }
  }
  QUIRE_TRY(make_room_locked(range, store_.copies_locked(std::move(edges)), soon_free));
  drop_locked(blocks_, whole.first, whole.end);
  for (auto it = blocks_.lower_bound(range.first); it != blocks_.end() && it->first < range.end; ++it) {
    zero_part_locked(*it, offset, end);
  }
  return {};
}

Status RamBacking::zero(std::uint64_t offset, std::uint64_t length, bool keep_size) {
  if (!unwritten_extents()) return Backing::zero(offset, length, keep_size);
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  const std::uint64_t end = offset + length;
  const BlockRange range = touched(offset, length);
  QUIRE_TRY(make_room_locked(range, holes_locked(range) + store_.copies_locked(written_locked(range))));
  for (auto it = blocks_.lower_bound(range.first); it != blocks_.end() && it->first < range.end; ++it) {
    Block& block = it->second;
    if (it->first * unit < offset || (it->first + 1) * unit > end) {
      zero_part_locked(*it, offset, end);
    } else if (block.written) {
      block = Block{store_.blank_locked(block.number), false};
      CHECK(block.number != RamStore::kNoBlock);  // there is room
    }
  }
  fill_holes_locked(range);
  if (!keep_size) size_ = std::max(size_, end);
  return {};
}

Status RamBacking::unshare(std::uint64_t offset, std::uint64_t length) {
  MutexLock lock(store_.mutex_);
  const BlockRange range = touched(offset, length);
  QUIRE_TRY(make_room_locked(range, store_.copies_locked(written_locked(range))));
  for (auto it = blocks_.lower_bound(range.first); it != blocks_.end() && it->first < range.end; ++it) {
    if (!it->second.written) continue;
    it->second.number = store_.own_locked(it->second.number);
    CHECK(it->second.number != RamStore::kNoBlock);  // there is room
  }
  return {};
}

Status RamBacking::collapse(std::uint64_t offset, std::uint64_t length) {
  MutexLock lock(store_.mutex_);
  if (!aligned(offset) || !aligned(length)) return misaligned(store_.block_size_, offset, length);
  if (offset + length >= size_) {
    return fail_with(EINVAL, "the range to collapse reaches the end of the file, %llu; truncate it instead",
                     static_cast<ull>(size_));
  }
  const BlockRange range = touched(offset, length);
  drop_locked(pending_, range.first);
  drop_locked(blocks_, range.first, range.end);
  put_in(blocks_, take_out(blocks_, {range.end, UINT64_MAX}), range.first - range.end);
  size_ -= length;
  return {};
}

Status RamBacking::insert(std::uint64_t offset, std::uint64_t length) {
  MutexLock lock(store_.mutex_);
  if (!aligned(offset) || !aligned(length)) return misaligned(store_.block_size_, offset, length);
  const BlockRange range = touched(offset, length);
  const std::uint64_t last = blocks_.empty() ? 0 : blocks_.rbegin()->first;  // maybe past the end of the file
  if (length > max_size() - size_ || range.end - range.first > max_size() / store_.block_size_ - last) {
    return fail_with(EFBIG, "%llu bytes more are past the largest size that this file can have (%llu)",
                     static_cast<ull>(length), static_cast<ull>(max_size()));
  }
  if (offset >= size_) {
    return fail_with(EINVAL, "offset %llu is not before the end of the file, %llu; extend it instead",
                     static_cast<ull>(offset), static_cast<ull>(size_));
  }
  drop_locked(pending_, range.first);
  put_in(blocks_, take_out(blocks_, {range.first, UINT64_MAX}), range.end - range.first);
  size_ += length;
  return {};
}

Result<std::uint64_t> RamBacking::seek_data(std::uint64_t offset) {
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  if (offset < size_) {
    for (auto it = blocks_.lower_bound(offset / unit); it != blocks_.end() && it->first * unit < size_; ++it) {
      if (it->second.written) return std::max(offset, it->first * unit);
    }
  }
  return fail_with(ENXIO, "there is no data at or after %llu", static_cast<ull>(offset));
}

Result<std::uint64_t> RamBacking::seek_hole(std::uint64_t offset) {
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  if (offset >= size_) {
    return fail_with(ENXIO, "%llu is not before the end of the file, %llu", static_cast<ull>(offset),
                     static_cast<ull>(size_));
  }
  std::uint64_t at = offset / unit;
  for (auto it = blocks_.find(at); it != blocks_.end() && it->first == at && it->second.written; ++it) ++at;
  return std::min(std::max(offset, at * unit), size_);
}

}  // namespace quire
