// The I/O thread under load, its end, and what a fork leaves.
#include "device/io_thread.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <thread>
#include <utility>
#include <vector>

#include "device/device_test_util.h"
#include "device/file_device.h"

namespace quire {
namespace {

using namespace testing_support;

class IoThreadTest : public ::testing::TestWithParam<bool> {  // use_io_uring
 protected:
  IoThreadTest() : file_(".") {}
  void make(unsigned depth) {
    const std::span arena(reinterpret_cast<char*>(arena_.data()), arena_.size());
    auto made = IoThread::create({.depth = depth, .use_io_uring = GetParam(), .stats = &stats_, .arena = arena});
    ASSERT_TRUE(made.ok());
    io_thread_ = made.take();
    device_ = std::make_unique<FileDevice>(FileDeviceOptions{.direct_fd = file_.direct(),
                                                             .buffered_fd = file_.buffered(),
                                                             .direct_alignment = 512,
                                                             .use_io_uring = GetParam(),
                                                             .stats = &stats_,
                                                             .io_thread = io_thread_.get()});
  }
  void write_blocks(std::uint64_t count) {
    Buffer data(count * kPageSize);
    fill_pattern(data.data(), data.size(), 1, 0);
    ASSERT_EQ(run(*device_, IoOp::write, 0, data.data(), data.size()), static_cast<std::int64_t>(data.size()));
  }

  IoStats stats_;
  TempFile file_;
  Buffer arena_{2 << 20};  // what may be withdrawn; else not used
  std::unique_ptr<IoThread> io_thread_;
  std::unique_ptr<FileDevice> device_;
};

// A read that its callback checks and sends again until its turns are used up.
struct Chain {
  Io io;
  Buffer buffer{kPageSize};
  FileDevice* device = nullptr;
  Completions* completions = nullptr;
  Random random{0};
  std::uint64_t blocks = 0;
  int turns = 0;
  int wrong = 0;

