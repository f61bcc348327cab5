// `quire cp`: a copy through the cache, synced before it is called done.
#include <fcntl.h>
#include <sys/stat.h>

#include "cli/file_operations.h"
#include "cli/progress.h"
#include "cli/support.h"

namespace quire {

namespace {

bool same_file(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

int report_same_file(const std::string& source, const std::string& destination) {
  return report_error("%s and %s are the same file; nothing was copied", source.c_str(), destination.c_str());
}

bool write_all(quire_file* file, const char* data, std::size_t size, off_t offset) {
  while (size > 0) {
    const ssize_t written = quire_pwrite(file, data, size, offset);
    if (written <= 0) return false;
    data += written;
    size -= static_cast<std::size_t>(written);
    offset += written;
  }
  return true;
}

bool copy_bytes(quire_file* source, quire_file* destination, std::uint64_t size, std::size_t chunk) {
  const AlignedBuffer buffer = make_buffer(chunk);
  Progress progress("cp", size);
  off_t offset = 0;
  for (;;) {
    const ssize_t count = quire_pread(source, buffer.get(), chunk, offset);
    if (count < 0) return false;
    if (count == 0) break;
    if (!write_all(destination, buffer.get(), static_cast<std::size_t>(count), offset)) return false;
    offset += count;
    progress.update(static_cast<std::uint64_t>(offset));
  }
  return quire_fsync(destination) == 0;
}

}  // namespace

int copy_file(const ReadFile& wanted, const std::string& destination, std::uint64_t memory) {
  const std::string& source = wanted.path;
  CachePtr cache = make_cache(memory);
  if (!cache) return report_quire_error();
  FilePtr from = open_to_read(cache, source, wanted.digest, wanted.certificates);
  if (!from) return report_quire_error();
  struct stat from_stat {};
  if (quire_fstat(from.get(), &from_stat) != 0) return report_quire_error();

  struct stat to_stat {};
  if (stat(destination.c_str(), &to_stat) == 0 && same_file(from_stat, to_stat)) {
    return report_same_file(source, destination);
  }
  // Truncated only once it is open and known to be another file: the name may have changed hands since the look above.
  FilePtr to(quire_open(cache.get(), destination.c_str(), O_WRONLY | O_CREAT, from_stat.st_mode & 0777));
  if (!to || quire_fstat(to.get(), &to_stat) != 0) return report_quire_error();
  if (same_file(from_stat, to_stat)) return report_same_file(source, destination);
  if (S_ISREG(to_stat.st_mode) && to_stat.st_size > 0 && quire_ftruncate(to.get(), 0) != 0) return report_quire_error();

  if (!copy_bytes(from.get(), to.get(), static_cast<std::uint64_t>(from_stat.st_size), chunk_size(memory))) {
    report_quire_error();
    return report_error("%s is not complete: copy again once the cause is mended", destination.c_str());
  }
  if (!close_file(to) || !close_file(from) || !close_cache(cache)) return report_quire_error();
  return 0;
}

}  // namespace quire
