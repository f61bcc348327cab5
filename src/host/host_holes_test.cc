// Filling holes beside direct I/O where hosts have no unwritten extents: ext4 with block maps, of 1 and of 4 KiB.
#include <thread>

#include "host/host_ranges_test_util.h"
#include "sync/atomic.h"

namespace quire::host_testing {
namespace {

class HolesOfAll : public Ranges {};
constexpr const char* kAll[] = {"ext4", "ext4-mapped", "ext4-mapped4k", "xfs", "btrfs", "tmpfs"};
INSTANTIATE_TEST_SUITE_P(Filesystems, HolesOfAll, ::testing::ValuesIn(kAll), filesystem_name);

TEST_P(HolesOfAll, WhoHasUnwrittenExtents) {
  BackedFile file(path("file"), "");
  const bool has = !std::string(GetParam()).starts_with("ext4-mapped");
  EXPECT_EQ(file->unwritten_extents(), has);
  ASSERT_TRUE(file->set_size(65536).ok());
  if (!has) {
    EXPECT_EQ(file->map_exact(0, 1).value().kind, ExtentKind::hole);
  }
  // A hold keeps fillers away where there is something to keep apart, and nowhere else.
  DirectHold hold;
  ASSERT_TRUE(file->begin_direct(hold, true));
  EXPECT_EQ(hold.held, !has);
  file->end_direct(hold);
  // Bytes come through, in pieces, whatever their alignment.
  const std::string bytes = named_bytes(1, 5001);
  const iovec pieces[] = {{const_cast<char*>(bytes.data()), 1000}, {const_cast<char*>(bytes.data()) + 1000, 4001}};
  ASSERT_TRUE(file->write_through(8192, pieces).ok());
  ASSERT_TRUE(file->commit(8192, 5001, 65536).ok());
  EXPECT_TRUE(same_bytes(file.plain().bytes().substr(8192, 5001), bytes));
  EXPECT_EQ(file->map_exact(8192, 1).value().kind, ExtentKind::written);
}

class Holes : public Ranges {
 protected:
  // What is free on the disk holds bytes of somebody else's.
  void SetUp() override {
    Ranges::SetUp();
    if (IsSkipped()) return;
    const std::string name = path("old");
    const int fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ASSERT_GE(fd, 0);
    const std::string foreign(1 << 20, kForeign);
    while (::write(fd, foreign.data(), foreign.size()) > 0) {
    }
    ASSERT_EQ(fsync(fd), 0);
    ::close(fd);
    ::unlink(name.c_str());
    ::sync();
  }
  static constexpr char kForeign = '\xdb';
};
constexpr const char* kMapped[] = {"ext4-mapped", "ext4-mapped4k"};
INSTANTIATE_TEST_SUITE_P(Filesystems, Holes, ::testing::ValuesIn(kMapped), filesystem_name);

// Reads over blocks that are being filled find zeros or what they are filled with. Long reads, since the host asks
// itself once what it has to write back first, and for each extent then where it is. (Linux 6.18 gets this right even
// without the lock, since its direct reads hold the inode's across both; that our lock is there, the next test shows.)
TEST_P(Holes, R2_DirectReadBesideAFill) {
  for (const bool by_device : {false, true}) {
    SCOPED_TRACE(by_device ? "as writeback writes" : "write_through");
    WrittenMap map({.max_bytes = 1 << 16});
    BackedFile file(path("file"), "", O_RDWR, &map);
    const std::uint64_t unit = file->block_size(), blocks = 48;
    ASSERT_TRUE(file->set_size(blocks * unit).ok());
    Atomic<bool> all_filled;
    Atomic<std::uint64_t> foreign, reads;
    std::thread reader([&] {
      std::string back(blocks * unit, '?');
      const std::string zeros(unit, '\0');
      while (!all_filled.load(memory_order_acquire)) {
        DirectHold hold;
        file->begin_direct(hold, true);
        const std::int64_t got = file.move(IoOp::read, IoPath::direct_only, 0, back.data(), back.size());
        file->end_direct(hold);
        std::uint64_t wrong = got != static_cast<std::int64_t>(back.size());
        for (std::uint64_t b = 0; b < blocks; ++b) {
          const std::string_view block = std::string_view(back).substr(b * unit, unit);
          wrong += block != zeros && block != named_bytes(b + 1, unit);
        }
        foreign.fetch_add(wrong, memory_order_relaxed);
        reads.fetch_add(1, memory_order_relaxed);
      }
    });
    // From the end on, every second one first: many extents before those that are being filled.
    const auto fill = [&](std::uint64_t b) {
      std::string bytes = named_bytes(b + 1, unit);
      if (by_device) {
        ASSERT_EQ(file.move(IoOp::write, IoPath::any, b * unit, bytes.data(), unit), static_cast<std::int64_t>(unit));
      } else {
        const iovec vector{bytes.data(), unit};
        ASSERT_TRUE(file->write_through(b * unit, std::span(&vector, 1)).ok());
      }
      ASSERT_TRUE(file->commit(b * unit, unit, UINT64_MAX).ok());
    };
    while (reads.load(memory_order_relaxed) == 0) std::this_thread::yield();
    for (const std::uint64_t odd : {1, 0}) {
      for (std::uint64_t b = blocks; b > 0 && !HasFatalFailure(); b -= 2) fill(b - 2 + odd);
    }
    all_filled.store(true, memory_order_release);
    reader.join();
    EXPECT_EQ(foreign.load(memory_order_relaxed), 0u) << "in " << reads.load(memory_order_relaxed) << " reads";
    EXPECT_TRUE(file->sync(false).ok());
    const std::string bytes = file.plain().bytes();
    for (std::uint64_t b = 0; b < blocks; ++b) {
      ASSERT_TRUE(same_bytes(std::string_view(bytes).substr(b * unit, unit), named_bytes(b + 1, unit))) << b;
    }
  }
}

// A hold keeps what may fill a hole waiting, by whatever way, and nothing else.
TEST_P(Holes, FillersWaitForDirectHolders) {
  BackedFile file(path("file"), named_bytes(1, 65536));
  ASSERT_TRUE(file->set_size(131072).ok());
  std::string bytes = named_bytes(2, 4096);
  DirectHold hold;
  ASSERT_TRUE(file->begin_direct(hold, true));
  Atomic<int> done;
  std::thread written([&] {
    EXPECT_EQ(file.move(IoOp::write, IoPath::any, 4096, bytes.data(), 4096), 4096);
    done.fetch_add(1, memory_order_release);
  });
  written.join();
  EXPECT_EQ(done.load(memory_order_acquire), 1) << "over written blocks";
  std::thread fillers[] = {std::thread([&] {
                             const iovec vector{bytes.data(), 4096};
                             EXPECT_TRUE(file->write_through(65536, std::span(&vector, 1)).ok());
                             done.fetch_add(1, memory_order_release);
                           }),
                           std::thread([&] {
                             EXPECT_EQ(file.move(IoOp::write, IoPath::any, 69632, bytes.data(), 4096), 4096);
                             done.fetch_add(1, memory_order_release);
                           }),
                           std::thread([&] {
                             EXPECT_EQ(file.move(IoOp::write, IoPath::through_host, 0, bytes.data(), 4096), 4096);
                             done.fetch_add(1, memory_order_release);
                           })};
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(done.load(memory_order_acquire), 1);
  std::string back(4096, '?');
  EXPECT_EQ(file.move(IoOp::read, IoPath::direct_only, 4096, back.data(), 4096), 4096);
  EXPECT_EQ(file.move(IoOp::read, IoPath::any, 4096, back.data(), 4096), 4096);
  file->end_direct(hold);
  for (std::thread& filler : fillers) filler.join();
}

}  // namespace
}  // namespace quire::host_testing
