// O_DIRECT handles and Access::direct over host files, beside buffered calls and other handles.
#include <poll.h>
#include <sys/resource.h>

#include <array>
#include <atomic>
#include <csignal>
#include <thread>
#include <vector>

#include "api/api_test_util.h"
#include "base/random.h"
#include "quire/quire.hpp"

namespace quire::api_testing {
namespace {

constexpr std::size_t kFile = 4 * kMiB;

struct Aligned {
  explicit Aligned(std::size_t bytes) : data(static_cast<char*>(std::aligned_alloc(4096, bytes))), size(bytes) {}
  ~Aligned() { std::free(data); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  char* const data;
  const std::size_t size;
};

class DirectIo : public ::testing::TestWithParam<unsigned> {
 protected:
  void SetUp() override {
    path_ = dir_ / "file";
    host_write(path_, named_bytes(1, 0, kFile));
    cache_ = make_cache(16 * kMiB, GetParam());
    direct_ = open_file(cache_, path_, O_RDWR | O_DIRECT);
    buffered_ = open_file(cache_, path_, O_RDWR);
  }
  // Nothing that quire sends to the host may make a later sync fail, whoever asks.
  void TearDown() override {
    EXPECT_EQ(quire_fsync(direct_.get()), 0) << quire_error_message();
    EXPECT_EQ(quire_fsync(buffered_.get()), 0) << quire_error_message();
    Fd fd(path_, O_RDWR);
    EXPECT_EQ(::fsync(fd), 0);
  }
  // Some hosts have no O_DIRECT that quire would use: there everything goes through the host's cache.
  bool past_cache() { return stat_of(cache_, "direct_writes") != 0 && stat_of(cache_, "direct_fallbacks") == 0; }

