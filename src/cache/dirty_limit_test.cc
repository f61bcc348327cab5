// The dirty limit: claims, the line, and pacing to a rate.
#include "cache/dirty_limit.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "cache/cache_for_test.h"
#include "cache/mapping.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }
// A cache of 1024 frames, background 128, hard 512; a mapping whose pages the tests make dirty by hand.
class DirtyLimitTest : public ::testing::Test {
 protected:
  void make_unstable(std::uint64_t pages) { dirty.unstable_added(pages); }
  void TearDown() override { dirty.unstable_removed(dirty.unstable()); }

  TestCache made{1024};
  PageCache& cache = made.cache;
  DirtyLimit& dirty = cache.dirty;
  RamDisk disk{4096};
  std::unique_ptr<RamBacking> backing = disk.make_file();
  TestMapping test{cache, *backing};
};

TEST_F(DirtyLimitTest, RateIsARunningMeanOfWhatTells) {
  EXPECT_EQ(dirty.rate(), 0U);
  dirty.measured(10, 1'000'000);
  EXPECT_EQ(dirty.rate(), 0U) << "ten pages say nothing";
  dirty.measured(1000, 100'000'000);
  EXPECT_EQ(dirty.rate(), 10'000U);
  dirty.measured(1000, 50'000'000);
  EXPECT_EQ(dirty.rate(), 12'500U);
}

// At the middle between the limits writers move as fast as the device; below the background limit nobody waits.
TEST_F(DirtyLimitTest, D1_WritersKeepToTheRate) {
  Watchdog watchdog("paced writers");
  dirty.measured(10'000, 1'000'000'000);
  const auto claim_all = [&] {
    const auto begin = Clock::now();
    run_threads(2, [&](int) {
      for (int i = 0; i < 100; ++i) {
        ASSERT_TRUE(dirty.claim(test.mapping, 10).ok());
        dirty.unclaim(10);
      }
    });
    return seconds_since(begin);
  };
  EXPECT_LT(claim_all(), 0.05) << "nothing is dirty";
  EXPECT_EQ(made.sum(Counter::paced), 0U);
  make_unstable((dirty.background() + dirty.hard()) / 2);
  const double paced = claim_all();
  EXPECT_GT(paced, 0.15) << "2000 pages at 10000 a second";
  EXPECT_GT(made.sum(Counter::paced), 0U);
  make_unstable(dirty.hard() / 5);
  EXPECT_GT(claim_all(), paced * 1.3) << "nearer to the hard limit, slower";
}

// One slow slice does not make writers wait for what it predicted once the device is fast again.
TEST_F(DirtyLimitTest, AWrongRateIsForgotten) {
  Watchdog watchdog("writers after a slow slice");
  dirty.measured(512, 100'000'000'000);
  make_unstable(dirty.background() + 1);
  ASSERT_TRUE(dirty.claim(test.mapping, 200).ok()) << "40 seconds by that rate";
  dirty.unclaim(200);
  for (int i = 0; i < 50; ++i) dirty.measured(100'000, 100'000'000);
  const auto begin = Clock::now();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(dirty.claim(test.mapping, 10).ok());
    dirty.unclaim(10);
  }
  EXPECT_LT(seconds_since(begin), 3.0) << "as long as 100 of the longest pauses";
}

// A claim made before the cache became smaller may be larger than all that it may have dirty now. It waits until it is
// alone; only what cannot be written would be a reason to fail it.
TEST_F(DirtyLimitTest, ClaimLargerThanTheLimit) {
  Watchdog watchdog("a claim larger than the limit");
  ASSERT_TRUE(dirty.claim(test.mapping, 10).ok());
  const auto too_many = static_cast<std::uint32_t>(dirty.hard() * 2);
  std::atomic<int> errnum{-1};
  std::thread large([&] {
    errnum = dirty.claim(test.mapping, too_many).errnum();
    dirty.unclaim(too_many);
  });
  while (!dirty.somebody_waits()) std::this_thread::yield();
  for (int round = 0; round < 10; ++round) {
    dirty.round_ended();
    dirty.progress();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(errnum, -1) << "it waits";
  dirty.unclaim(10);
  large.join();
  EXPECT_EQ(errnum, 0);
}

// Small claims that keep coming do not pass a large one that waits.
TEST_F(DirtyLimitTest, ALargeClaimIsNotPassedForEver) {
  Watchdog watchdog("a large claim beside small ones");
  ASSERT_TRUE(dirty.claim(test.mapping, 300).ok());
  std::atomic<bool> large{false};
  std::atomic<int> small{0};
  std::thread waiter([&] {
    EXPECT_TRUE(dirty.claim(test.mapping, 400).ok());
    large = true;
    dirty.unclaim(400);
  });
  while (!dirty.somebody_waits()) std::this_thread::yield();
  std::vector<std::thread> others;
  for (int i = 0; i < 3; ++i) {
    others.emplace_back([&] {
      while (!large) {
        EXPECT_TRUE(dirty.claim(test.mapping, 8).ok());
        ++small;
        dirty.unclaim(8);
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(large);
  EXPECT_EQ(small, 0) << "they stand in line behind it";
  dirty.unclaim(300);
  waiter.join();
  for (std::thread& other : others) other.join();
}

}  // namespace
}  // namespace quire
