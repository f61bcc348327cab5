// Turning fs-verity on for a file: one pass over its bytes, and a sidecar that is there whole and durable, or not at
// all. The rules are FS_IOC_ENABLE_VERITY's where that has them.
//
// The file is kept open, and locked against writers, through the cache; nobody else of this cache may have it open,
// because they would go on without verification. Its bytes are read past the cache: all of them are on the host, and
// what is read once needs no frames. Publishing the sidecar, the end of the handle and the end of all that is cached of
// the file are one step for whoever opens it (CacheImpl::close_unverified).
// Thread safety: any thread. Locks: the file table's, as open and close do.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "quire/result.h"
#include "verity/digest.h"

namespace quire {

class CacheImpl;

struct VerityEnableOptions {
  verity::HashParameters parameters;
  std::vector<std::uint8_t> signature;  // DER, of the digest that comes out; empty: none
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes; empty: nobody asks
};

// The file's digest. Errors: EEXIST (it is on), EISDIR, EINVAL (no regular file; parameters), ETXTBSY (open for writing
// in this cache), EBUSY (open in this cache; open for writing in another; changed meanwhile), EACCES, EROFS (no
// permission to write it), EMSGSIZE, EBADMSG (signature), ENOENT (it has no name), and those of reading the file and
// writing the sidecar.
Result<verity::Digest> enable_verity(CacheImpl& cache, const char* path, const VerityEnableOptions& options);

}  // namespace quire
