// The walk over data and tree. See verity_check.h.
#include "api/verity_check.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <vector>

#include "api/block_scan.h"
#include "base/error.h"
#include "verity/merkle_tree.h"
#include "verity/sidecar.h"

namespace quire {
namespace {

using verity::BlockHasher;
using verity::Digest;
using verity::TreeGeometry;

class Check {
 public:
  Check(const PlacedFile& file, const ReadSidecar& sidecar, const VerityCheckOptions& options)
      : file_(file), sidecar_(sidecar), options_(options) {}
  Status run();
  const VerityCounts& counts() const { return counts_; }

 private:
  static constexpr std::uint64_t kNone = UINT64_MAX;
  // The block of one level that lies over where the walk is.
  struct Level {
    std::uint64_t index = kNone;
    bool good = false;
    std::vector<char> block;
  };

  Status prepare();
  bool load(unsigned level, std::uint64_t index);
  const std::uint8_t* expected_of(unsigned level, std::uint64_t child);
  void tell_bad_hash(unsigned level, std::uint64_t index, std::uint64_t offset, const std::uint8_t* expected,
                     const Digest& found, int errnum);
  void check_piece(const BlockScan::Piece& piece);
  void check_block(std::uint64_t block, std::span<const std::uint8_t> found, int errnum);
  void tell(const VerityBadBlock& bad) const {
    if (options_.bad) options_.bad(bad);
  }
  Digest digest_of(const std::uint8_t* bytes) const {
    Digest digest{.algorithm = hasher_.algorithm(), .bytes = {}};
    if (bytes != nullptr) std::memcpy(digest.bytes.data(), bytes, digest.size());
    return digest;
  }

