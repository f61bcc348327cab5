// The files a benchmark works on: scratch files that are removed at the end, on SIGINT, SIGTERM and SIGHUP too, and the
// kernel's cache of a file.
#pragma once

#include <cstdint>
#include <string>

namespace quire {

// An owned descriptor.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int get() const { return fd_; }

 private:
  int fd_;
};

struct ScratchEntry;  // what the signal handler must remove

// A file ".quire-bench-PID-N" of pseudo-random words, on disk and out of the kernel's cache; removed by the destructor.
class ScratchFile {
 public:
  // Throws BenchError: no space (checked first), no permission, ...
  ScratchFile(const std::string& directory, std::uint64_t size);
  // One that something else makes, or has made, under this name.
  static ScratchFile named(const std::string& path) { return ScratchFile(path); }
  ScratchFile(ScratchFile&& other) noexcept;
  ScratchFile& operator=(ScratchFile&&) = delete;
  ~ScratchFile();
  const std::string& path() const { return path_; }

 private:
  explicit ScratchFile(const std::string& path);

  std::string path_;
  ScratchEntry* entry_ = nullptr;  // null once moved from
};

// Throws BenchError naming the file.
Descriptor open_or_throw(const std::string& path, int flags);

// Takes the file's clean pages out of the kernel's cache: by posix_fadvise, and where that leaves some (pages in use by
// another process) and we may, by drop_caches. A file that stays is said once, on stderr.
void drop_from_kernel_cache(int fd, const std::string& path);

// How many of size bytes the kernel has cached.
std::uint64_t kernel_cached_bytes(int fd, std::uint64_t size);

}  // namespace quire
