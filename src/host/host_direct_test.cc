// Direct I/O of host files on each file system: what they ask of it, and which requests go there.
#include "host/host_ranges_test_util.h"

namespace quire::host_testing {
namespace {

class HostDirect : public Ranges {
 protected:
  // What these file systems say of themselves; -1: whatever this machine has.
  int wanted_alignment() const {
    const std::string name = GetParam();
    if (name == "here") return -1;
    if (name == "btrfs") return 0;
    return name == "tmpfs" || name == "ext4-sector4k" ? 4096 : 512;
  }
};
constexpr const char* kDirectFilesystems[] = {"here",          "ext4", "ext4-mapped", "ext4-mapped4k",
                                              "ext4-sector4k", "xfs",  "btrfs",       "tmpfs"};
INSTANTIATE_TEST_SUITE_P(Filesystems, HostDirect, ::testing::ValuesIn(kDirectFilesystems), filesystem_name);

TEST_P(HostDirect, AlignmentIsWhatTheHostTakes) {
  const std::string bytes = named_bytes(1, 20'000);
  BackedFile file(path("file"), bytes);
  const unsigned alignment = file->direct_alignment();
  if (wanted_alignment() >= 0) {
    EXPECT_EQ(alignment, static_cast<unsigned>(wanted_alignment()));
  }
  EXPECT_EQ(file->block_size(), std::string(GetParam()) == "ext4-mapped" ? 1024u : 4096u);
  std::string back(8192, '?');
  if (alignment == 0) {
    EXPECT_EQ(file.move(IoOp::read, IoPath::direct_only, 0, back.data(), 4096), -EINVAL);
    return;
  }
  // One unit, anywhere; nothing smaller.
  const std::string unit = named_bytes(2, alignment);
  EXPECT_EQ(file.move(IoOp::write, IoPath::direct_only, alignment, const_cast<char*>(unit.data()), alignment),
            static_cast<std::int64_t>(alignment));
  EXPECT_EQ(file.move(IoOp::read, IoPath::direct_only, alignment, back.data(), alignment),
            static_cast<std::int64_t>(alignment));
  EXPECT_TRUE(same_bytes(back.substr(0, alignment), unit));
  EXPECT_EQ(file.move(IoOp::read, IoPath::direct_only, alignment / 2, back.data(), alignment), -EINVAL);
  EXPECT_EQ(file.move(IoOp::read, IoPath::direct_only, 0, back.data(), alignment / 2), -EINVAL);
  EXPECT_EQ(file.move(IoOp::write, IoPath::direct_only, 16384, back.data(), 3616), -EINVAL) << "a tail";
  // The end of the file lies inside a unit.
  EXPECT_EQ(file.move(IoOp::read, IoPath::direct_only, 16384, back.data(), 8192), 3616);
  EXPECT_TRUE(same_bytes(back.substr(0, 3616), std::string_view(bytes).substr(16384)));
  EXPECT_EQ(file.move(IoOp::read, IoPath::direct_only, 20480, back.data(), 4096), 0);
  std::string model = bytes;
  model.replace(alignment, alignment, unit);
  EXPECT_TRUE(same_bytes(file.plain().bytes(), model));
}

// Nothing of a direct_only request comes into the host's cache; a through_host one lies there. Only file systems that
// keep the two apart can tell.
TEST_P(HostDirect, ThroughTheHostLeavesItsPagesBehind) {
  if (is_of(BTRFS_SUPER_MAGIC) || is_of(TMPFS_MAGIC)) GTEST_SKIP() << "everything is in the host's cache";
  constexpr std::size_t kCount = 65536;
  BackedFile file(path("file"), named_bytes(1, kCount));
  if (file->direct_alignment() == 0) GTEST_SKIP() << "no O_DIRECT here";
  const int fd = file.plain().fd();
  const auto cached = [&] {
    void* const map = mmap(nullptr, kCount, PROT_READ, MAP_SHARED, fd, 0);
    EXPECT_NE(map, MAP_FAILED);
    unsigned char pages[kCount / kPageSize];
    EXPECT_EQ(mincore(map, kCount, pages), 0);
    munmap(map, kCount);
    return std::count_if(std::begin(pages), std::end(pages), [](unsigned char page) { return (page & 1) != 0; });
  };
  ASSERT_EQ(fsync(fd), 0);
  ASSERT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  ASSERT_EQ(cached(), 0);
  std::string bytes(kCount, '?');
  EXPECT_EQ(file.move(IoOp::read, IoPath::direct_only, 0, bytes.data(), kCount), static_cast<std::int64_t>(kCount));
  EXPECT_EQ(file.move(IoOp::write, IoPath::direct_only, 0, bytes.data(), kCount), static_cast<std::int64_t>(kCount));
  EXPECT_EQ(cached(), 0);
  EXPECT_EQ(file.move(IoOp::write, IoPath::through_host, 0, bytes.data(), 8192), 8192);
  EXPECT_EQ(cached(), 2);
}

// ext4 says that it does no direct I/O when data goes through its journal, and yet takes O_DIRECT.
TEST(HostDirectProbe, WhatOpensAlthoughNoneIsPromised) {
  const TestFilesystem& ext4 = TestFilesystem::get("ext4-journal");
  if (!ext4.why_not().empty()) GTEST_SKIP() << ext4.why_not();
  const PlainFile made(ext4.path() + "/file", named_bytes(1, 8192));
  const auto properties = host_properties(made.fd());
  ASSERT_TRUE(properties.ok());
  EXPECT_EQ(properties.value().direct_alignment, 0u);
  AttachedBacking attached(made.path());
  EXPECT_EQ(attached.backing.direct_alignment(), 4096u);
}

TEST(HostDirectDevice, AlignmentIsTheSector) {
  for (const unsigned sector : {512U, 4096U}) {
    const MemoryDisk disk(1 << 20, sector);
    if (!disk.ok()) GTEST_SKIP() << "no loop devices";
    AttachedBacking attached(disk.path());
    EXPECT_EQ(attached.backing.direct_alignment(), sector);
  }
}

TEST(HostDirectOff, NoAlignmentWithoutDirectIo) {
  const OwnDirectory here;
  const PlainFile made(here.path() + "/file", "x");
  AttachedBacking attached(made.path(), false);
  EXPECT_EQ(attached.backing.direct_alignment(), 0u);
}

}  // namespace
}  // namespace quire::host_testing
