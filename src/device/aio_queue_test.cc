// Requests that end where somebody collects them: on the thread that waits, on several, by the stand-in, and those that
// the I/O thread ends.
#include "device/aio_queue.h"

#include <sys/eventfd.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "device/device_test_util.h"
#include "device/file_device.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::uint64_t kBlocks = 64;

struct Block {
  Io io;
  Buffer buffer{kPageSize};
  Request& aim(IoOp op, std::uint64_t offset) {
    io.vectors = {{buffer.data(), kPageSize / 2}, {buffer.data() + kPageSize / 2, kPageSize / 2}};
    io.aim(op, offset);
    return io.request;
  }
};

class AioQueueTest : public ::testing::Test {
 protected:
  AioQueueTest() : file_("."), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~AioQueueTest() override { close(event_); }
  void SetUp() override {
    auto made = IoThread::create({.depth = 8, .stats = &stats_});
    ASSERT_TRUE(made.ok());
    io_thread_ = made.take();
    device_ = std::make_unique<FileDevice>(FileDeviceOptions{.direct_fd = file_.direct(),
                                                             .buffered_fd = file_.buffered(),
                                                             .direct_alignment = 512,
                                                             .stats = &stats_,
                                                             .io_thread = io_thread_.get()});
    Buffer data(kBlocks * kPageSize);
    fill_pattern(data.data(), data.size(), 1, 0);
    ASSERT_EQ(run(*device_, IoOp::write, 0, data.data(), data.size()), static_cast<std::int64_t>(data.size()));
  }
  // Once the limits of the machine are known; else the test is skipped.
  void open(unsigned depth) {
    queue_ = std::make_unique<AioQueue>(*io_thread_, stats_);
    const int errnum = queue_->open(depth, event_);
    if (errnum == ENOSYS || errnum == EPERM) GTEST_SKIP() << "the kernel has no asynchronous I/O of its own";
    ASSERT_EQ(errnum, 0);
    if (file_.direct() < 0) GTEST_SKIP() << "no O_DIRECT here";
  }
  bool is_pattern(Buffer& buffer, std::uint64_t offset) {
    for (std::size_t i = 0; i < buffer.size(); ++i) {
      if (buffer[i] != pattern_byte(1, offset + i)) return false;
    }
    return true;
  }
  std::uint64_t taken() const { return IoStats::get(stats_.aio_requests); }
  void submit(Request& request) {
    Request* const batch[] = {&request};
    device_->submit_to_collect(*queue_, batch);
  }
  void submit_reads(std::deque<Block>& blocks, Completions& completions) {  // block i from page i
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      Request& request = blocks[i].aim(IoOp::read, i * kPageSize);
      completions.attach(request);
      submit(request);
    }
  }

  IoStats stats_;
  TempFile file_;
  const int event_;
  std::unique_ptr<IoThread> io_thread_;
  std::unique_ptr<FileDevice> device_;
  std::unique_ptr<AioQueue> queue_;
};

TEST_F(AioQueueTest, WhoWaitsEndsThem) {
  open(32);
  std::deque<Block> blocks(32);
  Completions completions(32);
  submit_reads(blocks, completions);
  EXPECT_GT(taken(), 0U);
  while (IoStats::get(stats_.read_requests) < taken()) {  // not those that the I/O thread ends, which ring nothing
    if (!queue_->anything()) queue_->interrupt();         // the stand-in may have the last
    queue_->wait();
    std::uint64_t count;
    static_cast<void>(!read(event_, &count, sizeof count));
    queue_->collect();
  }
  completions.wait();
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(blocks[i].io.request.result, std::int64_t{kPageSize});
    EXPECT_TRUE(is_pattern(blocks[i].buffer, i * kPageSize));
  }
  EXPECT_FALSE(queue_->anything());
}

// Nobody collects; also after long idle times, when the stand-in sleeps.
TEST_F(AioQueueTest, TheStandInEndsWhatNobodyCollects) {
  open(8);
  for (int pause : {0, 3, 150, 300}) {
    std::this_thread::sleep_for(std::chrono::milliseconds(pause));
    std::deque<Block> blocks(4);
    Completions completions(4);
    submit_reads(blocks, completions);
    completions.wait();
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(is_pattern(blocks[i].buffer, i * kPageSize));
  }
}

// A thread that came to collect all the time, and then does no more.
TEST_F(AioQueueTest, TheStandInTakesOver) {
  open(8);
  for (int i = 0; i < 2000; ++i) queue_->collect();
  Block block;
  Completions completions(1);
  Request& request = block.aim(IoOp::read, 0);
  completions.attach(request);
  submit(request);
  queue_->collect();
  completions.wait();
  EXPECT_TRUE(is_pattern(block.buffer, 0));
}

