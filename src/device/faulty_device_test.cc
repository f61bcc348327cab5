#include "device/faulty_device.h"

#include <algorithm>
#include <deque>
#include <numeric>
#include <thread>

#include "device/device_test_util.h"
#include "device/memory_device.h"
#include "sync/clock.h"

namespace quire {
namespace {

using testing_support::Buffer;
using testing_support::Completions;
using testing_support::fill_pattern;
using testing_support::Io;
using testing_support::pattern_byte;
using testing_support::run;
using testing_support::submit_and_wait;

constexpr std::int64_t kLong = 5'000'000'000;

class FaultyDeviceTest : public ::testing::TestWithParam<bool> {  // submit, else execute
 protected:
  static constexpr std::size_t kSize = 64 * 1024;
  FaultyDeviceTest() {
    Buffer data(kSize);
    fill_pattern(data.data(), kSize, 1, 0);
    EXPECT_EQ(memory_.poke(0, data.data(), kSize), 0);
  }
  std::int64_t go(IoOp op, std::uint64_t offset, void* data, std::size_t size) {
    if (!GetParam()) return run(device_, op, offset, data, size);
    Io io(op, offset, data, size);
    Request* const batch[] = {&io.request};
    submit_and_wait(device_, batch);
    return io.request.result;
  }
  unsigned char byte(std::uint64_t offset) {
    unsigned char value;
    memory_.peek(offset, &value, 1);
    return value;
  }

