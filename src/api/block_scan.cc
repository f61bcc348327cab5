// Threads that read and hash. See block_scan.h.
#include "api/block_scan.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "base/bytes.h"
#include "base/error.h"

namespace quire {
namespace {

constinit LockClass scan_class{"block scan"};
constexpr std::size_t kAlignment = 4096;  // of what is read directly: as much as any host asks for
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr int kShorter = EBUSY;  // of a read that ended early

std::uint64_t block_count(std::uint64_t bytes, std::uint32_t block_size) {
  return round_up(bytes, block_size) / block_size;
}

}  // namespace

BlockScan::BlockScan(const HostDescriptors& files, std::uint64_t size, const verity::BlockHasher& hasher,
                     bool past_errors)
    : files_(files),
      size_(size),
      prototype_(hasher),
      past_errors_(past_errors),
      buffers_(nullptr, &std::free),
      mutex_(scan_class) {}

BlockScan::~BlockScan() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.wake_all();
  for (Reader& reader : readers_) reader.thread.join();
}

// Some hash while the others wait for the device, which may tell of the ends of several reads at once
// (device/io_thread.cc): many more than there are processors, where those are few.
Status BlockScan::start() {
  const unsigned wanted = std::clamp(12 * std::thread::hardware_concurrency(), 4U, kMostThreads);
  const std::uint64_t pieces = round_up(size_, kPieceBytes) / kPieceBytes;
  const auto threads = static_cast<unsigned>(std::min<std::uint64_t>(wanted, pieces));
  slot_count_ = 2 * threads;
  try {
    const std::size_t most = block_count(std::min<std::uint64_t>(kPieceBytes, size_), prototype_.block_size());
    for (Slot& slot : std::span(slots_).first(slot_count_)) {
      slot.digests.resize(most * prototype_.digest_size());
      if (past_errors_) slot.bad_reads.reserve(most);  // now: its thread could tell nobody
    }
  } catch (const std::bad_alloc&) {
    return fail_with(ENOMEM, "no memory to hash the file");
  }
  QUIRE_TRY(allocate(threads));
  unsigned started = 0;
  int errnum = 0;
  for (Reader& reader : std::span(readers_).first(threads)) {
    Status done = prepare(reader, started);
    if (done.ok()) done = reader.thread.start([this, &reader] { run(reader); }, "quire-scan");
    if (!done.ok()) {
      errnum = done.errnum();
      break;
    }
    ++started;
  }
  if (started == 0 && errnum != 0) return fail_with(errnum, "no thread or no memory to hash the file");
  clear_cause();  // fewer threads do it, too
  return {};
}

// In huge pages, where there are any: a device is asked for one range instead of 128, which costs a third of its rate.
Status BlockScan::allocate(unsigned threads) {
  const std::size_t bytes = threads * kPieceBytes;
  const std::size_t alignment = bytes < kHugePage ? kAlignment : kHugePage;
  buffers_.reset(static_cast<char*>(std::aligned_alloc(alignment, round_up(bytes, alignment))));
  if (buffers_ == nullptr) return fail_with(ENOMEM, "no memory to hash the file");
  if (alignment == kHugePage) madvise(buffers_.get(), round_up(bytes, alignment), MADV_HUGEPAGE);
  return {};
}

Status BlockScan::prepare(Reader& reader, std::size_t number) {
  auto hasher = prototype_.clone();
  QUIRE_TRY(hasher);
  reader.hasher = hasher.take();
  reader.buffer = buffers_.get() + number * kPieceBytes;
  return {};
}

void BlockScan::run(Reader& reader) {
  while (Slot* const slot = claim()) {
    if (!slot->piece.hole) fill(*slot, reader);
    slot->ready.store(true, memory_order_release);
    changed_.wake_all();
  }
}

// The slot of the next piece, once it is free; null: there is no more to do.
BlockScan::Slot* BlockScan::claim() {
  for (;;) {
    const auto ticket = changed_.prepare();
    {
      MutexLock lock(mutex_);
      const bool finished = stopping_ || offset_ == size_;
      if (finished || claimed_ - taken_ < slot_count_) {
        changed_.cancel();
        if (finished) return nullptr;
        Slot& slot = slots_[claimed_++ % slot_count_];
        begin_piece_locked(slot);
        return &slot;
      }
    }
    changed_.wait(ticket);
  }
}

