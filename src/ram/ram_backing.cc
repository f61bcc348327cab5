// Blocks of the ram store and the extent maps of its files.
#include "ram/ram_backing.h"

#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "base/check.h"

namespace quire {
namespace {

LockClass ram_lock_class{"ram store"};
constexpr unsigned char kPoison = 0xdb;

}  // namespace

RamStore::RamStore(unsigned block_size, std::uint64_t max_blocks)
    : block_size_(block_size),
      max_blocks_(max_blocks),
      memory_(MemoryDeviceOptions{.max_size = max_blocks * block_size}),
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

RamBacking::~RamBacking() {
  MutexLock lock(store_.mutex_);
  drop_locked(blocks_, 0);
  drop_locked(pending_, 0);
}

void RamBacking::drop_locked(BlockMap& blocks, std::uint64_t first) {
  for (auto it = blocks.lower_bound(first); it != blocks.end(); it = blocks.erase(it)) {
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
  extent.shared = store_.references_[start] > 1;
  extent.address = start * unit + offset % unit;
  std::uint64_t end = (first + 1) * unit;
  for (++it; it != blocks_.end() && end < offset + length; ++it, end += unit) {
    const bool follows = it->first * unit == end && it->second.number == start + (it->first - first);
    const bool same = (it->second.written ? ExtentKind::written : ExtentKind::unwritten) == extent.kind;
    if (!follows || !same || (store_.references_[it->second.number] > 1) != extent.shared) break;
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
    if (mapped != blocks_.end() && store_.references_[mapped->second.number] == 1) {
      number = mapped->second.number;  // in place; unwritten until commit
    } else if (pending != pending_.end()) {
      number = pending->second.number;  // an earlier write of it failed
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
  for (std::uint64_t at = offset / unit; at < (offset + length) / unit; ++at) {
    if (const auto pending = pending_.find(at); pending != pending_.end()) {
      const auto old = blocks_.find(at);
      if (old != blocks_.end()) store_.free_locked(old->second.number);
      blocks_[at] = Block{pending->second.number, true};
      pending_.erase(pending);
    } else {
      blocks_.at(at).written = true;
    }
  }
  size_ = std::max(size_, std::min(offset + length, end_of_file));
  return {};
}

Status RamBacking::set_size(std::uint64_t size) {
  MutexLock lock(store_.mutex_);
  const std::uint64_t unit = store_.block_size_;
  if (size < size_) {
    if (const auto edge = blocks_.find(size / unit);
        size % unit != 0 && edge != blocks_.end() && edge->second.written) {
      std::uint64_t number = edge->second.number;
      if (store_.references_[number] > 1) {  // another file keeps its bytes
        std::vector<char> copy(unit);
        const std::uint64_t fresh = store_.allocate_locked();
        if (fresh == RamStore::kNoBlock) return fail(ENOSPC);
        store_.memory_.peek(number * unit, copy.data(), unit);
        (void)store_.memory_.poke(fresh * unit, copy.data(), unit);
        store_.free_locked(number);
        edge->second.number = number = fresh;
      }
      (void)store_.memory_.fill(number * unit + size % unit, unit - size % unit, 0);
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
