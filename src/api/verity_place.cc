// Sidecars found and read. See verity_place.h.
#include "api/verity_place.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace quire {
Result<std::string> sidecar_of(int fd) {
  struct stat st, there;
  if (fstat(fd, &st) != 0) return fail_with(errno, "fstat: %m");
  char link[32], name[PATH_MAX];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, name, sizeof name);
  if (n < 0) return fail_with(errno, "its name is not to be had (%s): %m", link);
  std::string found(name, static_cast<std::size_t>(n));
  if (stat(found.c_str(), &there) == 0 && there.st_dev == st.st_dev && there.st_ino == st.st_ino) {
    return found + verity::kSidecarSuffix;
  }
  return fail_with(ENOENT, "it has been renamed or removed: a sidecar needs a name to stand beside");
}

Result<PlacedFile> place_file(const char* path) {
  auto files = open_host_path(path, O_RDONLY, 0);
  QUIRE_TRY(files);
  PlacedFile placed;
  placed.files = files.take();
  struct stat st;
  if (fstat(placed.files.buffered, &st) != 0) return fail_with(errno, "fstat: %m");
  if (!S_ISREG(st.st_mode)) return fail_with(EINVAL, "it is a block device, and fs-verity is for regular files");
  placed.size = static_cast<std::uint64_t>(st.st_size);
  auto sidecar = sidecar_of(placed.files.buffered);
  QUIRE_TRY(sidecar);
  placed.sidecar = sidecar.take();
  return placed;
}

void read_from_disk(PlacedFile& file) {
  const auto properties = host_properties(file.files.buffered);
  if (properties.ok() && properties.value().direct_allowed && properties.value().direct_alignment != 0) {
    static_cast<void>(open_direct(file.files, false, properties.value().direct_alignment));
  }
  clear_cause();
  if (file.files.direct >= 0) return;
  static_cast<void>(posix_fadvise(file.files.buffered, 0, 0, POSIX_FADV_DONTNEED));
  static_cast<void>(posix_fadvise(file.files.buffered, 0, 0, POSIX_FADV_SEQUENTIAL));
}

Result<std::size_t> read_host(int fd, std::uint64_t offset, std::span<char> to) {
  std::size_t done = 0;
  while (done < to.size()) {
    const ssize_t n = pread(fd, to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(errno);
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Result<ReadSidecar> read_sidecar(const PlacedFile& file) {
  const char* const path = file.sidecar.c_str();
  ReadSidecar sidecar;
  sidecar.files.buffered = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (sidecar.files.buffered < 0) {
    if (errno == ENOENT || errno == ENAMETOOLONG) {
      return fail_with(ENODATA, "fs-verity is not on for it (there is no %s): turn it on with quire verity enable",
                       path);
    }
    return fail_with(errno, "its sidecar %s cannot be opened: %m", path);
  }
  struct stat st;
  if (fstat(sidecar.files.buffered, &st) != 0) return fail_with(errno, "fstat of %s: %m", path);
  if (!S_ISREG(st.st_mode)) return fail_with(EBADMSG, "its sidecar %s is no regular file", path);
  std::vector<char> header(verity::kSidecarHeaderSize);
  const auto got = read_host(sidecar.files.buffered, 0, header);
  if (!got.ok()) {
    return fail_with(got.errnum(), "its sidecar %s cannot be read: %s", path, std::strerror(got.errnum()));
  }
  header.resize(got.value());
  auto decoded = verity::decode_sidecar(header, static_cast<std::uint64_t>(st.st_size), file.size);
  QUIRE_TRY(decoded);
  sidecar.header = decoded.take();
  const auto digest = verity::file_digest(sidecar.header.descriptor);
  QUIRE_TRY(digest);
  sidecar.digest = digest.value();
  return sidecar;
}

Result<AcceptedVerity> accepted_verity(const char* digest, const char* certificates) {
  AcceptedVerity accepted;
  if (digest != nullptr) {
    const auto parsed = verity::parse_digest(digest);
    QUIRE_TRY(parsed);
    accepted.digest = parsed.value();
  }
  if (certificates != nullptr) {
    auto loaded = verity::Certificates::load(certificates);
    QUIRE_TRY(loaded);
    accepted.certificates = loaded.take();
  }
  return accepted;
}

Status check_accepted(const AcceptedVerity& accepted, const verity::Digest& digest,
                      const std::vector<std::uint8_t>& signature) {
  if (accepted.digest.has_value() && *accepted.digest != digest) {
    return fail_with(EKEYREJECTED, "its digest is %s, and %s is wanted", to_string(digest).c_str(),
                     to_string(*accepted.digest).c_str());
  }
  if (!accepted.certificates.has_value()) return {};
  if (signature.empty()) {
    return fail_with(EKEYREJECTED, "it is not signed: enable fs-verity with a signature of its digest %s",
                     to_string(digest).c_str());
  }
  return accepted.certificates->verify(digest, signature);
}

}  // namespace quire
