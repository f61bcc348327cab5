// Many threads that open, close, read and write the same and different files in a cache much too small for them.
#include <pthread.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "api/api_test_util.h"
#include "sync/atomic.h"

namespace quire::api_testing {
namespace {

constexpr std::size_t kBlock = 4096;
#if defined(QUIRE_TSAN) || defined(QUIRE_ASAN)
constexpr int kScale = 1;
#else
constexpr int kScale = 4;
#endif

// A block in which every word is the same tag: a torn or foreign block shows.
std::string tagged_block(std::uint64_t tag) {
  std::string block(kBlock, '\0');
  for (std::size_t i = 0; i < kBlock; i += 8) std::memcpy(block.data() + i, &tag, 8);
  return block;
}
std::uint64_t tag_of(unsigned file, unsigned block, std::uint64_t generation) {
  return (std::uint64_t{file} + 1) << 56 | std::uint64_t{block} << 40 | (generation & 0xff'ffff'ffff);
}
// 0 if the block is whole, of this file and place.
int check_block(const std::string& bytes, unsigned file, unsigned block) {
  std::uint64_t first;
  std::memcpy(&first, bytes.data(), 8);
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    if (std::memcmp(bytes.data() + i, &first, 8) != 0) return 1;  // torn
  }
  if (first == 0) return 0;                                    // never written
  return first >> 40 == tag_of(file, block, 0) >> 40 ? 0 : 2;  // foreign
}

class Threads : public ::testing::TestWithParam<unsigned> {
 protected:
  std::string path(unsigned file) const { return dir_ / std::to_string(file); }
  const TempDir dir_;
};
INSTANTIATE_TEST_SUITE_P(Engines, Threads, ::testing::Values(0u, QUIRE_NO_IO_URING, QUIRE_NO_DIRECT));

TEST_P(Threads, OpenReadWriteCloseOfSharedFiles) {
  constexpr unsigned kFiles = 5, kBlocks = 150, kThreads = 6;
  const CachePtr cache = make_cache(kMiB, GetParam());
  std::atomic<int> torn{0}, foreign{0}, failed{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t * 7919 + GetParam());
      std::string bytes(kBlock, '?');
      for (int round = 0; round < 60 * kScale; ++round) {
        const unsigned f = random() % kFiles;
        quire_file* file =
            quire_open(cache.get(), path(f).c_str(), random() % 3 == 0 ? O_RDONLY | O_CREAT : O_RDWR | O_CREAT, 0644);
        if (file == nullptr) {
          ++failed;
          continue;
        }
        for (int i = 0; i < 20; ++i) {
          const unsigned b = random() % kBlocks;
          const off_t offset = static_cast<off_t>(b * kBlock);
          if (random() % 2 == 0) {
            const std::string block = tagged_block(tag_of(f, b, round * 100u + t));
            if (quire_pwrite(file, block.data(), kBlock, offset) < 0 && errno != EBADF) ++failed;
          } else {
            const ssize_t n = quire_pread(file, bytes.data(), kBlock, offset);
            if (n < 0) ++failed;
            if (n == static_cast<ssize_t>(kBlock)) {
              const int verdict = check_block(bytes, f, b);
              torn += verdict == 1;
              foreign += verdict == 2;
            }
          }
        }
        if (random() % 8 == 0 && quire_fsync(file) != 0) ++failed;
        if (quire_close(file) != 0) ++failed;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(torn.load(), 0);
  EXPECT_EQ(foreign.load(), 0);
  EXPECT_EQ(failed.load(), 0);
  for (unsigned f = 0; f < kFiles; ++f) {
    const std::string host = host_read(path(f));
    EXPECT_EQ(host.size() % kBlock, 0u);
    for (std::size_t at = 0; at < host.size(); at += kBlock) {
      EXPECT_EQ(check_block(host.substr(at, kBlock), f, static_cast<unsigned>(at / kBlock)), 0) << f << " at " << at;
    }
  }
}

// Idle files are forgotten, evicted and opened again all at once.
TEST_P(Threads, ManySmallFilesThroughATinyCache) {
  constexpr unsigned kFiles = 400, kThreads = 4;
  for (unsigned f = 0; f < kFiles; ++f)
    host_write(path(f), tagged_block(tag_of(f, 0, 1)) + tagged_block(tag_of(f, 1, 1)));
  let_times_settle();
  const CachePtr cache = make_cache(600'000, GetParam());
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t + 1);
      std::string bytes(2 * kBlock, '?');
      for (int i = 0; i < 500 * kScale; ++i) {
        const unsigned f = random() % kFiles;
        quire_file* file = quire_open(cache.get(), path(f).c_str(), O_RDONLY, 0);
        if (file == nullptr || quire_pread(file, bytes.data(), 2 * kBlock, 0) != static_cast<ssize_t>(2 * kBlock) ||
            bytes != tagged_block(tag_of(f, 0, 1)) + tagged_block(tag_of(f, 1, 1)) || quire_close(file) != 0) {
          ++wrong;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0) << quire_error_message();
}

// A thread's own requests end with it: what it submitted must have been reaped, or be another's.
TEST_P(Threads, ThreadsThatEndRightAfterAMiss) {
  constexpr std::size_t kSize = 24 * kMiB;
  host_write(path(0), named_bytes(1, 0, kSize));
  const CachePtr cache = make_cache(4 * kMiB, GetParam());
  FilePtr file = open_file(cache, path(0), O_RDONLY);
  std::atomic<int> wrong{0};
  std::mt19937 random(1);
  for (int storm = 0; storm < 25 * kScale; ++storm) {
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
      const auto offset = static_cast<off_t>(storm % 2 == 0 ? random() % (kSize - 300'000)
                                                            : (storm * 8 + t) * 65536u % (kSize - 300'000));
      const std::size_t count = t % 2 == 0 ? 4096 : 200'000;
      threads.emplace_back([&, offset, count] {
        std::string bytes(count, '?');
        if (quire_pread(file.get(), bytes.data(), count, offset) != static_cast<ssize_t>(count) ||
            bytes != named_bytes(1, static_cast<std::uint64_t>(offset), count)) {
          ++wrong;
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
  EXPECT_EQ(wrong.load(), 0);
}

TEST_P(Threads, EndOfADetachedThreadThatJustMissed) {
  host_write(path(0), named_bytes(1, 0, 8 * kMiB));
  const CachePtr cache = make_cache(2 * kMiB, GetParam());
  FilePtr file = open_file(cache, path(0), O_RDONLY);
  struct Work {
    quire_file* file;
    off_t offset;
    std::atomic<int>* left;
  };
  constexpr int kThreads = 100 * kScale;
  std::atomic<int> left{kThreads};
  for (int i = 0; i < kThreads; ++i) {
    auto* const work = new Work{file.get(), static_cast<off_t>(i * 77777 % (8 * kMiB)), &left};
    pthread_t thread;
    ASSERT_EQ(pthread_create(
                  &thread, nullptr,
                  [](void* argument) -> void* {
                    const std::unique_ptr<Work> mine(static_cast<Work*>(argument));
                    char byte;
                    EXPECT_EQ(quire_pread(mine->file, &byte, 1, mine->offset), 1);
                    mine->left->fetch_sub(1);
                    return nullptr;
                  },
                  work),
              0);
    ASSERT_EQ(pthread_detach(thread), 0);
    if (i % 16 == 15) usleep(1000);
  }
  while (left.load() != 0) usleep(1000);
  EXPECT_TRUE(same_bytes(read_all(file, kMiB, 0), named_bytes(1, 0, kMiB)));
}

TEST_P(Threads, CachesMadeAndDestroyedSideBySide) {
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 8 * kScale; ++i) {
        const quire_options options{sizeof(quire_options), kMiB, 0, GetParam()};
        quire_cache* cache = quire_cache_create(&options);
        quire_file* file = cache == nullptr ? nullptr : quire_open(cache, path(t).c_str(), O_RDWR | O_CREAT, 0644);
        const std::string bytes = named_bytes(t + 1, 0, 100'000);
        std::string back(bytes.size(), '?');
        if (file == nullptr || quire_pwrite(file, bytes.data(), bytes.size(), 0) < 0 ||
            quire_pread(file, back.data(), back.size(), 0) < 0 || back != bytes || quire_close(file) != 0 ||
            quire_cache_destroy(cache, 0) != 0) {
          ++failed;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failed.load(), 0) << quire_error_message();
}

TEST_P(Threads, SizeMovesUpAndDownBesideReaders) {
  const CachePtr cache = make_cache(2 * kMiB, GetParam());
  FilePtr file = open_file(cache, path(0), O_RDWR | O_CREAT);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      std::string bytes(30'000, '?');
      while (!stop.load()) {
        const auto offset = static_cast<off_t>(random() % 120'000);
        const ssize_t n = quire_pread(file.get(), bytes.data(), bytes.size(), offset);
        if (n < 0) {
          ++wrong;
          continue;
        }
        // Every byte is a zero or the 'w' of one writer; a size is a multiple of 1000 at every instant.
        if (n != static_cast<ssize_t>(bytes.size()) && n != 0 && (offset + n) % 1000 != 0) ++wrong;
        for (ssize_t i = 0; i < n; ++i) {
          if (bytes[static_cast<std::size_t>(i)] != 'w' && bytes[static_cast<std::size_t>(i)] != '\0') {
            ++wrong;
            break;
          }
        }
      }
    });
  }
  std::mt19937 random(42);
  const std::string block(1000, 'w');
  for (int i = 0; i < 500 * kScale; ++i) {
    const auto at = static_cast<off_t>(random() % 120 * 1000);
    if (i % 2 == 0) {
      EXPECT_EQ(quire_ftruncate(file.get(), at), 0) << quire_error_message();
    } else {
      write_all(file, block, at);
    }
  }
  stop.store(true);
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace quire::api_testing