TEST_F(AioQueueTest, UrgedItEndsThemBesideOthersThatCollect) {
  open(8);
  queue_->urge();
  for (int i = 0; i < 50; ++i) {
    Block block;
    Completions completions(1);
    Request& request = block.aim(IoOp::read, 0);
    completions.attach(request);
    submit(request);
    if (i % 2 == 0) queue_->collect();
    completions.wait();
  }
  queue_->calm();
}

// What is full, or refuses, leaves the request to the I/O thread.
TEST_F(AioQueueTest, TheIoThreadEndsWhatIsNotTaken) {
  open(2);
  std::deque<Block> blocks(64);
  Completions completions(64);
  std::vector<Request*> batch;
  for (std::size_t i = 0; i < 64; ++i) {
    batch.push_back(&blocks[i].aim(IoOp::read, i * kPageSize));
    completions.attach(*batch.back());
  }
  device_->submit_to_collect(*queue_, batch);
  completions.wait();
  EXPECT_LT(taken(), 64U);
  for (std::size_t i = 0; i < 64; ++i) EXPECT_TRUE(is_pattern(blocks[i].buffer, i * kPageSize));

  // Through the host's cache, past the end, of a descriptor that cannot be read.
  Block one;
  Request& through = one.aim(IoOp::read, 0);
  through.path = IoPath::through_host;
  const std::uint64_t before = taken();
  Completions once(1);
  once.attach(through);
  submit(through);
  once.wait();
  EXPECT_EQ(through.result, std::int64_t{kPageSize});
  EXPECT_EQ(taken(), before);

  Block beyond;
  Request& past = beyond.aim(IoOp::read, (kBlocks + 1) * kPageSize);
  Completions at_end(1);
  at_end.attach(past);
  submit(past);
  at_end.wait();
  EXPECT_EQ(past.result, 0);

  const int no_reading = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  FileDevice refusing(FileDeviceOptions{.direct_fd = no_reading,
                                        .buffered_fd = no_reading,
                                        .direct_alignment = 512,
                                        .stats = &stats_,
                                        .io_thread = io_thread_.get()});
  Block refused;
  Request& request = refused.aim(IoOp::read, 0);
  Completions failed(1);
  failed.attach(request);
  Request* const only[] = {&request};
  refusing.submit_to_collect(*queue_, only);
  failed.wait();
  EXPECT_EQ(request.result, -EBADF);
  close(no_reading);
}

// A chain of writes and reads of one block: the end of each submits the next.
struct Chain {
  Block block;
  FileDevice* device = nullptr;
  AioQueue* queue = nullptr;
  Completions* completions = nullptr;
  Atomic<unsigned>* submitting = nullptr;  // calls: another thread may have ended what one has just sent
  std::uint64_t at = 0;
  int left = 100, wrong = 0;

  void go(IoOp op) {
    Request& request = block.aim(op, at);
    request.context = this;
    request.done = [](Request& done) { static_cast<Chain*>(done.context)->ended(done); };
    Request* const batch[] = {&request};
    Atomic<unsigned>& calls = *submitting;
    calls.fetch_add(1, memory_order_relaxed);
    device->submit_to_collect(*queue, batch);
    calls.fetch_sub(1, memory_order_release);
  }
  void ended(const Request& done) {
    if (done.result != std::int64_t{kPageSize}) ++wrong;
    for (std::size_t i = 0; i < kPageSize; i += 97) wrong += block.buffer[i] != pattern_byte(1, at + i);
    if (--left == 0) return completions->one_done();
    if (left % 2 != 0) std::memset(block.buffer.data(), 0, kPageSize);
    go(left % 2 == 0 ? IoOp::write : IoOp::read);
  }
};

TEST_F(AioQueueTest, SeveralCollectWhatCallbacksSubmit) {
  open(16);
  constexpr std::uint32_t kChains = 24;
  Completions completions(kChains);
  Atomic<unsigned> submitting;
  std::deque<Chain> chains(kChains);
  std::vector<std::thread> collectors;
  for (int t = 0; t < 2; ++t) {
    collectors.emplace_back([&] {
      while (completions.left() != 0) queue_->collect();
    });
  }
  std::uint64_t at = 0;
  for (Chain& chain : chains) {
    chain.device = device_.get();
    chain.queue = queue_.get();
    chain.completions = &completions;
    chain.submitting = &submitting;
    chain.at = kPageSize * at++;
    chain.go(IoOp::read);
  }
  completions.wait();
  for (std::thread& collector : collectors) collector.join();
  while (submitting.load(memory_order_acquire) != 0) std::this_thread::yield();  // the I/O thread, before they go
  for (const Chain& chain : chains) EXPECT_EQ(chain.wrong, 0);
  EXPECT_GT(taken(), 0U);
}

TEST_F(AioQueueTest, AnInterruptEndsAWait) {
  open(1);
  queue_->interrupt();  // before it
  queue_->wait();
  std::thread waiter([&] { queue_->wait(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  queue_->interrupt();
  waiter.join();
}

}  // namespace
}  // namespace quire
