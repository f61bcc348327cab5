// Opening a file whose bytes are verified: the part of CacheImpl that knows of sidecars. Guarantees: V1.
//
// A file is verified if FILE.verity lies beside it (beside what a link leads to) when its first handle is opened, until
// its last is closed. A sidecar that is there and not sound, or not to be read, refuses the open. It is looked for once
// nobody else can write the file: one that appears later belongs to a file that we have open to read only.
// Locks: the file table's.
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "api/cache_impl.h"
#include "api/verity_place.h"
#include "base/error.h"

namespace quire {
namespace {

// None: there is no sidecar, or the file has no name.
Result<std::optional<ReadSidecar>> find_sidecar(const HostBacking& file, std::string* path) {
  using Answer = Result<std::optional<ReadSidecar>>;
  auto place = sidecar_of(file.descriptor());
  if (!place.ok() && place.errnum() != ENOENT) return fail(place.errnum());
  PlacedFile placed;
  placed.size = file.size();
  if (place.ok()) {
    placed.sidecar = place.take();
    auto found = read_sidecar(placed);
    if (found.ok()) {
      path->assign(placed.sidecar, 0, placed.sidecar.size() - (sizeof verity::kSidecarSuffix - 1));
      return Answer(found.take());
    }
    if (found.errnum() != ENODATA) return fail(found.errnum());
  }
  clear_cause();
  return Answer(std::nullopt);
}

}  // namespace

namespace {

Failure refuse_writer() {
  return fail_with(EPERM, "fs-verity is on for it (it has a sidecar, FILE%s), so it can only be read",
                   verity::kSidecarSuffix);
}

}  // namespace

// Before anything is locked or made for a writer whom settle_verity_locked would refuse.
Status CacheImpl::check_no_sidecar(int fd) {
  const auto place = sidecar_of(fd);
  const bool found = place.ok() && access(place.value().c_str(), F_OK) == 0;
  clear_cause();
  return found ? Status(refuse_writer()) : Status{};
}

// O_CREAT would make an empty file that a sidecar left behind then belongs to.
Status CacheImpl::check_no_orphan(const char* path) {
  if (access(path, F_OK) == 0 || access((std::string(path) + verity::kSidecarSuffix).c_str(), F_OK) != 0) return {};
  return fail_with(EPERM, "there is a sidecar (FILE%s) of a file that is gone: remove it first",
                   verity::kSidecarSuffix);
}

// Attached: what is beside the file decides whether its bytes are verified, and who may open it.
Status CacheImpl::settle_verity_locked(HostInode& inode, const FileImpl& file, const AcceptedVerity* accepted) {
  if (inode.host->block_device()) {
    if (accepted == nullptr) return {};
    return fail_with(ENODATA, "it is a block device, and fs-verity is for regular files");
  }
  if (inode.verity == nullptr) {
    std::string path;
    auto found = find_sidecar(*inode.host, &path);
    QUIRE_TRY(found);
    if (!found.value().has_value()) {
      if (accepted == nullptr) return {};
      return fail_with(ENODATA, "it has no sidecar (FILE%s): fs-verity is not on for it", verity::kSidecarSuffix);
    }
    if (!file.writable) {
      if (inode.handles != 0) {
        return fail_with(EBUSY, "fs-verity was turned on while it is open here without: close it first");
      }
      if (accepted != nullptr) {
        QUIRE_TRY(check_accepted(*accepted, found.value()->digest, found.value()->header.signature));
      }
      return start_verity_locked(inode, std::move(*found.value()), std::move(path));
    }
  } else if (accepted != nullptr) {
    QUIRE_TRY(check_accepted(*accepted, inode.verity_digest, inode.verity_signature));
  }
  if (!file.writable) return {};
  return refuse_writer();
}

// What is cached of it was not verified, and goes first. Nobody has it open.
Status CacheImpl::start_verity_locked(HostInode& inode, ReadSidecar found, std::string path) {
  empty(inode);
  HostOptions host_options{options_.use_direct, options_.use_io_uring, &cache_.io_stats, cache_.io_thread.get(),
                           nullptr};
  auto sidecar = std::make_unique<HostBacking>(host_options);
  HostBacking* const host = sidecar.get();
  const verity::Descriptor& descriptor = found.header.descriptor;
  const auto geometry = descriptor.geometry();
  QUIRE_TRY(geometry);
  QUIRE_TRY(sidecar->attach(std::move(found.files), false));
  auto made = FileVerity::create(cache_, verity_workers_, next_inode_id(),
                                 VeritySource{.parameters = descriptor.parameters,
                                              .geometry = geometry.value(),
                                              .root_hash = descriptor.root_hash,
                                              .sidecar = std::move(sidecar),
                                              .tree_offset = verity::kSidecarHeaderSize,
                                              .path = std::move(path),
                                              .at_completion = options_.verity_at_completion});
  QUIRE_TRY(made);
  inode.verity = made.take();
  inode.sidecar = host;
  inode.verity_digest = found.digest;
  inode.verity_signature = std::move(found.header.signature);
  inode.verity_charge.emplace(cache_, HostInode::kBytes + inode.verity_signature.size());
  inode.inode.mapping.verifier = inode.verity.get();
  return {};
}

// The last handle is closed: nothing of it stays, so that the next open looks at the sidecar anew.
void CacheImpl::end_verity_locked(HostInode& inode) {
  if (inode.verity == nullptr) return;
  empty(inode);
  inode.inode.mapping.verifier = nullptr;
  inode.sidecar = nullptr;
  inode.verity.reset();
  inode.verity_signature = {};
  inode.verity_charge.reset();
}

}  // namespace quire