  TempDir dir_;
  std::string path_;
  CachePtr cache_;
  FilePtr direct_, buffered_;
};

INSTANTIATE_TEST_SUITE_P(
    Engines, DirectIo, ::testing::Values(0U, QUIRE_NO_IO_URING, QUIRE_NO_DIRECT), [](const auto& param) {
      return std::string(param.param == 0 ? "IoUring" : param.param == QUIRE_NO_DIRECT ? "HostCache" : "SystemCalls");
    });

// Everything a thread can mix, against an array; syncs in between, none of which may fail.
TEST_P(DirectIo, R3_EachSeesWhatCompletedBefore) {
  Random random(4);
  std::string model = named_bytes(1, 0, kFile);
  Aligned memory(256 * 1024);
  for (std::uint64_t step = 2; step < 1500; ++step) {
    const FilePtr& file = random.one_in(2) ? direct_ : buffered_;
    std::uint64_t offset = random.below(kFile + 10'000);
    std::size_t count = 1 + random.below(random.one_in(4) ? 200'000 : 9'000);
    char* at = memory.data;
    switch (random.below(4)) {
      case 0:
        offset &= ~std::uint64_t{511};
        count = (count + 511) & ~std::size_t{511};
        break;
      case 1:
      case 2:
        offset &= ~std::uint64_t{4095};
        count = (count + 4095) & ~std::size_t{4095};
        break;
      default:
        at += random.below(600);
    }
    switch (random.below(16)) {
      case 0:
        ASSERT_EQ(quire_fsync(file.get()), 0) << quire_error_message();
        break;
      case 1:
        ASSERT_EQ(quire_fsync(buffered_.get()), 0);
        ASSERT_EQ(quire_fadvise(buffered_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
        break;
      case 2:
        model.resize(offset);
        ASSERT_EQ(quire_ftruncate(file.get(), static_cast<off_t>(offset)), 0);
        break;
      case 3: {
        if (offset >= model.size()) break;
        const std::size_t length = std::min(count, model.size() - offset);
        if (quire_fallocate(file.get(), 3 /* punch, keep size */, static_cast<off_t>(offset),
                            static_cast<off_t>(length)) == 0) {
          std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(offset), length, '\0');
        }
        break;
      }
      case 4:
      case 5:
      case 6:
      case 7:
      case 8: {
        const std::string bytes = named_bytes(step, offset, count);
        std::memcpy(at, bytes.data(), count);
        ASSERT_EQ(quire_pwrite(file.get(), at, count, static_cast<off_t>(offset)), static_cast<ssize_t>(count))
            << quire_error_message();
        if (model.size() < offset + count) model.resize(offset + count);
        model.replace(offset, count, bytes);
        break;
      }
      default: {
        const std::size_t due = offset < model.size() ? std::min(count, model.size() - offset) : 0;
        ASSERT_EQ(quire_pread(file.get(), at, count, static_cast<off_t>(offset)), static_cast<ssize_t>(due))
            << quire_error_message();
        ASSERT_TRUE(
            same_bytes(std::string_view(at, due), std::string_view(model).substr(std::min(offset, model.size()), due)))
            << "step " << step << ": " << count << " at " << offset;
      }
    }
  }
  ASSERT_EQ(quire_fsync(direct_.get()), 0);
  ASSERT_TRUE(same_bytes(host_read(path_), model));
}

TEST_P(DirectIo, GoesPastTheCache) {
  Aligned memory(1 << 20);
  ASSERT_EQ(quire_pread(direct_.get(), memory.data, memory.size, 0), static_cast<ssize_t>(memory.size));
  EXPECT_TRUE(same_bytes(std::string_view(memory.data, memory.size), named_bytes(1, 0, memory.size)));
  const std::string fresh = named_bytes(2, 0, memory.size);
  std::memcpy(memory.data, fresh.data(), fresh.size());
  ASSERT_EQ(quire_pwrite(direct_.get(), memory.data, memory.size, 0), static_cast<ssize_t>(memory.size));
  EXPECT_EQ(stat_of(cache_, "direct_reads"), 1U);
  EXPECT_EQ(stat_of(cache_, "direct_writes"), 1U);
  EXPECT_EQ(stat_of(cache_, "fills"), 0U);
  EXPECT_TRUE(same_bytes(host_pread(path_, fresh.size(), 0), fresh)) << "not on the host when the call returned";
}

TEST_P(DirectIo, ManyInFlightFromOneThread) {
  constexpr std::size_t kAtOnce = 32, kBlock = 4096;
  struct Slot {
    quire_file* file;
    char* memory;
    std::uint64_t seed, offset = 0;
    int left = 60;
    bool writes = false;
    static void done(void* argument, ssize_t result) {
      Slot& mine = *static_cast<Slot*>(argument);
      ASSERT_EQ(result, static_cast<ssize_t>(kBlock)) << quire_error_message();
      const std::string_view got(mine.memory, kBlock);
      if (!mine.writes) {  // slots have blocks of their own
        ASSERT_TRUE(same_bytes(got, named_bytes(2, mine.offset, kBlock)));
      }
      if (--mine.left > 0) mine.go();
    }
    void go() {
      writes = !writes;
      if (writes) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        offset = offset % (kAtOnce * kBlock) + (seed >> 40) % (kFile / (kAtOnce * kBlock)) * (kAtOnce * kBlock);
        const std::string bytes = named_bytes(2, offset, kBlock);
        std::memcpy(memory, bytes.data(), kBlock);
        ASSERT_EQ(quire_submit_pwrite(file, memory, kBlock, static_cast<off_t>(offset), &done, this), 0);
      } else {
        ASSERT_EQ(quire_submit_pread(file, memory, kBlock, static_cast<off_t>(offset), &done, this), 0);
      }
    }
  };
  Aligned memory(kAtOnce * kBlock);
  std::vector<Slot> slots(kAtOnce);
  for (std::size_t i = 0; i < kAtOnce; ++i) {
    slots[i] = Slot{direct_.get(), memory.data + i * kBlock, i + 1, i * kBlock};
    slots[i].go();
  }
  while (quire_reap(cache_.get(), 1, 64) > 0) {
  }
  for (const Slot& slot : slots) ASSERT_EQ(slot.left, 0);
  if (GetParam() == 0 && past_cache()) {
    EXPECT_LT(stat_of(cache_, "async_queued"), 32U * 60 / 4);
  }
}

// The first write into a stretch of unwritten blocks has all of it written; what comes next to it finds it done.
TEST_P(DirectIo, AnUnwrittenStretchIsWrittenAtOnce) {
  constexpr std::size_t kStretch = 32 * 1024, kSector = 512, kAll = 8 * kStretch;
  const std::string path = dir_ / "unwritten";
  host_write(path, "");
  {
    Fd fd(path, O_RDWR);
    if (::fallocate(fd, 0, 0, kAll) != 0) GTEST_SKIP() << "this host allocates nothing ahead";
  }
  const FilePtr file = open_file(cache_, path, O_RDWR | O_DIRECT);
  Aligned sector(4096);
  std::string wanted(kAll, '\0');
  for (std::size_t at = 3 * kStretch; at < 4 * kStretch; at += kSector) {
    const std::string bytes = named_bytes(5, at, kSector);
    std::memcpy(sector.data, bytes.data(), kSector);
    ASSERT_EQ(quire_pwrite(file.get(), sector.data, kSector, static_cast<off_t>(at)), ssize_t{kSector});
    wanted.replace(at, kSector, bytes);
  }
  EXPECT_LE(stat_of(cache_, "direct_grown"), 1U);
  std::string got(kAll, '?');
  ASSERT_EQ(quire_pread(file.get(), got.data(), kAll, 0), ssize_t{kAll});
  EXPECT_TRUE(same_bytes(got, wanted));
  EXPECT_EQ(quire_fsync(file.get()), 0);
}

// Nobody reaps: the locks of what is submitted go all the same.
TEST_P(DirectIo, SubmittedWritesEndWhoeverReaps) {
  constexpr std::size_t kBlock = 64 * 1024;
  Aligned memory(kBlock);
  std::vector<char> back(kBlock);
  const auto told = [](void* argument, ssize_t result) { *static_cast<ssize_t*>(argument) = result; };
  for (unsigned round = 0; round < 20; ++round) {
    const std::string bytes = named_bytes(10 + round, round * kBlock, kBlock);
    std::memcpy(memory.data, bytes.data(), kBlock);
    ssize_t result = INT64_MIN;
    const auto at = static_cast<off_t>(round * kBlock);
    ASSERT_EQ(quire_submit_pwrite(direct_.get(), memory.data, kBlock, at, told, &result), 0);
    if (round % 3 == 1) {
      EXPECT_LE(quire_reap(cache_.get(), 0, 1), 1);
    }
    ASSERT_EQ(quire_pwrite(direct_.get(), "mine", 4, at + 100), 4);  // waits for the range
    if (result == INT64_MIN) {
      ASSERT_EQ(quire_reap(cache_.get(), 1, 1), 1);
    }
    ASSERT_EQ(result, static_cast<ssize_t>(kBlock));
    ASSERT_EQ(quire_pread(buffered_.get(), back.data(), kBlock, at), static_cast<ssize_t>(kBlock));
    std::string wanted = bytes;
    if (std::memcmp(back.data() + 100, "mine", 4) == 0) wanted.replace(100, 4, "mine");  // else it came before
    ASSERT_TRUE(same_bytes(std::string_view(back.data(), kBlock), wanted));
  }
}

// The descriptor is readable once something has ended, though nobody reaps, and then is no more.
TEST_P(DirectIo, EventFdTellsOfWhatTheDeviceEnded) {
  const int fd = quire_eventfd(cache_.get());
  ASSERT_GE(fd, 0);
  const auto told = [](void* argument, ssize_t result) { *static_cast<ssize_t*>(argument) = result; };
  Aligned memory(16 * 4096);
  for (int round = 0; round < 10; ++round) {
    std::array<ssize_t, 16> results;
    results.fill(INT64_MIN);
    for (std::size_t i = 0; i < 16; ++i) {
      ASSERT_EQ(quire_submit_pread(direct_.get(), memory.data + i * 4096, 4096, static_cast<off_t>(i * 8192), told,
                                   &results[i]),
                0);
    }
    for (int left = 16; left > 0;) {
      pollfd readable{fd, POLLIN, 0};
      ASSERT_EQ(poll(&readable, 1, 10'000), 1) << left << " are left";
      left -= quire_reap(cache_.get(), 0, 3);
    }
    for (const ssize_t result : results) ASSERT_EQ(result, 4096);
    pollfd readable{fd, POLLIN, 0};
    EXPECT_EQ(poll(&readable, 1, 0), 0);
  }
}

// Several threads submit, reap and wait; each callback submits the next.
TEST_P(DirectIo, SeveralReapWhatTheDeviceEnds) {
  constexpr int kChains = 24, kLinks = 100;
  struct Chain {
    quire_file* file = nullptr;
    char* memory = nullptr;
    std::atomic<int>* ended = nullptr;
    std::uint64_t seed = 0, offset = 0;
    int left = kLinks;
    void go() {
      seed = seed * 6364136223846793005U + 1442695040888963407U;
      offset = (seed >> 33) % (kFile / 4096) * 4096;
      ASSERT_EQ(quire_submit_pread(file, memory, 4096, static_cast<off_t>(offset), &told, this), 0);
    }
    static void told(void* argument, ssize_t result) {
      Chain& mine = *static_cast<Chain*>(argument);
      ASSERT_EQ(result, 4096);
      ASSERT_TRUE(same_bytes(std::string_view(mine.memory, 4096), named_bytes(1, mine.offset, 4096)));
      --mine.left == 0 ? static_cast<void>(mine.ended->fetch_add(1)) : mine.go();
    }
  };
  Aligned memory(kChains * 4096);
  std::atomic<int> ended{0}, reaped{0};
  std::vector<Chain> chains(kChains);
  for (std::size_t i = 0; i < kChains; ++i) {
    chains[i] = Chain{direct_.get(), memory.data + i * 4096, &ended, i + 1};
    chains[i].go();
  }
  std::vector<std::thread> reapers;
  for (unsigned t = 0; t < 4; ++t) {
    reapers.emplace_back([&, t] {
      while (ended.load() < kChains) reaped += quire_reap(cache_.get(), t % 2, 1 + t);
    });
  }
  for (std::thread& reaper : reapers) reaper.join();
  EXPECT_EQ(reaped.load() + quire_reap(cache_.get(), 0, 1000), kChains * kLinks);
}

// Direct writers, buffered readers, direct readers and evictions of the same blocks: each block is one writer's.
TEST_P(DirectIo, R1_BlocksAreNeverMixed) {
  constexpr std::size_t kBlock = 16 * 1024, kBlocks = 8;
  for (std::size_t i = 0; i < kBlocks; ++i) {
    write_all(direct_, std::string(kBlock, 'a'), static_cast<off_t>(i * kBlock));
  }
  std::atomic<bool> stop{false};
  std::atomic<int> reads{0};
  std::vector<std::thread> threads;
  for (int w = 0; w < 2; ++w) {
    threads.emplace_back([&, w] {
      Random random(static_cast<std::uint64_t>(w) + 20);
      Aligned memory(kBlock);
      for (int i = 0; i < 400; ++i) {
        std::memset(memory.data, 'b' + static_cast<int>(random.below(20)), kBlock);
        const FilePtr& file = random.one_in(4) ? buffered_ : direct_;
        ASSERT_EQ(quire_pwrite(file.get(), memory.data, kBlock, static_cast<off_t>(random.below(kBlocks) * kBlock)),
                  static_cast<ssize_t>(kBlock));
      }
      stop = true;
    });
  }
  for (int r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      Random random(static_cast<std::uint64_t>(r) + 40);
      Aligned memory(kBlock);
      do {
        const FilePtr& file = random.one_in(2) ? buffered_ : direct_;
        ASSERT_EQ(quire_pread(file.get(), memory.data, kBlock, static_cast<off_t>(random.below(kBlocks) * kBlock)),
                  static_cast<ssize_t>(kBlock));
        ASSERT_EQ(std::string_view(memory.data, kBlock).find_first_not_of(memory.data[0]), std::string::npos);
        ++reads;
        if (random.one_in(8)) {
          ASSERT_EQ(quire_fsync(buffered_.get()), 0) << quire_error_message();
          ASSERT_EQ(quire_fadvise(buffered_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
        }
      } while (!stop);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GE(reads.load(), 2);
}

TEST_P(DirectIo, AppendsOfAnySize) {
  const FilePtr log = open_file(cache_, dir_ / "log", O_RDWR | O_CREAT | O_APPEND | O_DIRECT);
  std::string model;
  Random random(8);
  for (std::uint64_t i = 1; i < 200; ++i) {
    const std::string bytes =
        named_bytes(i, model.size(), random.one_in(2) ? 4096 * (1 + random.below(4)) : 1 + random.below(5000));
    write_all(log, bytes, 0);
    model += bytes;
  }
  ASSERT_EQ(file_size(log), static_cast<off_t>(model.size()));
  ASSERT_EQ(quire_fsync(log.get()), 0) << quire_error_message();
  ASSERT_TRUE(same_bytes(host_read(dir_ / "log"), model));
}

// A write past the end that fails half way: the host's file has its old size again, and what comes later finds zeros.
TEST_P(DirectIo, R1_AFailedExtensionLeavesTheSizeAndNoBytes) {
  const FilePtr file = open_file(cache_, dir_ / "short", O_RDWR | O_CREAT | O_DIRECT);
  Aligned memory(1 << 20);
  std::memset(memory.data, 'q', memory.size);
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const rlimit small{512 * 1024, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const ssize_t written = quire_pwrite(file.get(), memory.data, memory.size, 0);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, before);
  const off_t size = std::max<ssize_t>(written, 0);
  EXPECT_EQ(file_size(file), size);
  ASSERT_EQ(quire_pwrite(file.get(), memory.data, 4096, 1 << 20), 4096);
  std::string gap = read_all(file, (1 << 20) - static_cast<std::size_t>(size), size);
  EXPECT_EQ(gap.find_first_not_of('\0'), std::string::npos);
  ASSERT_EQ(quire_ftruncate(file.get(), size), 0);
  ASSERT_EQ(quire_fsync(file.get()), 0);
  EXPECT_EQ(host_stat(dir_ / "short").st_size, size);
}

TEST_P(DirectIo, OneCallMayGoItsOwnWay) {
  auto cache = Cache::create({.memory = 16 * kMiB, .flags = GetParam()});
  ASSERT_TRUE(cache.ok());
  auto opened = cache.value().open((dir_ / "other").c_str(), O_RDWR | O_CREAT);
  ASSERT_TRUE(opened.ok());
  File file = opened.take();
  Aligned memory(8192);
  std::memset(memory.data, 'd', 8192);
  const std::span<std::byte> bytes(reinterpret_cast<std::byte*>(memory.data), 8192);
  ASSERT_EQ(file.write(bytes, 0, Access::direct).value(), 8192U);
  EXPECT_EQ(stats_of(cache.value().c_handle()).at("direct_writes").get<int>(), 1);
  ASSERT_EQ(file.read(bytes, 0, Access::direct).value(), 8192U);
  EXPECT_EQ(stats_of(cache.value().c_handle()).at("fills").get<int>(), 0);
  ASSERT_EQ(file.read(bytes, 0, Access::buffered).value(), 8192U);
  EXPECT_GT(stats_of(cache.value().c_handle()).at("fills").get<int>(), 0);
  EXPECT_EQ(file.read(bytes, UINT64_MAX, Access::direct).errnum(), EINVAL);
  EXPECT_NE(std::string(last_error()).find("other"), std::string::npos);
  ssize_t result = 0;
  const auto note = [](void* to, ssize_t n) { *static_cast<ssize_t*>(to) = n; };
  ASSERT_TRUE(file.submit_read(bytes, 0, note, &result, Access::direct).ok());
  ASSERT_EQ(cache.value().reap(1, 1).value(), 1U);
  EXPECT_EQ(result, 8192);
}

}  // namespace
}  // namespace quire::api_testing
