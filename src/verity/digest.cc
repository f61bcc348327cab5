// Digests by OpenSSL, and their hexadecimal form. See digest.h.
#include "verity/digest.h"

#include <openssl/evp.h>
#include <strings.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/error.h"
#include "verity/openssl_errors.h"

namespace quire::verity {
namespace {

constexpr char kZeros[4096] = {};

// A fetch takes locks and walks OpenSSL's providers, so each is fetched once and kept to the end of the process.
const EVP_MD* fetched(HashAlgorithm algorithm) {
  static const EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  static const EVP_MD* const sha512 = EVP_MD_fetch(nullptr, "SHA512", nullptr);
  return algorithm == HashAlgorithm::sha512 ? sha512 : sha256;
}

Result<const EVP_MD*> message_digest(HashAlgorithm algorithm) {
  const OpensslErrors errors;
  if (const EVP_MD* const md = fetched(algorithm)) return md;
  return fail_with(ENOPKG, "OpenSSL has no %s here: look at its configuration (openssl.cnf, OPENSSL_CONF)",
                   algorithm_name(algorithm));
}

bool equal_in_any_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

int value_of_hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// `hex` holds two digits for each byte of `out`.
Status parse_hex(std::string_view hex, std::span<std::uint8_t> out) {
  for (std::size_t i = 0; i < hex.size(); ++i) {
    const int value = value_of_hex_digit(hex[i]);
    if (value < 0) return fail_with(EINVAL, "character %zu of the hexadecimal digits is none", i + 1);
    out[i / 2] = static_cast<std::uint8_t>(i % 2 == 0 ? value << 4 : out[i / 2] | value);
  }
  return {};
}

bool all_zeros(std::span<const char> bytes) {
  for (; !bytes.empty(); bytes = bytes.subspan(std::min(bytes.size(), sizeof kZeros))) {
    if (std::memcmp(bytes.data(), kZeros, std::min(bytes.size(), sizeof kZeros)) != 0) return false;
  }
  return true;
}

}  // namespace

const char* algorithm_name(HashAlgorithm algorithm) { return algorithm == HashAlgorithm::sha512 ? "sha512" : "sha256"; }

Result<HashAlgorithm> parse_algorithm(std::string_view name) {
  for (const HashAlgorithm known : {HashAlgorithm::sha256, HashAlgorithm::sha512}) {
    if (equal_in_any_case(name, algorithm_name(known))) return known;
  }
  return fail_with(EINVAL, "\"%.*s\" is no hash algorithm of fs-verity: sha256 and sha512 are",
                   static_cast<int>(std::min<std::size_t>(name.size(), 64)), name.data());
}

Result<HashAlgorithm> algorithm_of_number(unsigned linux_number) {
  if (linux_number == 1 || linux_number == 2) return static_cast<HashAlgorithm>(linux_number);
  return fail_with(EINVAL, "%u is no hash algorithm of fs-verity: 1 (sha256) and 2 (sha512) are", linux_number);
}

std::string to_string(const Digest& digest) {
  std::string text = algorithm_name(digest.algorithm);
  text += ':';
  for (const std::uint8_t byte : digest.view()) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

Result<Digest> parse_digest(std::string_view text) {
  Digest digest;
  std::string_view hex = text;
  if (const std::size_t colon = text.find(':'); colon != std::string_view::npos) {
    auto algorithm = parse_algorithm(text.substr(0, colon));
    QUIRE_TRY(algorithm);
    digest.algorithm = *algorithm;
    hex = text.substr(colon + 1);
    if (hex.size() != 2 * digest.size()) {
      return fail_with(EINVAL, "a %s digest has %zu hexadecimal digits, not %zu", algorithm_name(digest.algorithm),
                       2 * digest.size(), hex.size());
    }
  } else if (hex.size() == 2 * digest_size(HashAlgorithm::sha512)) {
    digest.algorithm = HashAlgorithm::sha512;
  } else if (hex.size() != 2 * digest_size(HashAlgorithm::sha256)) {
    return fail_with(EINVAL, "a digest has 64 hexadecimal digits (sha256) or 128 (sha512), not %zu", hex.size());
  }
  QUIRE_TRY(parse_hex(hex, digest.view()));
  return digest;
}

Result<Salt> make_salt(std::span<const std::uint8_t> bytes) {
  Salt salt;
  if (bytes.size() > salt.bytes.size()) {
    return fail_with(EMSGSIZE, "a salt has at most %zu bytes, not %zu", salt.bytes.size(), bytes.size());
  }
  std::copy(bytes.begin(), bytes.end(), salt.bytes.begin());
  salt.size = static_cast<std::uint8_t>(bytes.size());
  return salt;
}

Result<Salt> parse_salt(std::string_view hex) {
  Salt salt;
  if (hex.size() % 2 != 0) return fail_with(EINVAL, "a salt has two hexadecimal digits for each byte");
  if (hex.size() / 2 > salt.bytes.size()) {
    return fail_with(EMSGSIZE, "a salt has at most %zu bytes, not %zu", salt.bytes.size(), hex.size() / 2);
  }
  QUIRE_TRY(parse_hex(hex, salt.bytes));
  salt.size = static_cast<std::uint8_t>(hex.size() / 2);
  return salt;
}

Result<Digest> hash_bytes(HashAlgorithm algorithm, std::span<const std::uint8_t> data) {
  auto md = message_digest(algorithm);
  QUIRE_TRY(md);
  const OpensslErrors errors;
  Digest digest{.algorithm = algorithm, .bytes = {}};
  if (EVP_Digest(data.data(), data.size(), digest.bytes.data(), nullptr, *md, nullptr) != 1) {
    return fail_with(ENOMEM, "cannot hash %zu bytes (OpenSSL: %s)", data.size(), errors.last());
  }
  return digest;
}

void BlockHasher::FreeContext::operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }

Status BlockHasher::make_context() {
  const OpensslErrors errors;
  context_.reset(EVP_MD_CTX_new());
  // The first use of a context allocates what it works in, later ones find it there.
  if (context_ != nullptr && EVP_DigestInit_ex2(context_.get(), md_, nullptr) == 1) return {};
  return fail_with(ENOMEM, "no memory for hashing (OpenSSL: %s)", errors.last());
}

Result<BlockHasher> BlockHasher::create(const HashParameters& parameters) {
  const Salt& salt = parameters.salt;
  if (!is_block_size(parameters.block_size)) {
    return fail_with(EINVAL, "a block of %u bytes: fs-verity's have a power of two from %u to %u",
                     parameters.block_size, kMinBlockSize, kMaxBlockSize);
  }
  CHECK(salt.size <= kMaxSaltSize);
  auto md = message_digest(parameters.algorithm);
  QUIRE_TRY(md);
  BlockHasher hasher;
  hasher.md_ = *md;
  hasher.block_size_ = parameters.block_size;
  hasher.zero_digest_.algorithm = parameters.algorithm;
  if (salt.size != 0) {
    static_assert(kMaxSaltSize <= 64);  // so that one input block holds it
    hasher.padded_salt_size_ = static_cast<std::uint32_t>(EVP_MD_get_block_size(*md));
    CHECK(hasher.padded_salt_size_ <= kMaxPaddedSalt);
    std::memcpy(hasher.padded_salt_.data(), salt.bytes.data(), salt.size);
  }
  QUIRE_TRY(hasher.make_context());
  hasher.compute({}, hasher.zero_digest_.view());
  return hasher;
}

Result<BlockHasher> BlockHasher::clone() const {
  BlockHasher copy;
  copy.md_ = md_;
  copy.block_size_ = block_size_;
  copy.padded_salt_size_ = padded_salt_size_;
  copy.padded_salt_ = padded_salt_;
  copy.zero_digest_ = zero_digest_;
  QUIRE_TRY(copy.make_context());
  return copy;
}

void BlockHasher::hash(std::span<const char> block, std::span<std::uint8_t> out) {
  CHECK(out.size() == digest_size());
  if (!all_zeros(block)) return compute(block, out);
  CHECK(block.size() <= block_size_);
  std::ranges::copy(zero_digest(), out.begin());
}

// The salt is hashed each time: to copy a context that has it behind it would cost an allocation, which is more.
void BlockHasher::compute(std::span<const char> block, std::span<std::uint8_t> out) {
  CHECK(block.size() <= block_size_);
  CHECK(out.size() == digest_size());
  EVP_MD_CTX* const context = context_.get();
  bool done = EVP_DigestInit_ex2(context, md_, nullptr) == 1;
  if (padded_salt_size_ != 0) done = done && EVP_DigestUpdate(context, padded_salt_.data(), padded_salt_size_) == 1;
  done = done && EVP_DigestUpdate(context, block.data(), block.size()) == 1;
  for (std::size_t left = block_size_ - block.size(); left != 0;) {
    const std::size_t count = std::min(left, sizeof kZeros);
    done = done && EVP_DigestUpdate(context, kZeros, count) == 1;
    left -= count;
  }
  done = done && EVP_DigestFinal_ex(context, out.data(), nullptr) == 1;
  CHECK(done);  // nothing was left to fail: no input, and no memory was asked for
}

// What has the zeros' digest is zeros, as far as anybody can tell: to look takes a tenth of the time, or less.
bool BlockHasher::matches(std::span<const char> block, std::span<const std::uint8_t> digest) {
  std::array<std::uint8_t, kMaxDigestSize> actual;
  CHECK(digest.size() == digest_size());
  CHECK(block.size() <= block_size_);
  if (std::ranges::equal(digest, zero_digest())) return all_zeros(block);
  compute(block, {actual.data(), digest.size()});
  return std::memcmp(actual.data(), digest.data(), digest.size()) == 0;
}

}  // namespace quire::verity
