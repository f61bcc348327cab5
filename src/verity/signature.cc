// Signatures by OpenSSL's CMS, which reads PKCS#7 too and knows both ways of naming a signer. See signature.h.
#include "verity/signature.h"

#include <fcntl.h>
#include <openssl/cms.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "base/error.h"
#include "verity/descriptor.h"
#include "verity/openssl_errors.h"

namespace quire::verity {
namespace {

constexpr std::size_t kMaxCertificatesSize = std::size_t{1} << 20;

struct FreeOpenssl {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(CMS_ContentInfo* message) const { CMS_ContentInfo_free(message); }
  void operator()(STACK_OF(X509) * certificates) const { sk_X509_pop_free(certificates, X509_free); }
};
template <typename T>
using Owned = std::unique_ptr<T, FreeOpenssl>;

Owned<BIO> memory_bio(std::span<const std::uint8_t> bytes) {
  return Owned<BIO>(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
}

// The same behind a filter that does nothing: CMS_verify of OpenSSL 3.0 wraps a bare memory BIO in one of its own, and
// leaks that where the message names a digest that it does not know.
Owned<BIO> filtered_memory_bio(std::span<const std::uint8_t> bytes) {
  Owned<BIO> memory = memory_bio(bytes);
  Owned<BIO> filter(BIO_new(BIO_f_null()));
  if (memory == nullptr || filter == nullptr) return nullptr;
  BIO_push(filter.get(), memory.release());
  return filter;
}

Failure no_memory() { return fail_with(ENOMEM, "no memory to check signatures"); }

// All bytes of a file of at most `limit`, else one more than that.
Result<std::vector<std::uint8_t>> read_up_to(const char* path, std::size_t limit, const char* what) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail_with(errno, "cannot open the %s %s: %m", what, path);
  std::vector<std::uint8_t> bytes(limit + 1);
  std::size_t used = 0;
  ssize_t got = 1;
  while (used < bytes.size() && got != 0) {
    got = ::read(fd, bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) break;
    used += static_cast<std::size_t>(got);
  }
  const int errnum = got < 0 ? errno : 0;
  ::close(fd);
  if (errnum != 0) return fail_with(errnum, "cannot read the %s %s: %m", what, path);
  bytes.resize(used);
  return bytes;
}

bool is_pem(std::span<const std::uint8_t> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text.find("-----BEGIN ") != std::string_view::npos;
}

// Instead of asking for it on the terminal.
int no_passphrase(char*, int, int, void*) { return -1; }

// The whole of `signature` as a signed message without content of its own.
Owned<CMS_ContentInfo> parse_message(std::span<const std::uint8_t> signature) {
  const unsigned char* at = signature.data();
  Owned<CMS_ContentInfo> message(d2i_CMS_ContentInfo(nullptr, &at, static_cast<long>(signature.size())));
  if (message == nullptr || at != signature.data() + signature.size()) return nullptr;
  if (OBJ_obj2nid(CMS_get0_type(message.get())) != NID_pkcs7_signed) return nullptr;
  return CMS_is_detached(message.get()) == 1 ? std::move(message) : nullptr;
}

Result<Owned<CMS_ContentInfo>> checked_message(std::span<const std::uint8_t> signature) {
  if (signature.size() > kMaxSignatureSize) {
    return fail_with(EBADMSG, "a signature of %zu bytes: %zu is the limit", signature.size(), kMaxSignatureSize);
  }
  Owned<CMS_ContentInfo> message = parse_message(signature);
  if (message != nullptr) return message;
  return fail_with(EBADMSG, "malformed signature: no detached PKCS#7 signature in DER, as `fsverity sign` makes");
}

// What to say of a signature that is well formed, and wrong.
const char* reason_of_rejection() {
  switch (ERR_GET_REASON(ERR_peek_last_error())) {
    case CMS_R_SIGNER_CERTIFICATE_NOT_FOUND:
    case CMS_R_CERTIFICATE_VERIFY_ERROR:
      return "its signer is none of the given certificates, nor certified by one";
    default:
      return "it was made over another digest, or is forged";
  }
}

}  // namespace

Result<std::vector<std::uint8_t>> read_signature(const char* path) {
  auto bytes = read_up_to(path, kMaxSignatureSize, "signature");
  QUIRE_TRY(bytes);
  if (bytes->empty()) return fail_with(EBADMSG, "the signature %s is empty", path);
  if (bytes->size() <= kMaxSignatureSize) return bytes;
  return fail_with(EMSGSIZE, "the signature %s has more than %zu bytes, which is the limit", path, kMaxSignatureSize);
}

Status check_signature_form(std::span<const std::uint8_t> signature) {
  const OpensslErrors errors;
  QUIRE_TRY(checked_message(signature));
  return {};
}

void Certificates::FreeStore::operator()(X509_STORE* store) const { X509_STORE_free(store); }

Result<Certificates> Certificates::load(const char* path) {
  auto bytes = read_up_to(path, kMaxCertificatesSize, "certificate file");
  QUIRE_TRY(bytes);
  if (bytes->size() > kMaxCertificatesSize) {
    return fail_with(EFBIG, "the certificate file %s has more than %zu bytes", path, kMaxCertificatesSize);
  }
  const OpensslErrors errors;
  Certificates certificates;
  certificates.store_.reset(X509_STORE_new());
  X509_STORE* const store = certificates.store_.get();
  if (store == nullptr) return no_memory();
  // Any certificate of the file ends a chain, whoever signed it.
  if (X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME) != 1) return no_memory();
  if (X509_STORE_set_purpose(store, X509_PURPOSE_ANY) != 1) return no_memory();
  QUIRE_TRY(is_pem(*bytes) ? certificates.add_pem(*bytes, path) : certificates.add_der(*bytes, path));
  return certificates;
}