  const PlacedFile& file_;
  const ReadSidecar& sidecar_;
  const VerityCheckOptions& options_;
  TreeGeometry geometry_;
  BlockHasher hasher_;
  std::vector<Level> levels_;
  VerityCounts counts_;
};

Status Check::prepare() {
  const verity::Descriptor& descriptor = sidecar_.header.descriptor;
  auto geometry = descriptor.geometry();
  QUIRE_TRY(geometry);
  geometry_ = geometry.value();
  auto hasher = BlockHasher::create(descriptor.parameters);
  QUIRE_TRY(hasher);
  hasher_ = hasher.take();
  levels_.resize(geometry_.levels());
  for (Level& level : levels_) level.block.resize(geometry_.block_size());
  counts_.data_blocks = geometry_.data_blocks();
  counts_.hash_blocks = geometry_.tree_size() / geometry_.block_size();
  const int fd = sidecar_.files.buffered;
  static_cast<void>(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
  static_cast<void>(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
  return {};
}

// The digest that `level` has of block `child` of the level below (below 0 are the data); null: that block of the tree
// is bad, or one above it.
const std::uint8_t* Check::expected_of(unsigned level, std::uint64_t child) {
  if (level == geometry_.levels()) return sidecar_.header.descriptor.root_hash.bytes.data();
  const TreeGeometry::Place place = geometry_.digest_of_child(level, child);
  const std::uint64_t index = place.block / geometry_.block_size() - geometry_.first_block(level);
  if (!load(level, index)) return nullptr;
  return reinterpret_cast<const std::uint8_t*>(levels_[level].block.data() + place.offset);
}

bool Check::load(unsigned level, std::uint64_t index) {
  Level& loaded = levels_[level];
  if (loaded.index == index) return loaded.good;
  loaded.index = index;
  loaded.good = false;
  const std::uint8_t* const expected = expected_of(level + 1, index);
  if (expected == nullptr) return false;
  const std::uint64_t offset =
      verity::kSidecarHeaderSize + (geometry_.first_block(level) + index) * geometry_.block_size();
  const auto got = read_host(sidecar_.files.buffered, offset, loaded.block);
  const int errnum = !got.ok() ? got.errnum() : got.value() == loaded.block.size() ? 0 : ENODATA;
  Digest found = digest_of(nullptr);
  if (errnum == 0) hasher_.hash(loaded.block, found.view());
  loaded.good = errnum == 0 && std::memcmp(found.bytes.data(), expected, found.size()) == 0;
  if (!loaded.good) tell_bad_hash(level, index, offset, expected, found, errnum);
  return loaded.good;
}

void Check::tell_bad_hash(unsigned level, std::uint64_t index, std::uint64_t offset, const std::uint8_t* expected,
                          const Digest& found, int errnum) {
  ++counts_.bad_hash_blocks;
  tell({.kind = VerityBadBlock::Kind::hash,
        .errnum = errnum,
        .offset = offset,
        .length = geometry_.block_size(),
        .hash_offset = offset,
        .expected = digest_of(expected),
        .found = found});
  // The data under it: blocks [first, last).
  std::uint64_t first = index, last = index + 1;
  for (unsigned i = 0; i <= level; ++i) {
    first *= geometry_.digests_per_block();
    last = std::min(last * geometry_.digests_per_block(), geometry_.data_blocks());
  }
  counts_.unverified_blocks += last - first;
  const std::uint64_t begin = first * geometry_.block_size();
  tell({.kind = VerityBadBlock::Kind::unverified,
        .errnum = 0,
        .offset = begin,
        .length = std::min(last * geometry_.block_size(), geometry_.data_size()) - begin,
        .hash_offset = offset,
        .expected = digest_of(nullptr),
        .found = digest_of(nullptr)});
}

void Check::check_block(std::uint64_t block, std::span<const std::uint8_t> found, int errnum) {
  const std::uint8_t* const expected = expected_of(0, block);
  if (expected == nullptr) return;  // was told of with the block of the tree
  if (errnum == 0 && std::memcmp(found.data(), expected, found.size()) == 0) return;
  ++counts_.bad_data_blocks;
  tell({.kind = VerityBadBlock::Kind::data,
        .errnum = errnum,
        .offset = block * geometry_.block_size(),
        .length = geometry_.data_in_block(block),
        .hash_offset = 0,
        .expected = digest_of(expected),
        .found = digest_of(errnum == 0 ? found.data() : nullptr)});
}

void Check::check_piece(const BlockScan::Piece& piece) {
  const std::uint64_t first = piece.offset / geometry_.block_size();
  const std::uint64_t blocks = (piece.length + geometry_.block_size() - 1) / geometry_.block_size();
  const std::size_t size = geometry_.digest_size();
  auto bad = piece.bad_reads.begin();
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t block = first + i;
    const bool unreadable = bad != piece.bad_reads.end() && bad->block == block;
    check_block(block, piece.hole ? hasher_.zero_digest() : piece.digests.subspan(i * size, size),
                unreadable ? bad->errnum : 0);
    if (unreadable) ++bad;
  }
}

Status Check::run() {
  QUIRE_TRY(prepare());
  BlockScan scan(file_.files, file_.size, hasher_, true);
  QUIRE_TRY(scan.start());
  const auto check = [this](const BlockScan::Piece& piece) -> Status {
    check_piece(piece);
    return {};
  };
  return scan.for_each(check, options_.progress);
}

}  // namespace

Result<VerityChecked> check_verity(const char* path, const VerityCheckOptions& options) {
  auto file = place_file(path);
  QUIRE_TRY(file);
  const auto sidecar = read_sidecar(file.value());
  QUIRE_TRY(sidecar);
  QUIRE_TRY(check_accepted(options.accepted, sidecar.value().digest, sidecar.value().header.signature));
  read_from_disk(file.value());
  Check check(file.value(), sidecar.value(), options);
  QUIRE_TRY(check.run());
  return VerityChecked{.digest = sidecar.value().digest, .counts = check.counts()};
}

Result<VerityHeader> verity_header(const char* path) {
  const auto file = place_file(path);
  QUIRE_TRY(file);
  auto sidecar = read_sidecar(file.value());
  QUIRE_TRY(sidecar);
  return VerityHeader{.header = std::move(sidecar.value().header), .digest = sidecar.value().digest};
}

}  // namespace quire
