// Digests: their text, and blocks with salt and padding against plain hashes of the same bytes.
#include "verity/digest.h"

#include "verity/verity_test_util.h"

namespace quire::verity {
namespace {

using verity_testing::all_parameters;
using verity_testing::describe;
using verity_testing::random_bytes;
using verity_testing::says;

constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";  // FIPS 180-2, B.1

TEST(VerityDigest, HashesAsTheStandardSays) {
  const std::uint8_t abc[] = {'a', 'b', 'c'};
  EXPECT_EQ(to_string(*hash_bytes(HashAlgorithm::sha256, abc)), std::string("sha256:") + kAbc);
  EXPECT_EQ(to_string(*hash_bytes(HashAlgorithm::sha512, abc)),
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

TEST(VerityDigest, ParsesWhatItPrintsInAnyCase) {
  for (const HashAlgorithm algorithm : {HashAlgorithm::sha256, HashAlgorithm::sha512}) {
    Random random(static_cast<std::uint64_t>(algorithm));
    Digest digest{.algorithm = algorithm, .bytes = {}};
    for (std::uint8_t& byte : digest.view()) byte = static_cast<std::uint8_t>(random.next());
    std::string text = to_string(digest);
    EXPECT_EQ(*parse_digest(text), digest);
    EXPECT_EQ(*parse_digest(text.substr(7)), digest) << "the length tells the algorithm";
    for (char& c : text) c = static_cast<char>(std::toupper(c));
    EXPECT_EQ(*parse_digest(text), digest);
    EXPECT_EQ(*parse_digest(text.substr(7)), digest);
  }
}

TEST(VerityDigest, RefusesWhatIsNoDigest) {
  const std::string hex = kAbc;
  const struct {
    std::string text;
    const char* said;
  } cases[] = {
      {"", "64 hexadecimal digits (sha256) or 128 (sha512), not 0"},
      {hex.substr(1), "not 63"},
      {"sha256:", "a sha256 digest has 64 hexadecimal digits, not 0"},
      {"sha512:" + hex, "a sha512 digest has 128 hexadecimal digits, not 64"},
      {"sha256:" + hex + hex, "not 128"},
      {"md5:" + hex, "\"md5\" is no hash algorithm"},
      {":" + hex, "\"\" is no hash algorithm"},
      {"sha256 :" + hex, "no hash algorithm"},
      {"sha256:" + hex.substr(1) + "g", "character 64 of the hexadecimal digits is none"},
      {" " + hex.substr(1), "character 1 of"},
      {"sha256:sha256:" + hex.substr(7), "character 1 of"},
      {hex.substr(0, 63) + '\0', "character 64 of"},
  };
  for (const auto& c : cases) {
    const auto digest = parse_digest(c.text);
    EXPECT_EQ(digest.errnum(), EINVAL) << c.text;
    EXPECT_TRUE(says(EINVAL, c.said));
  }
}

TEST(VerityDigest, Algorithms) {
  EXPECT_EQ(*parse_algorithm("SHA512"), HashAlgorithm::sha512);
  EXPECT_EQ(*parse_algorithm("sha256"), HashAlgorithm::sha256);
  EXPECT_EQ(parse_algorithm("sha1").errnum(), EINVAL);
  EXPECT_EQ(parse_algorithm(std::string(1000, 'x')).errnum(), EINVAL);
  EXPECT_EQ(*algorithm_of_number(2), HashAlgorithm::sha512);
  for (const unsigned number : {0u, 3u, 257u}) EXPECT_EQ(algorithm_of_number(number).errnum(), EINVAL);
}

TEST(VerityDigest, Salts) {
  const std::vector<std::uint8_t> bytes(33, 9);
  EXPECT_EQ(make_salt(bytes).errnum(), EMSGSIZE);
  EXPECT_EQ(make_salt(std::span(bytes).first(32))->size, 32);
  EXPECT_EQ(parse_salt("")->size, 0);
  EXPECT_EQ(*parse_salt("0aFF"), *make_salt(std::vector<std::uint8_t>{10, 255}));
  EXPECT_EQ(parse_salt("0").errnum(), EINVAL);
  EXPECT_EQ(parse_salt("0x").errnum(), EINVAL);
  EXPECT_EQ(parse_salt(std::string(66, '0')).errnum(), EMSGSIZE);
}

// The plain hash of salt, its padding, the block and its padding.
Digest by_hand(const HashParameters& parameters, std::span<const char> block) {
  const std::size_t salt = parameters.salt.size == 0 ? 0 : parameters.algorithm == HashAlgorithm::sha512 ? 128 : 64;
  std::vector<std::uint8_t> bytes(salt + parameters.block_size);
  std::copy(parameters.salt.view().begin(), parameters.salt.view().end(), bytes.begin());
  std::copy(block.begin(), block.end(), bytes.begin() + static_cast<long>(salt));
  return *hash_bytes(parameters.algorithm, bytes);
}

TEST(BlockHasher, PadsSaltAndBlock) {
  for (const HashParameters& parameters : all_parameters()) {
    SCOPED_TRACE(describe(parameters));
    auto hasher = BlockHasher::create(parameters);
    ASSERT_TRUE(hasher);
    auto copy = hasher->clone();
    ASSERT_TRUE(copy);
    const auto data = random_bytes(parameters.block_size, 5);
    Digest digest{.algorithm = parameters.algorithm, .bytes = {}};
    for (const std::uint32_t size : {parameters.block_size, 1u, 0u, 1023u, parameters.block_size - 1}) {
      const auto block = std::span(data).first(size);
      const Digest expected = by_hand(parameters, block);
      hasher->hash(block, digest.view());
      EXPECT_EQ(digest, expected) << size;
      EXPECT_TRUE(copy->matches(block, expected.view())) << size;
      digest.bytes[size % digest.size()] ^= 1;
      EXPECT_FALSE(copy->matches(block, digest.view())) << size;
    }
    const Digest zeros = by_hand(parameters, {});
    EXPECT_TRUE(std::ranges::equal(hasher->zero_digest(), zeros.view()));
    EXPECT_TRUE(std::ranges::equal(copy->zero_digest(), zeros.view()));
    std::vector<char> block(parameters.block_size);
    for (const std::size_t size : {block.size(), std::size_t{0}, std::size_t{1}, block.size() - 1}) {
      EXPECT_TRUE(copy->matches(std::span(block).first(size), zeros.view())) << size;
      copy->hash(std::span(block).first(size), digest.view());
      EXPECT_EQ(digest, zeros) << size;
    }
    for (const std::size_t at : {std::size_t{0}, block.size() / 2 + 7, block.size() - 1}) {
      block[at] = 1;
      EXPECT_FALSE(copy->matches(block, zeros.view())) << at;
      copy->hash(block, digest.view());
      EXPECT_EQ(digest, by_hand(parameters, block)) << at;
      EXPECT_TRUE(copy->matches(std::span(block).first(at), zeros.view())) << at;
      EXPECT_FALSE(copy->matches(std::span(block).first(at + 1), zeros.view())) << at;
      block[at] = 0;
    }
    EXPECT_EQ(copy->block_size(), parameters.block_size);
    EXPECT_EQ(copy->algorithm(), parameters.algorithm);
  }
}

TEST(BlockHasher, RefusesBlocksThatFsverityHasNot) {
  for (const std::uint32_t size : {0u, 1u, 512u, 1023u, 1025u, 4095u, 6144u, 131072u, 1u << 31}) {
    EXPECT_EQ(BlockHasher::create({.block_size = size, .salt = {}}).errnum(), EINVAL) << size;
  }
}

}  // namespace
}  // namespace quire::verity
