// System calls on host files. See host_file.h.
#include "host/host_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"

namespace quire {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kClockGrainNs = 50'000'000;  // coarsest tick of file times, with a margin
constexpr off_t kReadByte = INT64_MAX - 4096, kWriteByte = kReadByte + 1;
constexpr unsigned kSafeAlignment = 4096;  // of direct I/O, where the host does not tell
constexpr int kAccessFlags = O_ACCMODE;
constexpr int kPassedOn = O_CREAT | O_EXCL | O_NOFOLLOW | O_NOATIME | O_CLOEXEC;

std::int64_t ns(const statx_timestamp& t) { return t.tv_sec * kSecond + t.tv_nsec; }

Status check_type(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFBLK:
      return {};
    case S_IFDIR:
      return fail_with(EISDIR, "it is a directory, and quire caches regular files and block devices");
    case S_IFIFO:
      return fail_with(EINVAL, "it is a FIFO, and quire caches regular files and block devices");
    case S_IFSOCK:
      return fail_with(EINVAL, "it is a socket, and quire caches regular files and block devices");
    default:
      return fail_with(EINVAL, "it is a character device, and quire caches regular files and block devices");
  }
}

// The largest size the host's file system takes: lseek refuses what lies past it.
std::uint64_t largest_size(int fd) {
  std::uint64_t low = 0, high = kMaxFileSize;
  if (lseek(fd, static_cast<off_t>(high), SEEK_SET) >= 0) return high;
  while (low < high) {
    const std::uint64_t middle = low + (high - low + 1) / 2;
    if (lseek(fd, static_cast<off_t>(middle), SEEK_SET) >= 0) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// What the host says of direct I/O on a regular file (Linux 6.1, and not all its file systems), in fields that older
// headers do not name.
unsigned reported_alignment(int fd) {
  constexpr unsigned kAskAlignment = 0x2000;  // STATX_DIOALIGN
  constexpr std::size_t kMemory = 152, kOffset = 156;
  struct statx st;
  static_assert(sizeof st == 256);
  if (statx(fd, "", AT_EMPTY_PATH, kAskAlignment, &st) != 0 || (st.stx_mask & kAskAlignment) == 0) {
    return kSafeAlignment;
  }
  std::uint32_t memory, offset;
  std::memcpy(&memory, reinterpret_cast<const char*>(&st) + kMemory, sizeof memory);
  std::memcpy(&offset, reinterpret_cast<const char*>(&st) + kOffset, sizeof offset);
  if (memory == 0 || offset == 0) return 0;
  const unsigned most = std::max(memory, offset);
  return (most & (most - 1)) == 0 ? most : kSafeAlignment;
}

// Of what is read nothing is wanted: an empty file does as well.
bool takes_direct_reads(int fd) {
  const std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(kSafeAlignment, kSafeAlignment),
                                                           &std::free);
  return memory != nullptr && pread(fd, memory.get(), kSafeAlignment, 0) >= 0;
}

struct flock lock_of(off_t byte, short type) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

bool others_hold(int fd, off_t byte) {
  struct flock lock = lock_of(byte, F_WRLCK);
  return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

Status refuse_lock(int errnum, const char* who) {
  if (errnum == EAGAIN || errnum == EACCES) {
    return fail_with(EBUSY, "another cache (of this or another process) has it open %s: one writer or many readers",
                     who);
  }
  return fail_with(errnum, "the host refuses to lock it: %m");
}

}  // namespace

HostDescriptors::HostDescriptors(HostDescriptors&& other) noexcept : buffered(other.buffered), direct(other.direct) {
  other.buffered = other.direct = -1;
}

HostDescriptors& HostDescriptors::operator=(HostDescriptors&& other) noexcept {
  if (this != &other) {
    close();
    buffered = std::exchange(other.buffered, -1);
    direct = std::exchange(other.direct, -1);
  }
  return *this;
}

void HostDescriptors::close() {
  if (direct >= 0) ::close(direct);
  if (buffered >= 0) ::close(buffered);
  direct = buffered = -1;
}

Result<HostIdentity> identify_host_file(int fd) {
  struct statx x;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &x) != 0) {
    return fail_with(errno, "the host does not tell its identity (statx): %m");
  }
  HostIdentity id;
  id.device = makedev(x.stx_dev_major, x.stx_dev_minor);
  id.inode = x.stx_ino;
  id.birth_ns = (x.stx_mask & STATX_BTIME) != 0 ? ns(x.stx_btime) : 0;
  id.modified_ns = ns(x.stx_mtime);
  id.changed_ns = ns(x.stx_ctime);
  id.size = x.stx_size;
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const std::int64_t age = now.tv_sec * kSecond + now.tv_nsec - id.changed_ns;
  id.certain = age > kClockGrainNs && S_ISREG(x.stx_mode);
  return id;
}

