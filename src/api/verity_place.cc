// Files and their sidecars. See verity_place.h.
#include "api/verity_place.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/error.h"

namespace quire {
namespace {

// The name that it has just now; ENOENT if that leads to another file, or to none.
Result<std::string> name_of(int fd, const struct stat& st) {
  char link[32], name[PATH_MAX];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, name, sizeof name);
  if (n < 0) return fail_with(errno, "its name is not to be had (%s): %m", link);
  std::string found(name, static_cast<std::size_t>(n));
  struct stat there;
  if (stat(found.c_str(), &there) == 0 && there.st_dev == st.st_dev && there.st_ino == st.st_ino) return found;
  return fail_with(ENOENT, "it has been renamed or removed: a sidecar needs a name to stand beside");
}

}  // namespace

Result<PlacedFile> place_file(const char* path) {
  auto files = open_host_path(path, O_RDONLY, 0);
  QUIRE_TRY(files);
  PlacedFile placed;
  placed.files = files.take();
  struct stat st;
  if (fstat(placed.files.buffered, &st) != 0) return fail_with(errno, "fstat: %m");
  if (!S_ISREG(st.st_mode)) return fail_with(EINVAL, "it is a block device, and fs-verity is for regular files");
  placed.size = static_cast<std::uint64_t>(st.st_size);
  auto name = name_of(placed.files.buffered, st);
  QUIRE_TRY(name);
  placed.sidecar = name.take() + verity::kSidecarSuffix;
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

Result<FoundSidecar> read_sidecar(const PlacedFile& file) {
  auto found = find_sidecar(file.files.buffered, file.size);
  QUIRE_TRY(found);
  if (found.value().has_value()) return Result<FoundSidecar>(std::move(*found.value()));
  return fail_with(ENODATA, "fs-verity is not on for it (there is no %s): turn it on with quire verity enable",
                   file.sidecar.c_str());
}

}  // namespace quire
