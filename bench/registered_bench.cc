// What registered buffers buy: reads of one file through the I/O thread's ring into 64 MiB of shared memory, in huge
// pages and in small ones, with that memory registered and without, in turns. Prints medians of the rates and of the
// processor time of a read. The file is only read.
//
// usage: registered_bench FILE [SECONDS_A_TURN [TURNS]]      (default 0.3 and 11)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "device/file_device.h"

namespace quire {
namespace {

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

constexpr std::size_t kMiB = 1 << 20, kArena = 64 * kMiB, kHugePage = 2 * kMiB;

struct Work {
  std::size_t block;
  bool random;
  unsigned depth;
};
constexpr Work kWorks[] = {
    {4096, true, 1}, {4096, true, 16}, {65536, false, 4}, {131072, false, 4}, {524288, false, 8}};

[[noreturn]] void fail_bench(const char* what) {
  std::perror(what);
  std::exit(1);
}

double seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double processor_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Kept mapped to the end.
std::span<char> make_arena(bool huge) {
  const int fd = memfd_create("registered-bench", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, kArena) != 0) fail_bench("memfd");
  void* room = mmap(nullptr, kArena + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) fail_bench("mmap");
  auto* arena = reinterpret_cast<char*>(round_up(reinterpret_cast<std::uintptr_t>(room), kHugePage));
  if (mmap(arena, kArena, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) fail_bench("mmap");
  close(fd);
  for (std::size_t at = 0; at < kArena; at += huge ? kHugePage : kPageSize) arena[at] = 0;
  if (huge && madvise(arena, kArena, MADV_COLLAPSE) != 0) fail_bench("no huge pages");
  return {arena, kArena};
}

// One turn: `depth` chains of reads, each submitted by the completion of the one before, on the I/O thread alone.
class Turn {
 public:
  Turn(FileDevice& device, std::span<char> arena, std::uint64_t size, const Work& work, std::uint64_t seed)
      : device_(device), arena_(arena), work_(work), blocks_(size / work.block), random_(seed) {}

  struct Figures {
    double rate, processor_us;
  };
  Figures run(double turn_seconds) {
    const double began = seconds(), processor_began = processor_seconds();
    end_ = began + turn_seconds;
    left_.store(work_.depth, memory_order_relaxed);
    reads_.resize(work_.depth);
    Read starter;  // moves nothing: its callback starts the chains where they go on
    starter.turn = this;
    starter.request.context = &starter;
    starter.request.done = [](Request& done) {
      Turn& turn = *static_cast<Read*>(done.context)->turn;
      for (Read& read : turn.reads_) turn.next(read);
    };
    Request* const batch[] = {&starter.request};
    device_.submit(batch);
    while (left_.load(memory_order_acquire) != 0) usleep(1000);
    const auto count = static_cast<double>(count_);
    return {count / (seconds() - began), (processor_seconds() - processor_began) * 1e6 / count};
  }

 private:
  struct Read {
    Request request;
    iovec buffer;
    Turn* turn;
  };

  void next(Read& read) {
    const std::uint64_t block = work_.random ? random_.below(blocks_) : count_started_ % blocks_;
    const std::size_t places = kArena / work_.block;
    read.turn = this;
    read.buffer = {arena_.data() + count_started_++ * 7919 % places * work_.block, work_.block};
    read.request.op = IoOp::read;
    read.request.offset = block * work_.block;
    read.request.buffers = std::span(&read.buffer, 1);
    read.request.context = &read;
    read.request.done = [](Request& done) {
      Read& finished = *static_cast<Read*>(done.context);
      finished.turn->finished(finished);
    };
    Request* const batch[] = {&read.request};
    device_.submit(batch);
  }
  void finished(Read& read) {
    if (read.request.result != static_cast<std::int64_t>(work_.block)) fail_bench("a read failed");
    ++count_;
    if (seconds() < end_) return next(read);
    left_.fetch_sub(1, memory_order_release);  // the turn may be gone after the last
  }

  FileDevice& device_;
  const std::span<char> arena_;
  const Work work_;
  const std::uint64_t blocks_;
  Random random_;
  std::deque<Read> reads_;
  std::uint64_t count_ = 0, count_started_ = 0;
  double end_ = 0;
  Atomic<unsigned> left_;
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

struct System {
  IoStats stats;
  std::unique_ptr<IoThread> io;
  std::unique_ptr<FileDevice> device;
  std::vector<double> rates, processor_us;
};

void compare(const char* path, bool huge, double turn_seconds, int turns) {
  const int direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC), buffered = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (direct < 0 || buffered < 0 || fstat(buffered, &st) != 0) fail_bench(path);
  const std::span<char> arena = make_arena(huge);
  System systems[2];  // plain, registered
  for (System& s : systems) {
    const std::span<char> registered = &s == &systems[1] ? arena : std::span<char>{};
    s.io = IoThread::create({.depth = 128, .stats = &s.stats, .arena = registered}).take();
    s.device = std::make_unique<FileDevice>(FileDeviceOptions{direct, buffered, 512, true, &s.stats, s.io.get()});
  }
  for (const Work& work : kWorks) {
    for (System& s : systems) s.rates = s.processor_us = {};
    for (int turn = 0; turn < turns; ++turn) {
      for (int i = 0; i < 2; ++i) {
        System& s = systems[(turn + i) % 2];
        Turn one(*s.device, arena, static_cast<std::uint64_t>(st.st_size), work, static_cast<std::uint64_t>(turn));
        const Turn::Figures figures = one.run(turn_seconds);
        s.rates.push_back(figures.rate);
        s.processor_us.push_back(figures.processor_us);
      }
    }
    const double plain = median(systems[0].rates), fixed = median(systems[1].rates);
    const double plain_us = median(systems[0].processor_us), fixed_us = median(systems[1].processor_us);
    std::printf(
        "%-5s pages, %6zu bytes %-10s depth %2u: %6.0f -> %6.0f /s (%.3f), processor %6.2f -> %6.2f us (%.3f)\n",
        huge ? "huge" : "small", work.block, work.random ? "random" : "sequential", work.depth, plain, fixed,
        fixed / plain, plain_us, fixed_us, fixed_us / plain_us);
  }
  if (IoStats::get(systems[1].stats.fixed_requests) == 0) std::printf("nothing could be registered\n");
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  const double turn_seconds = argc > 2 ? std::atof(argv[2]) : 0.3;
  const int turns = argc > 3 ? std::atoi(argv[3]) : 11;
  if (argc < 2 || argc > 4 || turn_seconds <= 0 || turns <= 0) {
    std::fprintf(stderr, "usage: registered_bench FILE [SECONDS_A_TURN [TURNS]]\n");
    return 2;
  }
  for (const bool huge : {true, false}) quire::compare(argv[1], huge, turn_seconds, turns);
}
