// The hash tree of fs-verity: where each digest lies, and how the tree is built from the data in order.
//
// Level 0 holds the digests of the data blocks, level n those of the blocks of level n - 1, and the highest has one
// block, whose digest is the root hash. Each level begins at a block and is stored after all higher ones, so the root's
// block comes first. A file of one block has no tree: its root hash is that block's digest. An empty file's is zeros.
// Thread safety: a geometry is a plain value; a builder is of one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "quire/result.h"
#include "verity/digest.h"

namespace quire::verity {

class TreeGeometry {
 public:
  static constexpr unsigned kMaxLevels = 14;  // 2^63 bytes, blocks of 1,024, 16 digests in each

  // Where a digest lies in the stored tree.
  struct Place {
    std::uint64_t block = 0;   // offset of its block in the tree, bytes
    std::uint32_t offset = 0;  // of the digest in that block, bytes
  };
  // Which block of the tree a stored one is.
  struct Position {
    unsigned level = 0;
    std::uint64_t index = 0;  // in its level
  };

  TreeGeometry() = default;  // of an empty file
  // EINVAL: no block size of fs-verity; EFBIG: a file of more than 2^63 - 1 bytes.
  static Result<TreeGeometry> create(std::uint64_t data_size, std::uint32_t block_size, HashAlgorithm algorithm);

  std::uint64_t data_size() const { return data_size_; }
  std::uint32_t block_size() const { return std::uint32_t{1} << block_shift_; }
  std::size_t digest_size() const { return std::size_t{1} << digest_shift_; }
  std::uint64_t digests_per_block() const { return std::uint64_t{1} << fanout_shift(); }
  std::uint64_t data_blocks() const { return data_blocks_; }
  std::uint64_t tree_size() const { return tree_blocks_ << block_shift_; }  // bytes
  unsigned levels() const { return levels_; }
  std::uint64_t first_block(unsigned level) const { return first_[level]; }  // of the stored tree
  std::uint64_t block_count(unsigned level) const { return count_[level]; }

  // How many bytes of a data block belong to the file: less than a block for the last.
  std::uint32_t data_in_block(std::uint64_t data_block) const;
  // The digest in `level` on whose way to the root this data block lies; in level 0, its own.
  Place digest_over(unsigned level, std::uint64_t data_block) const {
    return digest_of_child(level, data_block >> (level * fanout_shift()));
  }
  // The digest in `level` of block `child` of the level below; below level 0 are the data blocks. The block of the
  // highest level has its digest in the descriptor.
  Place digest_of_child(unsigned level, std::uint64_t child) const;
  // Of the block at `tree_block` * block_size() in the tree.
  Position position(std::uint64_t tree_block) const;

 private:
  unsigned fanout_shift() const { return static_cast<unsigned>(block_shift_ - digest_shift_); }

  std::uint64_t data_size_ = 0;
  std::uint64_t data_blocks_ = 0;
  std::uint64_t tree_blocks_ = 0;
  std::uint64_t first_[kMaxLevels] = {};
  std::uint64_t count_[kMaxLevels] = {};
  std::uint8_t block_shift_ = 12;
  std::uint8_t digest_shift_ = 5;
  std::uint8_t levels_ = 0;
};

// Builds a tree in one pass. Memory: two blocks for each level, and one of data.
class TreeBuilder {
 public:
  // Takes a finished block of the tree and where it belongs in it, bytes. Its failure ends the call that made the block
  // finished, and is returned from there. The blocks of one level come in order, those of different levels mixed.
  using Sink = std::function<Status(std::uint64_t offset, std::span<const char> block)>;

  TreeBuilder() = default;  // of no use but to be assigned to
  // EINVAL, EFBIG, ENOPKG, ENOMEM.
  static Result<TreeBuilder> create(std::uint64_t data_size, const HashParameters& parameters, Sink sink);

  // The next bytes of the file, in any pieces: whole blocks are hashed where they lie. After any failure, of these or
  // of the sink, the builder is of no more use. EINVAL: more bytes than the file has.
  Status add(std::span<const char> data);
  // The same for bytes that are zeros: whole blocks of them are not hashed. EINVAL.
  Status add_zeros(std::uint64_t bytes);
  // The digests of the next data blocks, one after the other, made elsewhere by a clone of hasher(); the file's last
  // block, partial or not, has one. EINVAL: more of them than blocks, or in the middle of a block.
  Status add_digests(std::span<const std::uint8_t> digests);
  // Hands out what is left, and gives the root hash. Once. EINVAL: fewer bytes than the file has.
  Result<Digest> finish();

  const TreeGeometry& geometry() const { return geometry_; }
  const BlockHasher& hasher() const { return hasher_; }

 private:
  struct Level {
    char* block = nullptr;  // being filled
    char* last = nullptr;   // the one before it, whose digest is last_digest
    std::uint32_t used = 0;
    std::uint64_t finished = 0;  // blocks
    Digest last_digest;
  };

  Status make_memory();
  Failure grown() const;
  Status add_partial(std::span<const char> data);
  Status push(unsigned level, std::span<const std::uint8_t> digest);
  Status finish_block(unsigned level);
  Status hash_data(std::span<const char> block);

  TreeGeometry geometry_;
  BlockHasher hasher_;
  Sink sink_;
  std::unique_ptr<char[]> memory_;
  char* partial_ = nullptr;  // a data block of which only the first bytes came so far
  std::uint32_t partial_size_ = 0;
  std::uint64_t added_ = 0;  // bytes
  Level levels_[TreeGeometry::kMaxLevels];
  Digest root_hash_;
};

}  // namespace quire::verity
