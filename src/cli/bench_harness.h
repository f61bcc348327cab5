// Runs the same work on several systems in turns and takes medians. A worker is one thread's part of a turn: it gets
// ready, waits at the barrier, and works until its time is over. The timed loop is a template, so that the harness
// costs the same few nanoseconds whatever system is under it.
#pragma once

#include <pthread.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/support.h"

namespace quire {

struct Turn {
  pthread_barrier_t* start;
  std::int64_t duration_ns;
};

struct WorkerResult {
  std::uint64_t ops = 0;
  std::int64_t ns = 0;
  std::string error;  // empty: it worked
};

// Must wait at turn.start exactly once, whatever happens, and must not throw.
using Worker = std::function<WorkerResult(const Turn& turn)>;

enum class Pattern { kRandom, kSequential };

// What a group of threads does during a turn.
struct Work {
  bool write = false;
  bool different_files = false;  // thread i uses file i; else all use file 0
  std::size_t block_size = 0;
  Pattern pattern = Pattern::kRandom;
  unsigned threads = 1;
  unsigned depth = 1;
};

// One system under test on one directory. Calls come from the main thread; workers run on threads of their own between
// begin_turn and end_turn. All throw BenchError.
class Contestant {
 public:
  virtual ~Contestant() = default;
  virtual std::string_view system() const = 0;
  virtual std::string path() const = 0;
  virtual void begin_turn() {}  // untimed
  virtual Worker worker(const Work& work, unsigned thread) = 0;
  virtual void end_turn() {}  // untimed: flush, so that the next turn starts clean

  // Memory for a worker, filled, kept until the next turn.
  char* lend_buffer(std::size_t size);
  void take_buffers_back() { buffers_.clear(); }

 private:
  std::vector<AlignedBuffer> buffers_;
};

// Operations per second of each work, medians of the turns, indexed [contestant][work]. The works of one call run
// beside each other. Contestants alternate, and the one that begins changes with the turn.
std::vector<std::vector<double>> compete(const std::vector<Contestant*>& contestants, const std::vector<Work>& works,
                                         double seconds);

std::int64_t monotonic_ns();

// Offsets of blocks anywhere in [0, file_size), at multiples of step where more than one fits. One multiplication and
// one addition a block (a linear congruential generator's high bits).
class RandomOffsets {
 public:
  RandomOffsets(std::uint64_t file_size, std::size_t block_size, std::uint64_t step, std::uint64_t seed)
      : state_(seed * 0x9e3779b97f4a7c15u + 1), slots_((file_size - block_size) / step + 1), step_(step) {}
  static constexpr bool kTouchFirst = true;
  static constexpr bool done() { return false; }
  std::uint64_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(state_) * slots_) >> 64) * step_;
  }

 private:
  std::uint64_t state_;
  const std::uint64_t slots_;
  const std::uint64_t step_;
};

// Blocks of [begin, end) in order; round and round, or once.
class SequentialOffsets {
 public:
  SequentialOffsets(std::uint64_t begin, std::uint64_t end, std::size_t block_size, bool repeat)
      : begin_(begin), end_(end), step_(block_size), repeat_(repeat), at_(begin) {}
  static constexpr bool kTouchFirst = false;  // a cold read must not be warmed up
  bool done() const { return at_ + step_ > end_; }
  std::uint64_t next() {
    const std::uint64_t offset = at_;
    at_ += step_;
    if (done() && repeat_) at_ = begin_;
    return offset;
  }

 private:
  const std::uint64_t begin_;
  const std::uint64_t end_;
  const std::uint64_t step_;
  const bool repeat_;
  std::uint64_t at_;
};

inline constexpr unsigned kMaxBatch = 256;

// Calls op(offset) until the time is over or the offsets end, looking at the clock every `batch` <= kMaxBatch
// operations. op returns false on failure; op.error(offset) then says why. The offsets of a batch are made before its
// first operation: what stands between two operations keeps the processor from seeing the next one's misses early.
template <typename Op, typename Offsets>
WorkerResult timed_loop(const Turn& turn, unsigned batch, Op op, Offsets offsets) {
  WorkerResult result;
  std::uint64_t offset = 0;
  if constexpr (Offsets::kTouchFirst) {  // the thread's first call registers it with the system under test
    offset = offsets.next();
    if (!op(offset)) result.error = op.error(offset);
  }
  (void)pthread_barrier_wait(turn.start);
  if (!result.error.empty()) return result;
  const std::int64_t start = monotonic_ns();
  std::uint64_t ops = 0;
  std::uint64_t made[kMaxBatch];
  do {
    unsigned n = 0;
    for (; n < batch && !offsets.done(); ++n) made[n] = offsets.next();
    for (unsigned i = 0; i < n; ++i) {
      if (!op(made[i])) [[unlikely]] {
        result.error = op.error(made[i]);
        return result;
      }
    }
    ops += n;
    result.ns = monotonic_ns() - start;
  } while (result.ns < turn.duration_ns && !offsets.done());
  result.ops = ops;
  return result;
}

}  // namespace quire
