// One operation of each system, as the timed loop calls it: true if all bytes moved; error() after a false.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "cli/support.h"
#include "quire/quire.h"

namespace quire {

inline std::string short_count(const char* call, std::uint64_t offset, ssize_t count, std::size_t size) {
  return std::string(call) + " at offset " + std::to_string(offset) + " moved " + std::to_string(count) + " of " +
         std::to_string(size) + " bytes: did the bench file change?";
}

// Calls read(offset, size) over the whole file.
template <typename Read>
void read_whole(std::uint64_t file_size, std::size_t chunk, Read read) {
  for (std::uint64_t offset = 0; offset < file_size; offset += chunk) {
    read(offset, static_cast<std::size_t>(std::min<std::uint64_t>(chunk, file_size - offset)));
  }
}

template <bool kWrite>
struct QuireOp {
  quire_file* file;
  char* buffer;
  std::size_t size;
  ssize_t count = 0;

  bool operator()(std::uint64_t offset) {
    if constexpr (kWrite) {
      count = quire_pwrite(file, buffer, size, static_cast<off_t>(offset));
    } else {
      count = quire_pread(file, buffer, size, static_cast<off_t>(offset));
    }
    return count == static_cast<ssize_t>(size);
  }
  std::string error(std::uint64_t offset) const {
    if (count < 0) return quire_error_message();
    return short_count(kWrite ? "quire_pwrite" : "quire_pread", offset, count, size);
  }
};

template <bool kWrite>
struct KernelOp {
  int fd;
  char* buffer;
  std::size_t size;
  ssize_t count = 0;

  bool operator()(std::uint64_t offset) {
    if constexpr (kWrite) {
      count = pwrite(fd, buffer, size, static_cast<off_t>(offset));
    } else {
      count = pread(fd, buffer, size, static_cast<off_t>(offset));
    }
    return count == static_cast<ssize_t>(size);
  }
  std::string error(std::uint64_t offset) const {
    const char* const call = kWrite ? "pwrite" : "pread";
    if (count >= 0) return short_count(call, offset, count, size);
    return std::string(call) + " at offset " + std::to_string(offset) + " failed: " + errno_text(errno);
  }
};

struct MemcpyOp {
  const char* source;
  char* buffer;
  std::size_t size;

  bool operator()(std::uint64_t offset) const {
    std::memcpy(buffer, source + offset, size);
    asm volatile("" : : "r"(buffer) : "memory");  // the copy is wanted for itself
    return true;
  }
  static std::string error(std::uint64_t) { return {}; }
};

}  // namespace quire
