// Files in memory: a store of blocks on a MemoryDevice, shared by its files, and a backing for each. Every operation is
// native; freed blocks are poisoned and handed out again at once (last freed, first used), so that a folio filled from
// a block that was freed meanwhile shows. Tests, torture and scheduler scenarios run on it before the host.
//
// Block states: free -> (prepare) pending: allocated for a range of a file, which does not read as it yet -> (commit)
// mapped -> (set_size, punch, replaced) free. A file's block that was only allocated (fallocate) is unwritten and reads
// as zero; it is never shared. Past size() there are no written blocks, and the rest of the last block is zeros.
// Thread safety: every call from any thread. Locks: one leaf mutex for the store and all its files.
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

struct RamOptions {
  unsigned direct_alignment = 512;  // of direct_only requests; 0: takes none
  bool no_unwritten = false;        // as hosts that fill holes in the reader's view: write_through shows poison first
};

class RamStore {
 public:
  // block_size: a power of two, 512 to kPageSize. use_device may put another device
  // (a faulty one) before the store's memory; it must lead there.
  explicit RamStore(unsigned block_size, std::uint64_t max_blocks = std::uint64_t{1} << 24,
                    const RamOptions& options = {});

  unsigned block_size() const { return block_size_; }
  MemoryDevice& memory() { return memory_; }
  Device& device() { return *device_; }
  void use_device(Device& device) { device_ = &device; }  // before the first file is made
  std::uint64_t blocks_in_use() const;

 private:
  friend class RamBacking;
  static constexpr std::uint64_t kNoBlock = UINT64_MAX;
  std::uint64_t allocate_locked() REQUIRES(mutex_);        // kNoBlock when full
  void free_locked(std::uint64_t block) REQUIRES(mutex_);  // drops a reference
  std::uint64_t available_locked() const REQUIRES(mutex_) { return free_.size() + (max_blocks_ - references_.size()); }
  bool shared_locked(std::uint64_t block) const REQUIRES(mutex_) { return references_[block] > 1; }
  // Turns a reference into the only one: to a copy if the block is shared, and kNoBlock when that finds no room.
  std::uint64_t own_locked(std::uint64_t block) REQUIRES(mutex_);
  // The same without the bytes: poison.
  std::uint64_t blank_locked(std::uint64_t block) REQUIRES(mutex_);
  // How many blocks own_locked or blank_locked take for these references, one call each.
  std::uint64_t copies_locked(std::vector<std::uint64_t> blocks) const REQUIRES(mutex_);

  const unsigned block_size_;
  const std::uint64_t max_blocks_;
  const bool no_unwritten_;
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
  unsigned direct_alignment() const override { return store_.memory_.direct_alignment(); }
  Result<Extent> map(std::uint64_t offset, std::uint64_t length) override;
  Result<Extent> prepare(std::uint64_t offset, std::uint64_t length) override;
  Status commit(std::uint64_t offset, std::uint64_t length, std::uint64_t end_of_file) override;
  bool unwritten_extents() const override { return !store_.no_unwritten_; }  // ram_holes.cc
  bool begin_direct(DirectHold& hold, bool wait) override;
  void end_direct(DirectHold& hold) override;
  Status write_through(std::uint64_t offset, std::span<const iovec> buffers) override;
  Status set_size(std::uint64_t size) override;
  // ram_ranges.cc and ram_sharing.cc; on failure nothing has changed.
  Status allocate(std::uint64_t offset, std::uint64_t length, bool keep_size) override;
  Status punch(std::uint64_t offset, std::uint64_t length) override;
  Status zero(std::uint64_t offset, std::uint64_t length, bool keep_size) override;
  Status unshare(std::uint64_t offset, std::uint64_t length) override;
  Status collapse(std::uint64_t offset, std::uint64_t length) override;
  Status insert(std::uint64_t offset, std::uint64_t length) override;
  Status clone(Backing& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length) override;
  Result<std::uint64_t> dedupe(Backing& source, std::uint64_t from, std::uint64_t offset,
                               std::uint64_t length) override;
  Status exchange(Backing& with, std::uint64_t at, std::uint64_t offset, std::uint64_t length) override;
  Result<std::uint64_t> seek_data(std::uint64_t offset) override;
  Result<std::uint64_t> seek_hole(std::uint64_t offset) override;
  Status sync(bool data_only) override;
  Status stat(struct stat* out) override;

 private:
  struct Block {
    std::uint64_t number;
    bool written;
  };
  using BlockMap = std::map<std::uint64_t, Block>;  // by block of the file

  struct BlockRange {
    std::uint64_t first, end;
  };

  Status write_blocks(std::uint64_t offset, std::span<const iovec> buffers);
  Status show_holes(BlockRange range, std::vector<std::uint64_t>* made);
  BlockRange touched(std::uint64_t offset, std::uint64_t length) const;  // the blocks that hold a byte of it
  bool aligned(std::uint64_t bytes) const { return is_aligned(bytes, store_.block_size_); }
  void drop_locked(BlockMap& blocks, std::uint64_t first, std::uint64_t end = UINT64_MAX) REQUIRES(store_.mutex_);
  // Cuts a range's entries out, and puts them back in, moved by `distance` blocks (modulo 2^64), where there are none.
  static std::vector<BlockMap::node_type> take_out(BlockMap& blocks, BlockRange range);
  static void put_in(BlockMap& blocks, std::vector<BlockMap::node_type> nodes, std::uint64_t distance);
  // Drops what a failed write left prepared in the range. ENOSPC, and nothing dropped, unless the store then has room.
  Status make_room_locked(BlockRange range, std::uint64_t needed, std::uint64_t soon_free = 0) REQUIRES(store_.mutex_);
  std::uint64_t holes_locked(BlockRange range) const REQUIRES(store_.mutex_);
  std::vector<std::uint64_t> written_locked(BlockRange range) const REQUIRES(store_.mutex_);
  void fill_holes_locked(BlockRange range) REQUIRES(store_.mutex_);
  // Zeroes those bytes of [offset, end) that the block holds, in a copy if it is shared.
  void zero_part_locked(BlockMap::value_type& block, std::uint64_t offset, std::uint64_t end) REQUIRES(store_.mutex_);
  Result<RamBacking*> same_store(Backing& other);  // EXDEV: not of this store
  Status check_share_locked(RamBacking& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length)
      REQUIRES(store_.mutex_, source.store_.mutex_);
  void share_locked(RamBacking& source, BlockRange from, std::uint64_t to)
      REQUIRES(store_.mutex_, source.store_.mutex_);
  bool equal_locked(RamBacking& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length)
      REQUIRES(store_.mutex_, source.store_.mutex_);
  void read_block_locked(std::uint64_t block, char* bytes) const REQUIRES(store_.mutex_);  // zeros for no written one

  RamStore& store_;
  std::uint64_t size_ GUARDED_BY(store_.mutex_) = 0;
  BlockMap blocks_ GUARDED_BY(store_.mutex_);   // what the file reads as
  BlockMap pending_ GUARDED_BY(store_.mutex_);  // prepared, not committed
  HoleLock holes_;                              // without unwritten extents
};

}  // namespace quire
