// Range operations of host files: bytes and sizes against a model, what blocks they leave, full file systems, and block
// devices. (host_ranges_table_test.cc compares what is refused with the host's own answers.)
#include <linux/fiemap.h>

#include "base/random.h"
#include "host/host_ranges_test_util.h"
#include "ram/ram_backing.h"

namespace quire::host_testing {
namespace {

class RangeModel : public Ranges {
 protected:
  // The file is the model: its size as the backing knows it and as the host has it, its bytes through the device and
  // past it.
  void check(BackedFile& file, const std::string& model) {
    EXPECT_EQ(file->size(), model.size());
    EXPECT_TRUE(same_bytes(file.plain().bytes(), model));
    EXPECT_TRUE(same_bytes(file.read(), model));
  }
};
INSTANTIATE_TEST_SUITE_P(Filesystems, RangeModel, ::testing::ValuesIn(kFilesystems), filesystem_name);

void zero(std::string& model, std::uint64_t offset, std::uint64_t length) {
  if (offset >= model.size()) return;
  std::fill_n(model.begin() + static_cast<off_t>(offset), std::min<std::uint64_t>(length, model.size() - offset), '\0');
}
void grow(std::string& model, std::uint64_t size) {
  if (size > model.size()) model.resize(size, '\0');
}
void put(std::string& model, std::uint64_t offset, std::string_view bytes) {
  grow(model, offset + bytes.size());
  model.replace(offset, bytes.size(), bytes);
}

void apply(std::string& model, Op op, std::uint64_t offset, std::uint64_t length) {
  if (op == Op::allocate || op == Op::zero) grow(model, offset + length);
  if (op == Op::punch || op == Op::zero || op == Op::zero_keep) zero(model, offset, length);
  if (op == Op::collapse) model.erase(offset, length);
  if (op == Op::insert) model.insert(offset, length, '\0');
}

// In the middle of a file, over its end (which lies inside a block), and past it.
TEST_P(RangeModel, EachOperation) {
  constexpr std::uint64_t kSize = 40'000;
  struct Case {
    Op op;
    std::uint64_t offset, length;
  };
  static constexpr Case kCases[] = {
      {Op::allocate, 8192, 8192},
      {Op::allocate, 36'000, 10'000},
      {Op::allocate, 50'001, 10'000},
      {Op::allocate_keep, 8192, 8192},
      {Op::allocate_keep, 36'000, 10'000},
      {Op::allocate_keep, 50'001, 10'000},
      {Op::punch, 8192, 8192},
      {Op::punch, 8193, 100},
      {Op::punch, 5000, 20'000},
      {Op::punch, 36'000, 10'000},
      {Op::punch, 50'001, 10'000},
      {Op::zero, 8192, 8192},
      {Op::zero, 5000, 20'000},
      {Op::zero, 36'000, 10'000},
      {Op::zero, 50'001, 10'000},
      {Op::zero_keep, 8192, 8192},
      {Op::zero_keep, 5000, 20'000},
      {Op::zero_keep, 36'000, 10'000},
      {Op::zero_keep, 50'001, 10'000},
      {Op::unshare, 8192, 8192},
      {Op::unshare, 36'000, 10'000},
      {Op::collapse, 8192, 8192},
      {Op::collapse, 0, 36'864},
      {Op::insert, 8192, 8192},
      {Op::insert, 36'864, 4096},
      {Op::insert, 0, 65'536},
  };
  for (const Case& c : kCases) {
    if (!host_has(c.op)) continue;
    SCOPED_TRACE(::testing::Message() << name_of(c.op) << " of " << c.length << " at " << c.offset);
    std::string model = named_bytes(1, kSize);
    BackedFile file(path("file"), "");
    file.write(0, model, kSize);
    ASSERT_EQ(quire::host_testing::apply(*file, c.op, c.offset, c.length).errnum(), 0);
    apply(model, c.op, c.offset, c.length);
    check(file, model);
    // The end has moved, or lies in a new block: a write that follows it lands where it should.
    const std::uint64_t next = round_up(model.size(), kPageSize);
    const std::string more = named_bytes(2, 5000);
    put(model, next, more);
    file.write(next, more, model.size());
    check(file, model);
  }
}

TEST_P(RangeModel, CloneAndDedupe) {
  if (!host_clones()) GTEST_SKIP() << "this file system does not share blocks";
  std::string source_model = named_bytes(1, 40'000), model = named_bytes(2, 20'000);
  BackedFile source(path("source"), source_model), file(path("file"), model);
  ASSERT_EQ(file->clone(*source, 4096, 0, 8192).errnum(), 0);
  model.replace(0, 8192, source_model, 4096, 8192);
  check(file, model);
  ASSERT_EQ(file->clone(*source, 36'864, 20'480, 40'000 - 36'864).errnum(), 0) << "to the end, and past the target's";
  put(model, 20'480, source_model.substr(36'864));
  check(file, model);
  ASSERT_EQ(file->clone(*file, 0, 32'768, 8192).errnum(), 0) << "within one file";
  put(model, 32'768, model.substr(0, 8192));
  check(file, model);
  const auto shared = file->dedupe(*source, 4096, 32'768, 8192);
  EXPECT_EQ(shared.errnum(), 0);
  EXPECT_EQ(shared.value(), 8192u);
  EXPECT_EQ(file->dedupe(*source, 0, 32'768, 8192).errnum(), EBADE);
  EXPECT_EQ(file->dedupe(*source, 4096, 0, 8192 + 100).value(), 8192u) << "what is not compared is not claimed";
  check(file, model);
  check(source, source_model);
  // What is written to one shows in no other.
  file.write(32'768, named_bytes(3, 8192), model.size());
  put(model, 32'768, named_bytes(3, 8192));
  source.write(4096, named_bytes(4, 4096), source_model.size());
  put(source_model, 4096, named_bytes(4, 4096));
  check(file, model);
  check(source, source_model);
}

TEST_P(RangeModel, Exchange) {
  if (!host_exchanges()) GTEST_SKIP() << "this file system does not exchange ranges";
  std::string a_model = named_bytes(1, 40'000), b_model = named_bytes(2, 60'000);
  BackedFile a(path("a"), a_model), b(path("b"), b_model);
  ASSERT_EQ(a->exchange(*b, 8192, 4096, 16'384).errnum(), 0);
  const std::string moved = a_model.substr(4096, 16'384);
  a_model.replace(4096, 16'384, b_model, 8192, 16'384);
  b_model.replace(8192, 16'384, moved);
  check(a, a_model);
  check(b, b_model);
  ASSERT_EQ(a->exchange(*a, 0, 16'384, 8192).errnum(), 0) << "within one file";
  const std::string first = a_model.substr(0, 8192);
  a_model.replace(0, 8192, a_model, 16'384, 8192);
  a_model.replace(16'384, 8192, first);
  check(a, a_model);
  a.write(36'864, named_bytes(3, 3136), 40'000);
  put(a_model, 36'864, named_bytes(3, 3136));
  check(a, a_model);
}

// Clones (0), dedupes (1) or exchanges (2) `length` bytes at `from` of `other` and at `offset` of `file`, in their
// models too. Returns 1 if it was done.
int apply_to_two(std::uint64_t what, BackedFile& other, std::string& other_model, std::uint64_t from, BackedFile& file,
                 std::string& model, std::uint64_t offset, std::uint64_t length) {
  if (what == 0) {
    const bool ok = file->clone(*other, from, offset, length).ok();
    if (ok) put(model, offset, std::string(other_model, from, length));
    return ok;
  }
  if (what == 1) {
    const auto shared = file->dedupe(*other, from, offset, length);
    if (shared.ok()) {
      EXPECT_EQ(other_model.substr(from, shared.value()), model.substr(offset, shared.value()));
    }
    return shared.ok();
  }
  if (&other == &file || !file->exchange(*other, from, offset, length).ok()) return 0;
  const std::string moved = model.substr(offset, length);
  model.replace(offset, length, other_model, from, length);
  other_model.replace(from, length, moved);
  return 1;
}

// Two files, all operations and writes in turns; what is refused changes nothing.
TEST_P(RangeModel, RandomOperations) {
  constexpr std::uint64_t kMost = 192 * 1024;
  Random random(42);
  std::string models[2];
  BackedFile files[2] = {{path("file-0"), ""}, {path("file-1"), ""}};
  std::uint64_t writer = 0;
  int done = 0;
  for (int step = 0; step < 400 && !HasFailure(); ++step) {
    const std::size_t i = random.below(2);
    BackedFile &file = files[i], &other = files[random.below(2)];
    std::string& model = models[i];
    std::string& other_model = models[&other == &files[0] ? 0 : 1];
    const bool aligned = !random.one_in(3);
    const std::uint64_t grain = aligned ? kPageSize : 1;
    const std::uint64_t offset = round_down(random.below(kMost), grain);
    const std::uint64_t length = std::max(round_down(random.below(kMost - offset) + 1, grain), grain);
    const std::uint64_t choice = random.below(16);
    SCOPED_TRACE(::testing::Message() << "step " << step << ": choice " << choice << " of " << length << " at "
                                      << offset << " of file " << i << " of " << model.size());
    if (choice < 5) {  // as writeback: from a page on, whole pages or to the end of the file
      const std::uint64_t page = round_down(offset, kPageSize);
      const std::uint64_t end = page + round_down(length, kPageSize) + (page + length > model.size() ? 1234 : 4096);
      const std::string bytes = named_bytes(++writer, end - page);
      put(model, page, bytes);
      file.write(page, bytes, model.size());
    } else if (choice == 5) {
      ASSERT_TRUE(file->set_size(offset).ok());
      model.resize(offset, '\0');
    } else if (choice < 13) {
      const Op op = kOps[choice - 6 + (choice == 12 ? random.below(2) : 0)];
      if (op == Op::insert && model.size() > kMost) continue;
      const Status status = quire::host_testing::apply(*file, op, offset, length);
      done += status.ok();
      if (status.ok()) apply(model, op, offset, length);
    } else {
      const std::uint64_t from = round_down(round_down(random.below(kMost), grain), kPageSize);
      if (from + length > other_model.size()) continue;
      done += apply_to_two(choice - 13, other, other_model, from, file, model, offset, length);
    }
    for (const std::size_t k : {0, 1}) check(files[k], models[k]);
  }
  EXPECT_GT(done, 20);
}

// The blocks are really there, gone, shared or its own.
TEST_P(RangeModel, Blocks) {
  const auto blocks = [](BackedFile& file) {
    EXPECT_TRUE(file->sync(false).ok());
    return file.plain().attributes().st_blocks * 512;
  };
  const auto is_shared = [](BackedFile& file) {
    std::vector<std::uint64_t> room((sizeof(fiemap) + sizeof(fiemap_extent)) / 8 + 1);
    auto* const map = reinterpret_cast<fiemap*>(room.data());
    map->fm_length = 65536;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = 1;
    EXPECT_EQ(ioctl(file.plain().fd(), FS_IOC_FIEMAP, map), 0) << std::strerror(errno);
    return map->fm_mapped_extents == 1 && (map->fm_extents[0].fe_flags & FIEMAP_EXTENT_SHARED) != 0;
  };
  BackedFile file(path("file"), named_bytes(1, 65536)), twin(path("twin"), "");
  const off_t full = blocks(file);
  EXPECT_GE(full, 65536);
  if (host_has(Op::punch)) {
    ASSERT_TRUE(file->punch(16384, 32768).ok());
    EXPECT_LE(blocks(file), full - 32768);
    ASSERT_EQ(file->allocate(16384, 32768, true).ok(), host_has(Op::allocate));
    if (host_has(Op::allocate)) {
      EXPECT_GE(blocks(file), full);
    }
  }
  if (host_has(Op::allocate_keep)) {
    ASSERT_TRUE(file->allocate(65536, 65536, true).ok());
    EXPECT_GE(blocks(file), full + 65536);
    EXPECT_EQ(file->size(), 65536u);
  }
  if (!host_clones()) return;
  file.write(0, named_bytes(2, 65536), 65536);
  ASSERT_TRUE(twin->clone(*file, 0, 0, 65536).ok());
  EXPECT_TRUE(is_shared(file));
  EXPECT_TRUE(is_shared(twin));
  const bool unshares = host_has(Op::unshare);
  ASSERT_EQ(twin->unshare(0, 65536).ok(), unshares);
  if (!unshares) twin.write(0, named_bytes(2, 65536), 65536);
  EXPECT_FALSE(is_shared(twin));
  EXPECT_EQ(twin->dedupe(*file, 0, 0, 65536).value(), 65536u);
  EXPECT_TRUE(is_shared(twin));
}

TEST_P(RangeModel, AFullFileSystemLeavesTheFileAsItWas) {
  if (std::string(GetParam()) == "here") GTEST_SKIP() << "this one is not to be filled";
  const std::string model = named_bytes(1, 40'000);
  BackedFile file(path("file"), model);
  for (const Op op : {Op::allocate, Op::allocate_keep, Op::zero, Op::zero_keep}) {
    if (!host_has(op)) continue;
    SCOPED_TRACE(name_of(op));
    for (const std::uint64_t offset : {40'000, 36'864, 65'536}) {
      EXPECT_EQ(quire::host_testing::apply(*file, op, offset, std::uint64_t{1} << 30).errnum(), ENOSPC);
      EXPECT_EQ(file->size(), 40'000u) << offset;
      // Zeroing may have come half way, but never before its offset.
      EXPECT_TRUE(same_bytes(file.plain().bytes().substr(0, offset), model.substr(0, offset)));
      ASSERT_TRUE(file->set_size(40'000).ok());  // gives back what was got past the end
    }
  }
  const PlainFile after(path("after"), named_bytes(3, 8 << 20));
  EXPECT_EQ(fsync(after.fd()), 0) << "there is room again";
}

TEST_P(RangeModel, OfAnotherKindOfFile) {
  BackedFile file(path("file"), named_bytes(1, 16384));
  RamStore store(4096);
  RamBacking memory(store);
  EXPECT_EQ(file->clone(memory, 0, 0, 4096).errnum(), EXDEV);
  EXPECT_EQ(file->dedupe(memory, 0, 0, 4096).errnum(), EXDEV);
  EXPECT_EQ(file->exchange(memory, 0, 0, 4096).errnum(), EXDEV);
}

// --- block devices ---

class DeviceRanges : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kSize = (1 << 20) + 512;
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "loop devices are root's";
    if (!disk_.ok()) GTEST_SKIP() << "no loop devices";
    auto files = open_host_path(disk_.path().c_str(), O_RDWR, 0);
    ASSERT_TRUE(files.ok());
    ASSERT_TRUE(backing_.attach(files.take(), true).ok());
    model_ = named_bytes(1, kSize);
    write(0, model_);
  }
  // Past the device's own choice of descriptor: into the host's cache, where it stays dirty.
  void write(std::uint64_t offset, std::string_view bytes) {
    const int fd = ::open(disk_.path().c_str(), O_WRONLY | O_CLOEXEC);
    EXPECT_EQ(::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)), static_cast<ssize_t>(bytes.size()));
    ::close(fd);
  }
  void check() {
    for (const int flags : {O_RDONLY, O_RDONLY | O_DIRECT}) {
      const int fd = ::open(disk_.path().c_str(), flags | O_CLOEXEC);
      const std::unique_ptr<char, decltype(&std::free)> memory(
          static_cast<char*>(std::aligned_alloc(kPageSize, 2 << 20)), &std::free);
      ASSERT_EQ(::pread(fd, memory.get(), kSize, 0), static_cast<ssize_t>(kSize));
      EXPECT_TRUE(same_bytes(std::string_view(memory.get(), kSize), model_))
          << (flags == O_RDONLY ? "cached" : "direct");
      ::close(fd);
    }
    EXPECT_EQ(backing_.size(), kSize);
  }
  const MemoryDisk disk_{kSize}, twin_{kSize};
  IoStats stats_;
  HostBacking backing_{HostOptions{.stats = &stats_}};
  std::string model_;
};

TEST_F(DeviceRanges, PunchAndZeroAlsoWhatIsDirtyInTheHostsCache) {
  for (const Op op : {Op::punch, Op::zero_keep, Op::zero}) {
    for (const auto& [offset, length] : {std::pair<std::uint64_t, std::uint64_t>{4096, 8192},
                                         {512, 512},
                                         {65536 - 512, 4096},
                                         {kSize - 512, 512},
                                         {1 << 19, (1 << 19) + 512}}) {
      SCOPED_TRACE(::testing::Message() << name_of(op) << " of " << length << " at " << offset);
      const Status status = apply(backing_, op, offset, length);
      ASSERT_TRUE(status.ok()) << std::strerror(status.errnum());
      zero(model_, offset, length);
      check();
    }
    model_ = named_bytes(2 + static_cast<int>(op), kSize);
    write(0, model_);
  }
}

TEST_F(DeviceRanges, IsAnsweredAsTheHostDoes) {
  const int twin = ::open(twin_.path().c_str(), O_RDWR | O_EXCL | O_CLOEXEC);
  ASSERT_GE(twin, 0);
  for (const Op op : kOps) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{512}, kSize - 512, kSize,
                                       kSize + 4096, std::uint64_t{1} << 40}) {
      for (const std::uint64_t length : {1, 511, 512, 4096}) {
        SCOPED_TRACE(::testing::Message() << name_of(op) << " of " << length << " at " << offset);
        const int got = apply(backing_, op, offset, length).errnum();
        if (op == Op::punch || op == Op::zero || op == Op::zero_keep) {
          EXPECT_EQ(got, host_fallocate(twin, op, offset, length)) << std::strerror(got);
          if (got == 0) zero(model_, offset, length);
        } else {
          EXPECT_EQ(got, EOPNOTSUPP);
        }
      }
    }
  }
  ::close(twin);
  EXPECT_EQ(backing_.clone(backing_, 0, 4096, 4096).errnum(), EOPNOTSUPP);
  EXPECT_EQ(backing_.dedupe(backing_, 0, 4096, 4096).errnum(), EOPNOTSUPP);
  EXPECT_EQ(backing_.exchange(backing_, 0, 4096, 4096).errnum(), EOPNOTSUPP);
  EXPECT_EQ(backing_.seek_data(0).errnum(), EOPNOTSUPP);
  EXPECT_EQ(backing_.seek_hole(0).errnum(), EOPNOTSUPP);
  check();
}

}  // namespace
}  // namespace quire::host_testing
