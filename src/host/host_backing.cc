// Host files as a backing. See host_backing.h.
#include "host/host_backing.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace quire {

// Opens the direct twin, too, where there is to be one.
std::unique_ptr<FileDevice> HostBacking::make_device(HostDescriptors& files, bool writable) const {
  const bool wanted = options_.use_direct && properties_.direct_allowed;
  const unsigned alignment = wanted ? open_direct(files, writable, properties_.direct_alignment) : 0;
  return std::make_unique<FileDevice>(FileDeviceOptions{.direct_fd = files.direct,
                                                        .buffered_fd = files.buffered,
                                                        .direct_alignment = std::max(alignment, 1U),
                                                        .use_io_uring = options_.use_io_uring,
                                                        .stats = options_.stats,
                                                        .io_thread = options_.io_thread});
}

Status HostBacking::attach(HostDescriptors files, bool writable) {
  QUIRE_TRY(lock_host_read(files.buffered));
  Status ready;
  if (writable) ready = lock_host_write(files.buffered, files.buffered);
  if (ready.ok()) {
    const auto properties = host_properties(files.buffered);  // under the lock: the size is ours to know
    if (properties.ok()) properties_ = properties.value();
    ready = properties.ok() ? Status{} : Status::error(properties.errnum());
  }
  if (ready.ok() && writable) ready = claim(files.buffered);
  if (!ready.ok()) {
    // A child forked just now may have a copy of the description: closing ours would leave the locks with it.
    unlock_host_read(files.buffered);
    if (writable) unlock_host_write(files.buffered);
    return ready;
  }
  reading_ = std::move(files);
  reading_can_write_ = writing_now_ = writable;
  reading_device_ = make_device(reading_, writable);
  if (reading_.direct < 0) IoStats::add(options_.stats->direct_fallbacks);
  device_.store(reading_device_.get(), memory_order_release);
  current_fd_.store(reading_.buffered, memory_order_release);
  size_.store(properties_.size, memory_order_release);
  return {};
}

Status HostBacking::allow_writing(HostDescriptors files) {
  if (writing_now_) return {};
  if (reading_can_write_ || writing_.open()) {  // an earlier writer's descriptors are still here
    QUIRE_TRY(lock_host_write(current_fd(), reading_.buffered));
    const Status claimed = claim(current_fd());
    if (!claimed.ok()) unlock_host_write(current_fd());
    forget(0, UINT64_MAX);  // only a writer's knowledge is sure to last
    writing_now_ = claimed.ok();
    return claimed;
  }
  QUIRE_TRY(lock_host_write(files.buffered, reading_.buffered));
  const Status claimed = claim(files.buffered);
  if (!claimed.ok()) {
    unlock_host_write(files.buffered);
    return claimed;
  }
  writing_ = std::move(files);
  writing_device_ = make_device(writing_, true);
  device_.store(writing_device_.get(), memory_order_release);
  current_fd_.store(writing_.buffered, memory_order_release);
  forget(0, UINT64_MAX);
  writing_now_ = true;
  return {};
}

Status HostBacking::claim(int fd) {
  if (!properties_.block_device || claim_fd_ >= 0) return {};
  const auto claimed = claim_block_device(fd);
  QUIRE_TRY(claimed);
  claim_fd_ = claimed.value();
  return {};
}

void HostBacking::release_claim() {
  if (claim_fd_ >= 0) ::close(claim_fd_);
  claim_fd_ = -1;
}

void HostBacking::stop_writing() {
  if (!writing_now_) return;
  release_claim();
  unlock_host_write(current_fd());
  writing_now_ = false;
}

void HostBacking::detach() {
  forget(0, UINT64_MAX);  // others may write to it from here on
  // Unlocked by name: a forked child may hold copies of the descriptions for a while yet.
  if (writing_now_) stop_writing();
  if (reading_.open()) unlock_host_read(reading_.buffered);
  device_.store(nullptr, memory_order_release);
  current_fd_.store(-1, memory_order_release);
  writing_device_.reset();
  reading_device_.reset();
  writing_.close();
  reading_.close();
  reading_can_write_ = writing_now_ = false;
}

void HostBacking::close_in_child() {
  release_claim();
  writing_.close();
  reading_.close();
}

// Larger units of the host's (network file systems name the size of a good transfer) are none that bytes share a fate
// in.
unsigned HostBacking::block_size() const {
  const unsigned told = properties_.block_size;
  return told < kPageSize && told >= 512 && (told & (told - 1)) == 0 ? told : static_cast<unsigned>(kPageSize);
}

Result<Extent> HostBacking::map(std::uint64_t offset, std::uint64_t length) {
  // The kernel takes no request that ends past the largest offset: the last page of the largest file lacks a byte.
  const std::uint64_t end = std::min<std::uint64_t>(round_up(size(), kPageSize), kMaxFileSize);
  if (offset >= end) return Extent{.offset = offset, .length = length};
  return Extent{
      .offset = offset, .length = std::min(length, end - offset), .address = offset, .kind = ExtentKind::written};
}

Result<Extent> HostBacking::prepare(std::uint64_t offset, std::uint64_t length) {
  return Extent{.offset = offset, .length = length, .address = offset, .kind = ExtentKind::written};
}

Status HostBacking::commit(std::uint64_t offset, std::uint64_t length, std::uint64_t end_of_file) {
  if (options_.written_map != nullptr) {
    const std::uint64_t unit = block_size();
    options_.written_map->set_written(written_, offset / unit, (offset + length + unit - 1) / unit);
  }
  grow_to(std::min(offset + length, end_of_file));
  return {};
}

void HostBacking::grow_to(std::uint64_t end) {
  std::uint64_t known = size_.load(memory_order_relaxed);
  while (known < end && !size_.compare_exchange(known, end, memory_order_acq_rel, memory_order_relaxed)) {
  }
}

Status HostBacking::set_size(std::uint64_t size) {
  const std::uint64_t from = std::min(size, this->size());  // the old last block counts: its rest may be zeroed
  const bool done = ftruncate(current_fd(), static_cast<off_t>(size)) == 0;
  const int errnum = errno;
  forget(from, UINT64_MAX);
  if (!done) return fail(errnum);
  size_.store(size, memory_order_release);
  return {};
}

void HostBacking::cut_back(std::uint64_t size) {
  struct stat st;
  if (fstat(current_fd(), &st) != 0 || static_cast<std::uint64_t>(st.st_size) <= size) return;
  // What cannot be cut off, after a write that failed already, is left to the next truncate.
  static_cast<void>(set_size(std::max(size, this->size())));
}

Status HostBacking::sync(bool data_only) {
  const int errnum = device().flush(data_only);
  if (errnum != 0) return fail(errnum);
  return {};
}

Status HostBacking::stat(struct stat* out) {
  if (fstat(current_fd(), out) != 0) return fail(errno);
  return {};
}

}  // namespace quire
