// The descriptor's 256 bytes, written and read. See descriptor.h.
#include "verity/descriptor.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "verity/little_endian.h"

namespace quire::verity {
namespace {

constexpr std::uint8_t kVersion = 1;
constexpr unsigned kMinLogBlockSize = std::countr_zero(kMinBlockSize);
constexpr unsigned kMaxLogBlockSize = std::countr_zero(kMaxBlockSize);

constexpr std::size_t kVersionAt = 0, kAlgorithmAt = 1, kLogBlockSizeAt = 2, kSaltSizeAt = 3, kReservedAt = 4;
constexpr std::size_t kDataSizeAt = 8, kRootHashAt = 16, kSaltAt = 80, kUnusedAt = 112;
static_assert(kRootHashAt + kMaxDigestSize == kSaltAt && kSaltAt + kMaxSaltSize == kUnusedAt);

bool zeros(std::span<const std::uint8_t> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; });
}

Failure bad(const char* what, unsigned value) {
  return fail_with(EBADMSG, "a malformed verity descriptor: %s (%u)", what, value);
}

// What takes one byte each.
Status parse_parameters(std::span<const std::uint8_t> bytes, HashParameters& to) {
  if (bytes[kVersionAt] != kVersion) return bad("its version is not 1", bytes[kVersionAt]);
  if (bytes[kAlgorithmAt] != 1 && bytes[kAlgorithmAt] != 2) return bad("unknown hash algorithm", bytes[kAlgorithmAt]);
  if (bytes[kLogBlockSizeAt] < kMinLogBlockSize || bytes[kLogBlockSizeAt] > kMaxLogBlockSize) {
    return bad("the logarithm of the block size is not from 10 to 16", bytes[kLogBlockSizeAt]);
  }
  if (bytes[kSaltSizeAt] > kMaxSaltSize) return bad("more than 32 bytes of salt", bytes[kSaltSizeAt]);
  to.algorithm = static_cast<HashAlgorithm>(bytes[kAlgorithmAt]);
  to.block_size = std::uint32_t{1} << bytes[kLogBlockSizeAt];
  to.salt.size = bytes[kSaltSizeAt];
  std::memcpy(to.salt.bytes.data(), bytes.data() + kSaltAt, kMaxSaltSize);
  return {};
}

}  // namespace

std::array<std::uint8_t, kDescriptorSize> serialize(const Descriptor& descriptor) {
  const HashParameters& parameters = descriptor.parameters;
  CHECK(is_block_size(parameters.block_size));
  CHECK(parameters.salt.size <= kMaxSaltSize);
  CHECK(descriptor.root_hash.algorithm == parameters.algorithm);
  std::array<std::uint8_t, kDescriptorSize> bytes{};
  bytes[kVersionAt] = kVersion;
  bytes[kAlgorithmAt] = static_cast<std::uint8_t>(parameters.algorithm);
  bytes[kLogBlockSizeAt] = static_cast<std::uint8_t>(std::countr_zero(parameters.block_size));
  bytes[kSaltSizeAt] = parameters.salt.size;
  store_le(&bytes[kDataSizeAt], descriptor.data_size);
  std::memcpy(&bytes[kRootHashAt], descriptor.root_hash.bytes.data(), descriptor.root_hash.size());
  std::memcpy(&bytes[kSaltAt], parameters.salt.bytes.data(), parameters.salt.size);
  return bytes;
}

Result<Descriptor> parse_descriptor(std::span<const std::uint8_t> bytes) {
  if (bytes.size() != kDescriptorSize) {
    return fail_with(EBADMSG, "a verity descriptor has %zu bytes, not %zu", kDescriptorSize, bytes.size());
  }
  Descriptor descriptor;
  QUIRE_TRY(parse_parameters(bytes, descriptor.parameters));
  const Salt& salt = descriptor.parameters.salt;
  Digest& root_hash = descriptor.root_hash;
  root_hash.algorithm = descriptor.parameters.algorithm;
  std::memcpy(root_hash.bytes.data(), &bytes[kRootHashAt], kMaxDigestSize);
  descriptor.data_size = load_le<std::uint64_t>(&bytes[kDataSizeAt]);

  const std::uint32_t reserved = load_le<std::uint32_t>(&bytes[kReservedAt]);
  if (reserved != 0) return bad("its reserved bytes are not zeros", reserved);
  if (descriptor.data_size > kMaxFileSize) {
    return fail_with(EBADMSG, "a malformed verity descriptor: a file of %llu bytes",
                     static_cast<unsigned long long>(descriptor.data_size));
  }
  if (!zeros(std::span(root_hash.bytes).subspan(root_hash.size()))) {
    return bad("not zeros after a root hash shorter than its field", static_cast<unsigned>(root_hash.size()));
  }
  if (descriptor.data_size == 0 && !zeros(root_hash.view())) {
    return bad("the root hash of an empty file is not zeros", 0);
  }
  if (!zeros(std::span(salt.bytes).subspan(salt.size))) return bad("not zeros after the salt", salt.size);
  if (!zeros(bytes.subspan(kUnusedAt))) return bad("its unused bytes are not zeros", kUnusedAt);
  return descriptor;
}

Result<Digest> file_digest(const Descriptor& descriptor) {
  return hash_bytes(descriptor.parameters.algorithm, serialize(descriptor));
}

FormattedDigest formatted_digest(const Digest& file_digest) {
  FormattedDigest formatted;
  std::memcpy(formatted.bytes.data(), "FSVerity", 8);
  store_le(&formatted.bytes[8], static_cast<std::uint16_t>(file_digest.algorithm));
  store_le(&formatted.bytes[10], static_cast<std::uint16_t>(file_digest.size()));
  std::memcpy(&formatted.bytes[12], file_digest.bytes.data(), file_digest.size());
  formatted.size = 12 + file_digest.size();
  return formatted;
}

}  // namespace quire::verity
