// The ram backing without unwritten extents, and writes without prepare.
#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "ram/ram_backing.h"
#include "ram/ram_disk_for_test.h"
#include "ram/ram_image_for_test.h"

namespace quire {
namespace {

using testing_support::image_of;
using testing_support::RamDisk;
using Bytes = std::vector<unsigned char>;

class RamHoles : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr std::uint64_t kUnit = 1024;
  // `count` bytes of `value`, in two pieces.
  Status through(std::uint64_t offset, std::uint64_t count, unsigned char value) {
    Bytes bytes(count, value);
    const iovec pieces[] = {{bytes.data(), count / 3}, {bytes.data() + count / 3, count - count / 3}};
    return file->write_through(offset, pieces);
  }
  RamDisk disk{kUnit, 64, 1, RamOptions{.no_unwritten = GetParam()}};
  std::unique_ptr<RamBacking> file = disk.make_file();
};

TEST_P(RamHoles, WhatIsWrittenThroughIsCommittedAsEver) {
  EXPECT_EQ(file->unwritten_extents(), !GetParam());
  ASSERT_TRUE(through(kUnit, 3 * kUnit, 0x11).ok());
  EXPECT_EQ(file->size(), 0u);
  ASSERT_TRUE(file->commit(kUnit, 3 * kUnit, UINT64_MAX).ok());
  ASSERT_TRUE(through(kUnit + 100, 2 * kUnit, 0x22).ok()) << "parts of blocks that are there";
  ASSERT_TRUE(file->commit(kUnit + 100, 2 * kUnit, UINT64_MAX).ok());
  Bytes wanted(4 * kUnit, 0x11);
  std::fill_n(wanted.begin(), kUnit, static_cast<unsigned char>(0));
  std::fill_n(wanted.begin() + kUnit + 100, 2 * kUnit, static_cast<unsigned char>(0x22));
  EXPECT_EQ(image_of(disk.store, *file), wanted);
  EXPECT_EQ(disk.store.blocks_in_use(), 3u);
}

TEST_P(RamHoles, AHoleIsTheFilesBeforeItsBytesAreThere) {
  disk.device.set_plan({.rules = {{.kind = FaultKind::lost, .reads = false}}});
  ASSERT_TRUE(through(0, kUnit, 0x11).ok());
  const auto extent = file->map_exact(0, kUnit);
  EXPECT_EQ(extent.value().kind, GetParam() ? ExtentKind::written : ExtentKind::hole);
  if (!GetParam()) return;
  unsigned char byte = 0;
  disk.store.memory().peek(extent.value().address, &byte, 1);
  EXPECT_EQ(byte, 0xdb) << "for the lock to hide";
}

TEST_P(RamHoles, AFailedFillLeavesTheHole) {
  ASSERT_TRUE(through(0, kUnit, 0x11).ok());
  ASSERT_TRUE(file->commit(0, kUnit, UINT64_MAX).ok());
  disk.fail_writes();
  EXPECT_EQ(through(0, 3 * kUnit, 0x22).errnum(), EIO);
  disk.heal();
  EXPECT_EQ(file->map_exact(0, kUnit).value().kind, ExtentKind::written);
  EXPECT_EQ(file->map_exact(kUnit, kUnit).value().kind, ExtentKind::hole);
  EXPECT_EQ(through(0, 64 * kUnit + kUnit, 0x22).errnum(), ENOSPC);
  EXPECT_EQ(file->map_exact(kUnit, kUnit).value().kind, ExtentKind::hole);
  ASSERT_TRUE(through(0, 3 * kUnit, 0x33).ok()) << "and a lock that is free";
}

TEST_P(RamHoles, NothingIsAllocatedAheadWithoutUnwrittenBlocks) {
  EXPECT_EQ(file->allocate(0, kUnit, false).errnum(), GetParam() ? EOPNOTSUPP : 0);
  EXPECT_EQ(file->zero(0, kUnit, false).errnum(), GetParam() ? EOPNOTSUPP : 0);
  EXPECT_TRUE(file->set_size(4 * kUnit).ok());
  EXPECT_TRUE(file->punch(0, kUnit).ok());
}

TEST_P(RamHoles, FillersWaitForDirectHolders) {
  DirectHold hold;
  ASSERT_TRUE(file->begin_direct(hold, true));
  EXPECT_EQ(hold.held, GetParam());
  Atomic<bool> done;
  std::thread filler([&] {
    EXPECT_TRUE(through(0, kUnit, 0x11).ok());
    done.store(true, memory_order_release);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  if (GetParam()) {
    EXPECT_FALSE(done.load(memory_order_acquire));
    EXPECT_EQ(file->map_exact(0, 1).value().kind, ExtentKind::hole);
  }
  file->end_direct(hold);
  filler.join();
}

INSTANTIATE_TEST_SUITE_P(Hosts, RamHoles, ::testing::Bool(),
                         [](const auto& made) { return made.param ? "NoUnwritten" : "Unwritten"; });

}  // namespace
}  // namespace quire
