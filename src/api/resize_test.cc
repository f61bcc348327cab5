// quire_cache_resize: bad input, what is given back to the host and when, and that nobody's bytes suffer.
#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "api/api_test_util.h"
#include "quire/quire.hpp"

namespace quire::api_testing {
namespace {

// The process's own memory, bytes: proportional set size.
std::uint64_t own_pss() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string word; rollup >> word;) {
    if (word != "Pss:") continue;
    std::uint64_t kib = 0;
    rollup >> kib;
    return kib * 1024;
  }
  ADD_FAILURE() << "no Pss in smaps_rollup";
  return 0;
}

class Resize : public ::testing::Test {
 protected:
  static constexpr std::size_t kSize = 40 * kMiB;

  void SetUp() override {
    host_write(path_, named_bytes(1, 0, kSize));
    cache_ = make_cache(64 * kMiB);
    file_ = open_file(cache_, path_, O_RDWR);
  }
  std::uint64_t stat(const char* key) const { return stat_of(cache_, key); }
  void read_whole() const {
    for (std::size_t at = 0; at < kSize; at += kMiB) {
      ASSERT_TRUE(same_bytes(read_all(file_, kMiB, static_cast<off_t>(at)), named_bytes(1, at, kMiB))) << at;
    }
  }

  const TempDir dir_;
  const std::string path_ = dir_ / "file";
  CachePtr cache_;
  FilePtr file_;
};

TEST_F(Resize, RefusesWhatCannotWork) {
  EXPECT_FAILS(EINVAL, quire_cache_resize(cache_.get(), 0));
  EXPECT_FAILS(EINVAL, quire_cache_resize(cache_.get(), 1000));
  EXPECT_MESSAGE_HAS("too small");
  EXPECT_FAILS(EINVAL, quire_cache_resize(cache_.get(), std::size_t{1} << 50));
  EXPECT_MESSAGE_HAS("bytes");
  EXPECT_EQ(stat("memory"), 64 * kMiB) << "nothing has changed";
}

TEST_F(Resize, M1_ShrinkingGivesMemoryBack) {
  read_whole();
  const std::uint64_t before = own_pss();
  ASSERT_EQ(quire_cache_resize(cache_.get(), 8 * kMiB), 0) << quire_error_message();
  EXPECT_EQ(stat("memory"), 8 * kMiB);
  EXPECT_LE(stat("memory_used"), 8 * kMiB);
  EXPECT_LE(stat("folio_bytes"), 8 * kMiB);
  EXPECT_LT(own_pss() + 24 * kMiB, before);
  read_whole();
  for (int i = 0; i < 100 && stat("memory_used") > 8 * kMiB; ++i) usleep(1000);  // the flusher's thread trims
  EXPECT_LE(stat("memory_used"), 8 * kMiB) << stats_of(cache_.get()).dump();
  ASSERT_EQ(quire_cache_resize(cache_.get(), 96 * kMiB), 0) << quire_error_message();
  read_whole();
  EXPECT_GE(stat("folio_bytes"), kSize) << "all of it fits again";
}

TEST_F(Resize, D1_ShrinkingLosesNoDirtyByte) {
  const std::string bytes = named_bytes(2, 0, 24 * kMiB);
  write_all(file_, bytes, 0);
  ASSERT_EQ(quire_cache_resize(cache_.get(), 4 * kMiB), 0) << quire_error_message();
  EXPECT_LE(stat("memory_used"), 4 * kMiB);
  EXPECT_LE(stat("unstable_folios"), stat("dirty_limit_folios"));
  for (std::size_t at = 0; at < bytes.size(); at += kMiB) {
    ASSERT_TRUE(same_bytes(read_all(file_, kMiB, static_cast<off_t>(at)), bytes.substr(at, kMiB))) << at;
  }
}

TEST_F(Resize, GrowsPastWhatItWasMadeWith) {
  ASSERT_EQ(quire_cache_resize(cache_.get(), 4 * kMiB), 0);
  ASSERT_EQ(quire_cache_resize(cache_.get(), 256 * kMiB), 0) << quire_error_message();
  EXPECT_EQ(stat("memory"), 256 * kMiB);
  read_whole();
  EXPECT_GE(stat("folio_bytes"), kSize);
}

// Large writes and reads go on while the cache becomes too small for two of them at once, and large again.
TEST_F(Resize, BesideReadersAndWriters) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&, thread] {
      const std::size_t at = thread * 12 * kMiB;
      for (unsigned round = 0; !stop && !HasFailure(); ++round) {
        const std::size_t count = (1 + round % 8) * kMiB / 2;
        const std::string bytes = named_bytes(10 + thread, at, count);
        write_all(file_, bytes, static_cast<off_t>(at));
        ASSERT_TRUE(same_bytes(read_all(file_, count, static_cast<off_t>(at)), bytes));
      }
    });
  }
  for (const std::size_t memory : {4, 64, 2, 16, 128, 1, 8}) {
    ASSERT_EQ(quire_cache_resize(cache_.get(), memory * kMiB), 0) << quire_error_message();
    usleep(50'000);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(quire_fsync(file_.get()), 0);
}

// One call writes in pieces as large as the memory allows: as it is then, and not as it was when the call began.
TEST_F(Resize, BeneathOneLongWrite) {
  const FilePtr other = open_file(cache_, dir_ / "other", O_RDWR | O_CREAT);
  const std::string bytes = named_bytes(2, 0, 256 * kMiB);
  std::atomic<bool> begun{false}, stop{false};
  std::thread writer([&] {
    begun = true;
    write_all(other, bytes, 0);
  });
  std::vector<std::thread> readers;
  for (unsigned i = 0; i < 8; ++i) {
    readers.emplace_back([&, i] {
      for (unsigned round = i; !stop; ++round) {
        const std::size_t at = round % 300 * 128 * 1024;
        ASSERT_TRUE(same_bytes(read_all(file_, 128 * 1024, static_cast<off_t>(at)), named_bytes(1, at, 128 * 1024)));
      }
    });
  }
  while (!begun) usleep(100);
  usleep(20'000);
  EXPECT_EQ(quire_cache_resize(cache_.get(), 4 * kMiB), 0) << quire_error_message();
  writer.join();
  stop = true;
  for (std::thread& reader : readers) reader.join();
  ASSERT_EQ(quire_fsync(other.get()), 0);
  EXPECT_EQ(host_read(dir_ / "other"), bytes);
}

}  // namespace
}  // namespace quire::api_testing
