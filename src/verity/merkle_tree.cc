// The hash tree's geometry, and its builder: a block of digests being filled for each level. See merkle_tree.h.
#include "verity/merkle_tree.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"

namespace quire::verity {

Result<TreeGeometry> TreeGeometry::create(std::uint64_t data_size, std::uint32_t block_size, HashAlgorithm algorithm) {
  if (!is_block_size(block_size)) {
    return fail_with(EINVAL, "a block of %u bytes: fs-verity's have a power of two from %u to %u", block_size,
                     kMinBlockSize, kMaxBlockSize);
  }
  if (data_size > kMaxFileSize) {
    return fail_with(EFBIG, "a file of %llu bytes: no file can be larger than 2^63 - 1",
                     static_cast<unsigned long long>(data_size));
  }
  TreeGeometry tree;
  tree.data_size_ = data_size;
  tree.block_shift_ = static_cast<std::uint8_t>(std::countr_zero(block_size));
  tree.digest_shift_ = static_cast<std::uint8_t>(std::countr_zero(verity::digest_size(algorithm)));
  tree.data_blocks_ = round_up(data_size, block_size) >> tree.block_shift_;
  for (std::uint64_t blocks = tree.data_blocks_; blocks > 1;) {
    blocks = round_up(blocks, tree.digests_per_block()) >> tree.fanout_shift();
    CHECK(tree.levels_ < kMaxLevels);
    tree.count_[tree.levels_++] = blocks;
  }
  for (unsigned level = tree.levels_; level-- > 0;) {
    tree.first_[level] = tree.tree_blocks_;
    tree.tree_blocks_ += tree.count_[level];
  }
  return tree;
}

std::uint32_t TreeGeometry::data_in_block(std::uint64_t data_block) const {
  DCHECK(data_block < data_blocks_);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(block_size(), data_size_ - (data_block << block_shift_)));
}

TreeGeometry::Place TreeGeometry::digest_of_child(unsigned level, std::uint64_t child) const {
  DCHECK(level < levels_);
  DCHECK(child < (level == 0 ? data_blocks_ : count_[level - 1]));
  const std::uint64_t block = first_[level] + (child >> fanout_shift());
  const std::uint64_t number = child & (digests_per_block() - 1);
  return {.block = block << block_shift_, .offset = static_cast<std::uint32_t>(number << digest_shift_)};
}

TreeGeometry::Position TreeGeometry::position(std::uint64_t tree_block) const {
  DCHECK(tree_block < tree_blocks_);
  unsigned level = 0;
  while (tree_block < first_[level]) ++level;
  return {.level = level, .index = tree_block - first_[level]};
}

Result<TreeBuilder> TreeBuilder::create(std::uint64_t data_size, const HashParameters& parameters, Sink sink) {
  auto geometry = TreeGeometry::create(data_size, parameters.block_size, parameters.algorithm);
  QUIRE_TRY(geometry);
  auto hasher = BlockHasher::create(parameters);
  QUIRE_TRY(hasher);
  TreeBuilder builder;
  builder.geometry_ = *geometry;
  builder.hasher_ = hasher.take();
  builder.sink_ = std::move(sink);
  builder.root_hash_.algorithm = parameters.algorithm;
  QUIRE_TRY(builder.make_memory());
  return builder;
}

Status TreeBuilder::make_memory() {
  const std::size_t block_size = geometry_.block_size();
  memory_.reset(new (std::nothrow) char[(2 * geometry_.levels() + 1) * block_size]);
  if (memory_ == nullptr) return fail_with(ENOMEM, "no memory to build a hash tree of %u levels", geometry_.levels());
  char* next = memory_.get();
  partial_ = next;
  for (unsigned level = 0; level < geometry_.levels(); ++level) {
    levels_[level].block = next += block_size;
    levels_[level].last = next += block_size;
  }
  return {};
}

Failure TreeBuilder::grown() const {
  return fail_with(EINVAL, "the file has grown while its hash tree was built: it had %llu bytes",
                   static_cast<unsigned long long>(geometry_.data_size()));
}

Status TreeBuilder::add(std::span<const char> data) {
  if (data.size() > geometry_.data_size() - added_) return grown();
  const std::size_t block_size = geometry_.block_size();
  while (!data.empty()) {
    const std::size_t wanted = std::min<std::uint64_t>(block_size, geometry_.data_size() - (added_ - partial_size_));
    const std::size_t count = std::min(data.size(), wanted - partial_size_);
    if (count == wanted) {
      QUIRE_TRY(hash_data(data.first(count)));
      added_ += count;
    } else {
      QUIRE_TRY(add_partial(data.first(count)));
    }
    data = data.subspan(count);
  }
  return {};
}

