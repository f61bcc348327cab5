// Digests as fs-verity makes them: over one block of a file or of its hash tree, the padded salt before it. The formats
// are those of Linux (Documentation/filesystems/fsverity.rst). Nothing here takes a lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "quire/result.h"

struct evp_md_ctx_st;
struct evp_md_st;

namespace quire::verity {

inline constexpr std::size_t kMaxDigestSize = 64;
inline constexpr std::size_t kMaxSaltSize = 32;
inline constexpr std::uint32_t kMinBlockSize = 1024;  // of data and tree blocks alike; powers of two
inline constexpr std::uint32_t kMaxBlockSize = 65536;

enum class HashAlgorithm : std::uint8_t { sha256 = 1, sha512 = 2 };  // Linux's numbers

constexpr std::size_t digest_size(HashAlgorithm algorithm) { return algorithm == HashAlgorithm::sha512 ? 64 : 32; }
const char* algorithm_name(HashAlgorithm algorithm);
Result<HashAlgorithm> parse_algorithm(std::string_view name);      // in any case; EINVAL
Result<HashAlgorithm> algorithm_of_number(unsigned linux_number);  // EINVAL

constexpr bool is_block_size(std::uint64_t size) {
  return size >= kMinBlockSize && size <= kMaxBlockSize && (size & (size - 1)) == 0;
}

struct Digest {
  HashAlgorithm algorithm = HashAlgorithm::sha256;
  std::array<std::uint8_t, kMaxDigestSize> bytes{};  // zeros past the size

  std::size_t size() const { return digest_size(algorithm); }
  std::span<const std::uint8_t> view() const { return {bytes.data(), size()}; }
  std::span<std::uint8_t> view() { return {bytes.data(), size()}; }
  friend bool operator==(const Digest&, const Digest&) = default;
};

std::string to_string(const Digest& digest);  // "sha256:HEX", in small letters, as `fsverity digest` prints it
// Reads that, in any case, or HEX alone: its length tells the algorithm. EINVAL.
Result<Digest> parse_digest(std::string_view text);

struct Salt {
  std::array<std::uint8_t, kMaxSaltSize> bytes{};  // zeros past the size
  std::uint8_t size = 0;

  std::span<const std::uint8_t> view() const { return {bytes.data(), size}; }
  friend bool operator==(const Salt&, const Salt&) = default;
};
Result<Salt> make_salt(std::span<const std::uint8_t> bytes);  // EMSGSIZE: too long
Result<Salt> parse_salt(std::string_view hex);                // EINVAL, EMSGSIZE

struct HashParameters {
  HashAlgorithm algorithm = HashAlgorithm::sha256;
  std::uint32_t block_size = 4096;
  Salt salt;
};

// The plain digest of `data`, without salt or padding. ENOPKG where OpenSSL was set up to do without the algorithm.
Result<Digest> hash_bytes(HashAlgorithm algorithm, std::span<const std::uint8_t> data);

// Hashes blocks. Of one thread at a time; others work with clones, which anybody may make meanwhile. Allocates when it
// is made, and never after.
class BlockHasher {
 public:
  BlockHasher() = default;                                              // of no use but to be assigned to
  static Result<BlockHasher> create(const HashParameters& parameters);  // EINVAL, ENOPKG, ENOMEM
  Result<BlockHasher> clone() const;                                    // ENOMEM

  // `block` may be shorter than a block, as the last one of a file: it counts as filled up with zeros. `out` takes
  // digest_size bytes. What is zeros is looked at, not hashed.
  void hash(std::span<const char> block, std::span<std::uint8_t> out);
  // Does `block`, which may be shorter as above, have this digest?
  bool matches(std::span<const char> block, std::span<const std::uint8_t> digest);

  // Of a block of zeros: they need no hashing.
  std::span<const std::uint8_t> zero_digest() const { return zero_digest_.view(); }
  HashAlgorithm algorithm() const { return zero_digest_.algorithm; }
  std::size_t digest_size() const { return zero_digest_.size(); }
  std::uint32_t block_size() const { return block_size_; }

 private:
  struct FreeContext {
    void operator()(evp_md_ctx_st* context) const;
  };
  static constexpr std::size_t kMaxPaddedSalt = 128;  // the input block of SHA-512

  Status make_context();
  void compute(std::span<const char> block, std::span<std::uint8_t> out);

  const evp_md_st* md_ = nullptr;  // the process's own
  std::unique_ptr<evp_md_ctx_st, FreeContext> context_;
  std::uint32_t block_size_ = 0;
  std::uint32_t padded_salt_size_ = 0;
  std::array<char, kMaxPaddedSalt> padded_salt_{};
  Digest zero_digest_;
};

}  // namespace quire::verity
