// Looking at verity files from outside a cache: whether fs-verity is on, the digest, and a check of every block. Reads
// the file and its sidecar from the host, by descriptors of its own.
//
// A check walks the data in order, and with it the tree: of each level the one block that lies over where it is, read
// once and held against its parent, which is in memory, up to the root hash. Below a block that is bad nothing can be
// said; everything else is checked all the same.
// Thread safety: any thread; no lock is held. Callbacks run in the calling thread.
#pragma once

#include <cstdint>
#include <functional>

#include "api/verity_open.h"
#include "quire/result.h"
#include "verity/digest.h"

namespace quire {

struct VerityBadBlock {
  enum class Kind : std::uint8_t {
    data,       // a block of the file
    hash,       // one of the tree
    unverified  // blocks of the file that a bad block of the tree lies over
  };
  Kind kind = Kind::data;
  int errnum = 0;                 // not 0: it cannot be read, and `found` is none
  std::uint64_t offset = 0;       // bytes: in the file, for `hash` in the sidecar
  std::uint64_t length = 0;       // bytes
  std::uint64_t hash_offset = 0;  // for `unverified`: of the bad block of the tree, in the sidecar
  verity::Digest expected, found;
};

struct VerityCounts {
  std::uint64_t data_blocks = 0, hash_blocks = 0;  // of the file and its tree
  std::uint64_t bad_data_blocks = 0, bad_hash_blocks = 0;
  std::uint64_t unverified_blocks = 0;  // of the file
  bool good() const { return bad_data_blocks == 0 && bad_hash_blocks == 0 && unverified_blocks == 0; }
};

struct VerityCheckOptions {
  VerityTrust trust;                                                      // without either, anything consistent
  std::function<void(const VerityBadBlock&)> bad;                         // empty: nobody asks
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes of the file
};

struct VerityChecked {
  verity::Digest digest;
  VerityCounts counts;
};

// Bad blocks are no error of the call. Errors: those of place_file, read_sidecar and check_verity_trust; EBUSY: the
// file changes meanwhile; ENOMEM, EAGAIN.
Result<VerityChecked> check_verity(const char* path, const VerityCheckOptions& options);

// What the sidecar says; nothing is held against the file but its size. The errors of place_file and read_sidecar.
struct VerityHeader {
  verity::Sidecar header;
  verity::Digest digest;
};
Result<VerityHeader> verity_header(const char* path);

}  // namespace quire