  void start() {
    io.vectors = {{buffer.data(), kPageSize}};
    io.aim(IoOp::read, random.below(blocks) * kPageSize);
    io.request.context = this;
    io.request.done = [](Request& request) { static_cast<Chain*>(request.context)->finished(); };
    Request* const batch[] = {&io.request};
    device->submit(batch);
  }
  void finished() {
    const std::uint64_t at = io.request.offset + random.below(kPageSize);
    if (io.request.result != std::int64_t{kPageSize}) ++wrong;
    if (buffer[at - io.request.offset] != pattern_byte(1, at)) ++wrong;
    if (--turns > 0) return start();
    completions->one_done();
  }
};

TEST_P(IoThreadTest, ManySubmittersAndCallbacksThatSubmit) {
  make(16);
  write_blocks(64);
  constexpr int kThreads = 4, kChains = 20, kTurns = 25;
  Completions completions(kThreads * kChains);
  std::deque<Chain> chains(kThreads * kChains);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kChains; ++i) {
        Chain& chain = chains[static_cast<std::size_t>(t * kChains + i)];
        chain.device = device_.get();
        chain.completions = &completions;
        chain.random = Random(static_cast<std::uint64_t>(t * kChains + i));
        chain.blocks = 64;
        chain.turns = kTurns;
        chain.start();
        if (i % 5 == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();  // what they submitted goes on without them
  completions.wait();
  for (const Chain& chain : chains) EXPECT_EQ(chain.wrong, 0);
  EXPECT_EQ(IoStats::get(stats_.read_requests), std::uint64_t{kThreads * kChains * kTurns});
  EXPECT_EQ(IoStats::get(stats_.errors), 0u);
}

// Long idle times between: each submission finds the thread asleep.
TEST_P(IoThreadTest, WakesFromSleep) {
  make(4);
  write_blocks(1);
  for (int i = 0; i < 20; ++i) {
    Buffer back(kPageSize);
    Io io(IoOp::read, 0, back.data(), kPageSize);
    Request* const batch[] = {&io.request};
    submit_and_wait(*device_, batch);
    ASSERT_EQ(io.request.result, std::int64_t{kPageSize});
    std::this_thread::sleep_for(std::chrono::milliseconds(i % 5));
  }
}

TEST_P(IoThreadTest, EndRunsEverythingFirst) {
  make(4);
  write_blocks(64);
  constexpr std::uint32_t kCount = 200;
  Completions completions(kCount);
  Buffer back(kCount * kPageSize);
  std::deque<Io> ios;
  std::vector<Request*> batch;
  for (std::uint32_t i = 0; i < kCount; ++i) {
    ios.emplace_back(IoOp::read, i % 64 * kPageSize, back.data() + i * kPageSize, kPageSize);
    completions.attach(ios.back().request);
    batch.push_back(&ios.back().request);
  }
  device_->submit(batch);
  io_thread_.reset();
  EXPECT_EQ(completions.left(), 0u);
  for (std::uint32_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(ios[i].request.result, std::int64_t{kPageSize});
    EXPECT_EQ(back[i * kPageSize + 9], pattern_byte(1, i % 64 * kPageSize + 9));
  }
}

TEST_P(IoThreadTest, CreatedAndEndedIdle) {
  for (int i = 0; i < 20; ++i) make(4);
}

struct ThreadFacts {
  Completions completions{1};
  char name[16] = {};
  sigset_t blocked{};
};

TEST_P(IoThreadTest, IsNamedAndTakesNoSignals) {
  make(4);
  ThreadFacts facts;
  Io nothing(IoOp::read, 0, nullptr, 0);  // done by its look alone, yet reported by the thread
  nothing.request.context = &facts;
  nothing.request.done = [](Request& request) {
    auto* found = static_cast<ThreadFacts*>(request.context);
    pthread_getname_np(pthread_self(), found->name, sizeof found->name);
    pthread_sigmask(SIG_SETMASK, nullptr, &found->blocked);
    found->completions.one_done();
  };
  Request* const batch[] = {&nothing.request};
  device_->submit(batch);
  facts.completions.wait();
  EXPECT_STREQ(facts.name, "quire-io");
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGALRM}) EXPECT_EQ(sigismember(&facts.blocked, signal), 1);
}

// A device that must not use a ring on a thread that has one.
TEST_P(IoThreadTest, ServesPlainDevicesToo) {
  make(4);
  write_blocks(4);
  FileDevice plain({file_.direct(), file_.buffered(), 512, false, &stats_, io_thread_.get()});
  Buffer back(4 * kPageSize);
  std::deque<Io> ios;
  std::vector<Request*> batch;
  for (std::size_t i = 0; i < 4; ++i) {
    ios.emplace_back(IoOp::read, i * kPageSize, back.data() + i * kPageSize, kPageSize);
    batch.push_back(&ios.back().request);
  }
  submit_and_wait(plain, batch);
  for (std::size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], pattern_byte(1, i));
}

