// `quire fallocate`, `quire clone`, `quire dedupe`, `quire exchange`: one range operation each, durable before it is
// called done (the last writer's close writes back and flushes).
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>

#include "cli/progress.h"
#include "cli/range_operations.h"
#include "cli/support.h"

namespace quire {

namespace {

// The two files of a command in one cache. Either may be the other.
struct OpenPair {
  CachePtr cache;  // before its files, which close first
  FilePtr source;
  FilePtr destination;
  std::uint64_t source_size = 0;

  // False once the cause is reported.
  bool open(const RangePair& ranges, int source_flags, int destination_flags) {
    struct stat attributes {};
    cache = make_cache(ranges.memory);
    if (cache) source.reset(quire_open(cache.get(), ranges.source.c_str(), source_flags, 0));
    if (source && quire_fstat(source.get(), &attributes) == 0) {
      source_size = static_cast<std::uint64_t>(attributes.st_size);
      destination.reset(
          quire_open(cache.get(), ranges.destination.c_str(), destination_flags, attributes.st_mode & 0777));
    }
    if (!destination) report_quire_error();
    return destination != nullptr;
  }
  int close() {
    if (!close_file(destination) || !close_file(source) || !close_cache(cache)) return report_quire_error();
    return 0;
  }
};

off_t signed_of(std::uint64_t offset) { return static_cast<off_t>(offset); }

// How many bytes the ranges have where the command line does not say; 0 (reported) if the source ends before.
std::uint64_t length_of(const RangePair& ranges, std::uint64_t source_size) {
  if (ranges.length != 0) return ranges.length;
  if (ranges.from < source_size) return source_size - ranges.from;
  report_error("%s has %" PRIu64 " bytes: none at offset %" PRIu64 " or after it", ranges.source.c_str(), source_size,
               ranges.from);
  return 0;
}

}  // namespace

int allocate_in_file(const std::string& path, int mode, std::uint64_t offset, std::uint64_t length,
                     std::uint64_t memory) {
  CachePtr cache = make_cache(memory);
  if (!cache) return report_quire_error();
  FilePtr file(quire_open(cache.get(), path.c_str(), mode == 0 ? O_RDWR | O_CREAT : O_RDWR, 0666));
  if (!file || quire_fallocate(file.get(), mode, signed_of(offset), signed_of(length)) != 0 || !close_file(file) ||
      !close_cache(cache)) {
    return report_quire_error();
  }
  return 0;
}

int clone_files(const RangePair& ranges) {
  const bool made = access(ranges.destination.c_str(), F_OK) != 0 && errno == ENOENT;
  OpenPair files;
  if (!files.open(ranges, O_RDONLY, O_WRONLY | O_CREAT)) return 1;
  if (quire_clone_range(files.source.get(), signed_of(ranges.from), files.destination.get(), signed_of(ranges.offset),
                        ranges.length) != 0) {
    report_quire_error();
    // It was not there before: what there is of it goes.
    if (made && files.close() == 0) (void)unlink(ranges.destination.c_str());
    return 1;
  }
  return files.close();
}

int dedupe_files(const RangePair& ranges) {
  OpenPair files;
  if (!files.open(ranges, O_RDONLY, O_RDWR)) return 1;
  const std::uint64_t length = length_of(ranges, files.source_size);
  if (length == 0) return 1;
  Progress progress("dedupe", length);
  std::uint64_t shared = 0;
  while (shared < length) {
    const ssize_t count =
        quire_dedupe_range(files.source.get(), signed_of(ranges.from + shared), files.destination.get(),
                           signed_of(ranges.offset + shared), length - shared);
    if (count < 0 && errno == EBADE) {
      return report_error("%s and %s differ at or after byte %" PRIu64 " of the range; %" PRIu64
                          " bytes before it are shared",
                          ranges.source.c_str(), ranges.destination.c_str(), shared, shared);
    }
    if (count < 0) return report_quire_error();
    if (count == 0) break;  // a last part that the file system does not share
    shared += static_cast<std::uint64_t>(count);
    progress.update(shared);
  }
  if (const int code = files.close(); code != 0) return code;
  std::printf("%" PRIu64 " bytes shared\n", shared);
  return 0;
}

int exchange_files(const RangePair& ranges) {
  OpenPair files;
  if (!files.open(ranges, O_RDWR, O_RDWR)) return 1;
  const std::uint64_t length = length_of(ranges, files.source_size);
  if (length == 0) return 1;
  if (quire_exchange_range(files.source.get(), signed_of(ranges.from), files.destination.get(),
                           signed_of(ranges.offset), length) != 0) {
    return report_quire_error();
  }
  return files.close();
}

}  // namespace quire
