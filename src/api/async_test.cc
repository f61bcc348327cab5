// quire_submit_*, quire_reap, quire_eventfd, and their C++ twins.
#include <poll.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "api/api_test_util.h"
#include "base/random.h"
#include "quire/quire.hpp"

namespace quire::api_testing {
namespace {

constexpr std::uint64_t kHost = 1;  // writer of named_bytes
constexpr std::size_t kFile = 8 * kMiB;

// What a callback was told.
struct Told {
  ssize_t result = INT64_MIN;
  std::string message;
  bool ran() const { return result != INT64_MIN; }
  static void tell(void* told, ssize_t result) {
    Told& mine = *static_cast<Told*>(told);
    EXPECT_FALSE(mine.ran()) << "told twice";
    mine.result = result;
    if (result < 0) mine.message = quire_error_message();
  }
};

class Async : public ::testing::TestWithParam<unsigned> {
 protected:
  void SetUp() override {
    path_ = dir_ / "file";
    host_write(path_, named_bytes(kHost, 0, kFile));
    cache_ = make_cache(16 * kMiB, GetParam());
    file_ = open_file(cache_, path_, O_RDWR);
  }
  int submit_read(void* to, std::size_t count, off_t offset, Told& told) {
    return quire_submit_pread(file_.get(), to, count, offset, &Told::tell, &told);
  }
  int submit_write(std::string_view bytes, off_t offset, Told& told) {
    return quire_submit_pwrite(file_.get(), bytes.data(), bytes.size(), offset, &Told::tell, &told);
  }
  int reap(unsigned min, unsigned max) { return quire_reap(cache_.get(), min, max); }
  bool readable(int fd) {
    pollfd poll_for{fd, POLLIN, 0};
    return poll(&poll_for, 1, 0) == 1;
  }