// What waits behind 4 MiB of its own file is in nobody else's way: not another file's, nor a withdrawal's.
TEST_P(IoThreadTest, SoManyBytesOfOneFileAtATime) {
  constexpr std::size_t kMiB = 1 << 20, kBite = 64 << 10;
  make(16);
  write_blocks(6 * kMiB / kPageSize);
  Buffer buffer(4 * kMiB), more(kBite), large(6 * kMiB);
  Io beside(IoOp::read, 0, large.data(), large.size());
  Request* const batch[] = {&beside.request};
  submit_and_wait(*device_, batch);
  if (IoStats::get(stats_.ring_setups) == 0) GTEST_SKIP() << "without a ring they go one at a time";
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  FileDevice pipe({ends[0], ends[0], 512, GetParam(), &stats_, io_thread_.get()});
  Io first(IoOp::read, 0, buffer.data(), buffer.size()), behind(IoOp::read, 0, more.data(), more.size());
  Completions of_first(1), of_behind(1);
  for (const auto& [io, completions] : {std::pair(&first, &of_first), std::pair(&behind, &of_behind)}) {
    io->request.path = IoPath::through_host;
    completions->attach(io->request);
    Request* const only[] = {&io->request};
    pipe.submit(only);
  }
  submit_and_wait(*device_, batch);
  io_thread_->withdraw(arena_.data(), kPageSize);
  std::vector<char> food(kBite);
  const auto feed = [&](std::size_t bytes) {
    for (std::size_t fed = 0; fed < bytes; fed += kBite) {
      std::fill(food.begin(), food.end(), static_cast<char>(fed / kBite));
      EXPECT_EQ(write(ends[1], food.data(), kBite), ssize_t{kBite});
    }
  };
  feed(buffer.size() - kBite);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(of_behind.left(), 1U);
  feed(kBite);
  of_first.wait();
  feed(kBite);
  of_behind.wait();
  EXPECT_EQ(first.request.result, static_cast<std::int64_t>(buffer.size()));
  for (std::size_t bite = 0; bite < buffer.size() / kBite - 1; ++bite) EXPECT_EQ(buffer[bite * kBite], bite) << bite;
  EXPECT_EQ(behind.request.result, std::int64_t{kBite});
  EXPECT_EQ(beside.request.result, static_cast<std::int64_t>(large.size()));
  for (std::size_t i = 0; i < large.size(); i += 99) ASSERT_EQ(large[i], pattern_byte(1, i));
  close(ends[0]);
  close(ends[1]);
}

// Of two files, each with more than may be at the host, and less depth than either would take.
TEST_P(IoThreadTest, ManyLargeRequestsOfTwoFiles) {
  constexpr std::size_t kCount = 24, kSize = 1 << 20;
  make(6);
  write_blocks(kSize / kPageSize);
  FileDevice other({file_.direct(), file_.buffered(), 512, GetParam(), &stats_, io_thread_.get()});
  Buffer back(2 * kCount * kSize);
  std::deque<Io> ios;
  Completions completions(2 * kCount);
  for (std::size_t i = 0; i < 2 * kCount; ++i) {
    ios.emplace_back(IoOp::read, 0, back.data() + i * kSize, kSize);
    completions.attach(ios.back().request);
    Request* const only[] = {&ios.back().request};
    (i % 3 == 0 ? *device_ : other).submit(only);
  }
  completions.wait();
  for (const Io& io : ios) EXPECT_EQ(io.request.result, std::int64_t{kSize});
  for (std::size_t i = 0; i < back.size(); i += 4099) ASSERT_EQ(back[i], pattern_byte(1, i % kSize));
}

// The first of many ends submits a write to a pipe; the last sees it: it did not wait for all of them.
struct FirstAndLast {
  Device* pipe = nullptr;
  int readable = -1;
  Io write;
  Completions completions{2};
  std::size_t ends = 0, most = 0;
  bool seen = false;

  static void ended(Request& done) {
    auto& all = *static_cast<FirstAndLast*>(done.context);
    if (++all.ends == 1) {
      all.completions.attach(all.write.request);
      Request* const batch[] = {&all.write.request};
      all.pipe->submit(batch);
    } else if (all.ends == all.most) {
      pollfd fd{all.readable, POLLIN, 0};
      all.seen = poll(&fd, 1, 2000) == 1;
      all.completions.one_done();
    }
  }
};

