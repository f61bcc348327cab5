// A file by its path, as the calls have it that turn fs-verity on or look at it from outside a cache: its own
// descriptors, and the place of its sidecar. Thread safety: plain functions; no lock is held.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "api/verity_open.h"
#include "host/host_file.h"
#include "quire/result.h"

namespace quire {

struct PlacedFile {
  HostDescriptors files;  // for reading
  std::uint64_t size = 0;
  std::string sidecar;  // path: beside the file itself, wherever the links to it are
};
// EISDIR, EINVAL: not a regular file; ENOENT: it has no name any more; the errnos of open.
Result<PlacedFile> place_file(const char* path);
// The direct twin, where the host has it; else what it keeps of the file in its own cache goes.
void read_from_disk(PlacedFile& file);

// find_sidecar's; ENODATA: there is none.
Result<FoundSidecar> read_sidecar(const PlacedFile& file);

// All bytes at offset, or fewer at the end.
Result<std::size_t> read_host(int fd, std::uint64_t offset, std::span<char> to);

}  // namespace quire
