// Blocks of the ram store and the extent maps of its files.
#include "ram/ram_backing.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"

namespace quire {
namespace {

LockClass ram_lock_class{"ram store"};
constexpr unsigned char kPoison = 0xdb;

}  // namespace

RamStore::RamStore(unsigned block_size, std::uint64_t max_blocks, const RamOptions& options)
    : block_size_(block_size),
      max_blocks_(max_blocks),
      no_unwritten_(options.no_unwritten),
      memory_(MemoryDeviceOptions{.max_size = max_blocks * block_size, .direct_alignment = options.direct_alignment}),
      mutex_(ram_lock_class) {
  CHECK(is_aligned(block_size, 512) && block_size <= kPageSize && (block_size & (block_size - 1)) == 0);
}

std::uint64_t RamStore::blocks_in_use() const {
  MutexLock lock(mutex_);
  return references_.size() - free_.size();
}

std::uint64_t RamStore::allocate_locked() {
  std::uint64_t block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    if (references_.size() == max_blocks_) return kNoBlock;
    block = references_.size();
    references_.push_back(0);
    memory_.fill(block * block_size_, block_size_, kPoison);  // a fresh block holds nobody's zeros either
  }
  references_[block] = 1;
  return block;
}

void RamStore::free_locked(std::uint64_t block) {
  DCHECK(references_[block] != 0);
  if (--references_[block] != 0) return;
  memory_.fill(block * block_size_, block_size_, kPoison);
  free_.push_back(block);
}

std::uint64_t RamStore::own_locked(std::uint64_t block) {
  if (!shared_locked(block)) return block;
  const std::uint64_t fresh = allocate_locked();
  if (fresh == kNoBlock) return kNoBlock;
  char bytes[kPageSize];
  memory_.peek(block * block_size_, bytes, block_size_);
  (void)memory_.poke(fresh * block_size_, bytes, block_size_);
  free_locked(block);
  return fresh;
}

std::uint64_t RamStore::blank_locked(std::uint64_t block) {
  if (!shared_locked(block)) {
    memory_.fill(block * block_size_, block_size_, kPoison);
    return block;
  }
  const std::uint64_t fresh = allocate_locked();
  if (fresh != kNoBlock) free_locked(block);
  return fresh;
}

std::uint64_t RamStore::copies_locked(std::vector<std::uint64_t> blocks) const {
  std::sort(blocks.begin(), blocks.end());
  std::uint64_t copies = 0;
  for (auto it = blocks.begin(); it != blocks.end();) {
    const auto end = std::upper_bound(it, blocks.end(), *it);
    // If these are all the references that there are, the last one stays.
    copies += std::min<std::uint64_t>(static_cast<std::uint64_t>(end - it), references_[*it] - 1);
    it = end;
  }
  return copies;
}

RamBacking::~RamBacking() {
  MutexLock lock(store_.mutex_);
  drop_locked(blocks_, 0);
  drop_locked(pending_, 0);
}

void RamBacking::drop_locked(BlockMap& blocks, std::uint64_t first, std::uint64_t end) {
  for (auto it = blocks.lower_bound(first); it != blocks.end() && it->first < end; it = blocks.erase(it)) {
    store_.free_locked(it->second.number);
  }
}

std::uint64_t RamBacking::size() const {
  MutexLock lock(store_.mutex_);
  return size_;
}

Result<Extent> RamBacking::map(std::uint64_t offset, std::uint64_t length) {
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  const std::uint64_t first = offset / unit;
  Extent extent{.offset = offset, .length = 0};
  auto it = blocks_.find(first);
  if (it == blocks_.end()) {
    it = blocks_.upper_bound(first);
    const std::uint64_t end = it == blocks_.end() ? UINT64_MAX : it->first * unit;
    extent.length = std::min(length, end - offset);
    return extent;
  }
  const std::uint64_t start = it->second.number;
  extent.kind = it->second.written ? ExtentKind::written : ExtentKind::unwritten;
  extent.shared = store_.shared_locked(start);
  extent.address = start * unit + offset % unit;
  std::uint64_t end = (first + 1) * unit;
  for (++it; it != blocks_.end() && end < offset + length; ++it, end += unit) {
    const bool follows = it->first * unit == end && it->second.number == start + (it->first - first);
    const bool same = (it->second.written ? ExtentKind::written : ExtentKind::unwritten) == extent.kind;
    if (!follows || !same || store_.shared_locked(it->second.number) != extent.shared) break;
  }
  extent.length = std::min(length, end - offset);
  return extent;
}