TEST_P(IoThreadTest, WhatEarlyEndsSubmitGoesOutBeforeLateOnes) {
  constexpr std::size_t kCount = 32;
  make(64);
  write_blocks(kCount);
  Buffer back(kCount * kPageSize);
  std::deque<Io> ios;
  std::vector<Request*> batch;
  for (std::size_t i = 0; i < kCount; ++i) {
    ios.emplace_back(IoOp::read, i * kPageSize, back.data() + i * kPageSize, kPageSize);
    ios.back().request.path = IoPath::through_host;
    batch.push_back(&ios.back().request);
  }
  submit_and_wait(*device_, batch);  // from here on they are in the host's cache: all may end as they are sent
  if (IoStats::get(stats_.ring_setups) == 0) GTEST_SKIP() << "without a ring they go one at a time";
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  FileDevice pipe({ends[1], ends[1], 512, GetParam(), &stats_, io_thread_.get()});
  char byte = 'x';
  FirstAndLast all;
  all.pipe = &pipe;
  all.readable = ends[0];
  all.write = Io(IoOp::write, 0, &byte, 1);
  all.write.request.path = IoPath::through_host;
  all.most = kCount;
  for (Request* request : batch) {
    request->context = &all;
    request->done = &FirstAndLast::ended;
  }
  device_->submit(batch);
  all.completions.wait();
  EXPECT_TRUE(all.seen);
  close(ends[0]);
  close(ends[1]);
}

// Ends that wait until a withdrawal has, or until it is too late.
struct Slow {
  Completions* completions = nullptr;
  Atomic<std::uint32_t> begun, withdrawn;
  unsigned waited = 0;

  static void ended(Request& done) {
    auto& all = *static_cast<Slow*>(done.context);
    if (all.begun.exchange(1, memory_order_release) == 0) futex_wake(all.begun, kWakeAll);
    if (all.withdrawn.load(memory_order_acquire) == 0) {
      futex_wait(all.withdrawn, 0, 100'000'000);
      ++all.waited;
    }
    all.completions->one_done();
  }
};

TEST_P(IoThreadTest, AWithdrawalWaitsForNoRequestThatHasNotBegun) {
  constexpr std::uint32_t kCount = 100;
  make(4);
  write_blocks(kCount);
  Buffer back(kCount * kPageSize);
  Completions completions(kCount);
  Slow slow;
  slow.completions = &completions;
  std::deque<Io> ios;
  std::vector<Request*> batch;
  for (std::size_t i = 0; i < kCount; ++i) {
    ios.emplace_back(IoOp::read, i * kPageSize, back.data() + i * kPageSize, kPageSize);
    ios.back().request.context = &slow;
    ios.back().request.done = &Slow::ended;
    batch.push_back(&ios.back().request);
  }
  device_->submit(batch);
  while (slow.begun.load(memory_order_acquire) == 0) futex_wait(slow.begun, 0, 100'000'000);
  io_thread_->withdraw(arena_.data(), kPageSize);
  slow.withdrawn.store(1, memory_order_release);
  futex_wake(slow.withdrawn, kWakeAll);
  completions.wait();
  EXPECT_LT(slow.waited, kCount / 2);
  for (std::size_t i = 0; i < back.size(); i += 99) ASSERT_EQ(back[i], pattern_byte(1, i));
}

// All of depth is held up, and more is pending: the thread waits for an end, without the mark of one that sleeps.
TEST_P(IoThreadTest, WithdrawsWithAllOfDepthInUse) {
  make(2);
  write_blocks(2);
  Buffer back(2 * kPageSize);
  Io beside[] = {Io(IoOp::read, 0, back.data(), kPageSize),
                 Io(IoOp::read, kPageSize, back.data() + kPageSize, kPageSize)};
  Request* const first[] = {&beside[0].request};
  submit_and_wait(*device_, first);
  if (IoStats::get(stats_.ring_setups) == 0) GTEST_SKIP() << "without a ring they go one at a time";
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  FileDevice pipe({ends[0], ends[0], 512, GetParam(), &stats_, io_thread_.get()});
  char bytes[2] = {};
  Io held[] = {Io(IoOp::read, 0, &bytes[0], 1), Io(IoOp::read, 0, &bytes[1], 1)};
  Completions of_held(2), of_beside(2);
  for (Io& io : held) {
    io.request.path = IoPath::through_host;
    of_held.attach(io.request);
    Request* const only[] = {&io.request};
    pipe.submit(only);
  }
  for (Io& io : beside) {
    of_beside.attach(io.request);
    Request* const only[] = {&io.request};
    device_->submit(only);
    for (int i = 0; i < 3; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      io_thread_->withdraw(arena_.data(), kPageSize);
      io_thread_->offer(arena_.data(), kPageSize);
    }
  }
  EXPECT_EQ(of_held.left(), 2U);
  EXPECT_EQ(of_beside.left(), 2U);
  EXPECT_EQ(write(ends[1], "ab", 2), 2);
  of_held.wait();
  of_beside.wait();
  EXPECT_EQ(bytes[0] + bytes[1], 'a' + 'b');
  for (std::size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], pattern_byte(1, i));
  close(ends[0]);
  close(ends[1]);
}

