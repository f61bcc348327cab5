// Range operations of host files: each is the host's own call, so what its file system cannot do it refuses itself, and
// it keeps its own page cache (a last partial block is in it) coherent with what changes. See host_backing.h.
// Locks: none; the caller holds `remove` over all that changes. Guarantees: R2, D1.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <new>

#include "base/error.h"
#include "host/host_backing.h"

namespace quire {
namespace {

// XFS's exchange of ranges (Linux 6.10), which older headers lack.
struct ExchangeRange {
  std::int32_t file1_fd;
  std::uint32_t pad;
  std::uint64_t file1_offset, file2_offset, length, flags;
};
static_assert(sizeof(ExchangeRange) == 40);
constexpr unsigned long kExchangeRange = _IOW('X', 129, ExchangeRange);

// errno is the host's. What it does not know at all and what its file system cannot do are the same to the caller.
Failure refused(const char* operation) {
  const int errnum = errno == ENOTTY || errno == ENOSYS ? EOPNOTSUPP : errno;
  return fail_with(errnum, "the host does not %s: %m", operation);
}

Failure not_of_a_device(const char* operation) { return fail_with(EOPNOTSUPP, "a block device cannot %s", operation); }

// Not for what moves or swaps bytes: done twice it would be another change.
bool fallocate_again(int fd, int mode, std::uint64_t offset, std::uint64_t length) {
  int rc;
  do {
    rc = ::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (rc != 0 && errno == EINTR);
  return rc == 0;
}

// One call's worth of FIDEDUPERANGE: how many bytes, or -1 and errno.
std::int64_t dedupe_some(int source_fd, std::uint64_t from, int fd, std::uint64_t offset, std::uint64_t length) {
  alignas(file_dedupe_range) std::byte room[sizeof(file_dedupe_range) + sizeof(file_dedupe_range_info)] = {};
  auto* const request = new (room) file_dedupe_range{};
  request->src_offset = from;
  request->src_length = length;
  request->dest_count = 1;
  file_dedupe_range_info& target = request->info[0];
  target.dest_fd = fd;
  target.dest_offset = offset;
  if (ioctl(source_fd, FIDEDUPERANGE, request) != 0) return -1;
  if (target.status == FILE_DEDUPE_RANGE_SAME) return static_cast<std::int64_t>(target.bytes_deduped);
  errno = target.status == FILE_DEDUPE_RANGE_DIFFERS ? EBADE : -target.status;
  return -1;
}

}  // namespace

// After a change that may have grown the file to `end`, failed or not. Never less than before, since a commit of other
// bytes may have passed it; and never beyond the operation's own end, since farther on a truncate may be under way.
void HostBacking::follow_growth(std::uint64_t end) {
  struct stat st;
  if (properties_.block_device || fstat(current_fd(), &st) != 0) return;
  grow_to(std::min(end, static_cast<std::uint64_t>(st.st_size)));
}

// After collapse and insert, failed or not: nothing is dirty up to the end, so no commit comes between.
void HostBacking::follow_size() {
  struct stat st;
  if (fstat(current_fd(), &st) == 0) size_.store(static_cast<std::uint64_t>(st.st_size), memory_order_release);
}

// The host takes a device's pages out of its own cache first, and those that are dirty only for its exclusive holder.
// The claim is there for as long as anybody may write.
int HostBacking::changing_fd() const { return claim_fd_ >= 0 ? claim_fd_ : current_fd(); }

// A file that runs out of room half way is to keep its size, which not every host sees to: blocks first, then the size.
// Blocks that were got stay, as they do with the host's own call; a truncate to the same size frees those past the end.
Status HostBacking::change_and_grow(int mode, std::uint64_t offset, std::uint64_t length, bool keep_size,
                                    const char* operation) {
  const int fd = changing_fd();
  const std::uint64_t old_size = size();
  const bool grows = !keep_size && !fixed_size() && offset + length > old_size;
  const int size_flag = keep_size || grows ? FALLOC_FL_KEEP_SIZE : 0;
  const bool done =
      fallocate_again(fd, mode | size_flag, offset, length) && (!grows || fallocate_again(fd, 0, offset, length));
  const Status status = done ? Status{} : refused(operation);
  forget(grows ? std::min(offset, old_size) : offset, offset + length);
  if (!keep_size) follow_growth(offset + length);
  return status;
}

Status HostBacking::allocate(std::uint64_t offset, std::uint64_t length, bool keep_size) {
  if (fixed_size()) return not_of_a_device("allocate blocks ahead");
  return change_and_grow(0, offset, length, keep_size, "allocate blocks ahead here");
}

Status HostBacking::punch(std::uint64_t offset, std::uint64_t length) {
  return change_and_grow(FALLOC_FL_PUNCH_HOLE, offset, length, true, "punch a hole here");
}

Status HostBacking::zero(std::uint64_t offset, std::uint64_t length, bool keep_size) {
  // Room first, too: hosts zero some of the range before they notice that there is none for the holes in the rest.
  if (!fixed_size() && offset < size() && !fallocate_again(current_fd(), FALLOC_FL_KEEP_SIZE, offset, length) &&
      errno != EOPNOTSUPP) {
    const Status status = refused("zero a range here");
    forget(offset, offset + length);
    return status;
  }
  return change_and_grow(FALLOC_FL_ZERO_RANGE, offset, length, keep_size, "zero a range here");
}

// With KEEP_SIZE: without, the host allocates past the end and grows the file, too.
Status HostBacking::unshare(std::uint64_t offset, std::uint64_t length) {
  if (fixed_size()) return not_of_a_device("unshare a range");
  return change_and_grow(FALLOC_FL_UNSHARE_RANGE, offset, length, true, "unshare a range here");
}

Status HostBacking::shift(int mode, std::uint64_t offset, std::uint64_t length, const char* operation) {
  const int rc = ::fallocate(current_fd(), mode, static_cast<off_t>(offset), static_cast<off_t>(length));
  const Status status = rc == 0 ? Status{} : refused(operation);
  forget(offset, UINT64_MAX);
  follow_size();
  return status;
}

Status HostBacking::collapse(std::uint64_t offset, std::uint64_t length) {
  if (fixed_size()) return not_of_a_device("collapse a range");
  return shift(FALLOC_FL_COLLAPSE_RANGE, offset, length, "collapse a range here");
}

Status HostBacking::insert(std::uint64_t offset, std::uint64_t length) {
  if (fixed_size()) return not_of_a_device("insert a range");
  return shift(FALLOC_FL_INSERT_RANGE, offset, length, "insert a range here");
}

Status HostBacking::clone(Backing& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length) {
  if (fixed_size()) return not_of_a_device("share blocks");
  auto* const other = dynamic_cast<HostBacking*>(&source);
  if (other == nullptr) return fail_with(EXDEV, "blocks are shared within one file system only");
  file_clone_range request = {};
  request.src_fd = other->current_fd();
  request.src_offset = from;
  request.src_length = length;
  request.dest_offset = offset;
  int rc;
  do {
    rc = ioctl(current_fd(), FICLONERANGE, &request);
  } while (rc != 0 && errno == EINTR);
  const Status status = rc == 0 ? Status{} : refused("share these blocks");
  other->forget(from, from + length);
  forget(std::min(offset, size()), offset + length);
  follow_growth(offset + length);
  return status;
}

// The host compares whole blocks and the end that two files have in common, but reports all that it was asked for as
// done: so it is asked for no more than it compares.
Result<std::uint64_t> HostBacking::dedupe(Backing& source, std::uint64_t from, std::uint64_t offset,
                                          std::uint64_t length) {
  if (fixed_size()) return not_of_a_device("share blocks");
  auto* const other = dynamic_cast<HostBacking*>(&source);
  if (other == nullptr) return fail_with(EXDEV, "blocks are shared within one file system only");
  const bool inside = from + length <= other->size() && offset + length <= size();
  const bool common_end = from + length == other->size() && offset + length == size();
  const std::uint64_t whole = common_end ? length : length - length % properties_.block_size;
  const std::uint64_t asked = inside && whole != 0 ? whole : length;  // of the rest it may have another refusal
  std::uint64_t done = 0;
  while (done < asked) {
    const std::int64_t n = dedupe_some(other->current_fd(), from + done, current_fd(), offset + done, asked - done);
    const int errnum = errno;
    other->forget(from + done, from + asked);
    forget(offset + done, offset + asked);
    errno = errnum;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && done == 0 && errno == EBADE) return fail_with(EBADE, "the two ranges hold different bytes");
    if (n < 0 && done == 0) return refused("share these blocks");
    if (n <= 0) break;  // what comes next is told by the next call
    done += std::min(static_cast<std::uint64_t>(n), asked - done);
  }
  if (whole == 0 || done == 0) {
    return fail_with(EINVAL, "less than a block, %u bytes, cannot be shared", properties_.block_size);
  }
  return done;
}

Status HostBacking::exchange(Backing& other, std::uint64_t at, std::uint64_t offset, std::uint64_t length) {
  if (fixed_size()) return not_of_a_device("exchange ranges");
  auto* const file = dynamic_cast<HostBacking*>(&other);
  if (file == nullptr) return fail_with(EXDEV, "ranges are exchanged within one file system only");
  ExchangeRange request = {};
  request.file1_fd = file->current_fd();
  request.file1_offset = at;
  request.file2_offset = offset;
  request.length = length;
  const int rc = ioctl(current_fd(), kExchangeRange, &request);
  const Status status = rc == 0 ? Status{} : refused("exchange these ranges");
  file->forget(at, at + length);
  forget(offset, offset + length);
  return status;
}

// Nobody uses the position of our descriptors.
Result<std::uint64_t> HostBacking::seek_data(std::uint64_t offset) {
  if (fixed_size()) return not_of_a_device("tell its data from its holes");
  const off_t found = lseek(current_fd(), static_cast<off_t>(offset), SEEK_DATA);
  if (found < 0) return refused("find data from here on");
  return static_cast<std::uint64_t>(found);
}

Result<std::uint64_t> HostBacking::seek_hole(std::uint64_t offset) {
  if (fixed_size()) return not_of_a_device("tell its data from its holes");
  const off_t found = lseek(current_fd(), static_cast<off_t>(offset), SEEK_HOLE);
  if (found < 0) return refused("find a hole from here on");
  return static_cast<std::uint64_t>(found);
}

}  // namespace quire
