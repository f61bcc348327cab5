// Signatures of file digests, as `fsverity sign` makes and Linux checks them: detached PKCS#7 in DER, over the
// formatted digest. Reads the two small files that it is given the names of; takes no lock.
//
// Trust is that of a kernel keyring: the signer is one of the certificates, or its chain of issuers leads to one of
// them. As there, a certificate's purpose does not matter, nor whether its time has run out: verity files are read for
// longer than certificates last. Unlike there, every signer of a message has to be trusted, not only one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "quire/result.h"
#include "verity/digest.h"

struct x509_st;
struct x509_store_st;

namespace quire::verity {

inline constexpr std::size_t kMaxSignatureSize = 16128;  // FS_VERITY_MAX_SIGNATURE_SIZE

// The bytes of a signature file. The errno of open or read; EMSGSIZE, as Linux has it, over the limit; EBADMSG: empty.
Result<std::vector<std::uint8_t>> read_signature(const char* path);

// That it is a detached PKCS#7 signature in DER, by whomever and over whatever. EBADMSG, also over the limit on size.
Status check_signature_form(std::span<const std::uint8_t> signature);

// Whose signatures are accepted. Unchanging: any number of threads may verify against one.
class Certificates {
 public:
  Certificates() = default;  // accepts nobody
  // One or several in PEM, among whatever else, or one in DER. The errno of open or read; EFBIG: over 1 MiB; EINVAL: no
  // certificate.
  static Result<Certificates> load(const char* path);
  std::size_t count() const { return count_; }

  // EBADMSG: no DER of PKCS#7, of another kind than a detached signature, or over the limit on size. EKEYREJECTED: well
  // formed, but of an unknown or untrusted signer, or over another digest, or forged.
  Status verify(const Digest& file_digest, std::span<const std::uint8_t> signature) const;

 private:
  struct FreeStore {
    void operator()(x509_store_st* store) const;
  };
  Status add_pem(std::span<const std::uint8_t> bytes, const char* path);
  Status add_der(std::span<const std::uint8_t> bytes, const char* path);
  Status add(x509_st* certificate);

  std::unique_ptr<x509_store_st, FreeStore> store_;
  std::size_t count_ = 0;
};

}  // namespace quire::verity
