// Host files as a backing. See host_backing.h.
#include "host/host_backing.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"

namespace quire {

std::unique_ptr<FileDevice> HostBacking::make_device(const HostDescriptors& files) const {
  return std::make_unique<FileDevice>(FileDeviceOptions{.direct_fd = files.direct,
                                                        .buffered_fd = files.buffered,
                                                        .logical_block_size = properties_.logical_block_size,
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
  if (options_.use_direct && properties_.direct_allowed) open_direct(files, writable);
  if (files.direct < 0) IoStats::add(options_.stats->direct_fallbacks);
  reading_ = std::move(files);
  reading_can_write_ = writing_now_ = writable;
  reading_device_ = make_device(reading_);
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
    writing_now_ = claimed.ok();
    return claimed;
  }
  QUIRE_TRY(lock_host_write(files.buffered, reading_.buffered));
  const Status claimed = claim(files.buffered);
  if (!claimed.ok()) {
    unlock_host_write(files.buffered);
    return claimed;
  }
  if (options_.use_direct && properties_.direct_allowed) open_direct(files, true);
  writing_ = std::move(files);
  writing_device_ = make_device(writing_);
  device_.store(writing_device_.get(), memory_order_release);
  current_fd_.store(writing_.buffered, memory_order_release);
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
  const std::uint64_t end = std::min(offset + length, end_of_file);
  std::uint64_t known = size_.load(memory_order_relaxed);
  while (known < end && !size_.compare_exchange(known, end, memory_order_acq_rel, memory_order_relaxed)) {
  }
  return {};
}

Status HostBacking::set_size(std::uint64_t size) {
  if (ftruncate(current_fd(), static_cast<off_t>(size)) != 0) return fail(errno);
  size_.store(size, memory_order_release);
  return {};
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