INSTANTIATE_TEST_SUITE_P(Engines, IoThreadTest, ::testing::Bool(),
                         [](const auto& tested) { return std::string(tested.param ? "Ring" : "Plain"); });

int guarded_descriptors() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
    if (target.find("io_uring") != std::string::npos || target.find("eventfd") != std::string::npos) ++count;
  }
  return count;
}

// In a forked child: 0, or the number of the first thing that is wrong.
int check_child(std::unique_ptr<IoThread>& io_thread, std::unique_ptr<FileDevice>& device) RELEASE(fork_guard_mutex()) {
  device_after_fork_child();
  if (!device_in_forked_child()) return 1;
  if (guarded_descriptors() != 0) return 2;
  Buffer back(2 * kPageSize);
  Io first(IoOp::read, 0, back.data(), kPageSize), second(IoOp::read, 0, back.data() + kPageSize, kPageSize);
  Request* const batch[] = {&first.request, &second.request};
  device->execute(batch);
  if (first.request.result != -ENOTRECOVERABLE || second.request.result != -ENOTRECOVERABLE) return 3;
  submit_and_wait(*device, batch);
  if (first.request.result != -ENOTRECOVERABLE || second.request.result != -ENOTRECOVERABLE) return 4;
  if (device->flush(true) != ENOTRECOVERABLE) return 5;
  // Destructors leave alone what they no longer own, such as a descriptor that got the number of a ring.
  std::vector<int> taken;
  for (int i = 0; i < 8; ++i) taken.push_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  device.reset();
  io_thread.reset();
  for (const int fd : taken) {
    if (fcntl(fd, F_GETFD) < 0) return 6;
  }
  return 0;
}

TEST(ForkGuard, ChildKeepsNoRing) {
  IoStats stats;
  TempFile file(".");
  auto io_thread = IoThread::create({.depth = 8, .use_io_uring = true, .stats = &stats}).take();
  auto device = std::make_unique<FileDevice>(
      FileDeviceOptions{file.direct(), file.buffered(), 512, true, &stats, io_thread.get()});
  Buffer data(2 * kPageSize);
  fill_pattern(data.data(), data.size(), 2, 0);
  Io io[] = {Io(IoOp::write, 0, data.data(), kPageSize),
             Io(IoOp::write, kPageSize, data.data() + kPageSize, kPageSize)};
  Request* const batch[] = {&io[0].request, &io[1].request};
  device->execute(batch);
  submit_and_wait(*device, batch);
  EXPECT_GE(guarded_descriptors(), 3);  // this thread's ring, the I/O thread's, its eventfd
  device_before_fork();
  const pid_t child = fork();
  if (child == 0) _exit(check_child(io_thread, device));
  device_after_fork_parent();
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  // The parent goes on as if nothing had been.
  EXPECT_FALSE(device_in_forked_child());
  device->execute(batch);
  EXPECT_EQ(io[0].request.result, std::int64_t{kPageSize});
  submit_and_wait(*device, batch);
  EXPECT_EQ(io[1].request.result, std::int64_t{kPageSize});
}

}  // namespace
}  // namespace quire
