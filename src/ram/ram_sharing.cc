// Range operations of the ram backing on two ranges, of one file or of two of the same store: clone, dedupe, exchange.
// None of them takes a block, so none can run out of them. Locks: the store's, which is that of both files.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "ram/ram_backing.h"

namespace quire {
namespace {

using ull = unsigned long long;  // for printf

bool overlap(std::uint64_t a, std::uint64_t b, std::uint64_t length) { return a < b + length && b < a + length; }

Failure overlapping() { return fail_with(EINVAL, "the two ranges of the file overlap"); }

Failure outside(std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
  return fail_with(EINVAL, "the range of %llu bytes from %llu does not lie inside the file's %llu bytes",
                   static_cast<ull>(length), static_cast<ull>(offset), static_cast<ull>(size));
}

}  // namespace

Result<RamBacking*> RamBacking::same_store(Backing& other) {
  auto* const found = dynamic_cast<RamBacking*>(&other);
  if (found != nullptr && &found->store_ == &store_) return found;
  return fail_with(EXDEV, "the two files are not in the same store");
}

Status RamBacking::check_share_locked(RamBacking& source, std::uint64_t from, std::uint64_t offset,
                                      std::uint64_t length) {
  const std::uint64_t unit = store_.block_size_;
  if (!aligned(from) || !aligned(offset)) {
    return fail_with(EINVAL, "offsets %llu and %llu must be multiples of the block size, %llu", static_cast<ull>(from),
                     static_cast<ull>(offset), static_cast<ull>(unit));
  }
  if (from + length > source.size_) return outside(from, length, source.size_);
  if (!aligned(length) && (from + length != source.size_ || offset + length < size_)) {
    return fail_with(EINVAL, "length %llu is not a multiple of the block size, %llu, nor ends both files",
                     static_cast<ull>(length), static_cast<ull>(unit));
  }
  if (&source == this && overlap(from, offset, length)) return overlapping();
  return {};
}

// The source's references come first: a block of the target may be one that the source has too.
void RamBacking::share_locked(RamBacking& source, BlockRange from, std::uint64_t to) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> shared;  // block of this file, block of the store
  for (auto it = source.blocks_.lower_bound(from.first); it != source.blocks_.end() && it->first < from.end; ++it) {
    if (!it->second.written) continue;  // zeros: a hole will do
    ++store_.references_[it->second.number];
    shared.emplace_back(to + (it->first - from.first), it->second.number);
  }
  const std::uint64_t end = to + (from.end - from.first);
  drop_locked(blocks_, to, end);
  drop_locked(pending_, to, end);
  for (const auto& [at, number] : shared) blocks_.emplace(at, Block{number, true});
}

Status RamBacking::clone(Backing& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length) {
  const auto found = same_store(source);
  QUIRE_TRY(found);
  RamBacking& other = *found.value();
  MutexLock lock(store_.mutex_);
  other.store_.mutex_.assert_held();
  QUIRE_TRY(check_share_locked(other, from, offset, length));
  share_locked(other, touched(from, length), offset / store_.block_size_);
  size_ = std::max(size_, offset + length);
  return {};
}

void RamBacking::read_block_locked(std::uint64_t block, char* bytes) const {
  const std::uint64_t unit = store_.block_size_;
  const auto it = blocks_.find(block);
  if (it == blocks_.end() || !it->second.written) {
    std::memset(bytes, 0, unit);
  } else {
    store_.memory_.peek(it->second.number * unit, bytes, unit);
  }
}

// Goes from one mapped block of either to the next: what both have no block for is equal.
bool RamBacking::equal_locked(RamBacking& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length) {
  const std::uint64_t unit = store_.block_size_;
  const BlockRange theirs = touched(from, length), ours = touched(offset, length);
  const std::uint64_t count = ours.end - ours.first;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto a = source.blocks_.lower_bound(theirs.first + i);
    const auto b = blocks_.lower_bound(ours.first + i);
    i = std::min({count, a == source.blocks_.end() ? count : a->first - theirs.first,
                  b == blocks_.end() ? count : b->first - ours.first});
    if (i == count) break;
    char left[kPageSize], right[kPageSize];
    source.read_block_locked(theirs.first + i, left);
    read_block_locked(ours.first + i, right);
    if (std::memcmp(left, right, std::min(unit, length - i * unit)) != 0) return false;
  }
  return true;
}

Result<std::uint64_t> RamBacking::dedupe(Backing& source, std::uint64_t from, std::uint64_t offset,
                                         std::uint64_t length) {
  const auto found = same_store(source);
  QUIRE_TRY(found);
  RamBacking& other = *found.value();
  MutexLock lock(store_.mutex_);
  other.store_.mutex_.assert_held();
  if (from + length > other.size_) return outside(from, length, other.size_);
  if (offset + length > size_) return outside(offset, length, size_);
  if (from + length != other.size_ || offset + length != size_) length = round_down(length, store_.block_size_);
  if (length == 0) return fail_with(EINVAL, "less than a block, %u bytes, cannot be shared", store_.block_size_);
  QUIRE_TRY(check_share_locked(other, from, offset, length));
  if (!equal_locked(other, from, offset, length)) return fail_with(EBADE, "the two ranges differ");
  share_locked(other, touched(from, length), offset / store_.block_size_);
  return length;
}

Status RamBacking::exchange(Backing& with, std::uint64_t at, std::uint64_t offset, std::uint64_t length) {
  const auto found = same_store(with);
  QUIRE_TRY(found);
  RamBacking& other = *found.value();
  MutexLock lock(store_.mutex_);
  other.store_.mutex_.assert_held();
  if (offset + length > size_) return outside(offset, length, size_);
  if (at + length > other.size_) return outside(at, length, other.size_);
  const bool common_end = offset + length == size_ && at + length == other.size_;
  if (!aligned(offset) || !aligned(at) || (!aligned(length) && !common_end)) {
    return fail_with(EINVAL, "offsets %llu and %llu and length %llu must be multiples of the block size, %u",
                     static_cast<ull>(offset), static_cast<ull>(at), static_cast<ull>(length), store_.block_size_);
  }
  if (&other == this && overlap(at, offset, length)) return overlapping();
  const BlockRange ours = touched(offset, length), theirs = touched(at, length);
  drop_locked(pending_, ours.first, ours.end);
  other.drop_locked(other.pending_, theirs.first, theirs.end);
  auto mine = take_out(blocks_, ours);
  auto others = take_out(other.blocks_, theirs);
  put_in(other.blocks_, std::move(mine), theirs.first - ours.first);
  put_in(blocks_, std::move(others), ours.first - theirs.first);
  return {};
}

}  // namespace quire
