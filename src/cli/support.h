// What every command needs: errors on stderr, and owners for the C API's handles.
// An owner's destructor is for failed commands: it drops what was not written. Commands that succeed call close_file
// and close_cache, which report what could not be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "quire/quire.h"

namespace quire {

// Prints "quire: ..." on stderr; returns 1, the exit code of a failure.
[[gnu::format(printf, 1, 2)]] int report_error(const char* format, ...);
// The same with the calling thread's quire_error_message().
int report_quire_error();
// A line on stderr that is no error.
[[gnu::format(printf, 1, 2)]] void print_note(const char* format, ...);

struct CacheDeleter {
  void operator()(quire_cache* cache) const { (void)quire_cache_destroy(cache, QUIRE_DISCARD); }
};
struct FileDeleter {
  void operator()(quire_file* file) const { (void)quire_close(file); }
};
// Declare the cache before its files: files close first.
using CachePtr = std::unique_ptr<quire_cache, CacheDeleter>;
using FilePtr = std::unique_ptr<quire_file, FileDeleter>;

// QUIRE_PUBLISH if the environment variable of that name is set to anything but 0, so that a cache of this command can
// be watched by `quire top` and `quire residency`; else 0.
unsigned cache_flags();

// memory 0 is the library's default. flags: besides cache_flags(). Null: quire_error_message() says why.
CachePtr make_cache(std::uint64_t memory, unsigned flags = 0);

// To read; digest, certificates: quire_open_verified's, empty for none. Null: quire_error_message() says why.
FilePtr open_to_read(const CachePtr& cache, const std::string& path, const std::string& digest,
                     const std::string& certificates);

// False: quire_error_message() says what could not be written back.
bool close_file(FilePtr& file);
bool close_cache(CachePtr& cache);

// Memory aligned for any device.
struct FreeDeleter {
  void operator()(void* memory) const;
};
using AlignedBuffer = std::unique_ptr<char[], FreeDeleter>;
AlignedBuffer make_buffer(std::size_t size);

// How much to move at a time through a cache of `memory` bytes (0: default): 1 MiB, less in a small cache.
std::size_t chunk_size(std::uint64_t memory);

// strerror for errnum, thread-safe.
std::string errno_text(int errnum);

}  // namespace quire