Result<HostDescriptors> open_host_path(const char* path, int flags, mode_t mode) {
  if ((flags & O_PATH) == O_PATH) return fail_with(EINVAL, "O_PATH gives nothing to read or write");
  if ((flags & O_TMPFILE) == O_TMPFILE) {
    return fail_with(EINVAL, "O_TMPFILE is not taken by path: open it yourself and pass it to quire_fdopen");
  }
  if ((flags & O_DIRECTORY) != 0) return fail_with(EINVAL, "O_DIRECTORY asks for a directory");
  struct stat st;
  const bool exists = stat(path, &st) == 0;
  if (exists) QUIRE_TRY(check_type(st.st_mode));  // before open, which has effects on FIFOs and devices
  const bool writable = (flags & kAccessFlags) != O_RDONLY;
  int host_flags = (flags & kPassedOn) | O_CLOEXEC | O_NONBLOCK | (writable ? O_RDWR : O_RDONLY);
  if (exists && S_ISBLK(st.st_mode)) host_flags &= ~(O_CREAT | O_EXCL);
  HostDescriptors files;
  files.buffered = open(path, host_flags, mode);
  if (files.buffered < 0) {
    const int errnum = errno;
    if (errnum == EACCES && (flags & kAccessFlags) == O_WRONLY && exists) {
      return fail_with(EACCES, "permission denied (quire writes whole pages, so it needs permission to read, too)");
    }
    return fail(errnum);
  }
  if (fstat(files.buffered, &st) != 0) return fail_with(errno, "fstat: %m");
  QUIRE_TRY(check_type(st.st_mode));
  return Result<HostDescriptors>(std::move(files));
}

Result<HostDescriptors> open_host_fd(int fd, int* open_flags) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return fail_with(errno, "descriptor %d is not open", fd);
  if ((flags & O_PATH) != 0) return fail_with(EBADF, "descriptor %d was opened with O_PATH", fd);
  struct stat st;
  if (fstat(fd, &st) != 0) return fail_with(errno, "fstat: %m");
  QUIRE_TRY(check_type(st.st_mode));
  *open_flags = flags;
  // A description of its own, so that locks and flags are quire's; a plain duplicate would share the caller's.
  char path[32];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const int host_flags = O_CLOEXEC | O_NONBLOCK | ((flags & kAccessFlags) != O_RDONLY ? O_RDWR : O_RDONLY);
  HostDescriptors files;
  files.buffered = open(path, host_flags);
  if (files.buffered < 0) {
    const int errnum = errno;
    return fail_with(errnum, "descriptor %d cannot be opened anew: %s", fd, std::strerror(errnum));
  }
  return Result<HostDescriptors>(std::move(files));
}

Result<int> claim_block_device(int fd) {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  const int claim = open(path, O_CLOEXEC | O_NONBLOCK | O_RDWR | O_EXCL);
  if (claim >= 0) return claim;
  const int errnum = errno;
  if (errnum == EBUSY) {
    return fail_with(EBUSY, "the block device is mounted or otherwise in use: unmount it before writing to it");
  }
  return fail_with(errnum, "the block device cannot be claimed for writing: %s", std::strerror(errnum));
}

unsigned open_direct(HostDescriptors& files, bool writable, unsigned alignment) {
  char path[32];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", files.buffered);
  files.direct = open(path, O_CLOEXEC | O_NONBLOCK | O_DIRECT | (writable ? O_RDWR : O_RDONLY));
  if (files.direct < 0) return 0;
  if (alignment != 0) return alignment;
  if (takes_direct_reads(files.direct)) return kSafeAlignment;
  ::close(files.direct);
  files.direct = -1;
  return 0;
}

Result<HostProperties> host_properties(int fd) {
  HostProperties p;
  struct stat st;
  if (fstat(fd, &st) != 0) return fail_with(errno, "fstat: %m");
  if (S_ISBLK(st.st_mode)) {
    p.block_device = true;
    int sector = 0;
    if (ioctl(fd, BLKGETSIZE64, &p.size) != 0) return fail_with(errno, "the block device does not tell its size: %m");
    if (ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0) p.direct_alignment = static_cast<unsigned>(sector);
    p.max_size = p.size;
    return p;
  }
  p.size = static_cast<std::uint64_t>(st.st_size);
  p.max_size = largest_size(fd);
  p.direct_alignment = reported_alignment(fd);
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) return p;
  if (fs.f_bsize > 0) p.block_size = static_cast<unsigned>(fs.f_bsize);
  // btrfs checksums the pages that O_DIRECT writes; ours may be written to meanwhile, and would fail to verify.
  if (static_cast<unsigned long>(fs.f_type) == BTRFS_SUPER_MAGIC) p.direct_allowed = false;
  if (static_cast<unsigned long>(fs.f_type) == EXT4_SUPER_MAGIC) {  // of ext2 and ext3, too
    int flags = 0;
    p.unwritten_extents = ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & FS_EXTENT_FL) != 0;
  }
  return p;
}

Status lock_host_read(int fd) {
  struct flock lock = lock_of(kReadByte, F_RDLCK);
  if (fcntl(fd, F_OFD_SETLK, &lock) != 0) return refuse_lock(errno, "for writing");
  if (others_hold(fd, kWriteByte)) {
    unlock_host_read(fd);
    return refuse_lock(EAGAIN, "for writing");
  }
  return {};
}

Status lock_host_write(int fd, int read_fd) {
  struct flock lock = lock_of(kWriteByte, F_WRLCK);
  if (fcntl(fd, F_OFD_SETLK, &lock) != 0) return refuse_lock(errno, "for writing");
  if (others_hold(read_fd, kReadByte)) {
    unlock_host_write(fd);
    return refuse_lock(EAGAIN, "for reading");
  }
  return {};
}

void unlock_host_write(int fd) {
  struct flock lock = lock_of(kWriteByte, F_UNLCK);
  fcntl(fd, F_OFD_SETLK, &lock);
}

void unlock_host_read(int fd) {
  struct flock lock = lock_of(kReadByte, F_UNLCK);
  fcntl(fd, F_OFD_SETLK, &lock);
}

}  // namespace quire