// `data` does not reach past the end of the block.
Status TreeBuilder::add_partial(std::span<const char> data) {
  std::memcpy(partial_ + partial_size_, data.data(), data.size());
  partial_size_ += static_cast<std::uint32_t>(data.size());
  added_ += data.size();
  if (partial_size_ != geometry_.block_size() && added_ != geometry_.data_size()) return {};
  const std::size_t count = partial_size_;
  partial_size_ = 0;
  return hash_data({partial_, count});
}

Status TreeBuilder::add_zeros(std::uint64_t bytes) {
  if (bytes > geometry_.data_size() - added_) return grown();
  static constexpr char kZeros[4096] = {};
  const std::uint64_t block_size = geometry_.block_size();
  while (bytes > 0) {
    const std::uint64_t left = geometry_.data_size() - added_;
    std::uint64_t count = std::min({bytes, block_size - partial_size_, std::uint64_t{sizeof kZeros}});
    if (partial_size_ == 0 && bytes >= std::min(block_size, left)) {
      count = std::min(block_size, left);
      added_ += count;
      QUIRE_TRY(push(0, hasher_.zero_digest()));
    } else {
      QUIRE_TRY(add_partial({kZeros, static_cast<std::size_t>(count)}));
    }
    bytes -= count;
  }
  return {};
}

Status TreeBuilder::add_digests(std::span<const std::uint8_t> digests) {
  const std::size_t size = hasher_.digest_size();
  const std::uint64_t blocks_left =
      (round_up(geometry_.data_size(), geometry_.block_size()) - added_) / geometry_.block_size();
  if (partial_size_ != 0) return fail_with(EINVAL, "digests were given in the middle of a data block");
  if (digests.size() % size != 0) return fail_with(EINVAL, "%zu bytes are no whole digests", digests.size());
  if (digests.size() / size > blocks_left) return grown();
  for (; !digests.empty(); digests = digests.subspan(size)) {
    added_ += std::min<std::uint64_t>(geometry_.block_size(), geometry_.data_size() - added_);
    QUIRE_TRY(push(0, digests.first(size)));
  }
  return {};
}

Status TreeBuilder::hash_data(std::span<const char> block) {
  Digest digest{.algorithm = hasher_.algorithm(), .bytes = {}};
  hasher_.hash(block, digest.view());
  return push(0, digest.view());
}

Status TreeBuilder::push(unsigned level, std::span<const std::uint8_t> digest) {
  if (level == geometry_.levels()) {
    std::copy(digest.begin(), digest.end(), root_hash_.bytes.begin());
    return {};
  }
  Level& filled = levels_[level];
  std::memcpy(filled.block + filled.used, digest.data(), digest.size());
  filled.used += static_cast<std::uint32_t>(digest.size());
  return filled.used == geometry_.block_size() ? finish_block(level) : Status();
}

// A block equal to the one before it has the same digest. So whole subtrees of zeros cost next to no hashing.
Status TreeBuilder::finish_block(unsigned level) {
  Level& filled = levels_[level];
  const std::size_t size = geometry_.block_size();
  std::memset(filled.block + filled.used, 0, size - filled.used);
  QUIRE_TRY(sink_((geometry_.first_block(level) + filled.finished) * size, {filled.block, size}));
  if (filled.finished == 0 || std::memcmp(filled.block, filled.last, size) != 0) {
    filled.last_digest.algorithm = hasher_.algorithm();
    hasher_.hash({filled.block, size}, filled.last_digest.view());
    std::swap(filled.block, filled.last);
  }
  ++filled.finished;
  filled.used = 0;
  return push(level + 1, filled.last_digest.view());
}

Result<Digest> TreeBuilder::finish() {
  if (added_ != geometry_.data_size()) {
    return fail_with(EINVAL, "the file has shrunk while its hash tree was built: it had %llu bytes, and %llu came",
                     static_cast<unsigned long long>(geometry_.data_size()), static_cast<unsigned long long>(added_));
  }
  for (unsigned level = 0; level < geometry_.levels(); ++level) {
    if (levels_[level].used != 0) QUIRE_TRY(finish_block(level));
  }
  for (unsigned level = 0; level < geometry_.levels(); ++level) {
    CHECK(levels_[level].finished == geometry_.block_count(level));
  }
  return root_hash_;
}

}  // namespace quire::verity
