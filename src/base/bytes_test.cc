// Rounding at the edges of 64 bits, the assertion that aborts, and seeded randomness.
#include "base/bytes.h"

#include <gtest/gtest.h>

#include <set>

#include "base/check.h"
#include "base/random.h"

namespace quire {
namespace {

TEST(Bytes, Rounding) {
  EXPECT_EQ(round_down(0, kPageSize), 0u);
  EXPECT_EQ(round_down(kPageSize - 1, kPageSize), 0u);
  EXPECT_EQ(round_down(UINT64_MAX, kPageSize), UINT64_MAX - 4095);
  EXPECT_EQ(round_up(0, kPageSize), 0u);
  EXPECT_EQ(round_up(1, kPageSize), kPageSize);
  EXPECT_EQ(round_up(kPageSize, kPageSize), kPageSize);
  EXPECT_EQ(round_up(kMaxFileSize, kPageSize), std::uint64_t{1} << 63);
  EXPECT_TRUE(is_aligned(0, 512));
  EXPECT_TRUE(is_aligned(1024, 512));
  EXPECT_FALSE(is_aligned(1025, 512));
}

TEST(Random, SeededAndWithinBounds) {
  Random a(5), b(5), c(6);
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t value = a.next();
    EXPECT_EQ(value, b.next());
    seen.insert(value);
    EXPECT_LT(c.below(7), 7u);
  }
  EXPECT_EQ(seen.size(), 1000u);
  int counts[4] = {};
  for (int i = 0; i < 4000; ++i) ++counts[c.below(4)];
  for (const int n : counts) EXPECT_NEAR(n, 1000, 200);
}

TEST(CheckDeathTest, SaysWhatDidNotHold) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  CHECK(kPageSize == 4096);
  EXPECT_DEATH(CHECK(kPageSize == 1), "assertion failed: kPageSize == 1");
}

}  // namespace
}  // namespace quire
