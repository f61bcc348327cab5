// A file's blocks, read from the host once and hashed, by several threads; their digests come out in order. Of enabling
// and checking fs-verity: past the cache, which would gain nothing by bytes that are read once.
//
// A slot's states: free -> (a thread claims the next piece) claimed -> (read and hashed) ready -> (next() after the one
// that gave it out) free. Slots are claimed and taken in order, round and round; a claimed one is its thread's, a ready
// one is next()'s. Memory: 512 KiB for each thread, and the digests of two pieces for each.
// Thread safety: one thread calls, which holds no lock. Locks: its own, a leaf; never held over a read.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "host/host_file.h"
#include "quire/result.h"
#include "sync/annotations.h"
#include "sync/atomic.h"
#include "sync/mutex.h"
#include "sync/thread.h"
#include "sync/wait_queue.h"
#include "verity/digest.h"

namespace quire {

class BlockScan {
 public:
  static constexpr std::size_t kPieceBytes = std::size_t{512} << 10;  // a multiple of every block's size

  struct BadRead {
    std::uint64_t block = 0;  // of the file
    int errnum = 0;
  };
  struct Piece {
    std::uint64_t offset = 0;  // a multiple of kPieceBytes
    std::uint64_t length = 0;  // bytes: of whole blocks, but at the end of the file
    bool hole = false;         // nothing but zeros: of any length, and not hashed
    std::span<const std::uint8_t> digests;
    std::span<const BadRead> bad_reads;  // blocks whose digests are none
  };

  // The first `size` bytes of the file. past_errors: blocks that the host cannot read are told of, and end nothing.
  // `files` and `hasher` outlive it.
  BlockScan(const HostDescriptors& files, std::uint64_t size, const verity::BlockHasher& hasher, bool past_errors);
  ~BlockScan();
  BlockScan(const BlockScan&) = delete;
  BlockScan& operator=(const BlockScan&) = delete;

  Status start();  // once. ENOMEM, EAGAIN: no thread is to be had
  // The next piece, which stays until the next call; null: that was all. The errno of reading; EBUSY: the file became
  // shorter meanwhile.
  Result<const Piece*> next();
  // each(piece), which may fail, for all that are left; then progress(bytes done, of the file), if there is one.
  Status for_each(const std::function<Status(const Piece&)>& each,
                  const std::function<void(std::uint64_t, std::uint64_t)>& progress);

 private:
  static constexpr unsigned kMostThreads = 24;
  static constexpr unsigned kMostSlots = 2 * kMostThreads;

  struct Slot {
    Piece piece;
    std::vector<std::uint8_t> digests;
    std::vector<BadRead> bad_reads;
    int errnum = 0;
    std::uint64_t failed_at = 0;
    Atomic<bool> ready;  // release by its thread, acquire by next(): what the slot holds
  };
  struct Reader {
    Thread thread;
    verity::BlockHasher hasher;
    char* buffer = nullptr;  // kPieceBytes of buffers_
  };

  Status allocate(unsigned threads);
  Status prepare(Reader& reader, std::size_t number);
  void run(Reader& reader);
  Slot* claim();
  void begin_piece_locked(Slot& slot) REQUIRES(mutex_);
  void fill(Slot& slot, Reader& reader);
  int read(std::uint64_t offset, std::size_t count, char* to) const;
  void read_blocks(Slot& slot, char* to);

  const HostDescriptors& files_;
  const std::uint64_t size_;
  const verity::BlockHasher& prototype_;
  const bool past_errors_;

  std::unique_ptr<char, void (*)(void*)> buffers_;  // the readers', before them
  std::array<Reader, kMostThreads> readers_;
  std::array<Slot, kMostSlots> slots_;
  unsigned slot_count_ = 0;

  Mutex mutex_;
  WaitQueue changed_;                              // a slot became ready or free, or it is to end
  std::uint64_t claimed_ GUARDED_BY(mutex_) = 0;   // pieces
  std::uint64_t taken_ GUARDED_BY(mutex_) = 0;     // pieces whose slots are free again
  std::uint64_t offset_ GUARDED_BY(mutex_) = 0;    // where the next piece begins
  std::uint64_t data_end_ GUARDED_BY(mutex_) = 0;  // up to here there are data, from offset_ on
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::uint64_t given_ = 0;  // pieces that next() has given out
  bool ended_ = false;
};

}  // namespace quire
