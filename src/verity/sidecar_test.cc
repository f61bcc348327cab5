// The sidecar's header: what was put in comes out, and nothing else is accepted.
#include "verity/sidecar.h"

#include <algorithm>

#include "verity/signature.h"
#include "verity/verity_test_util.h"

namespace quire::verity {
namespace {

using verity_testing::cause;
using verity_testing::random_bytes;
using verity_testing::salt_of;
using verity_testing::says;

constexpr std::uint64_t kDataSize = 1'000'000;
constexpr std::size_t kChecksumAt = kSidecarHeaderSize - 32;

Sidecar example(std::size_t signature_size) {
  const auto signature = random_bytes(signature_size, 6);
  const Digest root{.algorithm = HashAlgorithm::sha512, .bytes = {1, 2, 3}};
  return {.descriptor = {.parameters = {.algorithm = HashAlgorithm::sha512, .block_size = 1024, .salt = salt_of(3)},
                         .data_size = kDataSize,
                         .root_hash = root},
          .signature = {signature.begin(), signature.end()}};
}

std::uint64_t file_size(const Sidecar& sidecar) {
  return kSidecarHeaderSize + sidecar.descriptor.geometry()->tree_size();
}

std::vector<char> encode(const Sidecar& sidecar) {
  auto header = encode_sidecar(sidecar);
  EXPECT_TRUE(header) << cause(header.errnum());
  return header.take();
}

// As somebody does who means to mislead.
void seal(std::span<char> header) {
  const auto sum =
      *hash_bytes(HashAlgorithm::sha256, {reinterpret_cast<const std::uint8_t*>(header.data()), kChecksumAt});
  std::memcpy(&header[kChecksumAt], sum.bytes.data(), 32);
}

// An error that says why, or a sidecar that stands for exactly these bytes.
bool accepted(std::span<const char> header, std::uint64_t sidecar_size, std::uint64_t data_size) {
  auto decoded = decode_sidecar(header, sidecar_size, data_size);
  if (!decoded) {
    EXPECT_EQ(decoded.errnum(), EBADMSG);
    return false;
  }
  EXPECT_EQ(decoded->descriptor.data_size, data_size);
  EXPECT_EQ(file_size(*decoded), sidecar_size);
  EXPECT_TRUE(std::ranges::equal(encode(*decoded), header));
  return true;
}

TEST(Sidecar, V1_WhatWasPutInComesOut) {
  for (const std::size_t signature : {std::size_t{0}, std::size_t{199}, kMaxSignatureSize}) {
    const Sidecar sidecar = example(signature);
    const auto header = encode(sidecar);
    ASSERT_EQ(header.size(), kSidecarHeaderSize);
    auto decoded = decode_sidecar(header, file_size(sidecar), kDataSize);
    ASSERT_TRUE(decoded) << cause(decoded.errnum());
    EXPECT_EQ(decoded->signature, sidecar.signature);
    EXPECT_EQ(serialize(decoded->descriptor), serialize(sidecar.descriptor));
  }
  EXPECT_EQ(encode_sidecar(example(kMaxSignatureSize + 1)).errnum(), EMSGSIZE);
}

TEST(Sidecar, V1_EmptyAndOneBlockFilesHaveNoTree) {
  for (const std::uint64_t size : {0u, 1u, 1024u}) {
    Sidecar sidecar = example(0);
    sidecar.descriptor.data_size = size;
    if (size == 0) sidecar.descriptor.root_hash.bytes = {};
    EXPECT_TRUE(accepted(encode(sidecar), kSidecarHeaderSize, size));
  }
}

TEST(Sidecar, V1_SizesHaveToAgree) {
  const Sidecar sidecar = example(50);
  const auto header = encode(sidecar);
  const std::uint64_t size = file_size(sidecar);
  EXPECT_FALSE(accepted(header, size, kDataSize + 1));
  EXPECT_TRUE(says(EBADMSG, "of a file of 1000000 bytes, and the file has 1000001"));
  EXPECT_FALSE(accepted(header, size - 1, kDataSize));
  EXPECT_TRUE(says(EBADMSG, std::to_string(size - 1) + " bytes, not the " + std::to_string(size)));
  for (const std::uint64_t other : {std::uint64_t{0}, kDataSize - 1, UINT64_MAX}) {
    EXPECT_FALSE(accepted(header, size, other));
    EXPECT_FALSE(accepted(header, other, kDataSize));
  }
}

// All bits of everything that means something, and of every byte after it one.
TEST(Sidecar, V1_EveryFlippedBitIsFound) {
  const Sidecar sidecar = example(100);
  const std::uint64_t size = file_size(sidecar);
  auto header = encode(sidecar);
  const std::size_t used = 288 + sidecar.signature.size() + 16;
  std::size_t found = 0, tried = 0;
  for (std::size_t byte = 0; byte < header.size(); ++byte) {
    const bool all = byte < used || byte >= kChecksumAt;
    if (!all && byte % 5 != 0) continue;  // what SHA-256 does to one does it to the others
    for (std::size_t bit = all ? 0 : byte / 5 % 8; bit < 8; bit += all ? 1 : 8) {
      header[byte] = static_cast<char>(header[byte] ^ 1 << bit);
      ++tried;
      found += !decode_sidecar(header, size, kDataSize).ok();
      header[byte] = static_cast<char>(header[byte] ^ 1 << bit);
    }
  }
  EXPECT_EQ(found, tried);
  EXPECT_TRUE(accepted(header, size, kDataSize));
}

TEST(Sidecar, V1_EveryTruncationIsFound) {
  const Sidecar sidecar = example(100);
  const auto header = encode(sidecar);
  for (std::size_t size = 0; size < header.size(); ++size) {
    ASSERT_EQ(decode_sidecar(std::span(header).first(size), size, kDataSize).errnum(), EBADMSG) << size;
  }
  EXPECT_TRUE(says(EBADMSG, "within its header"));
  std::vector<char> longer = header;
  longer.push_back(0);
  EXPECT_FALSE(accepted(longer, file_size(sidecar), kDataSize));
}

// With a checksum that is right: what the fields say has to agree, and nothing is read two ways.
TEST(Sidecar, V1_ForgedHeadersAreWellFormedOrRefused) {
  const Sidecar sidecar = example(100);
  const auto good = encode(sidecar);
  const std::uint64_t size = file_size(sidecar);
  Random random(7);
  std::size_t passed = 0;
  const auto forge = [&](std::vector<char>& header) {
    seal(header);
    const bool same_size = std::memcmp(&header[32 + 8], &good[32 + 8], 8) == 0;
    passed += accepted(header, size, kDataSize);
    if (same_size) return;
    std::uint64_t said = 0;  // the file has whichever size it says
    std::memcpy(&said, &header[32 + 8], 8);
    passed += accepted(header, size, said);
  };
  for (std::size_t bit = 0; bit < 8 * 420; ++bit) {
    auto header = good;
    header[bit / 8] = static_cast<char>(header[bit / 8] ^ 1 << bit % 8);
    forge(header);
  }
  EXPECT_GT(passed, 1000u) << "other root hashes, salts and signatures";
  for (int round = 0; round < 2000; ++round) {
    auto header = good;
    const std::size_t end = random.one_in(2) ? 48 : random.one_in(2) ? 400 : kChecksumAt;
    for (std::uint64_t changes = 1 + random.below(3); changes > 0; --changes) {
      header[random.below(end)] = static_cast<char>(random.below(random.one_in(2) ? 20 : 256));
    }
    forge(header);
  }
}

TEST(Sidecar, V1_AnyBytes) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    auto header = random_bytes(kSidecarHeaderSize, seed);
    EXPECT_FALSE(accepted(header, kSidecarHeaderSize, seed));
    std::memcpy(header.data(), encode(example(0)).data(), seed % 290);
    seal(header);
    EXPECT_FALSE(accepted(header, kSidecarHeaderSize, kDataSize));
  }
}

TEST(Sidecar, SaysWhatIsWrong) {
  const Sidecar sidecar = example(10);
  const auto good = encode(sidecar);
  const struct {
    std::size_t at;
    char value;
    bool sealed;
    const char* said;
  } cases[] = {{0, 'q', false, "no verity sidecar of quire"},
               {8, 2, true, "version 2"},
               {100, 1, false, "damaged"},
               {12, 9, true, "not zeros"},
               {13, 127, true, "a signature of"},
               {18, 2, true, "of hash tree at byte"},
               {24, 1, true, "bytes of hash tree"}};
  for (const auto& c : cases) {
    auto header = good;
    header[c.at] = c.value;
    if (c.sealed) seal(header);
    EXPECT_FALSE(accepted(header, file_size(sidecar), kDataSize));
    EXPECT_TRUE(says(EBADMSG, c.said));
  }
}

}  // namespace
}  // namespace quire::verity
