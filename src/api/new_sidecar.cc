// The system calls of making a sidecar. See new_sidecar.h.
#include "api/new_sidecar.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "base/error.h"

namespace quire {
namespace {

constexpr mode_t kWhileMade = 0600;
constexpr std::size_t kLongestName = 240;  // of a temporary file, without its random end

}  // namespace

NewSidecar::~NewSidecar() { remove_temporary(); }

Status NewSidecar::create(std::uint64_t size) {
  directory_ = path_.substr(0, path_.rfind('/') + 1);  // an absolute path: the host named it
  directory_file_.buffered = ::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_file_.buffered < 0)
    return fail_with(errno, "its directory %s cannot be opened: %m", directory_.c_str());
  if (tmpfile_) file_.buffered = ::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kWhileMade);
  if (file_.buffered < 0) {
    // EISDIR, ENOENT: a kernel or file system that does not know O_TMPFILE, and sees an open of the directory.
    if (tmpfile_ && errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT) {
      return fail_with(errno, "no file can be made in %s for its sidecar: %m", directory_.c_str());
    }
    QUIRE_TRY(create_named());
  }
  // Room for all of it, before hours of hashing.
  if (fallocate(file_.buffered, 0, 0, static_cast<off_t>(size)) != 0 && (errno == ENOSPC || errno == EDQUOT)) {
    return fail_with(errno, "there is no room for its sidecar %s of %llu bytes: %m", path_.c_str(),
                     static_cast<unsigned long long>(size));
  }
  return {};
}

Status NewSidecar::create_named() {
  temporary_ = directory_ + "." + path_.substr(directory_.size(), kLongestName) + ".XXXXXX";
  file_.buffered = mkostemp(temporary_.data(), O_CLOEXEC);
  if (file_.buffered >= 0) return {};
  const int errnum = errno;
  temporary_.clear();
  return fail_with(errnum, "no file can be made in %s for its sidecar: %m", directory_.c_str());
}

void NewSidecar::remove_temporary() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
  temporary_.clear();
}

Status NewSidecar::write(std::uint64_t offset, std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(file_.buffered, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return fail_with(errno, "its sidecar %s cannot be written (%zu bytes at offset %llu): %m", path_.c_str(),
                       bytes.size(), static_cast<unsigned long long>(offset));
    }
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Status NewSidecar::finish(std::span<const char> header, const struct stat& of) {
  QUIRE_TRY(write(0, header));
  if (fchown(file_.buffered, of.st_uid, of.st_gid) != 0) {
    static_cast<void>(fchown(file_.buffered, static_cast<uid_t>(-1), of.st_gid));  // to one's own groups anybody may
  }
  if (fchmod(file_.buffered, of.st_mode & 0444) != 0 && errno != EPERM) {  // EPERM: it has no permissions here
    return fail_with(errno, "its sidecar %s cannot be given its permissions: %m", path_.c_str());
  }
  if (fsync(file_.buffered) != 0) return fail_with(errno, "its sidecar %s cannot be made durable: %m", path_.c_str());
  return {};
}

Status NewSidecar::publish() {
  int done;
  if (temporary_.empty()) {
    char link[32];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", file_.buffered);
    done = linkat(AT_FDCWD, link, AT_FDCWD, path_.c_str(), AT_SYMLINK_FOLLOW);
  } else {
    done = renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE);
    if (done == 0) temporary_.clear();
    if (done != 0 && (errno == EINVAL || errno == ENOSYS)) {  // this file system has links instead
      done = linkat(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), 0);
    }
  }
  if (done == 0) return {};
  if (errno == EEXIST) return fail_with(EEXIST, "fs-verity is on for it already: there is %s", path_.c_str());
  return fail_with(errno, "its sidecar cannot be given its name %s: %m", path_.c_str());
}

// The file once more: some file systems (btrfs) log nothing of one that has no name yet.
Status NewSidecar::settle() {
  remove_temporary();
  if (fsync(file_.buffered) == 0 && fsync(directory_file_.buffered) == 0) return {};
  const int errnum = errno;
  unlink(path_.c_str());
  errno = errnum;
  return fail_with(errnum, "its sidecar %s cannot be made durable: %m", path_.c_str());
}

}  // namespace quire
