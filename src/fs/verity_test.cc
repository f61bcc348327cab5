// Verified files over memory: what is read is what was hashed, whatever happens to data and tree underneath.
#include "fs/verity.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "fs/file_for_test.h"
#include "fs/file_view_for_test.h"
#include "ram/ram_disk_for_test.h"
#include "verity/sidecar.h"

namespace quire {
namespace {

using testing_support::RamDisk;
using testing_support::run_threads;
using testing_support::TestCache;
using testing_support::TestFile;
using verity::HashAlgorithm;
using verity::HashParameters;

// Passes on to a sidecar; map() asks the hook first, which may refuse.
struct HookedSidecar final : Backing {
  HookedSidecar(std::unique_ptr<Backing> to, std::function<int()>* h) : inner(std::move(to)), hook(h) {}
  Device& device() override { return inner->device(); }
  std::uint64_t size() const override { return inner->size(); }
  std::uint64_t max_size() const override { return inner->max_size(); }
  bool fixed_size() const override { return inner->fixed_size(); }
  unsigned block_size() const override { return inner->block_size(); }
  unsigned write_alignment() const override { return inner->write_alignment(); }
  Result<Extent> map(std::uint64_t offset, std::uint64_t length) override {
    if (*hook) {
      auto once = std::move(*hook);
      *hook = nullptr;
      if (const int errnum = once(); errnum != 0) return fail(errnum);
    }
    return inner->map(offset, length);
  }
  Result<Extent> prepare(std::uint64_t o, std::uint64_t l) override { return inner->prepare(o, l); }
  Status commit(std::uint64_t o, std::uint64_t l, std::uint64_t e) override { return inner->commit(o, l, e); }
  Status set_size(std::uint64_t size) override { return inner->set_size(size); }
  Status sync(bool data_only) override { return inner->sync(data_only); }
  Status stat(struct stat* out) override { return inner->stat(out); }
  std::unique_ptr<Backing> inner;
  std::function<int()>* hook;
};

// A verified file and its sidecar, whose bytes may be changed behind the cache's back.
class VerityFile {
 public:
  static constexpr std::uint64_t kFirstTreeId = std::uint64_t{1} << 32;
  VerityFile(PageCache& cache, const std::vector<char>& content, const verity::HashParameters& parameters = {},
             bool at_completion = false)
      : VerityFile(cache, content, parameters, at_completion, Options{}) {}
  struct Options {
    std::uint64_t hole_first = UINT64_MAX, hole_end = 0;  // bytes, whole pages: zeros that are not stored
  };
  VerityFile(PageCache& cache, const std::vector<char>& content, const verity::HashParameters& parameters,
             bool at_completion, const Options& options) {
    auto builder =
        verity::TreeBuilder::create(content.size(), parameters, [&](std::uint64_t offset, std::span<const char> block) {
          if (tree_.size() < offset + block.size()) tree_.resize(offset + block.size());
          std::copy(block.begin(), block.end(), tree_.begin() + static_cast<std::ptrdiff_t>(offset));
          return Status{};
        });
    CHECK(builder.ok());
    CHECK(builder.value().add(content).ok());
    const auto root = builder.value().finish();
    CHECK(root.ok());
    auto data = data_disk.make_file();
    std::vector<char> stored = content;
    stored.resize(round_up(stored.size(), kPageSize));
    for (std::uint64_t at = 0; at < stored.size(); at += kPageSize) {
      if (at >= options.hole_first && at < options.hole_end) continue;
      data_disk.put(*data, at,
                    std::vector<char>(stored.begin() + static_cast<std::ptrdiff_t>(at),
                                      stored.begin() + static_cast<std::ptrdiff_t>(at + kPageSize)),
                    content.size());
    }
    if (options.hole_end != 0) CHECK(data->set_size(content.size()).ok());
    data_ = data.get();
    std::vector<char> sidecar(verity::kSidecarHeaderSize);
    sidecar.insert(sidecar.end(), tree_.begin(), tree_.end());
    const std::uint64_t sidecar_size = sidecar.size();
    sidecar.resize(round_up(sidecar_size, kPageSize));
    auto tree = tree_disk.make_file();
    tree_disk.put(*tree, 0, sidecar, sidecar_size);
    sidecar_ = tree.get();
    VeritySource source{.parameters = parameters,
                        .geometry = builder.value().geometry(),
                        .root_hash = root.value(),
                        .sidecar = std::make_unique<HookedSidecar>(std::move(tree), &sidecar_hook),
                        .tree_offset = verity::kSidecarHeaderSize,
                        .path = "FILE",
                        .at_completion = at_completion};
    // Above the ids that test files have, as the locks' order wants it.
    static Atomic<std::uint64_t> next_tree_id{kFirstTreeId};
    auto made = FileVerity::create(cache, workers_, next_tree_id.fetch_add(1, memory_order_relaxed), std::move(source));
    CHECK(made.ok());
    verity_ = made.take();
    file_.emplace(cache, std::move(data));
    file_->mapping().verifier = verity_.get();
    file_->handle().writable = false;
  }
  ~VerityFile() {
    file_.reset();
    verity_.reset();
    workers_.end();
  }

