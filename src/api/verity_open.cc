// Sidecars at open. See verity_open.h; the part of CacheImpl that uses them is here as well.
#include "api/verity_open.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <vector>

#include "api/cache_impl.h"
#include "base/error.h"

namespace quire {
namespace {

// As the host names it just now; empty: it has no name any more.
Result<std::string> name_of_file(int fd) {
  char link[32], name[PATH_MAX];
  struct stat st;
  if (fstat(fd, &st) != 0) return fail_with(errno, "fstat: %m");
  if (st.st_nlink == 0) return std::string();
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, name, sizeof name);
  if (n < 0) return fail_with(errno, "its name is not to be had, to look for a sidecar (%s): %m", link);
  return std::string(name, static_cast<std::size_t>(n));
}

Result<std::vector<char>> read_header(int fd) {
  std::vector<char> header(verity::kSidecarHeaderSize);
  std::size_t got = 0;
  while (got < header.size()) {
    const ssize_t n = pread(fd, header.data() + got, header.size() - got, static_cast<off_t>(got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(errno);
    if (n == 0) break;
    got += static_cast<std::size_t>(n);
  }
  header.resize(got);
  return header;
}

}  // namespace

Result<VerityTrust> make_verity_trust(const char* digest, const char* certificate_path) {
  VerityTrust trust;
  if (digest == nullptr && certificate_path == nullptr) {
    return fail_with(EINVAL, "neither a digest nor certificates are named to open it by: quire_open takes it unnamed");
  }
  if (digest != nullptr) {
    const auto parsed = verity::parse_digest(digest);
    QUIRE_TRY(parsed);
    trust.digest = parsed.value();
  }
  if (certificate_path != nullptr) {
    auto loaded = verity::Certificates::load(certificate_path);
    QUIRE_TRY(loaded);
    trust.certificates = loaded.take();
  }
  return Result<VerityTrust>(std::move(trust));
}

Result<std::optional<FoundSidecar>> find_sidecar(int data_fd, std::uint64_t data_size) {
  using Answer = Result<std::optional<FoundSidecar>>;
  auto name = name_of_file(data_fd);
  QUIRE_TRY(name);
  if (name.value().empty()) return Answer(std::nullopt);
  FoundSidecar found;
  found.data_path = name.take();
  const std::string path = found.data_path + verity::kSidecarSuffix;
  found.files.buffered = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (found.files.buffered < 0) {
    if (errno == ENOENT || errno == ENAMETOOLONG || errno == ENOTDIR) return Answer(std::nullopt);
    return fail_with(errno, "its sidecar %s cannot be opened: %m", path.c_str());
  }
  struct stat st;
  if (fstat(found.files.buffered, &st) != 0) return fail_with(errno, "fstat of %s: %m", path.c_str());
  if (!S_ISREG(st.st_mode)) return fail_with(EBADMSG, "its sidecar %s is no regular file", path.c_str());
  const auto header = read_header(found.files.buffered);
  if (!header.ok()) {
    errno = header.errnum();
    return fail_with(header.errnum(), "its sidecar %s cannot be read: %m", path.c_str());
  }
  auto decoded = verity::decode_sidecar(header.value(), static_cast<std::uint64_t>(st.st_size), data_size);
  QUIRE_TRY(decoded);
  found.header = decoded.take();
  const auto digest = verity::file_digest(found.header.descriptor);
  QUIRE_TRY(digest);
  found.digest = digest.value();
  return Answer(std::move(found));
}

Status check_verity_trust(const VerityTrust& trust, const verity::Digest& digest,
                          const std::vector<std::uint8_t>& signature) {
  if (trust.digest.has_value() && *trust.digest != digest) {
    return fail_with(EKEYREJECTED, "its digest is %s, and %s is wanted", to_string(digest).c_str(),
                     to_string(*trust.digest).c_str());
  }
  if (!trust.certificates.has_value()) return {};
  if (signature.empty()) {
    return fail_with(EKEYREJECTED, "it is not signed: enable fs-verity with a signature of its digest %s",
                     to_string(digest).c_str());
  }
  return trust.certificates->verify(digest, signature);
}

// Under the table's lock, attached: what is beside the file decides whether its bytes are verified. A sidecar is looked
// for once nobody else can write the file, so one that appears later belongs to a file that we have open to read only.
Status CacheImpl::settle_verity_locked(HostInode& inode, const FileImpl& file, const VerityTrust* trust) {
  if (inode.host->block_device()) {
    if (trust == nullptr) return {};
    return fail_with(ENODATA, "it is a block device, and fs-verity is for regular files");
  }
  if (inode.verity == nullptr) {
    auto found = find_sidecar(inode.host->descriptor(), inode.host->size());
    QUIRE_TRY(found);
    if (!found.value().has_value()) {
      if (trust == nullptr) return {};
      return fail_with(ENODATA, "it has no sidecar (FILE%s): fs-verity is not on for it", verity::kSidecarSuffix);
    }
    if (!file.writable) {
      if (inode.handles != 0) {
        return fail_with(EBUSY, "fs-verity was turned on while it is open here without: close it first");
      }
      if (trust != nullptr) {
        QUIRE_TRY(check_verity_trust(*trust, found.value()->digest, found.value()->header.signature));
      }
      return start_verity_locked(inode, std::move(*found.value()));
    }
  } else if (trust != nullptr) {
    QUIRE_TRY(check_verity_trust(*trust, inode.verity_digest, inode.verity_signature));
  }
  if (!file.writable) return {};
  return fail_with(EPERM, "fs-verity is on for it (it has a sidecar, FILE%s), so it can only be read",
                   verity::kSidecarSuffix);
}

// What is cached of it was not verified, and goes first. Nobody has it open.
Status CacheImpl::start_verity_locked(HostInode& inode, FoundSidecar found) {
  empty(inode);
  HostOptions host_options{options_.use_direct, options_.use_io_uring, &cache_.io_stats, cache_.io_thread.get(),
                           nullptr};
  auto sidecar = std::make_unique<HostBacking>(host_options);
  inode.sidecar = sidecar.get();
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
                                              .path = std::move(found.data_path),
                                              .at_completion = options_.verity_at_completion});
  QUIRE_TRY(made);
  inode.verity = made.take();
  inode.verity_digest = found.digest;
  inode.verity_signature = std::move(found.header.signature);
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
}

}  // namespace quire
