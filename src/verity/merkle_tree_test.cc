// Hash trees: roots, trees and descriptors against the fsverity program; the builder's ways of being fed against each
// other; the geometry against what was built, and at its limits.
#include "verity/merkle_tree.h"

#include <algorithm>
#include <sstream>

#include "verity/descriptor.h"
#include "verity/verity_test_util.h"

namespace quire::verity {
namespace {

using verity_testing::all_parameters;
using verity_testing::cause;
using verity_testing::describe;
using verity_testing::random_bytes;
using verity_testing::run_well;
using verity_testing::salt_of;
using verity_testing::says;

// A whole tree in memory. Every block of it comes exactly once.
struct Tree {
  std::vector<char> bytes;
  std::vector<bool> came;

  TreeBuilder::Sink sink(std::uint32_t block_size) {
    return [this, block_size](std::uint64_t offset, std::span<const char> block) -> Status {
      EXPECT_EQ(block.size(), block_size);
      EXPECT_EQ(offset % block_size, 0u);
      bytes.resize(std::max<std::size_t>(bytes.size(), offset + block_size));
      came.resize(bytes.size() / block_size);
      EXPECT_FALSE(came[offset / block_size]) << offset;
      came[offset / block_size] = true;
      std::copy(block.begin(), block.end(), bytes.begin() + static_cast<long>(offset));
      return {};
    };
  }
  bool complete() const {
    return std::ranges::all_of(came, [](bool came_in) { return came_in; });
  }
};

TreeBuilder builder_for(std::uint64_t size, const HashParameters& parameters, Tree& tree) {
  auto builder = TreeBuilder::create(size, parameters, tree.sink(parameters.block_size));
  EXPECT_TRUE(builder) << cause(builder.errnum());
  return builder.take();
}

Descriptor build(std::span<const char> data, const HashParameters& parameters, Tree& tree) {
  TreeBuilder builder = builder_for(data.size(), parameters, tree);
  EXPECT_TRUE(builder.add(data));
  auto root = builder.finish();
  EXPECT_TRUE(root) << cause(root.errnum());
  EXPECT_TRUE(tree.complete());
  EXPECT_EQ(tree.bytes.size(), builder.geometry().tree_size());
  return {.parameters = parameters, .data_size = data.size(), .root_hash = *root};
}

class MerkleTree : public verity_testing::VerityTest {};

// Around one block, one block of digests, and one block of digests of these.
std::vector<std::size_t> sizes_for(const HashParameters& parameters, std::size_t most) {
  const std::size_t block = parameters.block_size, fanout = block / digest_size(parameters.algorithm);
  std::vector<std::size_t> sizes = {0, 1, 4095, 4096, 4097, 100'000};
  for (const std::size_t edge : {block, 3 * block, block * fanout, block * fanout * fanout}) {
    for (const std::size_t size : {edge - 1, edge, edge + 1}) {
      if (size <= most) sizes.push_back(size);
    }
  }
  return sizes;
}

TEST_F(MerkleTree, V1_DigestsOfFsverity) {
  SKIP_WITHOUT_FSVERITY();
  constexpr std::size_t kMost = 600'000;
  const auto data = random_bytes(kMost, 1);
  for (const HashParameters& parameters : all_parameters()) {
    SCOPED_TRACE(describe(parameters));
    auto words = fsverity_digest(parameters);
    std::string expected;
    for (const std::size_t size : sizes_for(parameters, kMost)) {
      const std::string name = std::to_string(size);
      if (!std::filesystem::exists(path(name))) write(name, std::span(data).first(size));
      words.push_back(path(name));
      Tree tree;
      auto digest = file_digest(build(std::span(data).first(size), parameters, tree));
      ASSERT_TRUE(digest);
      expected += to_string(*digest).substr(7) + "\n";
    }
    EXPECT_EQ(run_well(words), expected);
  }
}

TEST_F(MerkleTree, V1_TreesAndDescriptorsOfFsverity) {
  SKIP_WITHOUT_FSVERITY();
  constexpr std::size_t kDeep = (std::size_t{4} << 20) + 5000;  // four levels of 16 digests each, and more
  const auto data = random_bytes(kDeep, 2);
  write("deep", data);
  write("empty", {});
  write("short", std::span(data).first(777));
  EXPECT_EQ(TreeGeometry::create(kDeep, 1024, HashAlgorithm::sha512)->levels(), 4u);
  for (const HashParameters& parameters : all_parameters()) {
    for (const char* const name : {"deep", "short", "empty"}) {
      SCOPED_TRACE(describe(parameters) + ", " + name);
      auto words = fsverity_digest(parameters);
      words.insert(words.end(), {"--out-merkle-tree=" + path("tree"), "--out-descriptor=" + path("desc"), path(name)});
      run_well(words);
      const std::size_t size = std::filesystem::file_size(path(name));
      Tree tree;
      const Descriptor descriptor = build(std::span(data).first(size), parameters, tree);
      EXPECT_TRUE(tree.bytes == read("tree")) << "the trees differ";
      const auto bytes = serialize(descriptor);
      const auto theirs = read("desc");
      EXPECT_EQ(verity_testing::hex(bytes),
                verity_testing::hex(std::vector<std::uint8_t>(theirs.begin(), theirs.end())));
      EXPECT_TRUE(parse_descriptor(bytes));
    }
  }
}

// Data with a run of zeros here and there.
std::vector<char> data_with_holes(std::size_t count, std::uint64_t seed) {
  auto data = random_bytes(count, seed);
  Random random(seed);
  for (int i = 0; i < 6; ++i) {
    const std::size_t begin = random.below(count), length = random.below(count / 5);
    std::fill(data.begin() + static_cast<long>(begin),
              data.begin() + static_cast<long>(std::min(count, begin + length)), '\0');
  }
  return data;
}

std::size_t zeros_from(std::span<const char> data) {
  return static_cast<std::size_t>(std::ranges::find_if(data, [](char c) { return c != 0; }) - data.begin());
}

// Feeds `data` in pieces, by whichever call is possible.
void feed_at_random(TreeBuilder& builder, std::span<const char> data, Random& random) {
  const std::uint32_t block = builder.geometry().block_size();
  auto hasher = builder.hasher().clone();
  ASSERT_TRUE(hasher);
  std::size_t at = 0;
  while (at < data.size()) {
    const auto rest = data.subspan(at);
    std::size_t count = std::min(rest.size(), 1 + random.below(random.one_in(3) ? 100 : 5 * block));
    if (const std::size_t zeros = zeros_from(rest); zeros != 0 && random.one_in(2)) {
      count = random.one_in(2) ? zeros : 1 + random.below(zeros);
      ASSERT_TRUE(builder.add_zeros(count));
    } else if (at % block == 0 && random.one_in(2)) {
      std::vector<std::uint8_t> digests;
      count = 0;
      for (std::size_t blocks = random.below(20); blocks > 0 && count < rest.size(); --blocks) {
        const auto one = rest.subspan(count, std::min<std::size_t>(block, rest.size() - count));
        digests.resize(digests.size() + hasher->digest_size());
        hasher->hash(one, std::span(digests).last(hasher->digest_size()));
        count += one.size();
      }
      ASSERT_TRUE(builder.add_digests(digests));
    } else {
      ASSERT_TRUE(builder.add(rest.first(count)));
    }
    at += count;
  }
}

TEST_F(MerkleTree, V1_PiecesZerosAndDigestsMakeTheSameTree) {
  std::uint64_t seed = 10;
  for (const HashParameters& parameters : all_parameters()) {
    if (parameters.salt.size == 1) continue;
    for (const std::size_t size : {std::size_t{1}, std::size_t{5000}, std::size_t{65536}, std::size_t{1'000'003}}) {
      SCOPED_TRACE(describe(parameters) + ", " + std::to_string(size) + " bytes, seed " + std::to_string(++seed));
      const auto data = data_with_holes(size, seed);
      Tree whole, pieces;
      const Descriptor expected = build(data, parameters, whole);
      TreeBuilder builder = builder_for(size, parameters, pieces);
      Random random(seed);
      feed_at_random(builder, data, random);
      auto root = builder.finish();
      ASSERT_TRUE(root) << cause(root.errnum());
      EXPECT_EQ(*root, expected.root_hash);
      EXPECT_TRUE(pieces.bytes == whole.bytes);
      EXPECT_TRUE(pieces.complete());
    }
  }
}

// Half a terabyte of nothing: the digest of each level follows from the one below.
TEST_F(MerkleTree, V1_HugeHole) {
  constexpr std::uint64_t kFanout = 65536 / 32, kSize = 65536 * kFanout * kFanout * 2;
  const HashParameters parameters{.block_size = 65536, .salt = salt_of(3)};
  std::uint64_t blocks = 0;
  auto builder = TreeBuilder::create(kSize, parameters, [&blocks](std::uint64_t, std::span<const char>) -> Status {
    ++blocks;
    return {};
  });
  ASSERT_TRUE(builder);
  ASSERT_TRUE(builder->add_zeros(kSize));
  auto root = builder->finish();
  ASSERT_TRUE(root);
  EXPECT_EQ(blocks, 2 * kFanout + 2 + 1);

  auto hasher = BlockHasher::create(parameters);
  Digest digest{.algorithm = parameters.algorithm, .bytes = {}};
  hasher->hash({}, digest.view());
  for (const std::uint64_t count : {kFanout, kFanout, std::uint64_t{2}}) {
    std::vector<char> block;
    for (std::uint64_t i = 0; i < count; ++i) block.insert(block.end(), digest.view().begin(), digest.view().end());
    hasher->hash(block, digest.view());
  }
  EXPECT_EQ(*root, digest);
}

// A verifier's walk, from any data block to the root.
TEST_F(MerkleTree, V1_EveryBlockIsOnItsWayToTheRoot) {
  for (const HashParameters& parameters : all_parameters()) {
    SCOPED_TRACE(describe(parameters));
    const auto data = random_bytes(1'500'001, 3);
    Tree tree;
    const Descriptor descriptor = build(data, parameters, tree);
    const TreeGeometry geometry = *descriptor.geometry();
    BlockHasher hasher = BlockHasher::create(parameters).take();
    const std::uint32_t size = geometry.block_size();
    for (std::uint64_t block = 0; block < geometry.data_blocks(); block += 1 + block / 7) {
      std::span<const char> child = std::span(data).subspan(block * size, geometry.data_in_block(block));
      for (unsigned level = 0; level < geometry.levels(); ++level) {
        const TreeGeometry::Place place = geometry.digest_over(level, block);
        const auto holder = std::span(tree.bytes).subspan(place.block, size);
        std::uint8_t digest[kMaxDigestSize];
        std::memcpy(digest, &holder[place.offset], hasher.digest_size());
        ASSERT_TRUE(hasher.matches(child, {digest, hasher.digest_size()})) << block << " in level " << level;
        const TreeGeometry::Position position = geometry.position(place.block / size);
        ASSERT_EQ(position.level, level);
        ASSERT_EQ(geometry.first_block(level) + position.index, place.block / size);
        if (level + 1 < geometry.levels()) {
          const TreeGeometry::Place above = geometry.digest_of_child(level + 1, position.index);
          ASSERT_EQ(above.block, geometry.digest_over(level + 1, block).block);
          ASSERT_EQ(above.offset, geometry.digest_over(level + 1, block).offset);
        }
        child = holder;
      }
      ASSERT_TRUE(hasher.matches(child, descriptor.root_hash.view()));
    }
  }
}

TEST_F(MerkleTree, GeometryOfKnownSizes) {
  const auto of = [](std::uint64_t size) { return *TreeGeometry::create(size, 4096, HashAlgorithm::sha256); };
  EXPECT_EQ(of(0).levels(), 0u);
  EXPECT_EQ(of(0).data_blocks(), 0u);
  EXPECT_EQ(of(4096).levels(), 0u);
  EXPECT_EQ(of(4096).tree_size(), 0u);
  EXPECT_EQ(of(4097).levels(), 1u);
  EXPECT_EQ(of(4097).tree_size(), 4096u);
  EXPECT_EQ(of(4097).data_in_block(0), 4096u);
  EXPECT_EQ(of(4097).data_in_block(1), 1u);
  EXPECT_EQ(of(128 * 4096).levels(), 1u);
  const TreeGeometry two = of(128 * 4096 + 1);
  EXPECT_EQ(two.levels(), 2u);
  EXPECT_EQ(two.first_block(1), 0u) << "the root's level comes first";
  EXPECT_EQ(two.first_block(0), 1u);
  EXPECT_EQ(two.block_count(0), 2u);
  EXPECT_EQ(two.digest_over(0, 128).block, 2 * 4096u);
  EXPECT_EQ(two.digest_over(0, 127).offset, 127 * 32u);
  EXPECT_EQ(two.digest_over(1, 128).offset, 32u);
}

TEST_F(MerkleTree, GeometryOfTheLargestFiles) {
  for (const HashParameters& parameters : all_parameters()) {
    SCOPED_TRACE(describe(parameters));
    const std::uint64_t size = INT64_MAX, block = parameters.block_size;
    auto geometry = TreeGeometry::create(size, parameters.block_size, parameters.algorithm);
    ASSERT_TRUE(geometry);
    EXPECT_EQ(geometry->data_blocks(), (std::uint64_t{1} << 63) / block);
    std::uint64_t blocks = geometry->data_blocks(), all = 0;
    for (unsigned level = 0; level < geometry->levels(); ++level) {
      blocks = (blocks + geometry->digests_per_block() - 1) / geometry->digests_per_block();
      EXPECT_EQ(geometry->block_count(level), blocks);
      all += blocks;
    }
    EXPECT_EQ(blocks, 1u);
    EXPECT_EQ(geometry->tree_size(), all * block);
    EXPECT_LT(geometry->tree_size(), std::uint64_t{1} << 60);
    const std::uint64_t last = geometry->data_blocks() - 1;
    EXPECT_EQ(geometry->data_in_block(last), block - 1);
    for (unsigned level = 0; level < geometry->levels(); ++level) {
      const TreeGeometry::Place place = geometry->digest_over(level, last);
      EXPECT_EQ(place.block / block, geometry->first_block(level) + geometry->block_count(level) - 1);
      EXPECT_EQ(geometry->position(place.block / block).level, level);
      EXPECT_EQ(geometry->digest_over(level, 0).block / block, geometry->first_block(level));
    }
    EXPECT_EQ(TreeGeometry::create(size + 1, parameters.block_size, parameters.algorithm).errnum(), EFBIG);
    EXPECT_EQ(TreeGeometry::create(UINT64_MAX, parameters.block_size, parameters.algorithm).errnum(), EFBIG);
  }
  auto deepest = TreeGeometry::create(INT64_MAX, 1024, HashAlgorithm::sha512);
  EXPECT_EQ(deepest->levels(), TreeGeometry::kMaxLevels);
  for (const std::uint32_t size : {0u, 512u, 3000u, 131072u}) {
    EXPECT_EQ(TreeGeometry::create(1, size, HashAlgorithm::sha256).errnum(), EINVAL) << size;
  }
}

TEST_F(MerkleTree, TellsThatTheFileChangedItsSize) {
  const std::vector<char> data(10'000, 'x');
  const std::vector<std::uint8_t> digests(3 * 32);
  const HashParameters parameters;
  Tree ignored;
  TreeBuilder builder = builder_for(9'000, parameters, ignored);
  EXPECT_EQ(builder.add(data).errnum(), EINVAL);
  EXPECT_TRUE(says(EINVAL, "grown"));
  EXPECT_EQ(builder.add_zeros(9'001).errnum(), EINVAL);
  EXPECT_EQ(builder.add_zeros(UINT64_MAX).errnum(), EINVAL);
  EXPECT_EQ(builder.add_digests(std::span(digests).first(33)).errnum(), EINVAL);
  EXPECT_TRUE(builder.add_digests(std::span(digests).first(32)));
  EXPECT_EQ(builder.add_digests(digests).errnum(), EINVAL);
  EXPECT_TRUE(builder.add(std::span(data).first(1)));
  EXPECT_EQ(builder.add_digests(std::span(digests).first(32)).errnum(), EINVAL);
  EXPECT_TRUE(says(EINVAL, "in the middle"));
  EXPECT_EQ(builder.finish().errnum(), EINVAL);
  EXPECT_TRUE(says(EINVAL, "it had 9000 bytes, and 4097 came"));
  EXPECT_TRUE(builder.add_zeros(9'000 - 4'097));
  EXPECT_EQ(builder.add(std::span(data).first(1)).errnum(), EINVAL);
  EXPECT_EQ(builder.add_digests(std::span(digests).first(32)).errnum(), EINVAL);
  EXPECT_TRUE(builder.finish());
}

TEST_F(MerkleTree, TheSinksFailureIsTheCallersOwn) {
  const std::vector<char> data(300 * 1024, 'x');
  for (std::uint64_t fails_at = 0; fails_at < 12; ++fails_at) {
    std::uint64_t calls = 0;
    auto builder = TreeBuilder::create(data.size(), {.block_size = 1024, .salt = {}},
                                       [&](std::uint64_t, std::span<const char>) -> Status {
                                         if (calls++ == fails_at) return fail_with(ENOSPC, "no room for the tree");
                                         return {};
                                       });
    ASSERT_TRUE(builder);
    int errnum = builder->add(data).errnum();
    if (errnum == 0) errnum = builder->finish().errnum();
    EXPECT_EQ(errnum, fails_at < 11 ? ENOSPC : 0) << "10 blocks of leaves and the root's";
    if (errnum != 0) {
      EXPECT_TRUE(says(ENOSPC, "no room for the tree"));
    }
  }
}

TEST_F(MerkleTree, RefusesParametersThatFsverityHasNot) {
  EXPECT_EQ(TreeBuilder::create(1, {.block_size = 100, .salt = {}}, {}).errnum(), EINVAL);
  EXPECT_EQ(TreeBuilder::create(UINT64_MAX, {}, {}).errnum(), EFBIG);
}

}  // namespace
}  // namespace quire::verity