  TestFile& file() { return *file_; }
  FileVerity& verity() { return *verity_; }
  std::uint64_t tree_bytes() const { return tree_.size(); }
  void flip_data(std::uint64_t byte, int bit = 0) { flip(data_disk, *data_, byte, bit); }
  void flip_tree(std::uint64_t byte, int bit = 0) {
    flip(tree_disk, *sidecar_, verity::kSidecarHeaderSize + byte, bit);
  }
  // All hashes leave the cache, as under pressure.
  void drop_tree() { verity_->drop_hashes(); }

  RamDisk data_disk{kPageSize}, tree_disk{kPageSize};
  std::function<int()> sidecar_hook;

 private:
  static void flip(RamDisk& disk, Backing& file, std::uint64_t byte, int bit) {
    const auto extent = file.map(byte, 1);
    CHECK(extent.ok() && extent.value().kind == ExtentKind::written);
    char value;
    disk.store.memory().peek(extent.value().address, &value, 1);
    value = static_cast<char>(value ^ (1 << bit));
    CHECK(disk.store.memory().poke(extent.value().address, &value, 1) == 0);
  }

  std::vector<char> tree_;
  Backing* data_ = nullptr;
  Backing* sidecar_ = nullptr;
  Workers workers_{2, "test-verity"};
  std::unique_ptr<FileVerity> verity_;
  std::optional<TestFile> file_;
};

std::vector<char> noise(std::size_t size, std::uint64_t seed = 1) {
  std::vector<char> bytes(size);
  std::uint64_t state = seed;
  for (char& byte : bytes) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

std::uint64_t counted(TestCache& cache, Counter counter) { return cache.cache.stats.sum(counter); }

struct Case {
  HashAlgorithm algorithm;
  std::uint32_t block_size;
};

class Verity : public ::testing::TestWithParam<Case> {
 protected:
  HashParameters parameters() const {
    HashParameters wanted{GetParam().algorithm, GetParam().block_size, {}};
    wanted.salt.size = 5;
    for (int i = 0; i < 5; ++i) wanted.salt.bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(i + 1);
    return wanted;
  }
};

INSTANTIATE_TEST_SUITE_P(Blocks, Verity,
                         ::testing::Values(Case{HashAlgorithm::sha256, 4096}, Case{HashAlgorithm::sha256, 1024},
                                           Case{HashAlgorithm::sha512, 1024}, Case{HashAlgorithm::sha256, 16384},
                                           Case{HashAlgorithm::sha512, 65536}),
                         [](const auto& made) {
                           return std::string(verity::algorithm_name(made.param.algorithm)) + "_" +
                                  std::to_string(made.param.block_size);
                         });

TEST_P(Verity, V1_ReadsAsItWas) {
  for (const std::size_t size : {0UL, 1UL, 4095UL, 4096UL, 4097UL, 70'000UL, 3'000'001UL}) {
    TestCache cache(1024);
    const auto content = noise(size, size + 1);
    VerityFile wanted(cache.cache, content, parameters());
    EXPECT_EQ(wanted.file().content(), content) << size;
    EXPECT_EQ(counted(cache, Counter::verity_failures), 0U);
    EXPECT_EQ(counted(cache, Counter::verity_late_hash_reads), 0U);
    EXPECT_GE(counted(cache, Counter::verity_blocks) * GetParam().block_size + GetParam().block_size - 1, size);
  }
}

// Sizes and places of every kind, of a cache that holds a part of the file only.
TEST_P(Verity, V1_PartsUnderPressure) {
  TestCache cache(160);
  const auto content = noise(2'500'001);
  VerityFile wanted(cache.cache, content, parameters());
  run_threads(3, [&](int thread) {
    std::uint64_t state = static_cast<std::uint64_t>(thread) + 7;
    std::vector<char> bytes(70'000);
    for (int i = 0; i < 400; ++i) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      const std::uint64_t at = (state >> 20) % content.size();
      const std::size_t count = 1 + (state >> 44) % (i % 8 == 0 ? bytes.size() : 9000);
      const ssize_t n = wanted.file().read(bytes.data(), count, at);
      ASSERT_EQ(n, static_cast<ssize_t>(std::min<std::uint64_t>(count, content.size() - at))) << at;
      ASSERT_EQ(std::memcmp(bytes.data(), content.data() + at, static_cast<std::size_t>(n)), 0) << at;
    }
  });
  EXPECT_EQ(counted(cache, Counter::verity_failures), 0U);
}

// A flipped bit fails what needs it, with EIO, each time it is asked for; good neighbours still read.
TEST_P(Verity, V1_FlippedDataBit) {
  const auto content = noise(600'000);
  const std::uint64_t unit = std::max<std::uint64_t>(GetParam().block_size, kPageSize);
  for (const std::uint64_t byte : {0UL, 4095UL, 300'000UL, 599'999UL}) {
    TestCache cache(512);
    VerityFile wanted(cache.cache, content, parameters());
    wanted.flip_data(byte, static_cast<int>(byte % 8));
    char got;
    for (int turn = 0; turn < 2; ++turn) {
      EXPECT_EQ(wanted.file().read(&got, 1, byte), -EIO) << byte;
      EXPECT_EQ(wanted.verity().failures(), counted(cache, Counter::verity_failures));
    }
    EXPECT_GE(wanted.verity().failures(), 2U);
    for (std::uint64_t at = 0; at < content.size(); at += 1000) {
      const bool bad = at / unit == byte / unit;
      ASSERT_EQ(wanted.file().read(&got, 1, at), bad ? -EIO : 1) << at;
      if (!bad) {
        ASSERT_EQ(got, content[at]);
      }
    }
    wanted.flip_data(byte, static_cast<int>(byte % 8));
    EXPECT_EQ(wanted.file().content(), content) << "what is mended reads again";
  }
}

// Any bit of the tree: no byte is read that it vouches for, and none is wrong.
TEST_P(Verity, V1_FlippedTreeBit) {
  const auto content = noise(400'000);
  std::uint64_t tree_bytes = 0;
  {
    TestCache cache(256);
    tree_bytes = VerityFile(cache.cache, content, parameters()).tree_bytes();
  }
  for (std::uint64_t byte = 0; byte < tree_bytes; byte += tree_bytes / 23 + 1) {
    TestCache cache(256);
    VerityFile wanted(cache.cache, content, parameters());
    wanted.flip_tree(byte, 3);
    std::vector<char> bytes(kPageSize);
    std::size_t refused = 0;
    for (std::uint64_t at = 0; at < content.size(); at += kPageSize) {
      const ssize_t n = wanted.file().read(bytes.data(), bytes.size(), at);
      if (n < 0) {
        ASSERT_EQ(n, -EIO);
        ++refused;
      } else {
        ASSERT_EQ(std::memcmp(bytes.data(), content.data() + at, static_cast<std::size_t>(n)), 0) << at;
      }
    }
    EXPECT_GT(refused, 0U) << byte;
    wanted.flip_tree(byte, 3);
    EXPECT_EQ(wanted.file().content(), content) << "what is mended reads again";
  }
}

// What was verified is remembered; what was evicted and comes back is not believed.
TEST_P(Verity, V1_HashesReadAgainAreVerifiedAgain) {
  TestCache cache(512);
  const auto content = noise(400'000);
  VerityFile wanted(cache.cache, content, parameters());
  EXPECT_EQ(wanted.file().content(), content);
  const std::uint64_t verified = counted(cache, Counter::verity_hash_blocks);
  wanted.file().drop_cached();
  EXPECT_EQ(wanted.file().content(), content);
  EXPECT_EQ(counted(cache, Counter::verity_hash_blocks), verified) << "the tree stayed";
  wanted.file().drop_cached();
  wanted.drop_tree();
  wanted.flip_tree(wanted.tree_bytes() - GetParam().block_size, 1);
  char got;
  EXPECT_EQ(wanted.file().read(&got, 1, content.size() - 1), -EIO);
}

TEST_P(Verity, V1_HolesNeedNoHashing) {
  TestCache cache(1024);
  auto content = noise(1'000'000);
  constexpr std::uint64_t kFirst = 131'072, kEnd = 786'432;
  std::fill(content.begin() + kFirst, content.begin() + kEnd, '\0');
  VerityFile wanted(cache.cache, content, parameters(), false, {kFirst, kEnd});
  EXPECT_EQ(wanted.file().content(), content);
  EXPECT_EQ(counted(cache, Counter::verity_failures), 0U);
}

// A hole in the place of data does not verify.
TEST_P(Verity, V1_DataPunchedOut) {
  TestCache cache(1024);
  const auto content = noise(1'000'000);
  VerityFile wanted(cache.cache, content, parameters(), false, {131'072, 786'432});
  char got;
  EXPECT_EQ(wanted.file().read(&got, 1, 131'072), -EIO);
  EXPECT_EQ(wanted.file().read(&got, 1, 500'000), -EIO);
  EXPECT_EQ(wanted.file().read(&got, 1, 0), 1);
}

// Hashes fetched at completion, for comparisons: the same bytes, the same verdicts, and every hash read is late.
TEST_P(Verity, V1_HashesAtCompletion) {
  TestCache cache(512);
  const auto content = noise(600'000);
  VerityFile wanted(cache.cache, content, parameters(), true);
  EXPECT_EQ(wanted.file().content(), content);
  EXPECT_EQ(counted(cache, Counter::verity_late_hash_reads), counted(cache, Counter::verity_hash_reads));
  EXPECT_GT(counted(cache, Counter::verity_hash_reads), 0U);
  wanted.file().drop_cached();
  wanted.flip_data(1000);
  char got;
  EXPECT_EQ(wanted.file().read(&got, 1, 1000), -EIO);
}

// Reads of the tree that fail are the reader's errors, and pass with them.
TEST_P(Verity, V1_TreeReadsThatFail) {
  TestCache cache(512);
  const auto content = noise(600'000);
  VerityFile wanted(cache.cache, content, parameters());
  wanted.tree_disk.fail_reads();
  char got;
  EXPECT_EQ(wanted.file().read(&got, 1, 300'000), -EIO);
  EXPECT_EQ(wanted.verity().failures(), 0U) << "no block was wrong";
  wanted.tree_disk.heal();
  EXPECT_EQ(wanted.file().content(), content);
}

HashParameters blocks_of(std::uint32_t size) { return HashParameters{HashAlgorithm::sha256, size, {}}; }

// A view that is read in sequence: its faults fill under an invalidate lock of their own.
TEST(VerityWindows, ViewInSequenceOfLargeBlocks) {
  const testing_support::Watchdog watchdog("view in sequence", 20);
  TestCache cache(1024);
  const auto content = noise(1'000'000);
  VerityFile wanted(cache.cache, content, blocks_of(16384));
  const testing_support::FileView view(wanted.file(), (content.size() + kPageSize - 1) / kPageSize);
  for (std::uint64_t at = 15 * kPageSize; at < 40 * kPageSize; at += 8) {
    std::uint64_t word;
    std::memcpy(&word, content.data() + at, 8);
    ASSERT_EQ(view.word(at), word);
  }
}

// Views beside clones of the file: `remove` waits between a fault's two invalidate locks.
TEST(VerityWindows, ViewBesideRemove) {
  const testing_support::Watchdog watchdog("view beside remove", 20);
  TestCache cache(1024);
  const auto content = noise(2'000'000);
  VerityFile wanted(cache.cache, content, blocks_of(16384));
  std::atomic<bool> stop{false};
  std::thread remover([&] {
    while (!stop.load()) {
      RangeGuard remove(wanted.file().mapping().invalidate);
      remove.acquire(0, kRangeEnd, kRemove);
    }
  });
  for (int i = 0; i < 30; ++i) {
    {
      const testing_support::FileView view(wanted.file(), (content.size() + kPageSize - 1) / kPageSize);
      for (std::uint64_t at = 15 * kPageSize; at < 480 * kPageSize; at += kPageSize) {
        std::uint64_t word;
        std::memcpy(&word, content.data() + at, 8);
        ASSERT_EQ(view.word(at), word);
      }
    }
    wanted.file().drop_cached();
  }
  stop.store(true);
  remover.join();
}

// A window that cannot begin lets its hashes go: whoever was set aside for them goes on.
TEST(VerityWindows, SetAsideForAWindowThatNeverBegan) {
  const testing_support::Watchdog watchdog("set aside for a window that never began", 20);
  TestCache cache(512);
  const auto content = noise(400'000);  // one block of hashes
  VerityFile wanted(cache.cache, content, blocks_of(4096));
  Mapping& mapping = wanted.file().mapping();
  wanted.sidecar_hook = [&] {
    std::thread other([&] { EXPECT_TRUE(fill_ahead(mapping, 50, 52, 0, UINT64_MAX).submitted); });
    other.join();
    return ENOMEM;
  };
  EXPECT_FALSE(fill_ahead(mapping, 0, 2, 0, UINT64_MAX).submitted);
  char got;
  EXPECT_EQ(wanted.file().read(&got, 1, 50 * kPageSize), 1);
}

// A hash that failed to come, or to verify, is gone before anybody else can have its lock: reclaim, say, which tells
// nobody that was set aside for it.
TEST(VerityWindows, WhatFailedLeavesTheTree) {
  TestCache cache(512);
  VerityFile wanted(cache.cache, noise(400'000), blocks_of(4096));
  const auto hashes = [&] {
    std::size_t count = 0;
    for (std::uint32_t id = 1; id < cache.cache.pool.frames(); ++id) {
      const Mapping* const of = cache.cache.pool.folio(id).mapping.load(memory_order_relaxed);
      count += of != nullptr && of->id >= VerityFile::kFirstTreeId ? 1 : 0;
    }
    return count;
  };
  char got;
  wanted.tree_disk.fail_reads();
  EXPECT_EQ(wanted.file().read(&got, 1, 0), -EIO);
  EXPECT_EQ(hashes(), 0U);
  wanted.tree_disk.heal();
  wanted.flip_tree(0);
  EXPECT_EQ(wanted.file().read(&got, 1, 0), -EIO);
  EXPECT_EQ(hashes(), 0U);
  wanted.flip_tree(0);
  EXPECT_EQ(wanted.file().read(&got, 1, 0), 1);
  EXPECT_EQ(hashes(), 1U);
}

// What nothing was done for ends where it began, also where it was widened.
TEST(VerityWindows, NothingFilledEndsAtItsBeginning) {
  TestCache cache(512);
  VerityFile wanted(cache.cache, noise(1'000'000), blocks_of(16384));
  Mapping& mapping = wanted.file().mapping();
  RangeGuard remove(mapping.invalidate);
  remove.acquire(0, kRangeEnd, kRemove);
  std::thread other([&] {
    EXPECT_EQ(fill_ahead(mapping, 6, 20, 0, UINT64_MAX).end, 6U);
    EXPECT_EQ(fill_for(
                  mapping, {6, 20}, 0, [](void*) {}, nullptr)
                  .end,
              6U);
  });
  other.join();
}

// The page that a miss wants is referenced.
TEST(VerityWindows, WidenedFillReferencesThePageWanted) {
  TestCache cache(512);
  VerityFile wanted(cache.cache, noise(1'000'000), blocks_of(16384));
  FrameReservation frames(cache.cache.pool);
  cache.cache.reserve(frames, 8);
  const auto filled = fill_range(wanted.file().mapping(), 6, 13, frames, CacheContext{});
  ASSERT_TRUE(filled.ok());
  EXPECT_NE(filled.value().first, nullptr);
  if (filled.value().first != nullptr) cache.cache.put_folio(*filled.value().first);
}

// A bad hash block beside the root's in a page: the rest of the file still reads.
TEST(VerityWindows, BadHashBlockFailsItsOwnDataOnly) {
  TestCache cache(512);
  const auto content = noise(400'000);
  VerityFile wanted(cache.cache, content, blocks_of(1024));  // root, then 13 blocks of 32 digests
  wanted.flip_tree(3 * 1024);                                // the digests of data blocks 64 to 95
  std::size_t refused = 0;
  for (std::uint64_t at = 0; at < content.size(); at += 1024) {
    char got;
    refused += wanted.file().read(&got, 1, at) != 1;
  }
  EXPECT_EQ(refused, 32U);
}

// On a device that takes 100 us for each request, one window of 64 KiB at a time: hashes that go along cost nothing,
// hashes that come after cost a request for each level that is not there. (Here the tree is cold in each window.)
TEST(VerityWindows, HashesGoAlongWithTheData) {
  constexpr std::size_t kWindow = 65536, kWindows = 40;
  const auto content = noise(kWindows * kWindow);
  const FaultPlan late{.rules = {{.kind = FaultKind::delay, .writes = false, .delay_ns = 100'000}}};
  double best[2] = {1, 1};  // seconds: of many, since others use the machine as well
  for (const bool at_completion : {false, true}) {
    TestCache cache(2048);
    VerityFile wanted(cache.cache, content, blocks_of(4096), at_completion);
    wanted.file().handle().readahead.mode.store(ReadaheadMode::random, memory_order_relaxed);
    wanted.data_disk.device.set_plan(late);
    wanted.tree_disk.device.set_plan(late);
    std::vector<char> bytes(kWindow);
    for (std::size_t i = 0; i < kWindows; ++i) {
      wanted.drop_tree();
      const auto begin = std::chrono::steady_clock::now();
      ASSERT_EQ(wanted.file().read(bytes.data(), kWindow, i * kWindow), static_cast<ssize_t>(kWindow));
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      best[at_completion ? 1 : 0] = std::min(best[at_completion ? 1 : 0], took.count());
    }
    EXPECT_EQ(counted(cache, Counter::verity_late_hash_reads) != 0, at_completion);
  }
  const double ratio = best[1] / best[0];
  std::printf("windows of 64 KiB on a device of 100 us: %.2f times the rate with hashes along\n", ratio);
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
  EXPECT_GT(ratio, 1.2) << best[0] << " s and " << best[1] << " s";
#endif
}

}  // namespace
}  // namespace quire