Status Certificates::add(X509* certificate) {
  if (X509_STORE_add_cert(store_.get(), certificate) != 1) return no_memory();
  ++count_;
  return {};
}

Status Certificates::add_pem(std::span<const std::uint8_t> bytes, const char* path) {
  const OpensslErrors errors;
  const Owned<BIO> bio = memory_bio(bytes);
  if (bio == nullptr) return no_memory();
  while (const Owned<X509> certificate{PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr)}) {
    QUIRE_TRY(add(certificate.get()));
  }
  // It ends by finding no more.
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return fail_with(EINVAL, "certificate %zu of %s is malformed (OpenSSL: %s)", count_ + 1, path, errors.last());
  }
  if (count_ == 0) return fail_with(EINVAL, "%s holds no certificate: it needs one in PEM or DER", path);
  return {};
}

Status Certificates::add_der(std::span<const std::uint8_t> bytes, const char* path) {
  const OpensslErrors errors;
  const unsigned char* at = bytes.data();
  const Owned<X509> certificate(d2i_X509(nullptr, &at, static_cast<long>(bytes.size())));
  if (certificate == nullptr || at != bytes.data() + bytes.size()) {
    return fail_with(EINVAL, "%s holds no certificate: it needs one in PEM or DER", path);
  }
  return add(certificate.get());
}

Status Certificates::verify(const Digest& file_digest, std::span<const std::uint8_t> signature) const {
  if (store_ == nullptr) return fail_with(EKEYREJECTED, "no certificate was given to check the signature with");
  const OpensslErrors errors;
  const auto message = checked_message(signature);
  QUIRE_TRY(message);
  const FormattedDigest signed_bytes = formatted_digest(file_digest);
  const Owned<BIO> content = filtered_memory_bio(signed_bytes.view());
  const Owned<STACK_OF(X509)> given(X509_STORE_get1_all_certs(store_.get()));
  if (content == nullptr || given == nullptr) return no_memory();
  if (CMS_verify(message.value().get(), given.get(), store_.get(), content.get(), nullptr, CMS_BINARY) == 1) return {};
  return fail_with(EKEYREJECTED, "the signature of %s is rejected: %s (OpenSSL: %s)", to_string(file_digest).c_str(),
                   reason_of_rejection(), errors.last());
}

}  // namespace quire::verity