  TempDir dir_;
  std::string path_;
  CachePtr cache_;
  FilePtr file_;
};

INSTANTIATE_TEST_SUITE_P(
    Engines, Async, ::testing::Values(0U, QUIRE_NO_IO_URING, QUIRE_NO_DIRECT), [](const auto& param) {
      return std::string(param.param == 0 ? "IoUring" : param.param == QUIRE_NO_DIRECT ? "HostCache" : "SystemCalls");
    });

// Many in flight from one thread, absent, resident, past the end; twice as large as fits beside each other, too.
TEST_P(Async, R1_ReadsGiveTheFilesBytes) {
  constexpr std::size_t kAtOnce = 64, kRounds = 20;
  Random random(5);
  const std::string content = named_bytes(kHost, 0, kFile);
  for (std::size_t round = 0; round < kRounds; ++round) {
    std::vector<Told> told(kAtOnce);
    std::vector<std::string> buffers(kAtOnce);
    std::vector<std::uint64_t> offsets(kAtOnce);
    for (std::size_t i = 0; i < kAtOnce; ++i) {
      const std::size_t most = std::size_t{1} << random.below(i % 16 == 0 ? 22 : 16);
      buffers[i].assign(1 + random.below(most), '?');
      offsets[i] = random.below(kFile + 8192);
      ASSERT_EQ(submit_read(buffers[i].data(), buffers[i].size(), static_cast<off_t>(offsets[i]), told[i]), 0)
          << quire_error_message();
    }
    ASSERT_EQ(reap(kAtOnce, kAtOnce), static_cast<int>(kAtOnce));
    for (std::size_t i = 0; i < kAtOnce; ++i) {
      const std::size_t wanted = offsets[i] >= kFile ? 0 : std::min(buffers[i].size(), kFile - offsets[i]);
      ASSERT_EQ(told[i].result, static_cast<ssize_t>(wanted)) << told[i].message;
      ASSERT_TRUE(same_bytes(buffers[i].substr(0, wanted), content.substr(std::min(offsets[i], kFile), wanted)));
      ASSERT_EQ(buffers[i].find_first_not_of('?', wanted), std::string::npos) << "a byte past the count";
    }
    ASSERT_EQ(quire_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
  }
}

TEST_P(Async, R1_WritesAreWholeAndSyncMakesThemDurable) {
  constexpr std::size_t kAtOnce = 64;
  Random random(6);
  std::string content = named_bytes(kHost, 0, kFile);
  for (std::uint64_t round = 2; round < 12; ++round) {
    std::vector<Told> told(kAtOnce);
    std::vector<std::string> bytes;
    bytes.reserve(kAtOnce);
    for (std::size_t i = 0; i < kAtOnce; ++i) {  // one to a slot: in no order among themselves
      constexpr std::size_t kSlot = kFile / kAtOnce;
      const std::size_t offset = i * kSlot + random.below(5000);
      bytes.push_back(named_bytes(round, offset, 1 + random.below(i % 8 == 0 ? kSlot - 5000 : 6000)));
      content.replace(offset, bytes.back().size(), bytes.back());
      ASSERT_EQ(submit_write(bytes.back(), static_cast<off_t>(offset), told[i]), 0);
    }
    ASSERT_EQ(reap(kAtOnce, kAtOnce), static_cast<int>(kAtOnce));
    for (std::size_t i = 0; i < kAtOnce; ++i) {
      ASSERT_EQ(told[i].result, static_cast<ssize_t>(bytes[i].size())) << told[i].message;
    }
    Told synced;
    ASSERT_EQ(quire_submit_fsync(file_.get(), &Told::tell, &synced), 0);
    ASSERT_EQ(reap(1, 1), 1);
    ASSERT_EQ(synced.result, 0);
    ASSERT_TRUE(same_bytes(host_read(path_), content));
    ASSERT_TRUE(same_bytes(read_all(file_, kFile, 0), content));
    if (round % 2 == 0) {
      ASSERT_EQ(quire_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    }
  }
}

TEST_P(Async, CallbacksRunInReapOnly) {
  std::string bytes(100, '?');
  ASSERT_EQ(quire_pread(file_.get(), bytes.data(), bytes.size(), 0), 100);  // resident from here on
  Told first, second, third;
  ASSERT_EQ(submit_read(bytes.data(), bytes.size(), 0, first), 0);
  ASSERT_EQ(submit_read(bytes.data(), bytes.size(), 10, second), 0);
  ASSERT_EQ(submit_read(bytes.data(), 0, 10, third), 0);
  EXPECT_FALSE(first.ran());
  EXPECT_EQ(reap(0, 1), 1);
  EXPECT_TRUE(first.ran());
  EXPECT_FALSE(second.ran());
  EXPECT_EQ(reap(1, 100), 2);
  EXPECT_EQ(third.result, 0);
  EXPECT_EQ(reap(0, 100), 0);
  EXPECT_EQ(reap(5, 100), 0) << "none is left to wait for";
  EXPECT_EQ(reap(0, 0), 0);
}

TEST_P(Async, BadArgumentsSubmitNothing) {
  std::string bytes(10, '?');
  Told told;
  EXPECT_FAILS(EINVAL, submit_read(bytes.data(), 10, -1, told));
  EXPECT_FAILS(EINVAL, submit_read(bytes.data(), SIZE_MAX, 0, told));
  EXPECT_FAILS(EINVAL, submit_read(bytes.data(), 10, INT64_MAX - 5, told));
  EXPECT_FAILS(EINVAL, quire_submit_pread(file_.get(), bytes.data(), 10, 0, nullptr, nullptr));
  EXPECT_MESSAGE_HAS("callback");
  EXPECT_FAILS(EINVAL, quire_submit_fsync(file_.get(), nullptr, nullptr));
  EXPECT_FAILS(EINVAL, reap(2, 1));
  const FilePtr reader = open_file(cache_, path_, O_RDONLY);
  EXPECT_FAILS(EBADF, quire_submit_pwrite(reader.get(), bytes.data(), 10, 0, &Told::tell, &told));
  EXPECT_MESSAGE_HAS(path_);
  const FilePtr writer = open_file(cache_, path_, O_WRONLY);
  EXPECT_FAILS(EBADF, quire_submit_pread(writer.get(), bytes.data(), 10, 0, &Told::tell, &told));
  EXPECT_EQ(reap(0, 10), 0);
  EXPECT_FALSE(told.ran());
}

// A failure comes with the result of the call that waits, and its sentence, whoever met it.
TEST_P(Async, FailuresAreToldWithTheirReason) {
  std::string bytes(10, 'x');
  Told told;
  ASSERT_EQ(submit_write(bytes, INT64_MAX - 100, told), 0);
  ASSERT_EQ(reap(1, 1), 1);
  if (told.result == 10) GTEST_SKIP() << "this file system has files of 2^63 - 1 bytes";
  EXPECT_EQ(told.result, -EFBIG);
  EXPECT_NE(told.message.find(path_), std::string::npos) << told.message;
  EXPECT_NE(told.message.find("9223372036854775707"), std::string::npos) << told.message;
}

TEST_P(Async, TooManyRequestsAreRefused) {
  const quire_options options{sizeof(quire_options), 16 * kMiB, 1, GetParam()};
  const CachePtr cache(quire_cache_create(&options));
  ASSERT_NE(cache, nullptr);
  const FilePtr file = open_file(cache, dir_ / "other", O_RDWR | O_CREAT);
  std::string bytes(10, 'x');
  std::array<Told, 9> told;
  for (int i = 0; i < 8; ++i) {
    ASSERT_EQ(quire_submit_pread(file.get(), bytes.data(), 10, 0, &Told::tell, &told[static_cast<std::size_t>(i)]), 0);
  }
  EXPECT_FAILS(EAGAIN, quire_submit_pread(file.get(), bytes.data(), 10, 0, &Told::tell, &told[8]));
  EXPECT_MESSAGE_HAS("reap");
  EXPECT_EQ(quire_reap(cache.get(), 1, 1), 1);
  EXPECT_EQ(quire_submit_pread(file.get(), bytes.data(), 10, 0, &Told::tell, &told[8]), 0);
  EXPECT_EQ(quire_reap(cache.get(), 8, 8), 8);
}

TEST_P(Async, EventFdIsReadableWhileThereIsSomethingToReap) {
  const int fd = quire_eventfd(cache_.get());
  ASSERT_GE(fd, 0) << quire_error_message();
  EXPECT_EQ(quire_eventfd(cache_.get()), fd);
  EXPECT_FALSE(readable(fd));
  std::array<std::string, 8> buffers;
  std::array<Told, 8> told;
  for (std::size_t i = 0; i < 8; ++i) {
    buffers[i].resize(4096);
    ASSERT_EQ(submit_read(buffers[i].data(), 4096, static_cast<off_t>(i * 65536), told[i]), 0);
  }
  for (int left = 8; left > 0;) {
    pollfd poll_for{fd, POLLIN, 0};
    ASSERT_EQ(poll(&poll_for, 1, 10'000), 1) << left << " are left";
    left -= reap(0, 1);
  }
  EXPECT_FALSE(readable(fd));
  EXPECT_TRUE(std::all_of(told.begin(), told.end(), [](const Told& one) { return one.result == 4096; }));
}

// One thread waits in reap and is then held up by a callback; another, which polls, is told of what is left.
TEST_P(Async, EventFdTellsWhileACallbackTakesItsTime) {
  const FilePtr direct = open_file(cache_, path_, O_RDWR | O_DIRECT);
  std::unique_ptr<char, void (*)(void*)> block(static_cast<char*>(std::aligned_alloc(4096, 4096)), &std::free);
  Told first;
  ASSERT_EQ(quire_submit_pread(direct.get(), block.get(), 4096, 0, &Told::tell, &first),
            0);  // who reaps may wait for it
  ASSERT_EQ(reap(1, 1), 1);
  const int fd = quire_eventfd(cache_.get());
  ASSERT_GE(fd, 0);
  for (int round = 0; round < 20; ++round) {
    struct Slow {
      int fd;
      int polled = -1;
      static void told(void* argument, ssize_t) {
        Slow& mine = *static_cast<Slow*>(argument);
        pollfd readable{mine.fd, POLLIN, 0};
        mine.polled = poll(&readable, 1, mine.fd < 0 ? 0 : 10'000);
      }
    };
    Slow slow[2] = {{fd}, {fd}};
    std::thread reaper([&] {
      while (reap(1, 1) == 0) std::this_thread::yield();  // until something is outstanding
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(round % 3));
    for (Slow& one : slow) ASSERT_EQ(quire_submit_fsync(file_.get(), &Slow::told, &one), 0);
    reaper.join();
    EXPECT_EQ(slow[0].polled + slow[1].polled, 0) << "one of them ran, and saw the other";
    slow[0].fd = slow[1].fd = -1;
    ASSERT_EQ(reap(1, 1), 1);
  }
}

// Closing waits for the requests, not for who reaps; their results stay.
TEST_P(Async, CloseLeavesResultsToBeReaped) {
  constexpr std::size_t kAtOnce = 64;
  std::vector<std::string> buffers(kAtOnce);
  std::vector<Told> told(kAtOnce);
  for (std::size_t i = 0; i < kAtOnce; ++i) {
    buffers[i].resize(4096);
    ASSERT_EQ(submit_read(buffers[i].data(), 4096, static_cast<off_t>(i * 65536), told[i]), 0);
  }
  close_file(file_);
  EXPECT_FAILS(EBUSY, quire_cache_destroy(cache_.get(), 0));
  EXPECT_MESSAGE_HAS("64 requests");
  ASSERT_EQ(reap(kAtOnce, kAtOnce), static_cast<int>(kAtOnce));
  for (std::size_t i = 0; i < kAtOnce; ++i) {
    ASSERT_EQ(told[i].result, 4096);
    ASSERT_TRUE(same_bytes(buffers[i], named_bytes(kHost, i * 65536, 4096)));
  }
}

TEST_P(Async, DiscardForgetsWhatIsNotReaped) {
  std::string bytes(1 << 20, 'x');
  Told told[2];
  ASSERT_EQ(submit_read(bytes.data(), bytes.size(), 0, told[0]), 0);
  ASSERT_EQ(quire_submit_fsync(file_.get(), &Told::tell, &told[1]), 0);
  EXPECT_FAILS(EBUSY, quire_cache_destroy(cache_.get(), QUIRE_DISCARD));  // the file is open
  EXPECT_EQ(reap(0, 0), 0);
  close_file(file_);
  cache_.reset();  // DISCARD
  EXPECT_FALSE(told[0].ran());
}

TEST_P(Async, SubmittersMayEnd) {
  constexpr int kThreads = 4, kEach = 16;
  std::vector<Told> told(kThreads * kEach);
  std::vector<std::string> buffers(kThreads * kEach, std::string(4096, '?'));
  for (int t = 0; t < kThreads; ++t) {
    std::thread([&, t] {
      for (int i = t * kEach; i < (t + 1) * kEach; ++i) {
        const auto at = static_cast<std::size_t>(i);
        ASSERT_EQ(submit_read(buffers[at].data(), 4096, i * 65536, told[at]), 0);
      }
    }).join();
  }
  ASSERT_EQ(reap(kThreads * kEach, kThreads * kEach), kThreads * kEach);
  for (std::size_t i = 0; i < told.size(); ++i) {
    ASSERT_EQ(told[i].result, 4096);
    ASSERT_TRUE(same_bytes(buffers[i], named_bytes(kHost, i * 65536, 4096)));
  }
}

// Each callback submits the next; several threads reap; evictions in between.
TEST_P(Async, CallbacksSubmitWhileSeveralReap) {
  constexpr int kChains = 24, kLinks = 150;
  struct Chain {
    quire_file* file;
    std::uint64_t seed;
    int left = kLinks;
    std::uint64_t offset = 0;
    std::array<char, 4096> buffer;
    std::atomic<int>* ended;
    void go() {
      offset = (seed * 2654435761U % (kFile / 4096)) * 4096;
      seed = seed * 6364136223846793005U + 1442695040888963407U;
      ASSERT_EQ(quire_submit_pread(file, buffer.data(), buffer.size(), static_cast<off_t>(offset), &Chain::told, this),
                0)
          << quire_error_message();
    }
    static void told(void* argument, ssize_t result) {
      Chain& mine = *static_cast<Chain*>(argument);
      ASSERT_EQ(result, 4096);
      ASSERT_TRUE(same_bytes(std::string_view(mine.buffer.data(), 4096), named_bytes(kHost, mine.offset, 4096)));
      if (--mine.left > 0) {
        mine.go();
      } else {
        mine.ended->fetch_add(1);
      }
    }
  };
  std::atomic<int> ended{0};
  std::vector<Chain> chains(kChains);
  for (std::size_t i = 0; i < chains.size(); ++i) {
    chains[i].file = file_.get();
    chains[i].seed = i + 1;
    chains[i].ended = &ended;
    chains[i].go();
  }
  std::vector<std::thread> reapers;
  std::atomic<int> reaped{0};
  for (int t = 0; t < 3; ++t) {
    reapers.emplace_back([&] {
      while (ended.load() < kChains) reaped += reap(1, 8);
    });
  }
  while (ended.load() < kChains) {
    ASSERT_EQ(quire_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    std::this_thread::yield();
  }
  for (auto& reaper : reapers) reaper.join();
  EXPECT_EQ(reaped.load() + reap(0, 1000), kChains * kLinks);
}

// A read that was submitted before a truncation and a read of the same bytes after it are both whole.
TEST_P(Async, R1_ReadsBesideTruncationsAreOldOrNew) {
  constexpr int kRounds = 300;
  constexpr std::size_t kCount = 3 * 4096 + 100;
  const std::string old_bytes = named_bytes(kHost, 4096, kCount);
  int shorter = 0;
  for (int round = 0; round < kRounds; ++round) {
    ASSERT_EQ(quire_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    std::string buffer(kCount, '?');
    Told told;
    ASSERT_EQ(submit_read(buffer.data(), kCount, 4096, told), 0);
    ASSERT_EQ(quire_ftruncate(file_.get(), 8192 + 10), 0);
    ASSERT_EQ(reap(1, 1), 1);
    ASSERT_TRUE(told.result == static_cast<ssize_t>(kCount) || told.result == 4096 + 10) << told.result;
    shorter += told.result == 4096 + 10;
    ASSERT_TRUE(same_bytes(buffer.substr(0, static_cast<std::size_t>(told.result)),
                           old_bytes.substr(0, static_cast<std::size_t>(told.result))));
    write_all(file_, named_bytes(kHost, 8192, 8 * 4096), 8192);
    ASSERT_EQ(quire_fsync(file_.get()), 0);
  }
  EXPECT_GT(shorter, 0);  // the request was truly under way
}

TEST_P(Async, ForkedChildIsRefused) {
  std::string bytes(10, '?');
  Told told;
  const int fd = quire_eventfd(cache_.get());
  ASSERT_GE(fd, 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int wrong = 0;
    wrong += submit_read(bytes.data(), 10, 0, told) != -1 || errno != ENOTRECOVERABLE ? 1 : 0;
    wrong += reap(0, 1) != -1 || errno != ENOTRECOVERABLE ? 2 : 0;
    wrong += quire_eventfd(cache_.get()) != -1 || errno != ENOTRECOVERABLE ? 4 : 0;
    wrong += fcntl(fd, F_GETFD) != -1 ? 8 : 0;
    _exit(wrong);
  }
  int status;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  ASSERT_EQ(submit_read(bytes.data(), 10, 0, told), 0);
  ASSERT_EQ(reap(1, 1), 1);
}

TEST_P(Async, CountsWhatItDid) {
  std::string bytes(4096, '?');
  Told told[2];
  ASSERT_EQ(submit_read(bytes.data(), 4096, 0, told[0]), 0);
  ASSERT_EQ(quire_submit_fsync(file_.get(), &Told::tell, &told[1]), 0);
  ASSERT_EQ(reap(2, 2), 2);
  EXPECT_EQ(stat_of(cache_, "async_submitted"), 2);
  EXPECT_EQ(stat_of(cache_, "async_queued"), GetParam() == QUIRE_NO_IO_URING ? 2 : 1);
}

TEST(AsyncCpp, MeansTheSame) {
  TempDir dir;
  auto cache = Cache::create({.memory = 16 * kMiB});
  ASSERT_TRUE(cache.ok()) << last_error();
  auto opened = cache.value().open((dir / "file").c_str(), O_RDWR | O_CREAT);
  ASSERT_TRUE(opened.ok());
  File file = opened.take();
  const auto bytes = std::as_bytes(std::span("twelve bytes", 12));
  std::array<std::byte, 20> back{};
  Told wrote, synced, got;
  ASSERT_TRUE(file.submit_write(bytes, 5, &Told::tell, &wrote).ok());
  ASSERT_EQ(cache.value().reap(1, 1).value(), 1U);
  ASSERT_TRUE(file.submit_sync(&Told::tell, &synced).ok());
  ASSERT_TRUE(file.submit_read(back, 0, &Told::tell, &got).ok());
  ASSERT_EQ(cache.value().reap(2, 9).value(), 2U);
  EXPECT_EQ(wrote.result, 12);
  EXPECT_EQ(synced.result, 0);
  EXPECT_EQ(got.result, 17);
  EXPECT_EQ(std::memcmp(back.data() + 5, bytes.data(), 12), 0);
  EXPECT_TRUE(cache.value().event_fd().ok());
  EXPECT_EQ(cache.value().reap(2, 1).errnum(), EINVAL);
  EXPECT_EQ(file.submit_read(back, 0, nullptr, nullptr).errnum(), EINVAL);
}

}  // namespace
}  // namespace quire::api_testing
