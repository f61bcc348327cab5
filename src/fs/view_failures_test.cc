// Views where the system calls behind them fail, or have nothing left to give: nothing is lost, and what is there is
// shown in the end.
#include <gtest/gtest.h>

#include <thread>

#include "cache/view_mapper_for_test.h"
#include "fs/file_for_test.h"
#include "fs/file_view_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr unsigned kFile = 1;
constexpr std::uint64_t kPages = 64;
constexpr std::uint64_t kBytes = kPages * kPageSize;

class ViewFailures : public ::testing::Test {
 protected:
  void lay(std::uint64_t bytes = kBytes) {
    ASSERT_EQ(file_.write(words(bytes, kFile, 1, 0), 0), static_cast<ssize_t>(bytes));
    ASSERT_EQ(file_.sync(), 0);
  }
  MapperFaults& faults() { return mappers_.faults; }

  FailingMappers mappers_;
  RamDisk disk_{4096};
  TestCache cache_{256};
  TestFile file_{cache_.cache, disk_.make_file()};
  const Watchdog watchdog_{"a view whose system calls fail"};
};

// Between its mapping and its registration a page can be stored to by whoever has the address.
TEST_F(ViewFailures, D1_StoresBeforeTrackingFailsAreKept) {
  lay();
  faults().before_track_fails = [](char* at) { *reinterpret_cast<volatile std::uint64_t*>(at) = 7; };
  faults().track.store(1, memory_order_release);
  const FileView view(file_, kPages, 0, true);
  std::uint64_t first = view.word(0);
  EXPECT_EQ(first, 7U);
  ASSERT_EQ(file_.sync(), 0);
  file_.drop_cached();
  ASSERT_EQ(file_.read(&first, 8, 0), 8);
  EXPECT_EQ(first, 7U);
}

}  // namespace
}  // namespace quire