// Holes are left out piece by piece: smaller ones are read.
void BlockScan::begin_piece_locked(Slot& slot) {
  slot.piece = {};
  slot.piece.offset = offset_;
  slot.errnum = 0;
  slot.bad_reads.clear();
  if (offset_ >= data_end_) {
    std::uint64_t data = offset_;
    data_end_ = size_;
    if (const off_t found = lseek(files_.buffered, static_cast<off_t>(offset_), SEEK_DATA); found >= 0) {
      data = std::min<std::uint64_t>(static_cast<std::uint64_t>(found), size_);
      const off_t hole = lseek(files_.buffered, found, SEEK_HOLE);
      if (hole > found) data_end_ = std::min<std::uint64_t>(static_cast<std::uint64_t>(hole), size_);
    } else if (errno == ENXIO) {
      data = size_;
    }
    const std::uint64_t end = data == size_ ? size_ : round_down(data, kPieceBytes);
    if (end > offset_) {
      slot.piece.hole = true;
      slot.piece.length = end - offset_;
      offset_ = end;
      return;
    }
  }
  slot.piece.length = std::min<std::uint64_t>(kPieceBytes, size_ - offset_);
  offset_ += slot.piece.length;
}

void BlockScan::fill(Slot& slot, Reader& reader) {
  Piece& piece = slot.piece;
  const std::size_t length = static_cast<std::size_t>(piece.length);
  char* const data = reader.buffer;
  slot.errnum = read(piece.offset, length, data);
  slot.failed_at = piece.offset;
  if (slot.errnum != 0 && slot.errnum != kShorter && past_errors_) read_blocks(slot, data);
  if (slot.errnum != 0) return;
  const std::size_t block_size = prototype_.block_size(), digest_size = prototype_.digest_size();
  const std::size_t blocks = block_count(length, prototype_.block_size());
  const std::span digests = std::span(slot.digests).first(blocks * digest_size);
  for (std::size_t i = 0; i < blocks; ++i) {
    const std::size_t begin = i * block_size;
    reader.hasher.hash({data + begin, std::min(block_size, length - begin)},
                       digests.subspan(i * digest_size, digest_size));
  }
  piece.digests = digests;
  piece.bad_reads = slot.bad_reads;
}

// One by one, to find those that cannot be read.
void BlockScan::read_blocks(Slot& slot, char* to) {
  const std::size_t block_size = prototype_.block_size();
  slot.errnum = 0;
  for (std::uint64_t done = 0; done < slot.piece.length && slot.errnum == 0; done += block_size) {
    const std::uint64_t offset = slot.piece.offset + done;
    const int errnum = read(offset, std::min<std::uint64_t>(block_size, slot.piece.length - done), to + done);
    if (errnum == kShorter) slot.errnum = errnum;
    if (errnum != 0) slot.bad_reads.push_back({offset / block_size, errnum});
  }
}

// All of it, or an errno. Direct where that goes; `to` has room up to the next multiple of the alignment.
int BlockScan::read(std::uint64_t offset, std::size_t count, char* to) const {
  int fd = files_.direct >= 0 && is_aligned(offset, kAlignment) ? files_.direct : files_.buffered;
  for (std::size_t done = 0; done < count;) {
    if (!is_aligned(done, kAlignment)) fd = files_.buffered;
    const bool direct = fd != files_.buffered;
    const std::size_t wanted = direct ? round_up(count - done, kAlignment) : count - done;
    const ssize_t n = pread(fd, to + done, wanted, static_cast<off_t>(offset + done));
    if (n == 0) return kShorter;
    if (n > 0) {
      done += std::min(static_cast<std::size_t>(n), count - done);
    } else if (direct && errno == EINVAL) {
      fd = files_.buffered;  // the host asks for more than this alignment
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

Result<const BlockScan::Piece*> BlockScan::next() {
  bool last;
  {
    MutexLock lock(mutex_);
    if (given_ != taken_) {
      slots_[taken_ % slot_count_].ready.store(false, memory_order_relaxed);  // whoever claims it sees the mutex
      ++taken_;
    }
    last = taken_ == claimed_ && offset_ == size_;
  }
  if (last || ended_) return nullptr;
  changed_.wake_all();
  Slot& slot = slots_[given_ % slot_count_];
  while (!slot.ready.load(memory_order_acquire)) {
    const auto ticket = changed_.prepare();
    if (slot.ready.load(memory_order_acquire)) {
      changed_.cancel();
      break;
    }
    changed_.wait(ticket);
  }
  ++given_;
  if (slot.errnum == 0) return &slot.piece;
  ended_ = true;
  const auto at = static_cast<unsigned long long>(slot.failed_at);
  if (slot.errnum == kShorter) {
    return fail_with(EBUSY, "the file has become shorter while it was read (at offset %llu): try again", at);
  }
  return fail_with(slot.errnum, "the host cannot read %llu bytes at offset %llu: %s",
                   static_cast<unsigned long long>(slot.piece.length), at, std::strerror(slot.errnum));
}

Status BlockScan::for_each(const std::function<Status(const Piece&)>& each,
                           const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  for (;;) {
    const auto piece = next();
    QUIRE_TRY(piece);
    if (piece.value() == nullptr) return {};
    QUIRE_TRY(each(*piece.value()));
    if (progress) progress(piece.value()->offset + piece.value()->length, size_);
  }
}

}  // namespace quire
