// What map_exact says of host files' blocks, on each file system, against the host's own list of extents.
#include <linux/fiemap.h>

#include <tuple>

#include "base/random.h"
#include "host/host_ranges_test_util.h"

namespace quire::host_testing {
namespace {

// One letter a block: W written, S shared, '.' neither; past the end nothing.
std::string picture(BackedFile& file) {
  const std::uint64_t unit = file->block_size();
  std::string blocks;
  for (std::uint64_t at = 0; at < file->size();) {
    const auto extent = file->map_exact(at, UINT64_MAX / 4);
    EXPECT_TRUE(extent.ok()) << std::strerror(extent.errnum());
    if (!extent.ok() || extent.value().length == 0) return blocks + "!";
    const Extent& e = extent.value();
    EXPECT_EQ(e.offset, at);
    EXPECT_EQ(e.address, at);
    EXPECT_TRUE(!e.shared || e.kind == ExtentKind::written);
    blocks.append((e.length + unit - 1) / unit, e.kind != ExtentKind::written ? '.' : e.shared ? 'S' : 'W');
    at += e.length;
  }
  return blocks;
}

// The same by the host, extent by extent.
std::string host_picture(const BackedFile& file, std::uint64_t unit) {
  const std::uint64_t size = file.plain().size();
  std::string blocks((size + unit - 1) / unit, '.');
  for (std::uint64_t at = 0; at < size;) {
    alignas(fiemap) char room[sizeof(fiemap) + sizeof(fiemap_extent)] = {};
    auto* const request = reinterpret_cast<fiemap*>(room);
    request->fm_start = at;
    request->fm_length = size - at;
    request->fm_flags = FIEMAP_FLAG_SYNC;
    request->fm_extent_count = 1;
    EXPECT_EQ(ioctl(file.plain().fd(), FS_IOC_FIEMAP, request), 0) << std::strerror(errno);
    if (request->fm_mapped_extents == 0) break;
    const fiemap_extent& extent = request->fm_extents[0];
    const std::uint64_t end = extent.fe_logical + extent.fe_length;
    const bool shared = (extent.fe_flags & FIEMAP_EXTENT_SHARED) != 0;
    const bool unwritten = (extent.fe_flags & FIEMAP_EXTENT_UNWRITTEN) != 0;
    for (std::uint64_t b = std::max<std::uint64_t>(at, extent.fe_logical) / unit; b < blocks.size() && b * unit < end;
         ++b) {
      blocks[b] = unwritten ? '.' : shared ? 'S' : 'W';
    }
    at = end;
  }
  return blocks;
}

class Extents : public Ranges {
 protected:
  Extents() : map_({.max_bytes = 1 << 16}) {}
  bool copies_always() const { return is_of(BTRFS_SUPER_MAGIC); }
  bool told() const { return !is_of(TMPFS_MAGIC); }
  // As writes go: to the device, then committed.
  static void put(BackedFile& file, std::uint64_t offset, std::string bytes, IoPath path = IoPath::any) {
    ASSERT_EQ(file.move(IoOp::write, path, offset, bytes.data(), bytes.size()),
              static_cast<std::int64_t>(bytes.size()));
    ASSERT_TRUE(file->commit(offset, bytes.size(), UINT64_MAX).ok());
  }
  // What is said may lag behind in two ways that cost no more than time: a block is no longer shared because its other
  // owner left, and the host has written zeros to an unwritten one. And btrfs calls blocks shared of which only others
  // in the same extent are; it overwrites none in place, shared or not.
  void check(BackedFile& file) {
    const std::uint64_t unit = file->block_size();
    const std::string said = picture(file);
    if (!told()) {
      EXPECT_EQ(said, std::string((file->size() + unit - 1) / unit, 'W'));
      return;
    }
    const std::string truth = host_picture(file, unit), bytes = file.plain().bytes();
    ASSERT_EQ(said.size(), truth.size());
    for (std::size_t b = 0; b < said.size(); ++b) {
      if (said[b] == truth[b] || (said[b] == 'S' && truth[b] == 'W')) continue;
      if (copies_always() && said[b] == 'W' && truth[b] == 'S') continue;
      const std::string block = bytes.substr(b * unit, unit);
      const bool zeros = block.find_first_not_of('\0') == std::string::npos;
      EXPECT_TRUE(said[b] == '.' && zeros) << "block " << b << " of\n" << said << ", by the host\n" << truth;
    }
  }
  WrittenMap map_;
};
constexpr const char* kExtentFilesystems[] = {"here", "ext4", "ext4-mapped", "ext4-mapped4k", "xfs", "btrfs", "tmpfs"};
INSTANTIATE_TEST_SUITE_P(Filesystems, Extents, ::testing::ValuesIn(kExtentFilesystems), filesystem_name);

TEST_P(Extents, EachChange) {
  BackedFile file(path("file"), "", O_RDWR, &map_), other(path("other"), "", O_RDWR, &map_);
  const std::uint64_t unit = file->block_size();
  const auto expect = [&](const char* wanted, const char* after) {
    SCOPED_TRACE(after);
    if (told()) {
      EXPECT_EQ(picture(file), wanted);
    }
    check(file);
    check(other);
  };
  ASSERT_TRUE(file->set_size(12 * unit - 100).ok());
  ASSERT_TRUE(other->set_size(12 * unit).ok());
  expect("............", "nothing");
  put(file, 2 * unit, named_bytes(1, 6 * unit));
  expect("..WWWWWW....", "a write");
  if (host_has(Op::punch)) {
    ASSERT_TRUE(file->punch(3 * unit, unit).ok());
    ASSERT_TRUE(file->punch(5 * unit + 1, unit).ok());
    expect("..W.WWWW....", "punches, one of parts");
    put(file, 3 * unit, named_bytes(2, unit));
  }
  expect("..WWWWWW....", "the hole filled");
  if (host_has(Op::allocate)) {
    ASSERT_TRUE(file->allocate(0, 11 * unit, true).ok());
    expect("..WWWWWW....", "allocated");
    put(file, 0, named_bytes(3, 2 * unit));
  } else {
    put(file, 0, named_bytes(3, 2 * unit));
  }
  expect("WWWWWWWW....", "written there");
  ASSERT_TRUE(file->set_size(6 * unit + 1).ok());
  ASSERT_TRUE(file->set_size(12 * unit).ok());
  expect("WWWWWWW.....", "truncated and extended");
  if (!host_clones()) return;
  ASSERT_TRUE(other->clone(*file, 0, 0, 4 * unit).ok());
  expect("SSSSWWW.....", "cloned from");
  put(file, unit, named_bytes(4, unit));
  expect("SWSSWWW.....", "written over");
  ASSERT_TRUE(file->clone(*other, 8 * unit, 4 * unit, unit).ok());
  expect("SWSS.WW.....", "a hole cloned into it");
  put(other, 6 * unit, named_bytes(1, 6 * unit).substr(4 * unit, unit));
  put(file, 6 * unit, named_bytes(1, 6 * unit).substr(4 * unit, unit));
  ASSERT_EQ(file->dedupe(*other, 6 * unit, 6 * unit, unit).value(), unit);
  expect("SWSS.WS.....", "deduplicated");
}

// In every order, known from before or not.
TEST_P(Extents, AgreeWithTheHostThroughRandomChanges) {
  BackedFile files[] = {{path("a"), "", O_RDWR, &map_}, {path("b"), "", O_RDWR, &map_}};
  const std::uint64_t unit = files[0]->block_size();
  const bool clones = host_clones(), exchanges = host_exchanges();
  Random random(5);
  for (int round = 0; round < 400 && !HasFailure(); ++round) {
    const std::size_t f = random.below(2);
    BackedFile &file = files[f], &other = files[1 - f];
    const std::uint64_t offset = random.below(40) * unit, length = (1 + random.below(8)) * unit;
    const std::uint64_t choice = random.below(14);
    SCOPED_TRACE(::testing::Message() << "round " << round << " choice " << choice << " of " << length / unit << " at "
                                      << offset / unit);
    if (choice < 4) {
      put(file, offset, named_bytes(static_cast<std::uint64_t>(round) + 1, length));
    } else if (choice == 4) {
      ASSERT_TRUE(file->set_size(offset + random.below(unit)).ok());
    } else if (choice < 12) {
      if (file->size() < 64 * unit) std::ignore = quire::host_testing::apply(*file, kOps[choice - 4], offset, length);
    } else if (choice == 12 && clones) {
      if (offset + length > other->size()) continue;
      ASSERT_TRUE(file->clone(*other, offset, offset, length).ok());
    } else if (choice == 13 && exchanges) {
      std::ignore = file->exchange(*other, offset, offset, length);
    }
    check(files[0]);
    check(files[1]);
  }
}

// A page that is dirty in the host's cache over an unwritten extent: data.
TEST_P(Extents, DirtyInTheHostsCacheIsWritten) {
  if (!told() || !host_has(Op::allocate)) GTEST_SKIP() << "no unwritten extents";
  BackedFile file(path("file"), "");
  ASSERT_TRUE(file->allocate(0, 65536, false).ok());
  ASSERT_EQ(picture(file).find_first_not_of('.'), std::string::npos);
  std::string bytes = named_bytes(1, 4096);
  ASSERT_EQ(file.move(IoOp::write, IoPath::through_host, 32768, bytes.data(), 4096), 4096);
  const auto extent = file->map_exact(32768, 100);
  ASSERT_TRUE(extent.ok());
  EXPECT_EQ(extent.value().kind, ExtentKind::written);
  EXPECT_EQ(extent.value().length, 100u);
}

// More extents than are asked for at once, over several chunks; half of a chunk past the end.
TEST_P(Extents, ManyExtents) {
  if (!told()) GTEST_SKIP() << "nothing to tell";
  BackedFile file(path("file"), "", O_RDWR, &map_);
  const std::uint64_t unit = file->block_size(), blocks = 2 * BlockStates::kCount + 512;
  ASSERT_TRUE(file->set_size(blocks * unit).ok());
  std::string wanted(blocks, '.');
  for (std::uint64_t b = 0; b < blocks; b += 7) {
    put(file, b * unit, named_bytes(b + 1, unit), IoPath::through_host);
    wanted[b] = 'W';
  }
  EXPECT_EQ(picture(file), wanted);
  EXPECT_EQ(picture(file), wanted) << "known by now";
  // Nothing is asked of the host for what is known: blocks that it lost behind our back still are there.
  if (host_has(Op::punch)) {
    const int fd = ::open(file.plain().path().c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_EQ(host_fallocate(fd, Op::punch, 0, 7 * unit), 0);
    ::close(fd);
    EXPECT_EQ(picture(file), wanted);
    file->write_failed(0, unit);
    EXPECT_EQ(picture(file)[0], '.') << "asked again where a write failed";
  }
}

TEST(ExtentsOfADevice, AreAllWritten) {
  const MemoryDisk disk((1 << 20) + 512);
  if (!disk.ok()) GTEST_SKIP() << "no loop devices";
  AttachedBacking attached(disk.path());
  const auto extent = attached.backing.map_exact(512, 1 << 21);
  ASSERT_TRUE(extent.ok());
  EXPECT_EQ(extent.value().kind, ExtentKind::written);
  EXPECT_GE(extent.value().length, 1u << 20);
}

}  // namespace
}  // namespace quire::host_testing
