// Enabling, and the step of CacheImpl that ends it. See verity_enable.h.
#include "api/verity_enable.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "api/block_scan.h"
#include "api/cache_impl.h"
#include "api/new_sidecar.h"
#include "api/verity_place.h"
#include "base/error.h"
#include "verity/merkle_tree.h"
#include "verity/sidecar.h"
#include "verity/signature.h"

namespace quire {
namespace {

constexpr unsigned kClockGrainUs = 55'000;  // as HostIdentity::certain has it, and a little more

bool same_state(const HostIdentity& a, const HostIdentity& b) {
  return a.device == b.device && a.inode == b.inode && a.birth_ns == b.birth_ns && a.modified_ns == b.modified_ns &&
         a.changed_ns == b.changed_ns && a.size == b.size;
}

// As Linux: who makes a file read-only for ever could write it.
Status check_permission(int fd) {
  char link[32];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (faccessat(AT_FDCWD, link, W_OK, AT_EACCESS) == 0) return {};
  return fail_with(errno, "turning fs-verity on needs permission to write the file: %m");
}

Status check_absent(const std::string& sidecar) {
  struct stat st;
  if (lstat(sidecar.c_str(), &st) == 0) {
    return fail_with(EEXIST, "fs-verity is on for it already: there is %s", sidecar.c_str());
  }
  if (errno == ENOENT) return {};
  return fail_with(errno, "its sidecar %s cannot be looked for: %m", sidecar.c_str());
}

// The whole file into the builder, whose sink writes the tree.
Status build_tree(const PlacedFile& file, const VerityEnableOptions& options, verity::TreeBuilder& builder) {
  BlockScan scan(file.files, file.size, builder.hasher(), false);
  QUIRE_TRY(scan.start());
  const auto add = [&](const BlockScan::Piece& piece) {
    return piece.hole ? builder.add_zeros(piece.length) : builder.add_digests(piece.digests);
  };
  return scan.for_each(add, options.progress);
}

// A state that no later change can be mistaken for: the clock of file times is coarse.
Result<HostIdentity> settled_identity(int fd) {
  auto identity = identify_host_file(fd);
  if (!identity.ok() || identity.value().certain) return identity;
  usleep(kClockGrainUs);
  return identify_host_file(fd);
}

Status check_unchanged(int fd, const HostIdentity& before) {
  const auto now = identify_host_file(fd);
  QUIRE_TRY(now);
  if (same_state(now.value(), before)) return {};
  return fail_with(EBUSY, "it has changed while it was hashed: keep other programs from writing it, and try again");
}

Result<verity::Digest> make_sidecar(CacheImpl& cache, FileImpl** handle, PlacedFile& file,
                                    const VerityEnableOptions& options) {
  const int fd = file.files.buffered;
  // Nothing of the data may be less durable than what it will be held against.
  if (fsync(fd) != 0) return fail_with(errno, "its bytes cannot be made durable: %m");
  const auto identity = settled_identity(fd);
  QUIRE_TRY(identity);
  file.size = identity.value().size;
  struct stat st;
  if (fstat(fd, &st) != 0) return fail_with(errno, "fstat: %m");
  read_from_disk(file);

  NewSidecar sidecar(file.sidecar);
  auto builder = verity::TreeBuilder::create(file.size, options.parameters,
                                             [&](std::uint64_t offset, std::span<const char> block) {
                                               return sidecar.write(verity::kSidecarHeaderSize + offset, block);
                                             });
  QUIRE_TRY(builder);
  QUIRE_TRY(sidecar.create(verity::kSidecarHeaderSize + builder->geometry().tree_size()));
  QUIRE_TRY(build_tree(file, options, builder.value()));
  const auto root = builder->finish();
  QUIRE_TRY(root);

  const verity::Descriptor descriptor{
      .parameters = options.parameters, .data_size = file.size, .root_hash = root.value()};
  const auto digest = verity::file_digest(descriptor);
  QUIRE_TRY(digest);
  const auto header = verity::encode_sidecar({.descriptor = descriptor, .signature = options.signature});
  QUIRE_TRY(header);
  QUIRE_TRY(sidecar.finish(header.value(), st));
  const std::function<Status()> publish = [&]() -> Status {
    QUIRE_TRY(check_unchanged(fd, identity.value()));
    return sidecar.publish();
  };
  QUIRE_TRY(cache.close_unverified(*handle, publish));
  *handle = nullptr;
  QUIRE_TRY(sidecar.settle());
  return digest.value();
}

}  // namespace

Result<verity::Digest> enable_verity(CacheImpl& cache, const char* path, const VerityEnableOptions& options) {
  QUIRE_TRY(check_not_forked(cache.cache()));
  if (!options.signature.empty()) QUIRE_TRY(verity::check_signature_form(options.signature));
  QUIRE_TRY(verity::BlockHasher::create(options.parameters));
  auto placed = place_file(path);
  QUIRE_TRY(placed);
  QUIRE_TRY(check_absent(placed->sidecar));
  QUIRE_TRY(check_permission(placed->files.buffered));
  const auto opened = cache.open_fd(placed->files.buffered);
  QUIRE_TRY(opened);
  FileImpl* handle = opened.value();
  auto made = cache.check_only_handle(*handle);
  Result<verity::Digest> digest =
      made.ok() ? make_sidecar(cache, &handle, placed.value(), options) : fail(made.errnum());
  // Closing what only reads does not fail; the cause that is recorded stays the enabling's.
  if (handle != nullptr) static_cast<void>(cache.close(handle));
  return digest;
}

Status CacheImpl::check_only_handle(FileImpl& file) {
  MutexLock lock(table_mutex_);
  const HostInode& inode = *file.host;
  if (inode.writers != 0) return fail_with(ETXTBSY, "it is open for writing in this cache: close it first");
  if (inode.handles == 1) return {};
  return fail_with(EBUSY,
                   "it is open in this cache (%u handles and views), and would go on without verification: close "
                   "it first",
                   inode.handles - 1);
}

Status CacheImpl::close_unverified(FileImpl* file, const std::function<Status()>& publish) {
  MutexLock lock(table_mutex_);
  HostInode& inode = *file->host;
  if (inode.handles != 1) {
    return fail_with(EBUSY, "it has been opened in this cache while it was hashed: try again when nobody uses it");
  }
  QUIRE_TRY(publish());
  --handles_;
  --inode.handles;
  make_idle_locked(inode);
  empty(inode);
  std::erase_if(files_, [&](const auto& entry) { return entry.second.get() == &inode; });
  delete file;
  return {};
}

}  // namespace quire
