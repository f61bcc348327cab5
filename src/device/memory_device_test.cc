#include "device/memory_device.h"

#include <deque>
#include <thread>

#include "device/device_test_util.h"
#include "sync/clock.h"

namespace quire {
namespace {

using testing_support::Buffer;
using testing_support::Completions;
using testing_support::fill_pattern;
using testing_support::Io;
using testing_support::run;
using testing_support::submit_and_wait;

TEST(MemoryDevice, AgreesWithModel) {
  constexpr std::uint64_t kMax = 3 << 20;  // over chunk borders
  MemoryDevice device({.max_size = kMax});
  std::vector<unsigned char> model;
  Random random(11);
  for (std::uint64_t round = 0; round < 600; ++round) {
    Buffer data(40'000);
    const std::uint64_t offset = random.below(kMax - 40'000);
    Io io;
    std::uint64_t length = 0;
    for (std::uint64_t left = 1 + random.below(3); left > 0; --left) {
      const std::uint64_t size = random.below(13'000);
      io.vectors.push_back({data.data() + length, size});
      length += size;
    }
    const IoOp op = random.one_in(2) ? IoOp::read : IoOp::write;
    io.aim(op, offset);
    if (op == IoOp::write) fill_pattern(data.data(), length, round, 0);
    Request* const batch[] = {&io.request};
    if (random.one_in(2)) {
      device.execute(batch);
    } else {
      submit_and_wait(device, batch);
    }
    if (op == IoOp::write) {
      ASSERT_EQ(io.request.result, static_cast<std::int64_t>(length));
      if (length > 0 && model.size() < offset + length) model.resize(offset + length);
      std::copy_n(data.data(), length, model.begin() + static_cast<std::ptrdiff_t>(offset));
    } else {
      const std::uint64_t expected = offset < model.size() ? std::min(length, model.size() - offset) : 0;
      ASSERT_EQ(io.request.result, static_cast<std::int64_t>(expected));
      ASSERT_TRUE(std::equal(data.data(), data.data() + expected, model.begin() + static_cast<std::ptrdiff_t>(offset)));
      for (std::uint64_t i = expected; i < length; ++i) ASSERT_EQ(data[i], 0);  // left alone
    }
    ASSERT_EQ(device.size(), model.size());
  }
}

TEST(MemoryDevice, EndAndLimit) {
  IoStats stats;
  MemoryDevice device({.size = 1000, .max_size = 1 << 20, .stats = &stats});
  Buffer data(kPageSize);
  std::memset(data.data(), 0xff, kPageSize);
  EXPECT_EQ(run(device, IoOp::read, 900, data.data(), 200), 100);
  EXPECT_EQ(data[99], 0);
  EXPECT_EQ(data[100], 0xff);
  EXPECT_EQ(run(device, IoOp::read, 1000, data.data(), 200), 0);
  EXPECT_EQ(run(device, IoOp::write, (1 << 20) - 10, data.data(), 11), -ENOSPC);
  EXPECT_EQ(run(device, IoOp::write, UINT64_MAX, data.data(), 11), -EINVAL);
  EXPECT_EQ(device.size(), 1000u);
  EXPECT_EQ(run(device, IoOp::write, (1 << 20) - 10, data.data(), 10), 10);
  EXPECT_EQ(device.size(), std::uint64_t{1} << 20);
  EXPECT_EQ(device.flush(true), 0);
  EXPECT_EQ(IoStats::get(stats.errors), 2u);
  EXPECT_EQ(IoStats::get(stats.read_bytes), 100u);
  EXPECT_EQ(IoStats::get(stats.write_requests), 3u);
  EXPECT_EQ(IoStats::get(stats.flushes), 1u);
}

TEST(MemoryDevice, DirectRequestsAreAligned) {
  IoStats stats;
  Buffer data(2048);
  for (const unsigned alignment : {0U, 512U, 1024U}) {
    MemoryDevice device({.size = 4096, .direct_alignment = alignment, .stats = &stats});
    EXPECT_EQ(device.direct_alignment(), alignment);
    const auto go = [&](IoPath path, std::uint64_t offset, std::size_t shift, std::size_t size) {
      Io io(IoOp::write, offset, data.data() + shift, size);
      io.request.path = path;
      Request* const batch[] = {&io.request};
      device.execute(batch);
      return io.request.result;
    };
    EXPECT_EQ(go(IoPath::through_host, 1, 1, 513), 513);
    EXPECT_EQ(go(IoPath::direct_only, 1024, 0, 1024), alignment != 0 ? 1024 : -EINVAL);
    EXPECT_EQ(go(IoPath::direct_only, 512, 512, 512), alignment == 512 ? 512 : -EINVAL);
    EXPECT_EQ(go(IoPath::direct_only, 1024, 8, 1024), -EINVAL) << "memory";
    EXPECT_EQ(go(IoPath::direct_only, 1024, 0, 1000), -EINVAL) << "length";
    EXPECT_EQ(go(IoPath::direct_only, 1000, 0, 1024), -EINVAL) << "offset";
  }
  EXPECT_EQ(IoStats::get(stats.errors), 0u);
}

TEST(MemoryDevice, PeekPokeFill) {
  MemoryDevice device({.max_size = 4 << 20});
  const std::uint64_t offset = (1 << 20) - 3;  // over a chunk border
  EXPECT_EQ(device.poke(offset, "quire", 5), 0);
  EXPECT_EQ(device.size(), offset + 5);
  char back[7] = {1, 1, 1, 1, 1, 1, 1};
  device.peek(offset - 1, back, 7);
  EXPECT_EQ(std::memcmp(back, "\0quire\0", 7), 0);
  EXPECT_EQ(device.fill(10, 100'000, 0xdb), 0);
  unsigned char filled[3];
  device.peek(100'008, filled, 3);
  EXPECT_EQ(filled[1], 0xdb);
  EXPECT_EQ(filled[2], 0);
  EXPECT_EQ(device.fill(4 << 20, 1, 1), ENOSPC);
  device.grow(3 << 20);
  device.grow(1 << 20);
  EXPECT_EQ(device.size(), std::uint64_t{3} << 20);
}

TEST(MemoryDevice, SubmitCompletesElsewhereAfterTheLatency) {
  constexpr std::int64_t kLatency = 20'000'000;
  MemoryDevice device({.size = kPageSize, .latency_ns = kLatency});
  struct Seen {
    Completions completions{1};
    pthread_t thread{};
  } seen;
  Buffer data(kPageSize);
  Io io(IoOp::read, 0, data.data(), kPageSize);
  io.request.context = &seen;
  io.request.done = [](Request& request) {
    auto* where = static_cast<Seen*>(request.context);
    where->thread = pthread_self();
    where->completions.one_done();
  };
  Request* const batch[] = {&io.request};
  const std::int64_t begin = clock_ns(CLOCK_MONOTONIC);
  device.submit(batch);
  seen.completions.wait();
  EXPECT_GE(clock_ns(CLOCK_MONOTONIC) - begin, kLatency);
  EXPECT_FALSE(pthread_equal(seen.thread, pthread_self()));
  const std::int64_t again = clock_ns(CLOCK_MONOTONIC);
  device.execute(batch);
  EXPECT_GE(clock_ns(CLOCK_MONOTONIC) - again, kLatency);
}

TEST(MemoryDevice, EndRunsWhatIsLeft) {
  Completions completions(50);
  Buffer data(kPageSize);
  std::deque<Io> ios;
  {
    MemoryDevice device({.size = kPageSize, .latency_ns = 10'000'000'000});
    std::vector<Request*> batch;
    for (int i = 0; i < 50; ++i) {
      ios.emplace_back(IoOp::write, 0, data.data(), 8);
      completions.attach(ios.back().request);
      batch.push_back(&ios.back().request);
    }
    device.submit(batch);
  }
  EXPECT_EQ(completions.left(), 0u);
  for (const Io& io : ios) EXPECT_EQ(io.request.result, 8);
}

// Overlapping requests from everywhere: for the sanitizers, and each byte is some writer's.
TEST(MemoryDevice, OverlappingRequests) {
  MemoryDevice device({.max_size = 2 << 20});
  std::vector<std::thread> threads;
  Atomic<int> wrong;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Random random(t);
      Buffer data(20'000);
      for (int i = 0; i < 200; ++i) {
        const std::uint64_t offset = (1 << 20) - 10'000 + random.below(64);
        std::memset(data.data(), static_cast<int>(t + 1), data.size());
        Io io(t % 2 == 0 ? IoOp::write : IoOp::read, offset, data.data(), data.size());
        Request* const batch[] = {&io.request};
        if (random.one_in(2)) {
          device.execute(batch);
        } else {
          submit_and_wait(device, batch);
        }
        if (io.request.op == IoOp::write) continue;
        for (std::int64_t at = 0; at < io.request.result; ++at) {
          const unsigned char byte = data[static_cast<std::size_t>(at)];
          if (byte != 0 && byte != 1 && byte != 3) wrong.fetch_add(1, memory_order_relaxed);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(memory_order_relaxed), 0);
}

}  // namespace
}  // namespace quire
