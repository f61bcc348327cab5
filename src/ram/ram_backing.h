// Files in memory: a store of blocks on a MemoryDevice, shared by its files, and a backing for each. Every operation is
// native; freed blocks are poisoned and handed out again at once (last freed, first used), so that a folio filled from
// a block that was freed meanwhile shows. Tests, torture and scheduler scenarios run on it before the host.
//
// Block states: free -> (prepare) pending: allocated for a range of a file, which does not read as it yet -> (commit)
// mapped -> (set_size, replaced) free. A file's block that was only allocated (fallocate) is unwritten and reads as
// zero. Thread safety: every call from any thread. Locks: one leaf mutex for the store and all its files.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "backing/backing.h"
#include "base/bytes.h"
#include "device/memory_device.h"
#include "sync/mutex.h"

namespace quire {

class RamStore {
 public:
  // block_size: a power of two, 512 to kPageSize. use_device may put another device
  // (a faulty one) before the store's memory; it must lead there.
  explicit RamStore(unsigned block_size, std::uint64_t max_blocks = std::uint64_t{1} << 24);

  unsigned block_size() const { return block_size_; }
  MemoryDevice& memory() { return memory_; }
  Device& device() { return *device_; }
  void use_device(Device& device) { device_ = &device; }  // before the first file is made
  std::uint64_t blocks_in_use() const;

 private:
  friend class RamBacking;
  static constexpr std::uint64_t kNoBlock = UINT64_MAX;
  std::uint64_t allocate_locked() REQUIRES(mutex_);  // kNoBlock when full
  void free_locked(std::uint64_t block) REQUIRES(mutex_);

  const unsigned block_size_;
  const std::uint64_t max_blocks_;
  MemoryDevice memory_;
  Device* device_ = &memory_;
  mutable Mutex mutex_;
  std::vector<std::uint32_t> references_ GUARDED_BY(mutex_);  // by block; 0: free
  std::vector<std::uint64_t> free_ GUARDED_BY(mutex_);        // a stack: reused at once
};

class RamBacking final : public Backing {
 public:
  explicit RamBacking(RamStore& store) : store_(store) {}
  ~RamBacking() override;

  Device& device() override { return store_.device(); }
  std::uint64_t size() const override;
  std::uint64_t max_size() const override { return kMaxFileSize; }
  bool fixed_size() const override { return false; }
  unsigned block_size() const override { return store_.block_size(); }
  unsigned write_alignment() const override { return store_.block_size(); }
  Result<Extent> map(std::uint64_t offset, std::uint64_t length) override;
  Result<Extent> prepare(std::uint64_t offset, std::uint64_t length) override;
  Status commit(std::uint64_t offset, std::uint64_t length, std::uint64_t end_of_file) override;
  Status set_size(std::uint64_t size) override;
  Status sync(bool data_only) override;
  Status stat(struct stat* out) override;

 private:
  struct Block {
    std::uint64_t number;
    bool written;
  };
  using BlockMap = std::map<std::uint64_t, Block>;  // by block of the file

  void drop_locked(BlockMap& blocks, std::uint64_t first) REQUIRES(store_.mutex_);

  RamStore& store_;
  std::uint64_t size_ GUARDED_BY(store_.mutex_) = 0;
  BlockMap blocks_ GUARDED_BY(store_.mutex_);   // what the file reads as
  BlockMap pending_ GUARDED_BY(store_.mutex_);  // prepared, not committed
};

}  // namespace quire
