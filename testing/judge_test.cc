// The judge on files in memory that are right, and on ones that are wrong in a known way: it must acquit the
// former and convict each of the latter.
#include "testing/judge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "testing/pattern.h"
#include "testing/system.h"
#include "testing/workload.h"

namespace quire::judge {
namespace {

enum class Flaw {
  kNone,
  kNoReadLock,
  kForgetsAppends,
  kForgetsAtClose,
  kForeignBytes,
  kFails,
  kSizeFirst,
  kTornDirect,
  kAnswersEarly,
  kForgetsStores,
  kStaleLoads,
  kSyncFails,
};

// Files in memory under one lock; bytes are relaxed atomics, so that leaving the lock out is no undefined
// behaviour, only wrong.
class MemorySystem : public System {
 public:
  explicit MemorySystem(Flaw flaw) : flaw_(flaw) {}

  std::string_view name() const override { return "memory"; }

  int create(int count) override {
    for (int i = 0; i < count; ++i) files_.push_back(std::make_unique<File>());
    return 0;
  }

  ssize_t read(int number, void* buffer, size_t count, uint64_t offset) override {
    File& file = at(number);
    std::unique_lock<std::mutex> lock(file.mutex, std::defer_lock);
    if (flaw_ != Flaw::kNoReadLock) lock.lock();
    const uint64_t size = file.size.load(std::memory_order_relaxed);
    if (offset >= size) return 0;
    count = std::min<uint64_t>(count, size - offset);
    auto* out = static_cast<unsigned char*>(buffer);
    for (size_t i = 0; i < count; ++i) {
      out[i] = file.bytes[offset + i].load(std::memory_order_relaxed);
      if (flaw_ == Flaw::kNoReadLock && i % 1024 == 512) std::this_thread::yield();
    }
    if (flaw_ == Flaw::kForeignBytes && ++reads_ % 100 == 0 && count >= 16) std::memset(out + count / 2, 0x5A, 8);
    return static_cast<ssize_t>(count);
  }

  ssize_t write(int number, const void* buffer, size_t count, uint64_t offset) override {
    if (flaw_ == Flaw::kFails && ++writes_ > 100) return -EIO;
    File& file = at(number);
    const std::lock_guard<std::mutex> lock(file.mutex);
    return put(&file, buffer, count, offset);
  }

  ssize_t append(int number, const void* buffer, size_t count) override {
    File& file = at(number);
    std::unique_lock<std::mutex> lock(file.mutex);
    if (flaw_ == Flaw::kForgetsAppends && ++writes_ % 20 == 0) return static_cast<ssize_t>(count);
    const uint64_t offset = file.size;
    if (flaw_ != Flaw::kSizeFirst) return put(&file, buffer, count, offset);
    file.size = offset + count;
    lock.unlock();
    std::this_thread::yield();
    lock.lock();
    return put(&file, buffer, count, offset);
  }

  int truncate(int number, uint64_t size) override {
    File& file = at(number);
    const std::lock_guard<std::mutex> lock(file.mutex);
    for (uint64_t i = size; i < file.size; ++i) file.bytes[i].store(0, std::memory_order_relaxed);
    file.size = size;
    return 0;
  }

  int prepare(OpKind) override { return 0; }

  ssize_t read_direct(int number, void* buffer, size_t count, uint64_t offset) override {
    return read(number, buffer, count, offset);
  }

  ssize_t write_direct(int number, const void* buffer, size_t count, uint64_t offset) override {
    const size_t half = flaw_ == Flaw::kTornDirect ? count / 2 : 0;
    if (half > 0) write(number, buffer, half, offset);
    std::this_thread::yield();
    write(number, static_cast<const unsigned char*>(buffer) + half, count - half, offset + half);
    return static_cast<ssize_t>(count);
  }

  int submit_read(int number, void* buffer, size_t count, uint64_t offset, bool, Done done, void* argument) override {
    return submit({number, buffer, nullptr, count, offset, done, argument});
  }