  IoStats inner_stats_;
  MemoryDevice memory_{{.stats = &inner_stats_}};
  FaultyDevice device_{memory_, 42};
  Buffer data_{kSize};
};

TEST_P(FaultyDeviceTest, PassesThroughWithoutAPlan) {
  EXPECT_EQ(go(IoOp::read, 100, data_.data(), 5000), 5000);
  EXPECT_EQ(data_[4999], pattern_byte(1, 5099));
  EXPECT_EQ(go(IoOp::read, kSize - 10, data_.data(), 100), 10);
  EXPECT_EQ(go(IoOp::write, kSize, data_.data(), 100), 100);
  EXPECT_EQ(device_.flush(true), 0);
  const std::vector<FaultRecord> records = device_.records();
  ASSERT_EQ(records.size(), 4u);
  EXPECT_EQ(records[1].op, FaultOp::read);
  EXPECT_EQ(records[1].offset, kSize - 10);
  EXPECT_EQ(records[1].length, 100u);
  EXPECT_EQ(records[1].result, 10);
  EXPECT_EQ(records[1].arrival, 1u);
  EXPECT_EQ(records[2].op, FaultOp::write);
  EXPECT_EQ(records[3].op, FaultOp::flush);
  device_.clear_records();
  EXPECT_TRUE(device_.records().empty());
}

// What the inner device refuses of a direct request, and takes of another, tells how a piece came there.
TEST_P(FaultyDeviceTest, PiecesGoTheWayOfTheirRequest) {
  const auto go_direct = [&](std::uint64_t offset, std::size_t size) {
    Io io(IoOp::write, offset, data_.data(), size);
    io.request.path = IoPath::direct_only;
    Request* const batch[] = {&io.request};
    if (GetParam()) {
      submit_and_wait(device_, batch);
    } else {
      device_.execute(batch);
    }
    return io.request.result;
  };
  EXPECT_EQ(go(IoOp::write, 100, data_.data(), 5000), 5000);
  EXPECT_EQ(go_direct(100, 5000), -EINVAL);
  EXPECT_EQ(go_direct(512, 4096), 4096);
  device_.set_plan({.rules = {{.kind = FaultKind::split}}, .sector_size = 500});
  EXPECT_EQ(go(IoOp::write, 512, data_.data(), 4096), 4096);
  EXPECT_EQ(go_direct(512, 4096), -EINVAL) << "in two pieces, neither of them aligned";
}

TEST_P(FaultyDeviceTest, NthAndRange) {
  device_.set_plan({.rules = {{.reads = false, .skip = 2, .times = 1, .errnum = ENOSPC},
                              {.writes = false, .first = 8192, .last = 8192 + 511}}});
  EXPECT_EQ(go(IoOp::write, 0, data_.data(), 10), 10);
  EXPECT_EQ(go(IoOp::write, 0, data_.data(), 10), 10);
  EXPECT_EQ(go(IoOp::write, 20, data_.data(), 10), -ENOSPC);
  EXPECT_EQ(byte(20), pattern_byte(1, 20));  // not touched
  EXPECT_EQ(go(IoOp::write, 20, data_.data(), 10), 10);
  EXPECT_EQ(go(IoOp::read, 4096, data_.data(), 4096), 4096);
  EXPECT_EQ(go(IoOp::read, 4096, data_.data(), 4097), -EIO);
  EXPECT_EQ(go(IoOp::read, 8703, data_.data(), 1), -EIO);
  EXPECT_EQ(go(IoOp::read, 8704, data_.data(), 1), 1);
  EXPECT_EQ(go(IoOp::write, 8192, data_.data(), 1), 1);
}

TEST_P(FaultyDeviceTest, ProbabilityFollowsTheSeed) {
  const auto outcomes = [this](std::uint64_t seed) {
    FaultyDevice device(memory_, seed);
    device.set_plan({.rules = {{.one_in = 4}}});
    std::vector<std::int64_t> results;
    for (int i = 0; i < 400; ++i) results.push_back(run(device, IoOp::read, 0, data_.data(), 8));
    return results;
  };
  const auto first = outcomes(1);
  EXPECT_EQ(first, outcomes(1));
  EXPECT_NE(first, outcomes(2));
  const auto failed = std::count(first.begin(), first.end(), -EIO);
  EXPECT_GT(failed, 60);
  EXPECT_LT(failed, 140);
}

TEST_P(FaultyDeviceTest, TornWriteKeepsSomeFirstSectors) {
  device_.set_plan({.rules = {{.kind = FaultKind::torn}}});
  std::size_t least = SIZE_MAX, most = 0;
  for (std::uint64_t round = 2; round < 40; ++round) {
    Buffer old_bytes(4096);
    memory_.peek(256, old_bytes.data(), 4096);
    fill_pattern(data_.data(), 4096, round, 256);
    EXPECT_EQ(go(IoOp::write, 256, data_.data(), 4096), -EIO);
    Buffer now(4096);
    memory_.peek(256, now.data(), 4096);
    // [256, 512) is the rest of the first sector, then 7 whole ones, then half a sector.
    std::size_t sectors = 0, at = 0;
    while (at < 4096) {
      const std::size_t end = at == 0 ? 256 : std::min<std::size_t>(at + 512, 4096);
      if (std::memcmp(now.data() + at, data_.data() + at, end - at) != 0) break;
      at = end;
      ++sectors;
    }
    EXPECT_EQ(std::memcmp(now.data() + at, old_bytes.data() + at, 4096 - at), 0);
    least = std::min(least, sectors);
    most = std::max(most, sectors);
  }
  EXPECT_EQ(least, 0u);
  EXPECT_GE(most, 7u);
  EXPECT_LE(most, 8u);  // never all nine
  EXPECT_EQ(go(IoOp::read, 0, data_.data(), 4096), 4096);
}

TEST_P(FaultyDeviceTest, LostWriteReportsSuccess) {
  device_.set_plan({.rules = {{.kind = FaultKind::lost, .times = 1}}});
  EXPECT_EQ(go(IoOp::read, 0, data_.data(), 4096), 4096);  // reads are not lost
  std::memset(data_.data(), 0xee, 4096);
  EXPECT_EQ(go(IoOp::write, 4096, data_.data(), 4096), 4096);
  EXPECT_EQ(byte(5000), pattern_byte(1, 5000));
  EXPECT_EQ(go(IoOp::write, 4096, data_.data(), 4096), 4096);
  EXPECT_EQ(byte(5000), 0xee);
}

TEST_P(FaultyDeviceTest, SplitTransfersAreContinued) {
  device_.set_plan({.rules = {{.kind = FaultKind::split}}});
  for (int round = 0; round < 20; ++round) {
    const std::uint64_t before = IoStats::get(inner_stats_.read_requests);
    std::memset(data_.data(), 0, 10'000);
    EXPECT_EQ(go(IoOp::read, 300, data_.data(), 10'000), 10'000);
    EXPECT_EQ(IoStats::get(inner_stats_.read_requests), before + 2);
    for (std::size_t i = 0; i < 10'000; ++i) ASSERT_EQ(data_[i], pattern_byte(1, 300 + i));
  }
  EXPECT_EQ(go(IoOp::read, kSize - 700, data_.data(), 4096), 700);
  Buffer out(4096);
  fill_pattern(out.data(), 4096, 9, 8192);
  EXPECT_EQ(go(IoOp::write, 8192, out.data(), 4096), 4096);
  for (std::uint64_t i = 0; i < 4096; ++i) ASSERT_EQ(byte(8192 + i), out[i]);
  EXPECT_EQ(go(IoOp::read, 0, data_.data(), 512), 512);  // one sector comes whole
}

TEST_P(FaultyDeviceTest, Delay) {
  device_.set_plan({.rules = {{.kind = FaultKind::delay, .delay_ns = 30'000'000}}});
  const std::int64_t begin = clock_ns(CLOCK_MONOTONIC);
  EXPECT_EQ(go(IoOp::read, 0, data_.data(), 512), 512);
  EXPECT_GE(clock_ns(CLOCK_MONOTONIC) - begin, 30'000'000);
}

TEST_P(FaultyDeviceTest, HoldUntilReleased) {
  device_.set_plan({.rules = {{.kind = FaultKind::hold, .times = 2}}});
  Atomic<int> finished;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      Buffer mine(512);
      EXPECT_EQ(go(IoOp::read, 0, mine.data(), 512), 512);
      finished.fetch_add(1, memory_order_relaxed);
    });
  }
  EXPECT_TRUE(device_.wait_for_held(2, kLong));
  EXPECT_FALSE(device_.wait_for_held(3, 1'000'000));
  EXPECT_EQ(device_.held(), 2u);
  EXPECT_EQ(go(IoOp::read, 0, data_.data(), 512), 512);  // others pass
  EXPECT_EQ(finished.load(memory_order_relaxed), 0);
  EXPECT_EQ(device_.records().size(), 1u);
  device_.release_held();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(device_.held(), 0u);
  EXPECT_EQ(device_.records().size(), 3u);
}

TEST_P(FaultyDeviceTest, FlushFailure) {
  device_.set_plan({.skip_flushes = 1, .fail_flushes = 2, .flush_errnum = ENOSPC});
  EXPECT_EQ(device_.flush(false), 0);
  EXPECT_EQ(device_.flush(false), ENOSPC);
  EXPECT_EQ(device_.flush(true), ENOSPC);
  EXPECT_EQ(device_.flush(true), 0);
  EXPECT_EQ(IoStats::get(inner_stats_.flushes), 2u);
}

// Many threads, every fault at once: each request ends once, with a result that its fault allows.
TEST_P(FaultyDeviceTest, AllAtOnce) {
  device_.set_plan({.rules = {{.kind = FaultKind::error, .one_in = 7},
                              {.kind = FaultKind::torn, .one_in = 7},
                              {.kind = FaultKind::split, .one_in = 3},
                              {.kind = FaultKind::delay, .one_in = 9, .delay_ns = 100'000}},
                    .reorder = true});
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Random random(t);
      Buffer mine(8 * 4096);
      for (int round = 0; round < 40; ++round) {
        std::deque<Io> ios;
        std::vector<Request*> batch;
        for (std::size_t i = 0; i < 8; ++i) {
          const IoOp op = random.one_in(2) ? IoOp::read : IoOp::write;
          ios.emplace_back(op, random.below(kSize - 4096), mine.data() + i * 4096, 4096);
          batch.push_back(&ios.back().request);
        }
        if (GetParam()) {
          submit_and_wait(device_, batch);
        } else {
          device_.execute(batch);
        }
        for (const Io& io : ios) EXPECT_TRUE(io.request.result == 4096 || io.request.result == -EIO);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<FaultRecord> records = device_.records();
  EXPECT_EQ(records.size(), 4u * 40 * 8);
  for (const FaultRecord& record : records) {
    const bool fails = record.kind == FaultKind::error || record.kind == FaultKind::torn;
    EXPECT_EQ(record.result, fails ? -EIO : 4096);
  }
}

INSTANTIATE_TEST_SUITE_P(Calls, FaultyDeviceTest, ::testing::Bool(),
                         [](const auto& tested) { return std::string(tested.param ? "Submit" : "Execute"); });

struct Order {
  Completions completions{16};
  std::vector<std::size_t> finished;  // callbacks of one batch run one after the other
};

TEST(FaultyDeviceReorder, BatchComesBackInAnotherOrder) {
  MemoryDevice memory({.size = 1 << 20});
  FaultyDevice device(memory, 3);
  device.set_plan({.rules = {{.kind = FaultKind::error, .skip = 4, .times = 1}}, .reorder = true});
  Order order;
  Buffer data(16 * 512);
  std::deque<Io> ios;
  std::vector<Request*> batch;
  for (std::size_t i = 0; i < 16; ++i) {
    ios.emplace_back(IoOp::read, i * 512, data.data() + i * 512, 512);
    ios.back().request.context = &order;
    ios.back().request.done = [](Request& request) {
      auto* seen = static_cast<Order*>(request.context);
      seen->finished.push_back(request.offset / 512);
      seen->completions.one_done();
    };
    batch.push_back(&ios.back().request);
  }
  device.submit(batch);
  order.completions.wait();
  std::vector<std::size_t> sorted = order.finished;
  EXPECT_FALSE(std::is_sorted(sorted.begin(), sorted.end()));
  std::sort(sorted.begin(), sorted.end());
  std::vector<std::size_t> all(16);
  std::iota(all.begin(), all.end(), 0u);
  EXPECT_EQ(sorted, all);
  EXPECT_EQ(ios[4].request.result, -EIO);
}

}  // namespace
}  // namespace quire
