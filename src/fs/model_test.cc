// Everything a single thread may do to files, against plain arrays: every answer and every byte, under eviction, with
// all block sizes, also while the device fails now and then, and once more after opening the files anew.
#include <gtest/gtest.h>

#include "base/random.h"
#include "cache/buffered_read.h"
#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr std::uint64_t kMostBytes = 700 * 1024;  // of a file; the cache holds 256 KiB

struct ModelFile {
  std::unique_ptr<TestFile> file;
  std::vector<char> model;
  unsigned number = 0;
};

class ModelRun {
 public:
  ModelRun(unsigned block_size, std::uint64_t seed, bool faults)
      : faults_(faults), random_(seed), disk_(block_size, 1 << 13, seed), cache_(std::make_unique<TestCache>()) {
    for (unsigned i = 0; i < 3; ++i) {
      files_.push_back({std::make_unique<TestFile>(cache_->cache, disk_.make_file()), {}, i});
    }
    set_faults();
  }

  void steps(int count) {
    for (int i = 0; i < count && !::testing::Test::HasFailure(); ++i) {
      step_ = i;
      step(files_[random_.below(files_.size())]);
    }
  }

  // Heals the device, syncs, and compares every byte through the old mapping and through a new one of a new cache.
  void reopen() {
    disk_.heal();
    std::vector<std::unique_ptr<Backing>> backings;
    for (ModelFile& f : files_) {
      const int first = f.file->sync();  // tells of what failed before
      ASSERT_TRUE(first == 0 || faults_);
      ASSERT_EQ(f.file->sync(), 0);
      compare(f, 0, f.model.size());
      backings.push_back(f.file->close());
      f.file.reset();
      ASSERT_EQ(backings.back()->size(), f.model.size());
    }
    EXPECT_EQ(cache_->cache.dirty.unstable(), 0U);
    EXPECT_EQ(cache_->cache.resident_folios(), 0U);
    cache_ = std::make_unique<TestCache>();
    for (std::size_t i = 0; i < files_.size(); ++i) {
      files_[i].file = std::make_unique<TestFile>(cache_->cache, std::move(backings[i]));
      ASSERT_EQ(files_[i].file->size(), files_[i].model.size());
      compare(files_[i], 0, files_[i].model.size());
    }
    set_faults();
  }

 private:
  void set_faults() {
    if (!faults_) return;
    disk_.device.clear_records();
    disk_.device.set_plan({.rules = {{.kind = FaultKind::torn, .one_in = 500},  // each may cost some tenths of a second
                                     {.kind = FaultKind::error, .reads = false, .one_in = 500},
                                     {.kind = FaultKind::error, .writes = false, .one_in = 50},
                                     {.kind = FaultKind::split, .one_in = 5}},
                           .skip_flushes = 3,
                           .fail_flushes = 2});
  }

  std::size_t some_length() {
    switch (random_.below(5)) {
      case 0:
        return 1 + random_.below(16);
      case 1:
        return 1 + random_.below(kPageSize);
      case 2:
        return kPageSize * (1 + random_.below(4));
      case 3:
        return 1 + random_.below(5 * kPageSize);
      default:
        return 1 + random_.below(40 * kPageSize);  // more than one operation's worth, too
    }
  }
  std::uint64_t some_offset(std::uint64_t below) {
    const std::uint64_t offset = random_.below(below);
    return random_.one_in(3) ? round_down(offset, random_.one_in(2) ? kPageSize : 512) : offset;
  }