  int submit_write(int number, const void* buffer, size_t count, uint64_t offset, bool, Done done,
                   void* argument) override {
    return submit({number, nullptr, buffer, count, offset, done, argument});
  }

  int reap(unsigned, unsigned) override {
    Request next;
    {
      const std::lock_guard<std::mutex> lock(requests_mutex_);
      if (requests_.empty()) return 0;
      next = requests_.front();
      requests_.pop_front();
    }
    if (flaw_ == Flaw::kAnswersEarly && next.from != nullptr) {
      const std::vector<unsigned char> bytes(static_cast<const unsigned char*>(next.from),
                                             static_cast<const unsigned char*>(next.from) + next.count);
      next.done(next.argument, static_cast<ssize_t>(next.count));
      std::this_thread::yield();
      write(next.file, bytes.data(), next.count, next.offset);
      return 1;
    }
    const ssize_t result = next.to != nullptr ? read(next.file, next.to, next.count, next.offset)
                                              : write(next.file, next.from, next.count, next.offset);
    next.done(next.argument, result);
    return 1;
  }

  int view_load(int number, uint64_t offset, uint64_t* word) override {
    if (flaw_ == Flaw::kStaleLoads && ++reads_ % 20 == 0) {
      *word = last_load_;
      return 0;
    }
    if (read(number, word, sizeof *word, offset) != sizeof *word) return -EFAULT;
    last_load_ = *word;
    return 0;
  }

  int view_store(int number, uint64_t offset, uint64_t word) override {
    File& file = at(number);
    const std::lock_guard<std::mutex> lock(file.mutex);
    if (offset + sizeof word > file.size) return -EFAULT;
    if (flaw_ != Flaw::kForgetsStores || ++writes_ % 20 != 0) put(&file, &word, sizeof word, offset);
    return 0;
  }

  int sync() override { return flaw_ == Flaw::kSyncFails ? -EIO : 0; }

  int reread(int number, std::vector<unsigned char>* content) override {
    content->resize(at(number).size);
    for (size_t i = 0; i < content->size(); ++i) (*content)[i] = at(number).bytes[i];
    if (flaw_ == Flaw::kForgetsAtClose && number == 0) content->back() ^= 1;
    return 0;
  }

 private:
  static constexpr size_t kCapacity = 8 << 20;

  struct Request {
    int file;
    void* to;  // or from
    const void* from;
    size_t count;
    uint64_t offset;
    Done done;
    void* argument;
  };

  int submit(const Request& request) {
    const std::lock_guard<std::mutex> lock(requests_mutex_);
    requests_.push_back(request);
    return 0;
  }

  struct File {
    std::mutex mutex;
    std::atomic<uint64_t> size{0};
    std::unique_ptr<std::atomic<unsigned char>[]> bytes = std::make_unique<std::atomic<unsigned char>[]>(kCapacity);
  };

  static ssize_t put(File* file, const void* buffer, size_t count, uint64_t offset) {
    if (offset + count > kCapacity) return -ENOSPC;
    const auto* bytes = static_cast<const unsigned char*>(buffer);
    for (size_t i = 0; i < count; ++i) file->bytes[offset + i].store(bytes[i], std::memory_order_relaxed);
    file->size = std::max<uint64_t>(file->size, offset + count);
    return static_cast<ssize_t>(count);
  }

  File& at(int number) { return *files_[static_cast<size_t>(number)]; }

