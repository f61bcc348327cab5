// Where the horizon lies, whatever comes and goes.
#include "cache/recency_horizon.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>

#include "base/random.h"

namespace quire {
namespace {

TEST(RecencyHorizon, IsWhereAnLruCacheEnds) {
  for (const std::uint64_t capacity : {1U, 5U, 40U, 1000U}) {
    Random random(capacity);
    RecencyHorizon horizon;
    horizon.set_capacity(capacity);
    std::map<std::uint64_t, std::uint64_t> last;  // page to stamp
    const std::uint64_t slack = capacity / 8 + 1;
    for (std::uint64_t stamp = 1; stamp < 20 * capacity + 100; ++stamp) {
      const std::uint64_t page = random.below(random.one_in(2) ? capacity : 3 * capacity);
      if (const auto at = last.find(page); at != last.end()) {
        std::uint64_t distance = 0;
        for (const auto& [other, when] : last) distance += when > at->second ? 1 : 0;
        const bool within = horizon.reaches(at->second);
        EXPECT_TRUE(within || distance + slack >= capacity) << distance << " of " << capacity;
        EXPECT_TRUE(!within || distance <= capacity + slack) << distance << " of " << capacity;
        horizon.remove(at->second, 1);
      }
      horizon.add(stamp, 1);
      last[page] = stamp;
    }
  }
}

TEST(RecencyHorizon, WhatIsOlderThanItsBucketsStillCounts) {
  RecencyHorizon horizon;
  horizon.set_capacity(16);  // buckets of one tick
  for (std::uint64_t stamp = 1; stamp <= 12; ++stamp) horizon.add(stamp, 1);
  for (std::uint64_t stamp = 13; stamp <= 1000; ++stamp) {  // four pages, again and again: the twelve stay within
    if (stamp > 16) horizon.remove(stamp - 4, 1);
    horizon.add(stamp, 1);
    EXPECT_TRUE(horizon.reaches(12)) << stamp;
    EXPECT_EQ(horizon.full(), stamp >= 16) << stamp;
  }
  for (std::uint64_t stamp = 1001; stamp <= 1012; ++stamp) horizon.add(stamp, 1);
  EXPECT_FALSE(horizon.reaches(12));
  EXPECT_TRUE(horizon.reaches(997));
}

TEST(RecencyHorizon, FollowsAnotherCapacity) {
  RecencyHorizon horizon;
  horizon.set_capacity(1000);
  for (std::uint64_t stamp = 1; stamp <= 10'000; ++stamp) horizon.add(stamp, 1);
  EXPECT_TRUE(horizon.reaches(9'100));
  EXPECT_FALSE(horizon.reaches(8'800));
  horizon.set_capacity(100);
  EXPECT_TRUE(horizon.reaches(9'950));
  EXPECT_FALSE(horizon.reaches(9'700));
  horizon.set_capacity(4000);
  for (std::uint64_t stamp = 10'001; stamp <= 14'000; ++stamp) horizon.add(stamp, 1);
  EXPECT_TRUE(horizon.reaches(10'500));
  EXPECT_FALSE(horizon.reaches(8'500));
}

}  // namespace
}  // namespace quire
