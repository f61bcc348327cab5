// Linux's struct fsverity_descriptor, whose hash is a file's digest, and the form of that digest which is signed.
// Thread safety: plain values.
//
//   byte  0  version, 1             8  size of the file, le64
//         1  hash algorithm        16  root hash, zeros after it
//         2  log2 of block size    80  salt, zeros after it
//         3  bytes of salt        112  zeros, up to 256
//         4  zeros
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "quire/result.h"
#include "verity/digest.h"
#include "verity/merkle_tree.h"

namespace quire::verity {

inline constexpr std::size_t kDescriptorSize = 256;

struct Descriptor {
  HashParameters parameters;
  std::uint64_t data_size = 0;
  Digest root_hash;  // of the parameters' algorithm

  // Those of a descriptor that was parsed do not fail.
  Result<TreeGeometry> geometry() const {
    return TreeGeometry::create(data_size, parameters.block_size, parameters.algorithm);
  }
};

std::array<std::uint8_t, kDescriptorSize> serialize(const Descriptor& descriptor);
// EBADMSG: whatever `fsverity` would not have written.
Result<Descriptor> parse_descriptor(std::span<const std::uint8_t> bytes);

// What `fsverity digest` prints and FS_IOC_MEASURE_VERITY tells. ENOPKG, ENOMEM.
Result<Digest> file_digest(const Descriptor& descriptor);

// What is signed: "FSVerity", algorithm and size of the digest as le16, the digest.
struct FormattedDigest {
  std::array<std::uint8_t, 12 + kMaxDigestSize> bytes{};
  std::size_t size = 0;

  std::span<const std::uint8_t> view() const { return {bytes.data(), size}; }
};
FormattedDigest formatted_digest(const Digest& file_digest);

}  // namespace quire::verity
