// The judge of linearizability over files in memory, a third of the reads and writes direct, with a cache so small that
// everything is filled, evicted and written back all the time, and one large enough for the gate.
#include <gtest/gtest.h>

#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"
#include "testing/judge.h"

namespace quire {
namespace {

using namespace testing_support;

class RamSystem final : public judge::System {
 public:
  RamSystem(unsigned block_size, std::uint32_t frames)
      : disk_(block_size), cache_(std::make_unique<TestCache>(frames)) {}

  int range_errnum = 0;  // what the backing says to range operations; before the files are made

  std::string_view name() const override { return "quire on ram"; }
  RamDisk& disk() { return disk_; }
  std::uint64_t sum(Counter counter) const { return counters_[static_cast<std::size_t>(counter)]; }

  int create(int count) override {
    for (int i = 0; i < count; ++i) {
      auto backing = std::make_unique<OddBacking>(disk_.make_file());
      backing->range_errnum.store(range_errnum, memory_order_relaxed);
      files_.push_back(std::make_unique<TestFile>(cache_->cache, std::move(backing)));
    }
    return 0;
  }
  ssize_t read(int file, void* buffer, size_t count, uint64_t offset) override {
    return at(file).read(buffer, count, offset, way());
  }
  ssize_t write(int file, const void* buffer, size_t count, uint64_t offset) override {
    return at(file).write(buffer, count, offset, way());
  }
  ssize_t append(int file, const void* buffer, size_t count) override {
    return at(file).write(buffer, count, 0, kIoAppend);
  }
  int truncate(int file, uint64_t size) override { return -at(file).truncate(size); }

  int fallocate(int file, int mode, uint64_t offset, uint64_t length) override {
    return -at(file).allocate(mode, offset, length);
  }
  int clone(int source, uint64_t from, int file, uint64_t offset, uint64_t length) override {
    return -file_clone(at(source).handle(), from, at(file).handle(), offset, length).errnum();
  }
  ssize_t dedupe(int source, uint64_t from, int file, uint64_t offset, uint64_t length) override {
    const auto shared = file_dedupe(at(source).handle(), from, at(file).handle(), offset, length);
    return shared.ok() ? static_cast<ssize_t>(shared.value()) : -shared.errnum();
  }
  int exchange(int a, uint64_t a_offset, int b, uint64_t b_offset, uint64_t length) override {
    return -file_exchange(at(a).handle(), a_offset, at(b).handle(), b_offset, length).errnum();
  }
  ssize_t copy(int source, uint64_t from, int file, uint64_t offset, uint64_t length) override {
    const auto copied = file_copy(at(source).handle(), from, at(file).handle(), offset, length);
    return copied.ok() ? static_cast<ssize_t>(copied.value()) : -copied.errnum();
  }

  int finish() override {
    disk_.heal();
    int status = 0;
    for (auto& file : files_) {
      if (const int errnum = file->sync(); errnum != 0) status = -errnum;
      backings_.push_back(file->close());
    }
    files_.clear();
    for (std::size_t i = 0; i < counters_.size(); ++i) counters_[i] = cache_->sum(static_cast<Counter>(i));
    cache_ = std::make_unique<TestCache>();
    return status;
  }
  int reread(int number, std::vector<unsigned char>* content) override {
    TestFile file(cache_->cache, std::move(backings_[static_cast<std::size_t>(number)]));
    content->resize(file.size());
    const ssize_t got = file.read(content->data(), content->size(), 0);
    return got == static_cast<ssize_t>(content->size()) ? 0 : -EIO;
  }
  bool keeps_tail() const override { return true; }

 private:
  // A third of the reads and writes go past the cache.
  unsigned way() { return turns_.fetch_add(1, memory_order_relaxed) % 3 == 0 ? unsigned{kIoDirect} : 0U; }
  TestFile& at(int file) { return *files_[static_cast<std::size_t>(file)]; }

