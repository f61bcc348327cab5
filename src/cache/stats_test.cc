// Counters by thread, and their sums.
#include "cache/stats.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "cache/cache_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

TEST(Stats, SumsOverThreads) {
  Stats stats;
  run_threads(8, [&](int thread) {
    for (int i = 0; i < 10'000; ++i) {
      stats.count(Counter::fills);
      stats.count(Counter::evictions, static_cast<std::uint64_t>(thread));
      stats.count_hit(256);
    }
  });
  EXPECT_EQ(stats.sum(Counter::fills), 80'000U);
  EXPECT_EQ(stats.sum(Counter::evictions), 280'000U);
  EXPECT_EQ(stats.sum(Counter::truncates), 0U);
  EXPECT_EQ(stats.hits(), 80'000U);
}

TEST(Stats, OutlivesItsThreads) {
  Stats stats;
  for (int i = 0; i < 50; ++i) run_threads(1, [&](int) { stats.count(Counter::flushes); });
  EXPECT_EQ(stats.sum(Counter::flushes), 50U);
  EXPECT_LT(stats.memory_bytes(), 50 * 1024) << "slots are used again";
  EXPECT_GT(stats.memory_bytes(), 0);
}

TEST(Stats, SizesByBitWidth) {
  Stats stats;
  const std::uint64_t sizes[] = {0, 1, 2, 3, 4, 1023, 1024, 1 << 24, std::uint64_t{1} << 40};
  for (const std::uint64_t size : sizes) stats.count_hit(size);
  stats.count_slow_read(3);
  const auto in = [&](int bucket) { return stats.reads_of_bucket(bucket); };
  EXPECT_EQ(in(0), 1U);
  EXPECT_EQ(in(1), 1U);
  EXPECT_EQ(in(2), 3U) << "2, 3 and the slow 3";
  EXPECT_EQ(in(3), 1U);
  EXPECT_EQ(in(10), 1U);
  EXPECT_EQ(in(11), 1U);
  EXPECT_EQ(in(kSizeBuckets - 1), 2U) << "the last holds all that is larger";
  EXPECT_EQ(stats.hits(), 9U) << "a slow read is no hit";
  EXPECT_EQ(stats.sum(Counter::slow_reads), 1U);
}

TEST(Stats, EveryCounterHasAName) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < static_cast<std::size_t>(Counter::count); ++i) {
    names.insert(Stats::name(static_cast<Counter>(i)));
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(Counter::count));
  EXPECT_STREQ(Stats::name(Counter::miss_absent), "miss_absent");
  EXPECT_STREQ(Stats::name(Counter::writes_gate), "writes_gate");
  EXPECT_STREQ(Stats::name(Counter::truncates), "truncates");
}

}  // namespace
}  // namespace quire
