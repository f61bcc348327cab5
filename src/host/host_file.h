// Descriptors, identity and locks of a file of the host. Thread safety: none; its owner (the backing, under the file
// table's lock) serialises. Guarantees: R3 (one cache a file).
//
// Locks: two bytes far past any data, as open-file-description locks, so that they also hold between two caches of one
// process. Readers hold R shared; the writer holds R shared and W exclusive.
//   to read:   take R shared, then ask whether anybody else holds W         -> EBUSY
//   to write:  take W exclusive (else EBUSY), then ask whether anybody else holds R -> give W back, EBUSY
// Each takes its own before it looks at the other's, so of a reader and a writer that come together at least one sees
// the other. Questions are asked through the description that holds R, which never conflicts with itself: that is how
// a cache that reads becomes one that writes, in place.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>

#include "quire/result.h"

namespace quire {

// What tells two states of a file apart; inode numbers alone are reused at once.
struct HostIdentity {
  std::uint64_t device = 0, inode = 0;
  std::int64_t birth_ns = 0, modified_ns = 0, changed_ns = 0;
  std::uint64_t size = 0;
  bool certain = false;  // false: changed too recently for the clock to tell a later change apart
  bool operator==(const HostIdentity&) const = default;
};

Result<HostIdentity> identify_host_file(int fd);

// One description of a file, with a second one for direct I/O where the host allows it. Owns both.
struct HostDescriptors {
  int buffered = -1;
  int direct = -1;
  HostDescriptors() = default;
  HostDescriptors(HostDescriptors&& other) noexcept;
  HostDescriptors& operator=(HostDescriptors&& other) noexcept;
  ~HostDescriptors() { close(); }
  void close();
  bool open() const { return buffered >= 0; }
};

struct HostProperties {
  std::uint64_t size = 0;
  std::uint64_t max_size = 0;
  unsigned direct_alignment = 4096;  // of offsets and memory; 0: the host says that it does no direct I/O here
  unsigned block_size = 4096;        // of the file system: what files share is whole blocks
  bool block_device = false;
  bool unwritten_extents = true;  // false: a block allocated and not written yet shows what the disk held before
  bool direct_allowed = true;     // false on file systems that checksum what O_DIRECT writes while it may change
};

// Opens path; flags as open(2), of which O_TRUNC, O_APPEND, O_SYNC and O_DSYNC are left out, and a write-only file is
// opened for reading, too. Only regular files and block devices.
Result<HostDescriptors> open_host_path(const char* path, int flags, mode_t mode);
// The file behind a descriptor of the caller's, opened anew with the access mode that it has; its flags as F_GETFL.
Result<HostDescriptors> open_host_fd(int fd, int* open_flags);
// A descriptor that keeps mounts and other exclusive users away. EBUSY: the device is mounted or otherwise in use.
Result<int> claim_block_device(int fd);
Result<HostProperties> host_properties(int fd);
// Opens the direct twin of files.buffered; without one everything goes through the host's cache. Takes the alignment as
// the properties have it; returns the one to keep to, 0 without a twin. What the host opens although it said that it
// does no direct I/O (a file system over another may not know) is tried with one read.
unsigned open_direct(HostDescriptors& files, bool writable, unsigned alignment);

Status lock_host_read(int fd);                // EBUSY: somebody writes
Status lock_host_write(int fd, int read_fd);  // EBUSY: somebody reads or writes; read_fd holds R (it may be fd)
void unlock_host_write(int fd);
void unlock_host_read(int fd);

}  // namespace quire
