// What the tests of the public API share: a directory of their own, plain access to host files, caches and handles that
// clean up after themselves, and bytes that name who wrote them.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "quire/quire.h"

namespace quire::api_testing {

inline constexpr std::size_t kMiB = std::size_t{1} << 20;
inline constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

inline bool is_failure(const void* result) { return result == nullptr || result == MAP_FAILED; }
inline bool is_failure(long result) { return result == -1; }

// The call fails with this errno, and the message is a sentence.
#define EXPECT_FAILS(errnum, call)                                              \
  do {                                                                          \
    errno = 0;                                                                  \
    const auto failing_result = (call);                                         \
    const int failing_errno = errno;                                            \
    EXPECT_TRUE(::quire::api_testing::is_failure(failing_result)) << #call;     \
    EXPECT_EQ(failing_errno, errnum) << #call << ": " << quire_error_message(); \
    EXPECT_NE(std::string_view(quire_error_message()), "");                     \
  } while (0)

#define EXPECT_MESSAGE_HAS(part) EXPECT_PRED2(::quire::api_testing::contains, quire_error_message(), std::string(part))
inline bool contains(std::string_view text, const std::string& part) {
  return text.find(part) != std::string_view::npos;
}

// Bytes [offset, offset + count) of what `writer` writes: each 8-byte word holds the writer and the word's place.
inline std::string named_bytes(std::uint64_t writer, std::uint64_t offset, std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count;) {
    const std::uint64_t at = offset + i;
    const std::uint64_t word = (writer << 40) | (at / 8 + 1);
    const std::size_t within = at % 8;
    const std::size_t n = std::min(count - i, 8 - within);
    std::memcpy(bytes.data() + i, reinterpret_cast<const char*>(&word) + within, n);
    i += n;
  }
  return bytes;
}

// Equal, or where the first difference is (gtest would print both in full).
inline ::testing::AssertionResult same_bytes(std::string_view got, std::string_view wanted) {
  if (got == wanted) return ::testing::AssertionSuccess();
  if (got.size() != wanted.size()) {
    return ::testing::AssertionFailure() << got.size() << " bytes instead of " << wanted.size();
  }
  const std::size_t at =
      static_cast<std::size_t>(std::mismatch(got.begin(), got.end(), wanted.begin()).first - got.begin());
  std::uint64_t word[2] = {};
  const std::size_t start = at & ~std::size_t{7};
  std::memcpy(&word[0], got.data() + start, std::min<std::size_t>(8, got.size() - start));
  std::memcpy(&word[1], wanted.data() + start, std::min<std::size_t>(8, got.size() - start));
  return ::testing::AssertionFailure() << "byte " << at << ": writer " << (word[0] >> 40) << " word "
                                       << (word[0] & 0xff'ffff'ffff) << " instead of writer " << (word[1] >> 40)
                                       << " word " << (word[1] & 0xff'ffff'ffff);
}

class TempDir {
 public:
  TempDir() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/quire-api.XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << path_ << ": " << std::strerror(errno);
    chmod(path_.c_str(), 0755);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// --- host files by plain system calls ---

class Fd {
 public:
  Fd(const std::string& path, int flags, mode_t mode = 0644) : fd_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Fd() { reset(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  operator int() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

inline void host_pwrite(const std::string& path, std::string_view bytes, off_t offset, int flags = 0) {
  Fd fd(path, O_WRONLY | O_CREAT | flags);
  ASSERT_GE(fd, 0) << path << ": " << std::strerror(errno);
  ASSERT_EQ(::pwrite(fd, bytes.data(), bytes.size(), offset), static_cast<ssize_t>(bytes.size()))
      << std::strerror(errno);
}
inline void host_write(const std::string& path, std::string_view bytes) { host_pwrite(path, bytes, 0, O_TRUNC); }

inline std::string host_pread(const std::string& path, std::size_t count, off_t offset) {
  Fd fd(path, O_RDONLY);
  std::string bytes(count, '?');
  std::size_t done = 0;
  while (done < count) {
    const ssize_t n = ::pread(fd, bytes.data() + done, count - done, offset + static_cast<off_t>(done));
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  bytes.resize(done);
  return bytes;
}
inline struct stat host_stat(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0) << path << ": " << std::strerror(errno);
  return st;
}
inline std::string host_read(const std::string& path) {
  return host_pread(path, static_cast<std::size_t>(host_stat(path).st_size), 0);
}
// The next change of a file that is this old is sure to show in its times.
inline void let_times_settle() { usleep(120'000); }

// --- caches and handles ---

struct DestroyCache {
  void operator()(quire_cache* cache) const {
    EXPECT_EQ(quire_cache_destroy(cache, QUIRE_DISCARD), 0) << quire_error_message();
  }
};
using CachePtr = std::unique_ptr<quire_cache, DestroyCache>;
struct CloseFile {
  void operator()(quire_file* file) const { quire_close(file); }
};
using FilePtr = std::unique_ptr<quire_file, CloseFile>;

inline CachePtr make_cache(std::size_t memory = 16 * kMiB, unsigned flags = 0) {
  const quire_options options{sizeof(quire_options), memory, 0, flags};
  CachePtr cache(quire_cache_create(&options));
  EXPECT_NE(cache, nullptr) << quire_error_message();
  return cache;
}
inline FilePtr open_file(const CachePtr& cache, const std::string& path, int flags, mode_t mode = 0644) {
  FilePtr file(quire_open(cache.get(), path.c_str(), flags, mode));
  EXPECT_NE(file, nullptr) << quire_error_message();
  return file;
}
inline void close_file(FilePtr& file) {
  EXPECT_EQ(quire_close(file.get()), 0) << quire_error_message();
  static_cast<void>(file.release());
}

inline std::string read_all(const FilePtr& file, std::size_t count, off_t offset) {
  std::string bytes(count, '?');
  const ssize_t n = quire_pread(file.get(), bytes.data(), count, offset);
  EXPECT_GE(n, 0) << quire_error_message();
  bytes.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return bytes;
}
inline void write_all(const FilePtr& file, std::string_view bytes, off_t offset) {
  EXPECT_EQ(quire_pwrite(file.get(), bytes.data(), bytes.size(), offset), static_cast<ssize_t>(bytes.size()))
      << quire_error_message();
}
inline off_t file_size(const FilePtr& file) {
  struct stat st = {};
  EXPECT_EQ(quire_fstat(file.get(), &st), 0) << quire_error_message();
  return st.st_size;
}

inline nlohmann::json stats_of(quire_cache* cache) {
  const ssize_t length = quire_stats_json(cache, nullptr, 0);
  EXPECT_GT(length, 0) << quire_error_message();
  std::string text(static_cast<std::size_t>(length) + 256, '\0');  // counters may gain digits
  const ssize_t written = quire_stats_json(cache, text.data(), text.size());
  EXPECT_LT(written, static_cast<ssize_t>(text.size()));
  text.resize(static_cast<std::size_t>(written));
  return nlohmann::json::parse(text);
}
inline std::uint64_t stat_of(const CachePtr& cache, const char* key) {
  return stats_of(cache.get()).at(key).get<std::uint64_t>();
}

}  // namespace quire::api_testing
