// Opening a file whose bytes are verified: its sidecar, and whom the opener trusts. Guarantees: V1.
//
// A file is verified if FILE.verity lies beside it (beside what a link leads to) when it is opened. Nothing in there is
// believed: the descriptor's digest is what an opener names or its certificates vouch for; without either, data and
// sidecar are held against each other only. A sidecar that is there and not sound, or not to be read, refuses the open.
// Thread safety: plain values and functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "host/host_file.h"
#include "quire/result.h"
#include "verity/digest.h"
#include "verity/sidecar.h"
#include "verity/signature.h"

namespace quire {

// What an opener accepts; without either, anything consistent.
struct VerityTrust {
  std::optional<verity::Digest> digest;
  std::optional<verity::Certificates> certificates;
  bool any() const { return digest.has_value() || certificates.has_value(); }
};
// EINVAL: neither is named, or the digest is none; what Certificates::load says.
Result<VerityTrust> make_verity_trust(const char* digest, const char* certificate_path);

struct FoundSidecar {
  HostDescriptors files;
  std::string data_path;  // of the file it belongs to
  verity::Sidecar header;
  verity::Digest digest;  // the file's
};

// The sidecar of the open regular file `data_fd` of data_size bytes, with its header decoded; none if there is none.
// EBADMSG: it is not sound, or another file's; errnos of open and read.
Result<std::optional<FoundSidecar>> find_sidecar(int data_fd, std::uint64_t data_size);

// EKEYREJECTED: the file has another digest, or no accepted signature.
Status check_verity_trust(const VerityTrust& trust, const verity::Digest& digest,
                          const std::vector<std::uint8_t>& signature);

}  // namespace quire
