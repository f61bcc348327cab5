// Descriptors: what may stand in them, and the bytes that are signed, against the fsverity program. (That descriptors
// are fsverity's, byte for byte: merkle_tree_test.cc.)
#include "verity/descriptor.h"

#include <algorithm>

#include "verity/verity_test_util.h"

namespace quire::verity {
namespace {

using verity_testing::cause;
using verity_testing::run_well;
using verity_testing::salt_of;
using verity_testing::says;

class VerityDescriptor : public verity_testing::VerityTest {};

Descriptor example(HashAlgorithm algorithm, std::size_t salt) {
  Descriptor descriptor{.parameters = {.algorithm = algorithm, .block_size = 8192, .salt = salt_of(salt)},
                        .data_size = 123'456'789,
                        .root_hash = {.algorithm = algorithm, .bytes = {}}};
  std::uint8_t next = 0x40;
  for (std::uint8_t& byte : descriptor.root_hash.view()) byte = next++;
  return descriptor;
}

void expect_same(const Descriptor& a, const Descriptor& b) {
  EXPECT_EQ(a.parameters.algorithm, b.parameters.algorithm);
  EXPECT_EQ(a.parameters.block_size, b.parameters.block_size);
  EXPECT_EQ(a.parameters.salt, b.parameters.salt);
  EXPECT_EQ(a.data_size, b.data_size);
  EXPECT_EQ(a.root_hash, b.root_hash);
}

TEST_F(VerityDescriptor, V1_ParsesWhatItWrites) {
  for (const HashAlgorithm algorithm : {HashAlgorithm::sha256, HashAlgorithm::sha512}) {
    for (const std::size_t salt : {0, 1, 32}) {
      const Descriptor descriptor = example(algorithm, salt);
      auto parsed = parse_descriptor(serialize(descriptor));
      ASSERT_TRUE(parsed) << cause(parsed.errnum());
      expect_same(*parsed, descriptor);
      EXPECT_TRUE(parsed->geometry());
    }
  }
}

TEST_F(VerityDescriptor, V1_RefusesEveryMalformedField) {
  const auto good = serialize(example(HashAlgorithm::sha256, 5));
  const struct {
    std::size_t at;
    std::uint8_t value;
    const char* said;
  } cases[] = {{0, 0, "version"},
               {0, 2, "version"},
               {1, 0, "hash algorithm"},
               {1, 3, "hash algorithm"},
               {2, 9, "block size"},
               {2, 17, "block size"},
               {2, 255, "block size"},
               {3, 33, "more than 32"},
               {3, 4, "not zeros after the salt"},
               {4, 1, "reserved"},
               {7, 128, "reserved"},
               {15, 128, "a file of"},
               {48, 1, "after a root hash"},
               {79, 1, "after a root hash"},
               {85, 1, "not zeros after the salt"},
               {111, 1, "not zeros after the salt"},
               {112, 1, "unused"},
               {255, 1, "unused"}};
  for (const auto& c : cases) {
    auto bytes = good;
    bytes[c.at] = c.value;
    EXPECT_EQ(parse_descriptor(bytes).errnum(), EBADMSG) << c.at;
    EXPECT_TRUE(says(EBADMSG, c.said));
  }
  for (const std::size_t size : {0u, 1u, 255u}) {
    EXPECT_EQ(parse_descriptor(std::span(good).first(size)).errnum(), EBADMSG) << size;
  }
  std::vector<std::uint8_t> longer(good.begin(), good.end());
  longer.push_back(0);
  EXPECT_EQ(parse_descriptor(longer).errnum(), EBADMSG);

  Descriptor empty = example(HashAlgorithm::sha256, 0);
  empty.data_size = 0;
  EXPECT_EQ(parse_descriptor(serialize(empty)).errnum(), EBADMSG) << "an empty file's root hash is zeros";
  empty.root_hash.bytes = {};
  EXPECT_TRUE(parse_descriptor(serialize(empty)));
}

// Any bytes: an error, or a descriptor that stands for exactly these bytes.
TEST_F(VerityDescriptor, V1_NothingIsReadTwoWays) {
  Random random(4);
  std::uint64_t accepted = 0;
  const auto check = [&accepted](std::span<const std::uint8_t> bytes) {
    const auto parsed = parse_descriptor(bytes);
    if (!parsed) {
      EXPECT_EQ(parsed.errnum(), EBADMSG);
      return;
    }
    ++accepted;
    EXPECT_TRUE(std::ranges::equal(serialize(parsed.value()), bytes));
    EXPECT_TRUE(parsed.value().geometry());
  };
  for (const HashAlgorithm algorithm : {HashAlgorithm::sha256, HashAlgorithm::sha512}) {
    const auto good = serialize(example(algorithm, 7));
    for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
      auto bytes = good;
      bytes[bit / 8] ^= static_cast<std::uint8_t>(1 << bit % 8);
      check(bytes);
    }
    for (int round = 0; round < 20'000; ++round) {
      auto bytes = good;
      for (std::uint64_t changes = 1 + random.below(4); changes > 0; --changes) {
        bytes[random.below(random.one_in(2) ? 16 : bytes.size())] = static_cast<std::uint8_t>(random.below(40));
      }
      check(bytes);
    }
  }
  EXPECT_GT(accepted, 1000u) << "of other files, salts and root hashes";
}

TEST_F(VerityDescriptor, V1_FormattedDigestOfFsverity) {
  SKIP_WITHOUT_FSVERITY();
  write("file", std::vector<char>(10'000, 'q'));
  for (const HashAlgorithm algorithm : {HashAlgorithm::sha256, HashAlgorithm::sha512}) {
    auto words = fsverity_digest({.algorithm = algorithm, .salt = salt_of(2)});
    words.push_back(path("file"));
    std::string text = run_well(words);
    text.pop_back();
    auto digest = parse_digest(text);
    ASSERT_TRUE(digest) << text;
    words.push_back("--for-builtin-sig");
    EXPECT_EQ(run_well(words), verity_testing::hex(formatted_digest(*digest).view()) + "\n");
  }
}

}  // namespace
}  // namespace quire::verity