Result<Extent> RamBacking::prepare(std::uint64_t offset, std::uint64_t length) {
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  DCHECK(is_aligned(offset, unit) && is_aligned(length, unit));
  Extent extent{.offset = offset, .length = 0, .kind = ExtentKind::written};
  for (std::uint64_t done = 0; done < length; done += unit) {
    const std::uint64_t at = (offset + done) / unit;
    std::uint64_t number;
    const auto mapped = blocks_.find(at);
    const auto pending = pending_.find(at);
    if (pending != pending_.end()) {
      // An earlier write of it failed. It comes first because commit takes it, and what was shared at that time may be
      // the file's own by now.
      number = pending->second.number;
    } else if (mapped != blocks_.end() && !store_.shared_locked(mapped->second.number)) {
      number = mapped->second.number;  // in place; unwritten until commit
    } else {
      number = store_.allocate_locked();
      if (number == RamStore::kNoBlock) break;
      pending_[at] = Block{number, false};
    }
    if (done == 0) {
      extent.address = number * unit;
    } else if (number * unit != extent.address + done) {
      break;
    }
    extent.length = done + unit;
  }
  if (extent.length == 0) return fail(ENOSPC);
  return extent;
}

Status RamBacking::commit(std::uint64_t offset, std::uint64_t length, std::uint64_t end_of_file) {
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  const std::uint64_t end = offset + length;
  for (std::uint64_t at = offset / unit; at * unit < end; ++at) {
    if (at * unit < offset || (at + 1) * unit > end) {
      // In place; what an earlier failed write left prepared is older.
      const auto block = blocks_.find(at);
      CHECK(block != blocks_.end());
      CHECK(block->second.written);
      CHECK(!store_.shared_locked(block->second.number));
    } else if (const auto pending = pending_.find(at); pending != pending_.end()) {
      const auto old = blocks_.find(at);
      if (old != blocks_.end()) store_.free_locked(old->second.number);
      blocks_[at] = Block{pending->second.number, true};
      pending_.erase(pending);
    } else {
      blocks_.at(at).written = true;
    }
  }
  size_ = std::max(size_, std::min(end, end_of_file));
  return {};
}

Status RamBacking::set_size(std::uint64_t size) {
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  if (size <= size_) {
    const auto edge = blocks_.find(size / unit);
    if (size % unit != 0 && edge != blocks_.end() && edge->second.written &&
        (size < size_ || !store_.shared_locked(edge->second.number))) {
      const std::uint64_t own = store_.own_locked(edge->second.number);  // another file keeps its bytes
      if (own == RamStore::kNoBlock) return fail_with(ENOSPC, "no block is free to copy a shared one to");
      edge->second.number = own;
      (void)store_.memory_.fill(own * unit + size % unit, unit - size % unit, 0);
    }
    drop_locked(blocks_, (size + unit - 1) / unit);
  }
  drop_locked(pending_, (size + unit - 1) / unit);
  size_ = size;
  return {};
}

Status RamBacking::sync(bool data_only) {
  const int errnum = device().flush(data_only);
  if (errnum != 0) return fail(errnum);
  return {};
}

Status RamBacking::stat(struct stat* out) {
  MutexLock lock(store_.mutex_);
  *out = {};
  out->st_mode = S_IFREG | 0600;
  out->st_nlink = 1;
  out->st_size = static_cast<off_t>(size_);
  out->st_blksize = static_cast<blksize_t>(store_.block_size_);
  out->st_blocks = static_cast<blkcnt_t>(blocks_.size() * store_.block_size_ / 512);
  return {};
}

}  // namespace quire
