// Verified files through the API: what an opener may name, what is refused, and that no call of any kind gives a byte
// that was not verified.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <filesystem>

#include "api/peer_test_util.h"
#include "api/view_test_util.h"
#include "quire/quire.hpp"
#include "verity/sidecar.h"
#include "verity/verity_test_util.h"

namespace quire::api_testing {
namespace {

constexpr int kDontCache = 0x80;  // RWF_DONTCACHE
constexpr std::size_t kSize = 3 * kMiB + 777;

class VerityOpen : public verity_testing::VerityTest {
 protected:
  // The file of that name, verified; its digest.
  std::string make(const std::string& name, std::uint64_t seed = 1) {
    const auto bytes = verity_testing::random_bytes(kSize, seed);
    host_write(path(name), {bytes.data(), bytes.size()});
    const CachePtr cache = make_cache(8 * kMiB);
    EXPECT_EQ(quire_verity_enable(cache.get(), path(name).c_str(), nullptr), 0) << quire_error_message();
    char digest[QUIRE_DIGEST_MAX];
    EXPECT_EQ(quire_verity_measure(path(name).c_str(), digest, sizeof digest), 0);
    return digest;
  }
  FilePtr open_named(const std::string& name, const char* digest, const char* certificates = nullptr,
                     int flags = O_RDONLY) {
    return FilePtr(quire_open_verified(cache_.get(), path(name).c_str(), flags, digest, certificates));
  }
  void flip(const std::string& name, off_t at) {
    std::string byte = host_pread(path(name), 1, at);
    ASSERT_EQ(byte.size(), 1U);
    byte[0] = static_cast<char>(byte[0] ^ 0x10);
    host_pwrite(path(name), byte, at);
  }

