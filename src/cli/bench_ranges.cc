// Contestants of range-mix; see bench_ranges.h.
#include "cli/bench_ranges.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "cli/bench.h"
#include "cli/bench_files.h"
#include "cli/bench_ops.h"
#include "sync/atomic.h"

namespace quire {

namespace {

constexpr unsigned kReadBatch = 256;  // operations between two looks at the clock
constexpr unsigned kChangeBatch = 2;  // a range taken away and written anew

// Where the changing thread is. One turn's changes; the ranges are for the reader that checks.
struct Changes {
  // The changing thread's own.
  std::uint64_t step = 0;  // even: take a range away; odd: write it anew
  std::uint64_t last = 0;  // offset of the last range
  // Written by the changing thread before it touches the range, read by the reader up to `count`.
  std::vector<std::uint64_t> ranges = std::vector<std::uint64_t>(std::size_t{1} << 20);
  Atomic<std::size_t> count{0};

  void restart() {
    step = 0;
    count.store(0, memory_order_relaxed);
  }
  void begin(std::uint64_t offset) {
    last = offset;
    const std::size_t n = count.load(memory_order_relaxed);
    if (n == ranges.size()) return;
    ranges[n] = offset;
    count.store(n + 1, memory_order_release);  // pairs with is_torn's acquire: the offset is there
  }
};

bool all_zero(const char* from, const char* to) {
  return std::all_of(from, to, [](char byte) { return byte == 0; });
}

// Whether the block reads as zeros on one side of `edge` and as data (which has no eight zeros in a row) on the other.
bool parts_at(const char* block, std::size_t size, std::size_t edge, bool zeros_first) {
  const char* const zeros = zeros_first ? block : block + edge;
  const char* const data = zeros_first ? block + edge : block;
  const std::size_t data_size = zeros_first ? size - edge : edge;
  if (!all_zero(zeros, zeros + (size - data_size))) return false;
  for (std::size_t at = 0; at + 8 <= data_size; at += 8) {
    if (all_zero(data + at, data + at + 8)) return false;
  }
  return true;
}

// For a block that is zeros at one end and data at the other: no range of the turn has an edge there.
bool is_torn(const Changes& changes, const char* block, std::size_t size, std::uint64_t offset) {
  const std::size_t count = changes.count.load(memory_order_acquire);
  if (count == changes.ranges.size()) return false;  // not all are known
  for (std::size_t i = count; i-- > 0;) {
    const std::uint64_t begin = changes.ranges[i];
    const std::uint64_t end = begin + kMixRange;
    if (begin > offset && begin < offset + size && parts_at(block, size, begin - offset, false)) return false;
    if (end > offset && end < offset + size && parts_at(block, size, end - offset, true)) return false;
  }
  return true;
}

// A read and a look at both of its ends.
template <typename Read>
struct CheckedRead {
  Read read;
  const Changes* changes;
  std::uint64_t* torn;

  bool operator()(std::uint64_t offset) {
    if (!read(offset)) return false;
    const char* const last = read.buffer + read.size - 8;
    if (all_zero(read.buffer, read.buffer + 8) != all_zero(last, last + 8)) {
      *torn += is_torn(*changes, read.buffer, read.size, offset);
    }
    return true;
  }
  std::string error(std::uint64_t offset) const { return read.error(offset); }
};

// System is what follows: `fallocate(mode, offset)` (0 or -1) and the type of its write operation.
template <typename System>
struct ChangeOp {
  System system;
  typename System::Write write;
  Changes* changes;
  bool took_away = true;

  bool operator()(std::uint64_t offset) {
    const std::uint64_t step = changes->step++;
    took_away = step % 2 == 0;
    if (!took_away) return write(offset);
    changes->begin(offset);
    return system.fallocate(
               step % 4 == 0 || !system.zeroes ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE,
               offset) == 0;
  }
  std::string error(std::uint64_t offset) const { return took_away ? system.error(offset) : write.error(offset); }
};

struct QuireRanges {
  using Read = QuireOp<false>;
  using Write = QuireOp<true>;
  quire_file* file;
  bool zeroes = true;

  int fallocate(int mode, std::uint64_t offset) const {
    return quire_fallocate(file, mode, static_cast<off_t>(offset), kMixRange);
  }
  static std::string error(std::uint64_t) { return quire_error_message(); }
};

struct KernelRanges {
  using Read = KernelOp<false>;
  using Write = KernelOp<true>;
  int file;
  bool zeroes = true;

  int fallocate(int mode, std::uint64_t offset) const {
    return ::fallocate(file, mode, static_cast<off_t>(offset), kMixRange);
  }
  static std::string error(std::uint64_t offset) {
    return "fallocate at offset " + std::to_string(offset) + " failed: " + errno_text(errno);
  }
};

// Each offset twice: a range is written anew right after it was taken away.
class PairedOffsets {
 public:
  explicit PairedOffsets(RandomOffsets offsets) : offsets_(offsets) {}
  static constexpr bool kTouchFirst = RandomOffsets::kTouchFirst;
  static constexpr bool done() { return false; }
  std::uint64_t next() {
    if (std::exchange(again_, !again_)) return last_;
    return last_ = offsets_.next();
  }