  void step(ModelFile& f) {
    const std::uint64_t choice = random_.below(100);
    if (choice < 40) return read(f);
    if (choice < 75) return write(f, some_offset(std::min<std::uint64_t>(kMostBytes, f.model.size() + 20'000)), false);
    if (choice < 85) return write(f, 0, true);
    if (choice < 93) return truncate(f);
    if (choice < 97) return sync(f);
    if (f.file->sync() == 0) {
      f.file->drop_cached();  // durable: may go
      return;
    }
    EXPECT_TRUE(faults_);
  }

  void read(ModelFile& f) {
    const std::uint64_t offset = some_offset(f.model.size() + 5000);
    const std::size_t count = some_length();
    std::vector<char> bytes(count, 'x');
    const bool direct = random_.one_in(3);
    ssize_t got;
    if (direct && random_.one_in(2)) {  // straight into memory, where the rest of it allows that
      std::memset(aligned_.data(), 'x', count);
      got = f.file->read(aligned_.data(), count, offset, kIoDirect);
      std::memcpy(bytes.data(), aligned_.data(), count);
    } else {
      got = f.file->read(bytes.data(), count, offset, direct ? unsigned{kIoDirect} : 0U);
    }
    const std::size_t due = offset < f.model.size() ? std::min<std::uint64_t>(count, f.model.size() - offset) : 0;
    if (faults_ && got == -EIO) return;
    ASSERT_GE(got, 0) << where(f, offset, count);
    const auto n = static_cast<std::size_t>(got);
    if (faults_) {
      ASSERT_LE(n, due);
    } else {
      ASSERT_EQ(n, due) << where(f, offset, count);
    }
    ASSERT_TRUE(n == 0 || std::memcmp(bytes.data(), f.model.data() + offset, n) == 0) << where(f, offset, count);
    if (count <= kBounceBytes || (direct && !faults_)) {
      for (std::size_t i = n; i < count; ++i) ASSERT_EQ(bytes[i], 'x') << where(f, offset, count);
    }
  }

  void write(ModelFile& f, std::uint64_t offset, bool append) {
    if (append) offset = f.model.size();
    if (offset > kMostBytes) return;
    std::size_t count = some_length();
    const bool direct = !faults_ && random_.one_in(3);  // one that fails may leave blocks torn
    if (direct && random_.one_in(2)) {
      if (!append) offset = round_down(offset, kPageSize);
      count = round_up(count, kPageSize);
      if (random_.one_in(2)) f.file->sync_and_drop();
    }
    const std::vector<char> bytes = words(count, f.number, static_cast<unsigned>(step_), offset);
    const char* from = bytes.data();
    if (direct && random_.one_in(2)) {
      std::memcpy(aligned_.data(), from, count);
      from = aligned_.data();
    }
    const ssize_t got = f.file->write(from, count, append ? 0 : offset,
                                      (append ? unsigned{kIoAppend} : 0U) | (direct ? unsigned{kIoDirect} : 0U));
    if (faults_ && got == -EIO) {  // an edge could not be filled, or the dirty limit is reached: nothing happened
      ASSERT_EQ(f.file->size(), f.model.size());
      return;
    }
    if (faults_) {
      ASSERT_GT(got, 0);
    } else {
      ASSERT_EQ(got, static_cast<ssize_t>(count)) << where(f, offset, count);
    }
    const auto n = static_cast<std::size_t>(got);
    if (f.model.size() < offset + n) f.model.resize(offset + n);
    std::memcpy(f.model.data() + offset, bytes.data(), n);
    ASSERT_EQ(f.file->size(), f.model.size());
  }

  void truncate(ModelFile& f) {
    const std::uint64_t size = random_.one_in(4) ? some_offset(kMostBytes) : some_offset(f.model.size() + 6000);
    ASSERT_EQ(f.file->truncate(size), 0);
    f.model.resize(size);
    ASSERT_EQ(f.file->size(), size);
  }

  void sync(ModelFile& f) {
    const int errnum = f.file->sync();
    ASSERT_TRUE(errnum == 0 || faults_);
    ASSERT_TRUE(errnum != 0 || f.file->inode().backing->size() == f.model.size());
  }

  void compare(ModelFile& f, std::uint64_t offset, std::size_t count) {
    for (std::uint64_t at = offset; at < offset + count; at += 65'536) {
      const std::size_t want = std::min<std::uint64_t>(65'536, offset + count - at);
      const std::vector<char> bytes = f.file->range(at, want);
      ASSERT_EQ(bytes.size(), want);
      ASSERT_EQ(std::memcmp(bytes.data(), f.model.data() + at, want), 0) << where(f, at, want);
    }
  }

  std::string where(const ModelFile& f, std::uint64_t offset, std::size_t count) const {
    return "step " + std::to_string(step_) + ", file " + std::to_string(f.number) + " of " +
           std::to_string(f.model.size()) + " bytes, " + std::to_string(count) + " at " + std::to_string(offset);
  }

  const bool faults_;
  Random random_;
  RamDisk disk_;
  std::unique_ptr<TestCache> cache_;
  std::vector<ModelFile> files_;
  AlignedBytes aligned_{64 * kPageSize};
  int step_ = 0;
};

class FileModel : public ::testing::TestWithParam<unsigned> {};

TEST_P(FileModel, AgreesInEveryAnswer) {
  Watchdog watchdog("the model run");
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ModelRun run(GetParam(), seed, false);
    for (int part = 0; part < 3 && !HasFailure(); ++part) {
      run.steps(1500);
      run.reopen();
    }
  }
}

// The device fails and tears: an operation may fail, but what it said is what happened.
TEST_P(FileModel, D1_AgreesBesideFaults) {
  Watchdog watchdog("the model run beside faults");
  for (std::uint64_t seed = 11; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ModelRun run(GetParam(), seed, true);
    for (int part = 0; part < 2 && !HasFailure(); ++part) {
      run.steps(250);
      run.reopen();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, FileModel, ::testing::Values(512U, 1024U, 4096U));

}  // namespace
}  // namespace quire