  CachePtr cache_ = make_cache(16 * kMiB);
};

TEST_F(VerityOpen, V1_OnlyWhatIsNamed) {
  const std::string digest = make("file"), other = make("other", 2);
  {
    const FilePtr file = open_named("file", digest.c_str());
    ASSERT_NE(file, nullptr) << quire_error_message();
    EXPECT_EQ(read_all(file, kSize, 0), host_read(path("file")));
    // Beside an open handle the same is asked.
    EXPECT_NE(open_named("file", digest.substr(7).c_str()), nullptr) << "bare HEX";
    EXPECT_EQ(open_named("file", other.c_str()), nullptr);
    EXPECT_EQ(errno, EKEYREJECTED);
  }
  EXPECT_EQ(open_named("file", other.c_str()), nullptr);
  EXPECT_EQ(errno, EKEYREJECTED);
  EXPECT_NE(std::string(quire_error_message()).find(digest), std::string::npos) << quire_error_message();
  EXPECT_EQ(open_named("file", nullptr), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(open_named("file", "sha256:12"), nullptr);
  EXPECT_EQ(errno, EINVAL);
  host_write(path("plain"), "bytes");
  EXPECT_EQ(open_named("file", nullptr, path("plain").c_str()), nullptr) << "no certificates are in there";
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(open_named("plain", digest.c_str()), nullptr);
  EXPECT_EQ(errno, ENODATA);
  EXPECT_EQ(open_named("missing", digest.c_str()), nullptr);
  EXPECT_EQ(errno, ENOENT);
}

// Sidecars exchanged, cut off, taken away, or of a file that was written anew together with its own.
TEST_F(VerityOpen, V1_SidecarsThatAreNotTheFiles) {
  const std::string digest = make("file");
  static_cast<void>(make("other", 2));
  const std::string side = path("file.verity"), content = host_read(side);
  host_write(side, host_read(path("other.verity")));
  EXPECT_EQ(open_named("file", digest.c_str()), nullptr);
  EXPECT_EQ(errno, EKEYREJECTED);
  {
    const FilePtr file = open_file(cache_, path("file"), O_RDONLY);  // it says nothing false of itself
    char byte;
    EXPECT_EQ(quire_pread(file.get(), &byte, 1, 0), -1) << "but the bytes are not its";
    EXPECT_EQ(errno, EIO);
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{1000}, content.size() - 1, content.size() / 2}) {
    host_write(side, content.substr(0, size));
    EXPECT_EQ(quire_open(cache_.get(), path("file").c_str(), O_RDONLY, 0), nullptr) << size;
    EXPECT_EQ(errno, EBADMSG) << quire_error_message();
  }
  ASSERT_EQ(unlink(side.c_str()), 0);
  EXPECT_EQ(open_named("file", digest.c_str()), nullptr);
  EXPECT_EQ(errno, ENODATA);
  // Both rewritten, and consistent: only who names a digest sees it.
  std::filesystem::copy_file(path("other"), path("file"), std::filesystem::copy_options::overwrite_existing);
  std::filesystem::copy_file(path("other.verity"), side);
  EXPECT_EQ(open_named("file", digest.c_str()), nullptr);
  EXPECT_EQ(errno, EKEYREJECTED);
  EXPECT_NE(open_file(cache_, path("file"), O_RDONLY), nullptr);
}

TEST_F(VerityOpen, V1_WritersAreRefused) {
  const std::string digest = make("file"), before = host_read(path("file"));
  for (const int flags : {O_RDWR, O_WRONLY, O_RDWR | O_TRUNC, O_RDWR | O_CREAT, O_WRONLY | O_APPEND | O_DIRECT}) {
    EXPECT_EQ(quire_open(cache_.get(), path("file").c_str(), flags, 0644), nullptr);
    EXPECT_EQ(errno, EPERM) << quire_error_message();
    const FilePtr reader = open_file(cache_, path("file"), O_RDONLY);
    EXPECT_EQ(quire_open(cache_.get(), path("file").c_str(), flags, 0644), nullptr) << "beside a reader";
    EXPECT_EQ(errno, EPERM) << quire_error_message();
  }
  EXPECT_EQ(open_named("file", digest.c_str(), nullptr, O_RDWR), nullptr);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(host_read(path("file")), before);
  // Nothing of the refused writers is left: another cache may read it.
  const CachePtr second = make_cache(8 * kMiB);
  EXPECT_NE(open_file(second, path("file"), O_RDONLY), nullptr);
}

// What was cached before is not believed, and a handle from before goes on alone.
TEST_F(VerityOpen, V1_EnabledBesideTheCache) {
  const auto bytes = verity_testing::random_bytes(kSize, 1);
  host_write(path("file"), {bytes.data(), bytes.size()});
  FilePtr early = open_file(cache_, path("file"), O_RDONLY);
  EXPECT_EQ(read_all(early, kSize, 0).size(), kSize);
  const CachePtr second = make_cache(8 * kMiB);
  ASSERT_EQ(quire_verity_enable(second.get(), path("file").c_str(), nullptr), 0) << quire_error_message();
  EXPECT_EQ(quire_open(cache_.get(), path("file").c_str(), O_RDONLY, 0), nullptr);
  EXPECT_EQ(errno, EBUSY) << quire_error_message();
  early.reset();
  flip("file", 100'000);
  const FilePtr file = open_file(cache_, path("file"), O_RDONLY);
  char byte;
  EXPECT_EQ(quire_pread(file.get(), &byte, 1, 100'000), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_NE(std::string(quire_error_message()).find("98304"), std::string::npos) << quire_error_message();
}

// One flipped bit, met by every call that gives bytes: none gives the block, all give its neighbours.
TEST_F(VerityOpen, V1_EveryPath) {
  const std::string digest = make("file");
  const std::string content = host_read(path("file"));
  constexpr off_t kBad = 1'000'000, kPageOfBad = kBad / 4096 * 4096;
  flip("file", kBad);
  const CatchFaults faults;
  for (const int direct : {0, O_DIRECT}) {
    const CachePtr cache = make_cache(16 * kMiB);
    const FilePtr file(
        quire_open_verified(cache.get(), path("file").c_str(), O_RDONLY | direct, digest.c_str(), nullptr));
    ASSERT_NE(file, nullptr) << quire_error_message();
    std::string got(8192, '?');
    // Before it, as far as it is good; on it, nothing.
    EXPECT_EQ(quire_pread(file.get(), got.data(), got.size(), kPageOfBad - 4096), 4096);
    EXPECT_EQ(got.substr(0, 4096), content.substr(kPageOfBad - 4096, 4096));
    for (int turn = 0; turn < 2; ++turn) {
      EXPECT_EQ(quire_pread(file.get(), got.data(), 10, kPageOfBad), -1);
      EXPECT_EQ(errno, EIO);
    }
    const iovec v{got.data(), 10};
    EXPECT_EQ(quire_preadv2(file.get(), &v, 1, kBad, kDontCache), -1);
    EXPECT_EQ(errno, EIO);
    ssize_t told = 1;
    ASSERT_EQ(quire_submit_pread(
                  file.get(), got.data(), 4096, kPageOfBad,
                  [](void* to, ssize_t result) { *static_cast<ssize_t*>(to) = result; }, &told),
              0);
    EXPECT_EQ(quire_reap(cache.get(), 1, 1), 1);
    EXPECT_EQ(told, -EIO);
    ASSERT_EQ(quire_submit_pread(
                  file.get(), got.data(), 4096, kPageOfBad + 4096,
                  [](void* to, ssize_t result) { *static_cast<ssize_t*>(to) = result; }, &told),
              0);
    EXPECT_EQ(quire_reap(cache.get(), 1, 1), 1);
    EXPECT_EQ(told, 4096);
    EXPECT_EQ(got.substr(0, 4096), content.substr(kPageOfBad + 4096, 4096));
    const FilePtr copy = open_file(cache, path("copy"), O_RDWR | O_CREAT);
    EXPECT_EQ(quire_copy_range(file.get(), kPageOfBad, copy.get(), 0, 4096), -1);
    EXPECT_EQ(errno, EIO);
    EXPECT_EQ(quire_copy_range(file.get(), kPageOfBad + 4096, copy.get(), 0, 4096), 4096);
    void* const view = quire_mmap2(file.get(), 0, kSize, PROT_READ, QUIRE_MAP_PREFAULT);
    EXPECT_EQ(view, MAP_FAILED) << "mapped with its bad block";
    char* const lazy = static_cast<char*>(quire_mmap(file.get(), 0, kSize, PROT_READ));
    ASSERT_NE(lazy, MAP_FAILED) << quire_error_message();
    EXPECT_EQ(std::memcmp(lazy, content.data(), kPageOfBad), 0);
    EXPECT_EQ(std::memcmp(lazy + kPageOfBad + 4096, content.data() + kPageOfBad + 4096, kSize - kPageOfBad - 4096), 0);
    // Once: ThreadSanitizer's handlers are not left a second time (view_test_util.h).
    if (direct == 0) {
      EXPECT_EQ(load_or_signal(lazy + kBad), -SIGBUS);
    }
    EXPECT_EQ(quire_munmap(cache.get(), lazy, kSize), 0);
    EXPECT_EQ(quire_mmap(file.get(), 0, kSize, PROT_READ | PROT_WRITE), MAP_FAILED);
  }
}

// Sequential reads send each window's hashes with it: none is read once the data has come.
TEST_F(VerityOpen, V1_NoHashIsReadLate) {
  static_cast<void>(make("file"));
  const FilePtr file = open_file(cache_, path("file"), O_RDONLY);
  for (std::size_t at = 0; at < kSize; at += 65536) {
    ASSERT_EQ(read_all(file, 65536, static_cast<off_t>(at)).size(), std::min<std::size_t>(65536, kSize - at));
  }
  EXPECT_GT(stat_of(cache_, "verity_hash_reads"), 0U);
  EXPECT_EQ(stat_of(cache_, "verity_late_hash_reads"), 0U);
  EXPECT_EQ(stat_of(cache_, "verity_blocks"), (kSize + 4095) / 4096);
}

// A sidecar that changes between two reads, after what was read of it has left the cache.
TEST_F(VerityOpen, V1_SidecarChangedWhileItIsOpen) {
  const std::string digest = make("file");
  const CachePtr small = make_cache(1 * kMiB);
  const FilePtr file(quire_open_verified(small.get(), path("file").c_str(), O_RDONLY, digest.c_str(), nullptr));
  ASSERT_NE(file, nullptr) << quire_error_message();
  const std::string content = host_read(path("file"));
  EXPECT_EQ(read_all(file, 4096, 0), content.substr(0, 4096));
  for (off_t at = verity::kSidecarHeaderSize; at < static_cast<off_t>(host_read(path("file.verity")).size());
       at += 512) {
    flip("file.verity", at);
  }
  std::size_t good = 0;
  std::string got(4096, '?');
  for (std::size_t round = 0; round < 3; ++round) {
    for (std::size_t at = 0; at + 4096 <= kSize; at += 4096) {
      if (quire_pread(file.get(), got.data(), got.size(), static_cast<off_t>(at)) < 0) {
        ASSERT_EQ(errno, EIO);
      } else {
        ASSERT_EQ(got, content.substr(at, 4096));
        ++good;
      }
    }
  }
  EXPECT_LT(good, kSize / 4096 * 3) << "what is read anew does not verify";
}

// Many threads, a cache that holds a fraction, sequential and random, direct and not: all verified, all right.
TEST_F(VerityOpen, V1_ManyReadersLittleMemory) {
  const std::string digest = make("file");
  const std::string content = host_read(path("file"));
  const CachePtr small = make_cache(1 * kMiB);
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      const FilePtr file(quire_open_verified(small.get(), path("file").c_str(), O_RDONLY | (thread == 3 ? O_DIRECT : 0),
                                             digest.c_str(), nullptr));
      ASSERT_NE(file, nullptr) << quire_error_message();
      std::string got(65536, '?');
      std::uint64_t state = thread + 1;
      for (int i = 0; i < 300; ++i) {
        state = state * 6364136223846793005U + 1442695040888963407U;
        const std::size_t count = 1 + (state >> 40) % got.size();
        const std::size_t at = thread == 0 ? static_cast<std::size_t>(i) * 65536 % kSize : (state >> 20) % kSize;
        const ssize_t n = quire_pread(file.get(), got.data(), count, static_cast<off_t>(at));
        ASSERT_EQ(n, static_cast<ssize_t>(std::min(count, kSize - at))) << quire_error_message();
        ASSERT_EQ(std::string_view(got).substr(0, static_cast<std::size_t>(n)),
                  std::string_view(content).substr(at, static_cast<std::size_t>(n)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(stat_of(small, "verity_failures"), 0U);
}

}  // namespace
}  // namespace quire::api_testing
