// The lock-order validator over the locks of files: each deliberate mistake is caught by name, at the mistake and
// before anything could hang. Debug builds only.
#include <gtest/gtest.h>

#include "cache/fill.h"
#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

class FileLockOrderDeathTest : public ::testing::Test {
 protected:
  void SetUp() override {
#ifndef QUIRE_LOCK_VALIDATOR
    GTEST_SKIP() << "the lock-order validator is in debug builds only";
#endif
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }

  RamDisk disk{4096};
  TestCache cache;
  TestFile one{cache.cache, disk.make_file()}, two{cache.cache, disk.make_file()};
};

void lock_backwards(Inode& high, Inode& low) {
  RangeGuard first(high.range);
  RangeGuard second(low.range);
  first.acquire(0, 100, kExclusive);
  second.acquire(0, 100, kExclusive);
}

void lock_range_under_invalidate(Inode& inode) {
  RangeGuard remove(inode.mapping.invalidate);
  RangeGuard range(inode.range);
  remove.acquire(0, 10, kRemove);
  range.acquire(0, 100, kExclusive);
}

void fill_untold(Mapping& mapping) {
  RangeGuard remove(mapping.invalidate);
  remove.acquire(0, 7, kRemove);
  FrameReservation frames(mapping.cache.pool);
  mapping.cache.reserve_for_read(frames, 4);
  static_cast<void>(fill_range(mapping, 2, 3, frames, CacheContext{}));
}

// Two files, in the wrong order of their inodes.
TEST_F(FileLockOrderDeathTest, TwoFilesBackwards) {
  const bool in_order = one.inode().id < two.inode().id;
  EXPECT_DEATH(lock_backwards((in_order ? two : one).inode(), (in_order ? one : two).inode()), "range");
}

// The range lock under the invalidate lock: an inversion, once the right order has been seen.
TEST_F(FileLockOrderDeathTest, RangeUnderInvalidate) {
  ASSERT_EQ(one.write(words(100, 1, 1, 0), 0), 100);
  ASSERT_EQ(one.truncate(10), 0);  // range, then invalidate
  EXPECT_DEATH(lock_range_under_invalidate(one.inode()), "invalidate(.|\n)*range|range(.|\n)*invalidate");
}

// A fill inside an operation that holds the invalidate lock, and is not told so: the deadlock that reading hashes ahead
// met in the kernel.
TEST_F(FileLockOrderDeathTest, NestedFillThatIsNotTold) {
  ASSERT_EQ(one.write(words(8 * kPageSize, 1, 1, 0), 0), static_cast<ssize_t>(8 * kPageSize));
  ASSERT_EQ(one.sync(), 0);
  one.drop_cached();
  EXPECT_DEATH(fill_untold(one.mapping()), "invalidate");
}

// Told what is held, it fills.
TEST_F(FileLockOrderDeathTest, NestedFillThatIsTold) {
  ASSERT_EQ(one.write(words(8 * kPageSize, 1, 1, 0), 0), static_cast<ssize_t>(8 * kPageSize));
  ASSERT_EQ(one.sync(), 0);
  one.drop_cached();
  RangeGuard remove(one.mapping().invalidate);
  remove.acquire(0, 7, kRemove);
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve_for_read(frames, 4);
  const auto filled = fill_range(one.mapping(), 2, 3, frames, CacheContext{&remove.request()});
  ASSERT_TRUE(filled.ok());
  if (filled.value().first != nullptr) cache.cache.put_folio(*filled.value().first);
}

}  // namespace
}  // namespace quire
