// Where the sidecar of a file is, what its header says, and whom an opener trusts. Nothing is trusted here by itself: a
// file is worth what its digest is that an opener names, or its certificates vouch for. Guarantees: V1.
// Thread safety: plain functions; no lock is held.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "host/host_file.h"
#include "quire/result.h"
#include "verity/digest.h"
#include "verity/sidecar.h"
#include "verity/signature.h"

namespace quire {

struct PlacedFile {
  HostDescriptors files;  // for reading
  std::uint64_t size = 0;
  std::string sidecar;  // path: beside the file itself, wherever the links to it are
};
// Of an open file: beside the file itself, wherever the links to it are. ENOENT: it has no name any more.
Result<std::string> sidecar_of(int fd);
// EISDIR, EINVAL: not a regular file; ENOENT: it has no name any more; the errnos of open.
Result<PlacedFile> place_file(const char* path);
// The direct twin, where the host has it; else what it keeps of the file in its own cache goes.
void read_from_disk(PlacedFile& file);

struct ReadSidecar {
  HostDescriptors files;
  verity::Sidecar header;
  verity::Digest digest;  // of the file
};
// ENODATA: there is none; EBADMSG: it is not sound, or another file's; the errnos of open and read.
Result<ReadSidecar> read_sidecar(const PlacedFile& file);

// Of the pattern that an opener of verified files names; null: anything goes.
struct AcceptedVerity {
  std::optional<verity::Digest> digest;
  std::optional<verity::Certificates> certificates;
};
Result<AcceptedVerity> accepted_verity(const char* digest, const char* certificates);  // EINVAL; Certificates::load's
// EKEYREJECTED: another digest, or no signature that is accepted; EBADMSG: a malformed one.
Status check_accepted(const AcceptedVerity& accepted, const verity::Digest& digest,
                      const std::vector<std::uint8_t>& signature);

// All bytes at offset, or fewer at the end.
Result<std::size_t> read_host(int fd, std::uint64_t offset, std::span<char> to);

}  // namespace quire
