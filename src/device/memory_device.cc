// Chunks of memory behind the Device interface.
#include "device/memory_device.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>

#include "base/bytes.h"
#include "base/check.h"
#include "sync/sequence.h"

namespace quire {

struct MemoryDevice::Chunk {
  unsigned char bytes[kChunkSize];
};

namespace {

constexpr std::size_t kBounceSize = kPageSize;

// Both sides may be changing: the device's bytes under another request, the caller's under an optimistic reader of the
// frame or a writer that does not wait for writeback. So it goes through private memory.
void copy(unsigned char* to, const unsigned char* from, std::size_t length) {
  unsigned char bounce[kBounceSize];
  while (length > 0) {
    const std::size_t here = std::min(length, sizeof bounce);
    racy_copy_from_folio(bounce, from, here);
    racy_copy_to_folio(to, bounce, here);
    to += here;
    from += here;
    length -= here;
  }
}

}  // namespace

MemoryDevice::MemoryDevice(const MemoryDeviceOptions& options)
    : options_(options),
      chunk_count_(round_up(options.max_size, kChunkSize) >> kChunkShift),
      chunks_(new Atomic<Chunk*>[chunk_count_]),
      size_(options.size) {
  CHECK(options.size <= options.max_size);
}

MemoryDevice::~MemoryDevice() {
  delay_.stop();  // before the bytes go
  for (std::uint64_t i = 0; i < chunk_count_; ++i) delete chunks_[i].load(memory_order_relaxed);
}

// Acquire: pairs with the publication, so that the zeros of a new chunk are seen.
MemoryDevice::Chunk* MemoryDevice::chunk(std::uint64_t index) const {
  return chunks_[index].load(memory_order_acquire);
}

MemoryDevice::Chunk* MemoryDevice::chunk_for_write(std::uint64_t index) {
  Chunk* found = chunk(index);
  if (found != nullptr) return found;
  auto* made = new (std::nothrow) Chunk();
  if (made == nullptr) return nullptr;
  // Release publishes the zeros; acquire on failure is for the winner's.
  if (chunks_[index].compare_exchange(found, made, memory_order_acq_rel, memory_order_acquire)) return made;
  delete made;
  return found;
}

void MemoryDevice::grow(std::uint64_t size) {
  CHECK(size <= options_.max_size);
  std::uint64_t old = size_.load(memory_order_relaxed);
  // Release: who sees the size (acquire) sees the bytes written below it.
  while (old < size && !size_.compare_exchange(old, size, memory_order_release, memory_order_relaxed)) {
  }
}

void MemoryDevice::peek(std::uint64_t offset, void* to, std::size_t length) const {
  auto* out = static_cast<unsigned char*>(to);
  while (length > 0) {
    const std::uint64_t within = offset & (kChunkSize - 1);
    const std::size_t here = std::min<std::uint64_t>(length, kChunkSize - within);
    const std::uint64_t index = offset >> kChunkShift;
    const Chunk* const found = index < chunk_count_ ? chunk(index) : nullptr;
    if (found == nullptr) {
      racy_zero_folio(out, here);
    } else {
      copy(out, found->bytes + within, here);
    }
    out += here;
    offset += here;
    length -= here;
  }
}

int MemoryDevice::poke(std::uint64_t offset, const void* from, std::size_t length) {
  if (offset > options_.max_size || length > options_.max_size - offset) return ENOSPC;
  const std::uint64_t end = offset + length;
  auto* in = static_cast<const unsigned char*>(from);
  while (offset < end) {
    const std::uint64_t within = offset & (kChunkSize - 1);
    const std::size_t here = std::min<std::uint64_t>(end - offset, kChunkSize - within);
    Chunk* const found = chunk_for_write(offset >> kChunkShift);
    if (found == nullptr) return ENOMEM;
    copy(found->bytes + within, in, here);
    in += here;
    offset += here;
  }
  if (length > 0) grow(end);
  return 0;
}

int MemoryDevice::fill(std::uint64_t offset, std::size_t length, unsigned char value) {
  unsigned char pattern[kBounceSize];
  std::memset(pattern, value, sizeof pattern);
  while (length > 0) {
    const std::size_t here = std::min(length, sizeof pattern);
    if (const int errnum = poke(offset, pattern, here); errnum != 0) return errnum;
    offset += here;
    length -= here;
  }
  return 0;
}

std::int64_t MemoryDevice::read(const Request& request) const {
  const std::uint64_t end = size();
  std::uint64_t at = request.offset;
  for (const iovec& buffer : request.buffers) {
    if (at >= end) break;
    const std::size_t here = std::min<std::uint64_t>(buffer.iov_len, end - at);
    peek(at, buffer.iov_base, here);
    at += here;
  }
  return static_cast<std::int64_t>(at - request.offset);
}

std::int64_t MemoryDevice::write(const Request& request) {
  std::uint64_t at = request.offset;
  for (const iovec& buffer : request.buffers) {
    if (const int errnum = poke(at, buffer.iov_base, buffer.iov_len); errnum != 0) return -errnum;
    at += buffer.iov_len;
  }
  return static_cast<std::int64_t>(at - request.offset);
}

bool MemoryDevice::refuses(const Request& request) const {
  if (request.offset > kMaxFileSize) return true;
  if (request.path != IoPath::direct_only) return false;
  std::uint64_t bits = request.offset;
  for (const iovec& buffer : request.buffers)
    bits |= reinterpret_cast<std::uintptr_t>(buffer.iov_base) | buffer.iov_len;
  return options_.direct_alignment == 0 || !is_aligned(bits, options_.direct_alignment);
}

void MemoryDevice::run(Request& request) {
  QUIRE_STEP_HERE(io, this);
  const bool is_read = request.op == IoOp::read;
  request.result = refuses(request) ? -EINVAL : is_read ? read(request) : write(request);
  if (options_.stats == nullptr) return;
  IoStats& stats = *options_.stats;
  IoStats::add(is_read ? stats.read_requests : stats.write_requests);
  if (request.result < 0) {
    if (request.result != -EINVAL || request.path != IoPath::direct_only) IoStats::add(stats.errors);
  } else {
    IoStats::add(is_read ? stats.read_bytes : stats.write_bytes, static_cast<std::uint64_t>(request.result));
  }
}

void MemoryDevice::sleep() const {
  if (options_.latency_ns <= 0) return;
#ifdef QUIRE_SIM
  if (sim::scheduler != nullptr) return sim::scheduler->sleep(options_.latency_ns);
#endif
  timespec left{options_.latency_ns / 1'000'000'000, options_.latency_ns % 1'000'000'000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

void MemoryDevice::execute(std::span<Request* const> batch) {
  sleep();
  for (Request* request : batch) run(*request);
}

void MemoryDevice::run_submitted(Request& request, void* owner) {
  static_cast<MemoryDevice*>(owner)->run(request);
  request.done(request);
}

void MemoryDevice::submit(std::span<Request* const> batch) {
  for (Request* request : batch) delay_.post(*request, options_.latency_ns, run_submitted, this);
}

int MemoryDevice::flush(bool) {
  sleep();
  if (options_.stats != nullptr) IoStats::add(options_.stats->flushes);
  return 0;
}

}  // namespace quire
