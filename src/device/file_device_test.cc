// FileDevice against a model of the file: every engine, every kind of buffer, on the current directory and on tmpfs.
#include "device/file_device.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <fstream>
#include <thread>

#include "device/file_device_test_util.h"
#include "device/thread_ring.h"

namespace quire {
namespace {

using testing_support::Buffer;
using testing_support::engine_name;
using testing_support::engines;
using testing_support::FileDeviceEngines;
using testing_support::fill_pattern;
using testing_support::Io;
using testing_support::pattern_byte;
using testing_support::run;
using testing_support::submit_and_wait;
using testing_support::TempFile;

constexpr std::uint64_t kMaxModel = 1 << 20;

// A request over a random range, in random pieces; aligned for O_DIRECT or not.
void make_random(Io& io, Random& random, Buffer& arena, IoOp op) {
  const bool aligned = random.one_in(2);
  const std::uint64_t unit = aligned ? 512 : 1;
  std::uint64_t at = 0;
  const std::uint64_t pieces = 1 + random.below(5);
  for (std::uint64_t i = 0; i < pieces; ++i) {
    std::uint64_t size = round_down(random.below(16384), unit);
    if (random.one_in(8)) size = 0;
    at = round_up(at, unit) + (aligned ? 0 : random.below(3));
    io.vectors.push_back({arena.data() + at, size});
    at += size;
  }
  ASSERT_LE(at, arena.size());
  io.aim(op, round_down(random.below(kMaxModel - 100'000), unit));
}

void check_read(const Io& io, const std::vector<unsigned char>& model) {
  const std::uint64_t end = std::min<std::uint64_t>(model.size(), io.request.offset + io.request.length());
  const std::uint64_t expected = end > io.request.offset ? end - io.request.offset : 0;
  ASSERT_EQ(io.request.result, static_cast<std::int64_t>(expected)) << "at " << io.request.offset;
  std::uint64_t at = io.request.offset;
  for (const iovec& vector : io.vectors) {
    const std::size_t here = at < end ? std::min<std::size_t>(vector.iov_len, end - at) : 0;
    ASSERT_TRUE(here == 0 || std::memcmp(vector.iov_base, model.data() + at, here) == 0) << "at " << at;
    at += vector.iov_len;
  }
}

void model_write(const Io& io, std::vector<unsigned char>& model) {
  const std::uint64_t length = io.request.length();
  ASSERT_EQ(io.request.result, static_cast<std::int64_t>(length));
  if (length > 0 && model.size() < io.request.offset + length) model.resize(io.request.offset + length);
  std::uint64_t at = io.request.offset;
  for (const iovec& vector : io.vectors) {
    if (vector.iov_len > 0) std::memcpy(model.data() + at, vector.iov_base, vector.iov_len);
    at += vector.iov_len;
  }
}

TEST_P(FileDeviceEngines, AgreesWithModel) {
  Random random(7);
  std::vector<unsigned char> model;
  for (std::uint64_t round = 0; round < 300 && !HasFatalFailure(); ++round) {
    const IoOp op = random.one_in(2) ? IoOp::read : IoOp::write;
    // Writes one at a time (overlapping ones in one batch have no order), reads many.
    const std::uint64_t count = op == IoOp::write ? 1 : 1 + random.below(round % 20 == 0 ? 150 : 5);
    std::deque<Io> ios;
    std::deque<Buffer> arenas;
    std::vector<Request*> batch;
    for (std::uint64_t i = 0; i < count; ++i) {
      arenas.emplace_back(5 * 16384 + kPageSize);
      ios.emplace_back();
      make_random(ios.back(), random, arenas.back(), op);
      if (op == IoOp::write) fill_pattern(arenas.back().data(), arenas.back().size(), round, 0);
      batch.push_back(&ios.back().request);
    }
    if (count == 1 && random.one_in(2)) {
      run_one(ios.front());
    } else {
      run_batch(batch);
    }
    for (const Io& io : ios) {
      if (op == IoOp::read) {
        check_read(io, model);
      } else {
        model_write(io, model);
      }
    }
  }
  EXPECT_EQ(file_.size(), model.size());
  EXPECT_EQ(IoStats::get(stats_.errors), 0u);
  EXPECT_EQ(IoStats::get(stats_.engine_fallbacks), 0u);
}

TEST_P(FileDeviceEngines, WritesOfOneBatchAllArrive) {
  constexpr std::size_t kCount = 3 * kThreadRingEntries + 5;  // several turns of a ring
  Buffer data(kCount * kPageSize);
  fill_pattern(data.data(), data.size(), 1, 0);
  std::deque<Io> ios;
  std::vector<Request*> batch;
  for (std::size_t i = 0; i < kCount; ++i) {
    ios.emplace_back(IoOp::write, i * kPageSize, data.data() + i * kPageSize, kPageSize);
    batch.push_back(&ios.back().request);
  }
  run_batch(batch);
  for (const Io& io : ios) ASSERT_EQ(io.request.result, std::int64_t{kPageSize});
  EXPECT_EQ(device_->flush(true), 0);
  EXPECT_EQ(device_->flush(false), 0);
  Buffer back(data.size());
  EXPECT_EQ(run(*device_, IoOp::read, 0, back.data(), back.size()), static_cast<std::int64_t>(back.size()));
  EXPECT_EQ(std::memcmp(back.data(), data.data(), data.size()), 0);
  EXPECT_EQ(IoStats::get(stats_.write_requests), kCount);
  EXPECT_EQ(IoStats::get(stats_.write_bytes), kCount * kPageSize);
  EXPECT_EQ(IoStats::get(stats_.read_requests), 1u);
  EXPECT_EQ(IoStats::get(stats_.flushes), 2u);
}

// More buffers than one system call takes, none of them a multiple of a block.
TEST_P(FileDeviceEngines, ContinuesPastTheVectorLimit) {
  constexpr std::size_t kVectors = 3000;
  Buffer data(kVectors * 7);
  fill_pattern(data.data(), data.size(), 2, 0);
  Io write;
  for (std::size_t i = 0; i < kVectors; ++i) write.vectors.push_back({data.data() + i * 7, 7});
  write.aim(IoOp::write, 100);
  EXPECT_EQ(run_one(write), static_cast<std::int64_t>(data.size()));
  Buffer back(data.size());
  Io read;
  for (std::size_t i = 0; i < kVectors; ++i) read.vectors.push_back({back.data() + i * 7, 7});
  read.aim(IoOp::read, 100);
  EXPECT_EQ(run_one(read), static_cast<std::int64_t>(data.size()));
  EXPECT_EQ(std::memcmp(back.data(), data.data(), data.size()), 0);
}

TEST_P(FileDeviceEngines, EndOfFile) {
  Buffer data(2 * kPageSize);
  fill_pattern(data.data(), data.size(), 3, 0);
  ASSERT_EQ(run(*device_, IoOp::write, 0, data.data(), 5000), 5000);
  Buffer back(4 * kPageSize);
  Io whole(IoOp::read, 0, back.data(), back.size());  // aligned: its end is found under O_DIRECT
  EXPECT_EQ(run_one(whole), 5000);
  EXPECT_EQ(std::memcmp(back.data(), data.data(), 5000), 0);
  Io tail(IoOp::read, 4096, back.data(), 4096);
  EXPECT_EQ(run_one(tail), 904);
  Io past(IoOp::read, 8192, back.data(), 4096);
  EXPECT_EQ(run_one(past), 0);
  Io far_past(IoOp::read, std::uint64_t{1} << 40, back.data(), 100);
  EXPECT_EQ(run_one(far_past), 0);
  Io nothing(IoOp::read, 0, back.data(), 0);
  EXPECT_EQ(run_one(nothing), 0);
  Io no_buffers;
  no_buffers.aim(IoOp::write, 0);
  EXPECT_EQ(run_one(no_buffers), 0);
  EXPECT_EQ(IoStats::get(stats_.errors), 0u);
}

TEST_P(FileDeviceEngines, ErrorsAreReportedAndCounted) {
  Buffer data(kPageSize);
  ASSERT_EQ(run(*device_, IoOp::write, 0, data.data(), kPageSize), std::int64_t{kPageSize});
  Io minus_one(IoOp::read, UINT64_MAX, data.data(), kPageSize);  // not the file position
  EXPECT_EQ(run_one(minus_one), -EINVAL);
  void* nowhere = mmap(nullptr, kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(nowhere, MAP_FAILED);
  Io fault(IoOp::read, 0, nowhere, kPageSize);
  EXPECT_EQ(run_one(fault), -EFAULT);
  EXPECT_EQ(munmap(nowhere, kPageSize), 0);
  EXPECT_EQ(IoStats::get(stats_.errors), 2u);

  FileDeviceOptions full = options();
  full.direct_fd = -1;
  full.buffered_fd = open("/dev/full", O_RDWR | O_CLOEXEC);
  ASSERT_GE(full.buffered_fd, 0);
  device_ = std::make_unique<FileDevice>(full);
  Io no_space(IoOp::write, 0, data.data(), kPageSize);
  EXPECT_EQ(run_one(no_space), -ENOSPC);
  EXPECT_EQ(device_->flush(true), EINVAL);  // a character device
  EXPECT_EQ(IoStats::get(stats_.errors), 4u);
  device_.reset();
  close(full.buffered_fd);
}

// A proc file gives a piece at a time, at odd lengths.
TEST_P(FileDeviceEngines, ContinuesShortTransfers) {
  std::ifstream in("/proc/kallsyms", std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (expected.size() < 300'000) GTEST_SKIP() << "no /proc/kallsyms";
  FileDeviceOptions proc = options();
  proc.direct_fd = -1;
  proc.buffered_fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(proc.buffered_fd, 0);
  device_ = std::make_unique<FileDevice>(proc);
  Buffer back(300'000);
  Io read;
  for (std::size_t at = 0; at < back.size(); at += 10'000) read.vectors.push_back({back.data() + at, 10'000});
  read.aim(IoOp::read, 3);
  EXPECT_EQ(run_one(read), 300'000);
  EXPECT_EQ(std::memcmp(back.data(), expected.data() + 3, 300'000 - 3), 0);
  device_.reset();
  close(proc.buffered_fd);
}

// The host takes a first part and refuses the rest: the request fails, and says why.
TEST_P(FileDeviceEngines, ShortWriteThatCannotGoOn) {
  struct rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  const struct rlimit low { 5000, old.rlim_max };
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &low), 0);
  Buffer data(2 * kPageSize);
  fill_pattern(data.data(), data.size(), 8, 0);
  Io write(IoOp::write, 0, data.data(), data.size());
  const std::int64_t result = run_one(write);
  EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  signal(SIGXFSZ, old_handler);
  EXPECT_EQ(result, -EFBIG);
  EXPECT_EQ(file_.size(), 5000u);
  EXPECT_EQ(IoStats::get(stats_.errors), 1u);
  EXPECT_EQ(IoStats::get(stats_.write_bytes), 0u);
}

// The same against the real thing: odd memory on an O_DIRECT descriptor. Some hosts take it.
TEST_P(FileDeviceEngines, OddMemoryOnDirectDescriptor) {
  if (file_.direct() < 0) GTEST_SKIP() << "no O_DIRECT here";
  FileDeviceOptions odd = options();
  odd.direct_fd = file_.direct();
  odd.direct_alignment = 1;
  device_ = std::make_unique<FileDevice>(odd);
  Buffer data(3 * kPageSize);
  fill_pattern(data.data(), data.size(), 5, 0);
  Io write(IoOp::write, 0, data.data() + 1, 2 * kPageSize);
  EXPECT_EQ(run_one(write), std::int64_t{2 * kPageSize});
  Buffer back(3 * kPageSize);
  Io read(IoOp::read, 0, back.data() + 3, 2 * kPageSize);
  EXPECT_EQ(run_one(read), std::int64_t{2 * kPageSize});
  EXPECT_EQ(std::memcmp(back.data() + 3, data.data() + 1, 2 * kPageSize), 0);
}

TEST_P(FileDeviceEngines, ManyThreads) {
  constexpr std::uint64_t kThreads = 4, kBlocks = 16, kRounds = 30;
  Atomic<int> wrong;
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Buffer out(kBlocks * kPageSize), back(kBlocks * kPageSize);
      for (std::uint64_t round = 0; round < kRounds; ++round) {
        fill_pattern(out.data(), out.size(), t * kRounds + round, 0);
        for (const IoOp op : {IoOp::write, IoOp::read}) {
          std::deque<Io> ios;
          std::vector<Request*> batch;
          for (std::uint64_t b = 0; b < kBlocks; ++b) {
            Buffer& side = op == IoOp::write ? out : back;
            ios.emplace_back(op, (t * kBlocks + b) * kPageSize, side.data() + b * kPageSize, kPageSize);
            batch.push_back(&ios.back().request);
          }
          run_batch(batch);
        }
        if (std::memcmp(out.data(), back.data(), out.size()) != 0) wrong.fetch_add(1, memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(memory_order_relaxed), 0);
  EXPECT_EQ(IoStats::get(stats_.write_requests), kThreads * kBlocks * kRounds);
}

INSTANTIATE_TEST_SUITE_P(All, FileDeviceEngines, engines(), engine_name);

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// Two reads, so that the batch goes through the thread's ring.
void read_two(FileDevice& device) {
  Buffer back(2 * kPageSize);
  Io first(IoOp::read, 0, back.data(), kPageSize), second(IoOp::read, kPageSize, back.data() + kPageSize, kPageSize);
  Request* const batch[] = {&first.request, &second.request};
  device.execute(batch);
  EXPECT_EQ(first.request.result, std::int64_t{kPageSize});
  EXPECT_EQ(second.request.result, std::int64_t{kPageSize});
  for (std::size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], pattern_byte(6, i));
}

class FileDeviceRing : public ::testing::Test {
 protected:
  FileDeviceRing() : file_("."), device_({file_.direct(), file_.buffered(), 512, true, &stats_, nullptr}) {
    Buffer data(2 * kPageSize);
    fill_pattern(data.data(), data.size(), 6, 0);
    EXPECT_EQ(run(device_, IoOp::write, 0, data.data(), data.size()), std::int64_t{2 * kPageSize});
  }
  IoStats stats_;
  TempFile file_;
  FileDevice device_;
};

TEST_F(FileDeviceRing, GoesWithItsThread) {
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 20; ++i) {
    std::thread([this] {
      read_two(device_);
      read_two(device_);
    }).join();
  }
  EXPECT_EQ(IoStats::get(stats_.ring_setups), 20u);
  EXPECT_EQ(open_descriptors(), before);
}

// An object of the application that does I/O when its thread exits, after the ring is gone.
struct LateUser {
  FileDevice* device = nullptr;
  ~LateUser() {
    if (device != nullptr) read_two(*device);
  }
};

TEST_F(FileDeviceRing, ThreadExitCanStillDoIo) {
  const std::size_t before = open_descriptors();
  std::thread([this] {
    static thread_local LateUser late;  // made before the ring, so destroyed after it
    late.device = &device_;
    read_two(device_);
  }).join();
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(IoStats::get(stats_.ring_setups), 1u);
  EXPECT_EQ(IoStats::get(stats_.engine_fallbacks), 1u);
}

// Refuses io_uring to this thread and those it makes, as a container's policy does.
void refuse_io_uring(int errnum) {
  const sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(errnum)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{std::size(program), const_cast<sock_filter*>(program)};
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

TEST_F(FileDeviceRing, RefusedIoUringFallsBackAndIsCounted) {
  for (const int errnum : {EPERM, ENOSYS, ENOMEM}) {
    IoStats stats;
    std::thread([&] {
      refuse_io_uring(errnum);
      auto io_thread = IoThread::create({.depth = 8, .use_io_uring = true, .stats = &stats});
      ASSERT_TRUE(io_thread.ok());
      FileDevice device({file_.direct(), file_.buffered(), 512, true, &stats, io_thread->get()});
      read_two(device);
      EXPECT_EQ(IoStats::get(stats.ring_setups), 0u);
      Buffer back(2 * kPageSize);
      Io io(IoOp::read, 0, back.data(), back.size());
      Request* const batch[] = {&io.request};
      submit_and_wait(device, batch);
      EXPECT_EQ(io.request.result, std::int64_t{2 * kPageSize});
      for (std::size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], pattern_byte(6, i));
    }).join();
    EXPECT_EQ(IoStats::get(stats.ring_setups), 0u);
    EXPECT_EQ(IoStats::get(stats.engine_fallbacks), 2u);  // the batch, and the I/O thread
    EXPECT_EQ(IoStats::get(stats.errors), 0u);
  }
}

}  // namespace
}  // namespace quire
