// Error lines and handle owners of the command line; see support.h.
#include "cli/support.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/bytes.h"

namespace quire {

namespace {

// One write for the whole line: lines of several threads do not mix.
void print_line(const char* format, va_list arguments) {
  char line[4096];
  const int prefix = std::snprintf(line, sizeof line, "quire: ");
  const int length =
      std::vsnprintf(line + prefix, sizeof line - static_cast<std::size_t>(prefix) - 1, format, arguments);
  const std::size_t end = std::min(sizeof line - 2, static_cast<std::size_t>(prefix + std::max(length, 0)));
  line[end] = '\n';
  line[end + 1] = '\0';
  std::fputs(line, stderr);
}

}  // namespace

int report_error(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_line(format, arguments);
  va_end(arguments);
  return 1;
}

int report_quire_error() { return report_error("%s", quire_error_message()); }

void print_note(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print_line(format, arguments);
  va_end(arguments);
}

unsigned cache_flags() {
  const char* publish = std::getenv("QUIRE_PUBLISH");
  const bool set = publish != nullptr && *publish != '\0' && std::strcmp(publish, "0") != 0;
  return set ? QUIRE_PUBLISH : 0;
}

CachePtr make_cache(std::uint64_t memory, unsigned flags) {
  quire_options options{};
  options.struct_size = sizeof options;
  options.memory = memory;
  options.flags = cache_flags() | flags;
  return CachePtr(quire_cache_create(&options));
}

FilePtr open_to_read(const CachePtr& cache, const std::string& path, const std::string& digest,
                     const std::string& certificates) {
  if (digest.empty() && certificates.empty()) return FilePtr(quire_open(cache.get(), path.c_str(), O_RDONLY, 0));
  return FilePtr(quire_open_verified(cache.get(), path.c_str(), O_RDONLY, digest.empty() ? nullptr : digest.c_str(),
                                     certificates.empty() ? nullptr : certificates.c_str()));
}

bool close_file(FilePtr& file) {
  if (quire_close(file.get()) != 0) return false;  // still open: the owner keeps it
  (void)file.release();
  return true;
}

bool close_cache(CachePtr& cache) {
  if (quire_cache_destroy(cache.get(), 0) != 0) return false;
  (void)cache.release();
  return true;
}

void FreeDeleter::operator()(void* memory) const { std::free(memory); }

AlignedBuffer make_buffer(std::size_t size) {
  void* memory = std::aligned_alloc(kPageSize, round_up(std::max<std::size_t>(size, 1), kPageSize));
  if (memory == nullptr) throw std::bad_alloc();
  return AlignedBuffer(static_cast<char*>(memory));
}

std::size_t chunk_size(std::uint64_t memory) {
  constexpr std::uint64_t kLargest = std::uint64_t{1} << 20;
  if (memory == 0) return kLargest;
  return std::clamp<std::uint64_t>(round_down(memory / 8, kPageSize), kPageSize, kLargest);
}

std::string errno_text(int errnum) {
  char text[128];
  return strerror_r(errnum, text, sizeof text);
}

}  // namespace quire
