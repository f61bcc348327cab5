// The sidecar's header, written and read. See sidecar.h.
#include "verity/sidecar.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "verity/little_endian.h"
#include "verity/signature.h"

namespace quire::verity {
namespace {

constexpr char kMagic[] = {'Q', 'U', 'I', 'R', 'E', 'V', 'T', 'Y'};
constexpr std::uint32_t kVersion = 1;

constexpr std::size_t kVersionAt = 8, kSignatureSizeAt = 12, kTreeOffsetAt = 16, kTreeSizeAt = 24;
constexpr std::size_t kDescriptorAt = 32, kSignatureAt = kDescriptorAt + kDescriptorSize;
constexpr std::size_t kChecksumAt = kSidecarHeaderSize - 32;
static_assert(kSignatureAt + kMaxSignatureSize <= kChecksumAt);

unsigned long long ull(std::uint64_t value) { return value; }

Result<Digest> checksum(std::span<const char> header) {
  return hash_bytes(HashAlgorithm::sha256, {reinterpret_cast<const std::uint8_t*>(header.data()), kChecksumAt});
}

// That these are a header of this version, and undamaged.
Status check_header(std::span<const char> header) {
  if (header.size() != kSidecarHeaderSize) {
    return fail_with(EBADMSG, "the verity sidecar ends after %zu bytes, within its header", header.size());
  }
  if (std::memcmp(header.data(), kMagic, sizeof kMagic) != 0) {
    return fail_with(EBADMSG, "this is no verity sidecar of quire: it does not begin with \"QUIREVTY\"");
  }
  if (const auto version = load_le<std::uint32_t>(&header[kVersionAt]); version != kVersion) {
    return fail_with(EBADMSG, "the verity sidecar has version %u, and this quire knows version %u", version, kVersion);
  }
  auto sum = checksum(header);
  QUIRE_TRY(sum);
  if (std::memcmp(&header[kChecksumAt], sum->bytes.data(), sum->size()) != 0) {
    return fail_with(EBADMSG, "the header of the verity sidecar is damaged: its checksum is wrong");
  }
  return {};
}

// That tree, sidecar and file have the sizes that the descriptor says.
Status check_sizes(std::span<const char> header, const Descriptor& descriptor, std::uint64_t sidecar_size,
                   std::uint64_t data_size) {
  if (descriptor.data_size != data_size) {
    return fail_with(EBADMSG, "the verity sidecar is of a file of %llu bytes, and the file has %llu",
                     ull(descriptor.data_size), ull(data_size));
  }
  auto geometry = descriptor.geometry();
  QUIRE_TRY(geometry);
  const std::uint64_t tree_size = geometry->tree_size();
  const auto offset_said = load_le<std::uint64_t>(&header[kTreeOffsetAt]);
  const auto size_said = load_le<std::uint64_t>(&header[kTreeSizeAt]);
  if (offset_said != kSidecarHeaderSize || size_said != tree_size) {
    return fail_with(EBADMSG, "the verity sidecar says %llu bytes of hash tree at byte %llu, not %llu at byte %llu",
                     ull(size_said), ull(offset_said), ull(tree_size), ull(kSidecarHeaderSize));
  }
  if (sidecar_size != kSidecarHeaderSize + tree_size) {
    return fail_with(EBADMSG, "the verity sidecar has %llu bytes, not the %llu of its header and hash tree",
                     ull(sidecar_size), ull(kSidecarHeaderSize + tree_size));
  }
  return {};
}

}  // namespace

Result<std::vector<char>> encode_sidecar(const Sidecar& sidecar) {
  auto geometry = sidecar.descriptor.geometry();
  QUIRE_TRY(geometry);
  if (sidecar.signature.size() > kMaxSignatureSize) {
    return fail_with(EMSGSIZE, "a signature of %zu bytes: %zu is the limit", sidecar.signature.size(),
                     kMaxSignatureSize);
  }
  std::vector<char> header(kSidecarHeaderSize);
  const auto descriptor = serialize(sidecar.descriptor);
  std::memcpy(header.data(), kMagic, sizeof kMagic);
  store_le(&header[kVersionAt], kVersion);
  store_le(&header[kSignatureSizeAt], static_cast<std::uint32_t>(sidecar.signature.size()));
  store_le(&header[kTreeOffsetAt], std::uint64_t{kSidecarHeaderSize});
  store_le(&header[kTreeSizeAt], geometry->tree_size());
  std::memcpy(&header[kDescriptorAt], descriptor.data(), descriptor.size());
  std::copy(sidecar.signature.begin(), sidecar.signature.end(), header.begin() + kSignatureAt);
  auto sum = checksum(header);
  QUIRE_TRY(sum);
  std::memcpy(&header[kChecksumAt], sum->bytes.data(), sum->size());
  return header;
}

Result<Sidecar> decode_sidecar(std::span<const char> header, std::uint64_t sidecar_size, std::uint64_t data_size) {
  QUIRE_TRY(check_header(header));
  const std::span bytes(reinterpret_cast<const std::uint8_t*>(header.data()), header.size());
  auto descriptor = parse_descriptor(bytes.subspan(kDescriptorAt, kDescriptorSize));
  QUIRE_TRY(descriptor);
  QUIRE_TRY(check_sizes(header, *descriptor, sidecar_size, data_size));
  const auto signature_size = load_le<std::uint32_t>(&header[kSignatureSizeAt]);
  if (signature_size > kMaxSignatureSize) {
    return fail_with(EBADMSG, "the verity sidecar has a signature of %u bytes: %zu is the limit", signature_size,
                     kMaxSignatureSize);
  }
  const auto signature = bytes.subspan(kSignatureAt, signature_size);
  const auto unused = bytes.subspan(kSignatureAt + signature_size, kChecksumAt - kSignatureAt - signature_size);
  if (!std::all_of(unused.begin(), unused.end(), [](std::uint8_t byte) { return byte == 0; })) {
    return fail_with(EBADMSG, "the verity sidecar has bytes after its signature that are not zeros");
  }
  return Sidecar{.descriptor = *descriptor, .signature = {signature.begin(), signature.end()}};
}

}  // namespace quire::verity
