// Registration of an arena's chunks, and which requests go through them. See fixed_buffers.h.
#include "device/fixed_buffers.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/check.h"

namespace quire {
namespace {

// Whether rings of this thread should pin so much. What the rings of a user pin counts against RLIMIT_MEMLOCK, and on
// recent kernels (6.18 does) the rings themselves do, so a cache that took it all would keep this user's other threads
// and programs from making any. A part of the arena is not worth that either: below twice its size, nothing is
// registered. (In a user namespace the capability says too much, and the kernel refuses from some chunk on.)
bool may_pin(std::size_t bytes) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct capabilities[_LINUX_CAPABILITY_U32S_3]{};
  constexpr unsigned kIpcLock = 1u << CAP_IPC_LOCK;
  if (syscall(SYS_capget, &header, capabilities) == 0 && (capabilities[0].effective & kIpcLock) != 0) return true;
  struct rlimit limit;
  return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur / 2 >= bytes;
}

}  // namespace

FixedBuffers::FixedBuffers(std::span<char> arena, IoStats& stats, unsigned max_slots)
    : base_(reinterpret_cast<std::uintptr_t>(arena.data())), size_(arena.size()), stats_(stats) {
  CHECK(is_aligned(base_ | size_, kPageSize));
  while ((size_ + chunk_bytes_ - 1) / chunk_bytes_ > max_slots) chunk_bytes_ *= 2;
  chunk_count_ = (size_ + chunk_bytes_ - 1) / chunk_bytes_;
  if (chunk_count_ != 0) chunks_ = std::make_unique<Chunk[]>(chunk_count_);
}

void FixedBuffers::open(Ring& ring) {
  if (chunk_count_ == 0) return;
  open_ = may_pin(size_) && ring.make_buffer_table(static_cast<unsigned>(chunk_count_)) == 0;
  vectored_ = open_ && ring.has_vectored_fixed();
}

void FixedBuffers::close(Ring& ring) {
  if (!open_) return;
  ring.drop_buffer_table();
  for (std::size_t i = 0; i < chunk_count_; ++i) set_pages(chunks_[i], 0);
  open_ = false;
}

std::size_t FixedBuffers::chunk_of(const void* address) const {
  return (reinterpret_cast<std::uintptr_t>(address) - base_) / chunk_bytes_;
}

void FixedBuffers::change_withdrawn(const void* address, std::size_t bytes, bool withdrawn) {
  const auto* at = static_cast<const char*>(address);
  CHECK(is_aligned(reinterpret_cast<std::uintptr_t>(at) | bytes, kPageSize));
  CHECK(reinterpret_cast<std::uintptr_t>(at) - base_ <= size_);
  CHECK(bytes <= size_ - (reinterpret_cast<std::uintptr_t>(at) - base_));
  while (bytes != 0) {
    const std::size_t index = chunk_of(at);
    const std::size_t inside = reinterpret_cast<std::uintptr_t>(at) - base_ - index * chunk_bytes_;
    const std::size_t here = std::min(bytes, chunk_bytes_ - inside);
    const auto pages = static_cast<std::uint32_t>(here / kPageSize);
    if (withdrawn) {
      chunks_[index].withdrawn.fetch_add(pages, memory_order_relaxed);  // W1: who asks for drop() releases it
    } else {
      const std::uint32_t before = chunks_[index].withdrawn.fetch_sub(pages, memory_order_release);  // W3
      CHECK(before >= pages);
    }
    at += here;
    bytes -= here;
  }
}

void FixedBuffers::set_pages(Chunk& chunk, std::size_t pages) {
  IoStats::add(stats_.registered_bytes, (pages - chunk.pages) * kPageSize);  // wraps where it becomes less
  chunk.pages = static_cast<std::uint32_t>(pages);
}

// Has the chunk registered up to `end`, bytes from its start. A larger registration takes the place of the smaller one,
// which entries that are in flight keep until they are done.
bool FixedBuffers::reach(Ring& ring, std::size_t index, std::size_t end) {
  Chunk& chunk = chunks_[index];
  if (end <= chunk.pages * kPageSize) return true;
  if (resting_ != 0) {
    --resting_;
    return false;
  }
  const std::size_t start = index * chunk_bytes_;
  const std::size_t bytes = std::min(round_up(end, kPiece), size_ - start);
  if (ring.set_buffer(static_cast<unsigned>(index), reinterpret_cast<void*>(base_ + start), bytes) != 0) {
    resting_ = kRetryAfter;  // what was there before still is
    return false;
  }
  set_pages(chunk, bytes / kPageSize);
  return true;
}

// The least range of memory that holds them.
FixedBuffers::Bytes FixedBuffers::bytes_of(const TransferStep& step) {
  if (!step.vectored) {
    const auto first = reinterpret_cast<std::uintptr_t>(step.address);
    return {first, first + step.length};
  }
  Bytes all{UINTPTR_MAX, 0};
  for (const iovec& v : std::span(static_cast<const iovec*>(step.address), step.length)) {
    if (v.iov_len == 0) continue;
    const auto first = reinterpret_cast<std::uintptr_t>(v.iov_base);
    all.first = std::min(all.first, first);
    all.end = std::max(all.end, first + v.iov_len);
  }
  return all;
}

FixedUse FixedBuffers::aim(Ring& ring, TransferStep& step) {
  const Bytes bytes = bytes_of(step);
  if (bytes.first < base_ || bytes.end > base_ + size_ || bytes.first >= bytes.end) return FixedUse::elsewhere;
  if (!open_ || (step.vectored && !vectored_)) return FixedUse::refused;
  const std::size_t index = (bytes.first - base_) / chunk_bytes_;
  if ((bytes.end - 1 - base_) / chunk_bytes_ != index) return FixedUse::refused;           // an entry has one buffer
  if (chunks_[index].withdrawn.load(memory_order_acquire) != 0) return FixedUse::refused;  // W3
  if (!reach(ring, index, bytes.end - base_ - index * chunk_bytes_)) return FixedUse::refused;
  step.buffer = static_cast<int>(index);
  return FixedUse::fixed;
}

void FixedBuffers::drop(Ring& ring, const void* address, std::size_t bytes) {
  if (!open_ || bytes == 0) return;
  CHECK(ring.all_submitted());  // W2
  const std::size_t last = chunk_of(static_cast<const char*>(address) + bytes - 1);
  for (std::size_t index = chunk_of(address); index <= last; ++index) {
    if (chunks_[index].pages == 0) continue;
    // Kernels before 6.12 may lack the memory even for this. Then the pages stay pinned until the slot is set anew, but
    // nothing uses them: from here on the chunk is not registered.
    static_cast<void>(ring.set_buffer(static_cast<unsigned>(index), nullptr, 0));
    set_pages(chunks_[index], 0);
  }
}

}  // namespace quire