 private:
  RandomOffsets offsets_;
  std::uint64_t last_ = 0;
  bool again_ = false;
};

// What both contestants share: the workers.
template <typename System>
class RangeMix : public RangeMixContestant {
 public:
  RangeMix(const std::string& directory, std::uint64_t file_size)
      : directory_(directory), file_size_(file_size), scratch_(directory, file_size) {}

  std::string path() const override { return directory_; }
  void check_reads(bool check) override { checking_ = check; }
  std::uint64_t torn_reads() const override { return torn_; }

  void begin_turn() override { changes_.restart(); }

  Worker worker(const Work& work, unsigned thread) override {
    const RandomOffsets offsets(file_size_, work.block_size, 1, 2 * std::uint64_t{thread} + (work.write ? 1 : 2));
    char* const buffer = lend_buffer(work.block_size);
    const std::size_t size = work.block_size;
    const System system = system_;
    if (work.write) {
      wrote_ = true;
      return [=, this](const Turn& turn) {
        const ChangeOp<System> change{system, {system.file, buffer, size}, &changes_};
        WorkerResult result = timed_loop(turn, kChangeBatch, change, PairedOffsets(offsets));
        // The time was over in between: no hole may be left for the next turn, which does not know of it.
        typename System::Write write{system.file, buffer, size};
        if (result.error.empty() && changes_.step % 2 == 1 && !write(changes_.last)) {
          result.error = write.error(changes_.last);
        }
        return result;
      };
    }
    const typename System::Read read{system.file, buffer, size};
    if (!checking_) return [=](const Turn& turn) { return timed_loop(turn, kReadBatch, read, offsets); };
    return [=, this](const Turn& turn) {
      return timed_loop(turn, kReadBatch, CheckedRead<typename System::Read>{read, &changes_, &torn_}, offsets);
    };
  }

 protected:
  // Into the cache, as every turn but the first finds it.
  void read_all() {
    const std::size_t chunk = chunk_size(0);
    const AlignedBuffer buffer = make_buffer(chunk);
    read_whole(file_size_, chunk, [&](std::uint64_t offset, std::size_t size) {
      typename System::Read read{system_.file, buffer.get(), size};
      if (!read(offset)) throw BenchError(scratch_.path() + ": " + read.error(offset));
    });
  }

  const std::string directory_;
  const std::uint64_t file_size_;
  ScratchFile scratch_;
  System system_{};
  bool wrote_ = false;

 private:
  Changes changes_;
  bool checking_ = false;
  std::uint64_t torn_ = 0;  // the reading thread's during a turn
};

class QuireRangeMix final : public RangeMix<QuireRanges> {
 public:
  QuireRangeMix(const std::string& directory, std::uint64_t file_size, std::uint64_t memory)
      : RangeMix(directory, file_size), cache_(make_cache(memory)) {
    if (!cache_) throw BenchError(quire_error_message());
    file_.reset(quire_open(cache_.get(), scratch_.path().c_str(), O_RDWR, 0));
    if (!file_) throw BenchError(quire_error_message());
    system_.file = file_.get();
    read_all();
  }
  std::string_view system() const override { return "quire"; }
  void end_turn() override {
    if (std::exchange(wrote_, false) && quire_fsync(file_.get()) != 0) throw BenchError(quire_error_message());
  }

 private:
  CachePtr cache_;  // before its file, which closes first
  FilePtr file_;
};

class KernelRangeMix final : public RangeMix<KernelRanges> {
 public:
  KernelRangeMix(const std::string& directory, std::uint64_t file_size)
      : RangeMix(directory, file_size), file_(open_or_throw(scratch_.path(), O_RDWR)) {
    system_.file = file_.get();
    // Past the end, so that nothing that will be read changes.
    if (system_.fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, file_size) != 0 && errno == EOPNOTSUPP) {
      system_.zeroes = false;
      print_note("%s: its file system cannot zero ranges; the kernel's rows only punch there", directory.c_str());
    }
    read_all();
  }
  std::string_view system() const override { return "kernel"; }
  void end_turn() override {
    if (std::exchange(wrote_, false) && fsync(file_.get()) != 0) {
      throw BenchError("cannot sync " + scratch_.path() + ": " + errno_text(errno));
    }
  }

 private:
  Descriptor file_;
};

}  // namespace

std::unique_ptr<RangeMixContestant> make_range_mix_quire(const std::string& directory, std::uint64_t file_size,
                                                         std::uint64_t memory) {
  return std::make_unique<QuireRangeMix>(directory, file_size, memory);
}

std::unique_ptr<RangeMixContestant> make_range_mix_kernel(const std::string& directory, std::uint64_t file_size) {
  return std::make_unique<KernelRangeMix>(directory, file_size);
}

}  // namespace quire
