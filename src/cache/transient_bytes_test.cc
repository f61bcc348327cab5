// Memory that comes and goes counts for longer than it is there.
#include "cache/transient_bytes.h"

#include <gtest/gtest.h>

#include "cache/cache_for_test.h"
#include "cache/flusher.h"

namespace quire {
namespace {

using testing_support::TestCache;

TEST(TransientBytes, TheMostOfLateFades) {
  TransientBytes bytes;
  bytes.add(1000);
  bytes.add(-400);
  EXPECT_EQ(bytes.now(), 600);
  EXPECT_EQ(bytes.of_late(), 1000);
  bytes.fade();
  EXPECT_EQ(bytes.of_late(), 800);
  bytes.add(100);
  EXPECT_EQ(bytes.of_late(), 800);
  bytes.add(500);
  EXPECT_EQ(bytes.of_late(), 1200);
  bytes.add(-1200);
  for (int i = 0; i < 20; ++i) bytes.fade();
  EXPECT_EQ(bytes.now(), 0);
  EXPECT_EQ(bytes.of_late(), 0);
}

// What one fill takes for a moment leaves no less room for folios after it than during it; and no more is in use.
TEST(TransientBytes, FramesAreNotGivenUpForEachPieceOfWork) {
  TestCache test(1024);
  PageCache& cache = test.cache;
  const std::uint32_t before = cache.usable();
  cache.charge_files(1 << 20);  // past what is reserved for such things anyway
  cache.charge_prefetch(64 << 10);
  const std::uint32_t during = cache.usable();
  EXPECT_LT(during, before);
  cache.charge_prefetch(-(64 << 10));
  EXPECT_EQ(cache.usable(), during);
  EXPECT_EQ(cache.memory_use().prefetch, 0U);
  cache.charge_files(-(1 << 20));
}

}  // namespace
}  // namespace quire