  const Flaw flaw_;
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> last_load_{0};
  std::mutex requests_mutex_;
  std::deque<Request> requests_;
  std::vector<std::unique_ptr<File>> files_;
};

JudgeReport run(Flaw flaw, uint64_t windows, std::vector<OpKind> ops = {}) {
  MemorySystem system(flaw);
  JudgeOptions options;
  options.seconds = 60;
  options.windows = windows;
  options.seed = 7;
  options.files = 2;
  options.file_size = 1 << 20;
  options.stop_at_first = true;
  if (!ops.empty()) options.ops = std::move(ops);
  return judge(system, options);
}

TEST(Judge, R1_AcquitsFilesUnderALock) {
  const JudgeReport report = run(Flaw::kNone, 100);
  EXPECT_TRUE(report.ok()) << report.witness;
  EXPECT_EQ(report.windows, 100U);
  for (const OpKind kind : {OpKind::kRead, OpKind::kWrite, OpKind::kAppend, OpKind::kTruncate}) {
    EXPECT_GT(report.ops[static_cast<size_t>(kind)], 0U) << op_name(kind);
  }
  EXPECT_EQ(report.witness, "");
}

// Reads no byte past the end (AddressSanitizer sees it), and names every one.
TEST(Judge, NamesBytesThatNobodyWrote) {
  for (size_t count = 1; count <= 20; ++count) {
    const auto bytes = std::make_unique<unsigned char[]>(count);
    std::fill_n(bytes.get(), count, static_cast<unsigned char>(0xab));
    size_t named = 0;
    for (const NamedRun& run : name_runs(bytes.get(), count)) {
      EXPECT_EQ(run.offset, named);
      EXPECT_EQ(run.origin, NamedRun::Origin::kUnknown);
      named += run.length;
    }
    EXPECT_EQ(named, count);
  }
}

TEST(Judge, R1_ConvictsCopiesWithoutALock) {
  const JudgeReport report = run(Flaw::kNoReadLock, 5000, {OpKind::kRead, OpKind::kWrite});
  EXPECT_FALSE(report.linearizable());
  EXPECT_GT(report.torn, 0U);
  EXPECT_EQ(report.foreign, 0U) << report.witness;
  EXPECT_NE(report.witness.find("torn"), std::string::npos);
}

TEST(Judge, R1_ConvictsASizeThatComesBeforeItsBytes) {
  const JudgeReport report = run(Flaw::kSizeFirst, 5000, {OpKind::kRead, OpKind::kAppend});
  EXPECT_FALSE(report.linearizable());
}

TEST(Judge, R1_ConvictsForgottenAppends) {
  const JudgeReport report = run(Flaw::kForgetsAppends, 2000, {OpKind::kRead, OpKind::kAppend});
  EXPECT_GT(report.lost, 0U);
}

TEST(Judge, R1_ConvictsContentThatIsGoneAfterClosing) {
  const JudgeReport report = run(Flaw::kForgetsAtClose, 5);
  EXPECT_EQ(report.lost, 1U);
  EXPECT_NE(report.witness.find("after closing"), std::string::npos);
}

TEST(Judge, R2_ConvictsForeignBytes) {
  const JudgeReport report = run(Flaw::kForeignBytes, 2000);
  EXPECT_GT(report.foreign, 0U);
}

TEST(Judge, ReportsErrorsThatShouldNotBe) {
  const JudgeReport report = run(Flaw::kFails, 200);
  EXPECT_TRUE(report.linearizable()) << report.witness;
  EXPECT_FALSE(report.ok());
  ASSERT_FALSE(report.errors.empty());
  EXPECT_NE(report.errors[0].find("Input/output error"), std::string::npos);
}

TEST(Judge, R1_AcquitsEveryWayUnderALock) {
  const std::vector<OpKind> ops{OpKind::kRead,        OpKind::kWrite,    OpKind::kTruncate, OpKind::kDirect,
                                OpKind::kDirectAsync, OpKind::kViewLoad, OpKind::kViewStore};
  const JudgeReport report = run(Flaw::kNone, 300, ops);
  EXPECT_TRUE(report.ok()) << report.witness << (report.errors.empty() ? "" : report.errors[0]);
  EXPECT_TRUE(report.skipped.empty());
  for (const OpKind kind : ops) EXPECT_GT(report.ops[static_cast<size_t>(kind)], 0U) << op_name(kind);
}

TEST(Judge, R1_ConvictsTornDirectWrites) {
  const JudgeReport report = run(Flaw::kTornDirect, 5000, {OpKind::kRead, OpKind::kDirect});
  EXPECT_GT(report.torn, 0U);
  EXPECT_NE(report.witness.find("(direct)"), std::string::npos);
}

TEST(Judge, R1_ConvictsACallbackBeforeItsWrite) {
  const JudgeReport report = run(Flaw::kAnswersEarly, 5000, {OpKind::kRead, OpKind::kDirectAsync});
  EXPECT_FALSE(report.linearizable());
  EXPECT_NE(report.witness.find("asynchronous)"), std::string::npos);
}

TEST(Judge, R1_ConvictsForgottenStoresOfViews) {
  const JudgeReport report = run(Flaw::kForgetsStores, 2000, {OpKind::kRead, OpKind::kViewStore});
  EXPECT_GT(report.lost, 0U);
  EXPECT_NE(report.witness.find("(in a view)"), std::string::npos);
}

TEST(Judge, R1_ConvictsLoadsOfWhatWasThere) {
  const JudgeReport report = run(Flaw::kStaleLoads, 5000, {OpKind::kViewLoad, OpKind::kWrite});
  EXPECT_FALSE(report.linearizable());
}

TEST(Judge, ASyncAfterTheRunNeverFails) {
  const JudgeReport report = run(Flaw::kSyncFails, 5);
  EXPECT_TRUE(report.linearizable());
  EXPECT_FALSE(report.ok());
  ASSERT_FALSE(report.errors.empty());
  EXPECT_NE(report.errors[0].find("the sync after the run"), std::string::npos);
}

// In every order of the window's changes the file reaches past the word that views load and store.
TEST(Judge, NoChangeCutsTheFileBeforeTheWordOfViews) {
  WorkloadLimits limits;
  Workload workload(11, limits,
                    {OpKind::kViewLoad, OpKind::kViewStore, OpKind::kWrite, OpKind::kTruncate, OpKind::kCollapse});
  const Image first(limits.file_size / 2 + 77), second(limits.file_size);
  const std::vector<uint64_t> sizes{first.size(), second.size()};
  int words = 0;
  for (int i = 0; i < 3000; ++i) {
    Spot spot = workload.choose_spot(sizes);
    std::vector<std::vector<Op>> plans;
    for (int thread = 0; thread < 2; ++thread) plans.push_back(workload.plan_mutator(spot, sizes, 3));
    workload.choose_word(sizes, &plans, &spot);
    Window window;
    window.base[0] = spot.file == 0 ? &first : &second;
    for (const std::vector<Op>& ops : plans) window.mutators.insert(window.mutators.end(), ops.begin(), ops.end());
    if (!spot.word) {
      for (const Op& op : window.mutators) EXPECT_NE(op.via, Via::kView);
      continue;
    }
    ++words;
    for (size_t at = window.mutators.size(); at > 1; --at) {
      std::swap(window.mutators[at - 1], window.mutators[workload.random().below(at)]);
    }
    State state = first_state(window);
    ASSERT_LE(*spot.word + 8, state.files[0].size);
    for (size_t at = 0; at < window.mutators.size(); ++at) {
      Op& op = window.mutators[at];
      op.result = op.kind == OpKind::kWrite ? static_cast<int64_t>(op.length) : 0;
      if (!apply(window, at, &state)) op.result = -EINVAL;
      ASSERT_LE(*spot.word + 8, state.files[0].size);
    }
  }
  EXPECT_GT(words, 500);
}

TEST(Judge, SkipsWhatIsNotThere) {
  const JudgeReport report = run(Flaw::kNone, 5, {OpKind::kRead, OpKind::kWrite, OpKind::kPunch, OpKind::kClone});
  EXPECT_TRUE(report.ok());
  EXPECT_EQ(report.skipped, (std::vector<OpKind>{OpKind::kPunch, OpKind::kClone}));
}

}  // namespace
}  // namespace quire::judge