  Atomic<std::uint32_t> turns_;
  RamDisk disk_;
  std::unique_ptr<TestCache> cache_;
  std::vector<std::unique_ptr<TestFile>> files_;
  std::vector<std::unique_ptr<Backing>> backings_;
  std::array<std::uint64_t, static_cast<std::size_t>(Counter::count)> counters_{};
};

constexpr judge::OpKind kEveryChange[] = {judge::OpKind::kWrite,    judge::OpKind::kAppend,   judge::OpKind::kTruncate,
                                          judge::OpKind::kFalloc,   judge::OpKind::kPunch,    judge::OpKind::kZero,
                                          judge::OpKind::kCollapse, judge::OpKind::kInsert,   judge::OpKind::kClone,
                                          judge::OpKind::kDedupe,   judge::OpKind::kExchange, judge::OpKind::kCopy,
                                          judge::OpKind::kUnshare};

judge::JudgeReport run(RamSystem& system, std::uint64_t max_operation, std::uint64_t seed, std::uint64_t file_size,
                       std::span<const judge::OpKind> changes = {}) {
  judge::JudgeOptions options;
  if (!changes.empty()) {
    options.ops = {judge::OpKind::kRead};
    options.ops.insert(options.ops.end(), changes.begin(), changes.end());
  }
  options.seconds = 2;
  options.seed = seed;
  options.files = 2;
  options.file_size = file_size;
  options.max_operation = max_operation;
  options.stop_at_first = true;
  return judge::judge(system, options);
}

void expect_innocent(const judge::JudgeReport& report) {
  EXPECT_EQ(report.torn, 0U);
  EXPECT_EQ(report.foreign, 0U);
  EXPECT_EQ(report.lost, 0U);
  EXPECT_TRUE(report.ok()) << report.witness << (report.errors.empty() ? "" : report.errors[0]);
  EXPECT_GT(report.windows, 1U);
  for (const auto kind :
       {judge::OpKind::kRead, judge::OpKind::kWrite, judge::OpKind::kAppend, judge::OpKind::kTruncate}) {
    EXPECT_GT(report.ops[static_cast<std::size_t>(kind)], 0U) << judge::op_name(kind);
  }
}

TEST(JudgedOnRam, R1_SmallestCache) {
  for (const unsigned block_size : {512U, 4096U}) {
    RamSystem system(block_size, PageCache::kMinFrames);
    expect_innocent(run(system, 64 * 1024, block_size, 1 << 20));
    EXPECT_GT(system.sum(Counter::evictions), 0U);
    EXPECT_GT(system.sum(Counter::writeback_folios), 0U);
    EXPECT_GT(system.sum(Counter::writes_few), 0U);
  }
}

// Operations of more folios than are changed together.
TEST(JudgedOnRam, R1_UnderTheGate) {
  // A slow build on a busy machine may do few operations in a run, none of them so large.
  std::uint64_t gated = 0, evicted = 0;
  for (std::uint64_t seed = 3; seed < 20 && (gated == 0 || evicted == 0); ++seed) {
    RamSystem system(1024, 300);
    expect_innocent(run(system, 300 * 1024, seed, 2 << 20));
    gated += system.sum(Counter::writes_gate);
    evicted += system.sum(Counter::evictions);
  }
  EXPECT_GT(gated, 0U);
  EXPECT_GT(evicted, 0U);
}

TEST(JudgedOnRam, R1_EveryRangeOperation) {
  std::array<std::uint64_t, judge::kOpKinds> done{};  // of all runs: a slow build does few of each in one
  for (const unsigned block_size : {512U, 4096U}) {
    for (const std::uint32_t frames : {PageCache::kMinFrames, 700U}) {
      RamSystem system(block_size, frames);
      const judge::JudgeReport report = run(system, frames * 1024, block_size + frames, 1 << 20, kEveryChange);
      EXPECT_TRUE(report.linearizable() && report.ok())
          << report.witness << (report.errors.empty() ? "" : report.errors[0]);
      EXPECT_TRUE(report.skipped.empty());
      for (std::size_t i = 0; i < done.size(); ++i) done[i] += report.ops[i];
    }
  }
  for (const judge::OpKind kind : kEveryChange) {
    EXPECT_GT(done[static_cast<std::size_t>(kind)], 0U) << judge::op_name(kind);
  }
}

// Zeros written through the cache, by a write that ends where the file ended when it began: a truncate between two of
// its pieces, or after a short one, must not be met by zeros at a later instant.
TEST(JudgedOnRam, R1_ZeroingByWriting) {
  constexpr judge::OpKind kChanges[] = {judge::OpKind::kWrite, judge::OpKind::kTruncate, judge::OpKind::kZero};
  RamSystem system(4096, PageCache::kMinFrames);
  system.range_errnum = EOPNOTSUPP;
  const judge::JudgeReport report = run(system, 16 * 1024, 5, 64 << 10, kChanges);
  EXPECT_TRUE(report.linearizable() && report.ok())
      << report.witness << (report.errors.empty() ? "" : report.errors[0]);
  EXPECT_GT(report.ops[static_cast<std::size_t>(judge::OpKind::kZero)], 0U);
}

// Slow, reordering and splitting devices: fills and writeback last.
TEST(JudgedOnRam, R1_SlowDevice) {
  RamSystem system(512, PageCache::kMinFrames);
  system.disk().device.set_plan(
      {.rules = {{.kind = FaultKind::delay, .one_in = 8, .delay_ns = 50'000}, {.kind = FaultKind::split, .one_in = 3}},
       .reorder = true});
  expect_innocent(run(system, 64 * 1024, 4, 1 << 20));
}

}  // namespace
}  // namespace quire
