// `quire cat`: a file to standard output through the cache, one buffer at a time.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "cli/file_operations.h"
#include "cli/progress.h"
#include "cli/support.h"

namespace quire {

namespace {

// Writes all of it, whatever standard output is; returns an exit code. A reader that went away is not worth a message.
int write_out(const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = write(STDOUT_FILENO, data, size);
    if (written >= 0) {
      data += written;
      size -= static_cast<std::size_t>(written);
    } else if (errno == EAGAIN) {  // somebody's non-blocking pipe
      pollfd wait{STDOUT_FILENO, POLLOUT, 0};
      (void)poll(&wait, 1, -1);
    } else if (errno == EPIPE) {
      return 1;
    } else if (errno != EINTR) {
      return report_error("cannot write to standard output: %s", errno_text(errno).c_str());
    }
  }
  return 0;
}

// Appending a file to itself would never end.
bool is_standard_output(const struct stat& file) {
  struct stat out {};
  return S_ISREG(file.st_mode) && fstat(STDOUT_FILENO, &out) == 0 && out.st_dev == file.st_dev &&
         out.st_ino == file.st_ino;
}

}  // namespace

int cat_file(const ReadFile& wanted, std::uint64_t memory) {
  const std::string& path = wanted.path;
  CachePtr cache = make_cache(memory);
  if (!cache) return report_quire_error();
  FilePtr file = open_to_read(cache, path, wanted.digest, wanted.certificates);
  if (!file) return report_quire_error();
  struct stat attributes {};
  if (quire_fstat(file.get(), &attributes) != 0) return report_quire_error();
  if (is_standard_output(attributes)) {
    return report_error("%s: is standard output as well; send the output to another file", path.c_str());
  }

  const std::size_t chunk = chunk_size(memory);
  const AlignedBuffer buffer = make_buffer(chunk);
  Progress progress("cat", static_cast<std::uint64_t>(attributes.st_size), isatty(STDOUT_FILENO) == 1);
  off_t offset = 0;
  for (;;) {
    const ssize_t count = quire_pread(file.get(), buffer.get(), chunk, offset);
    if (count < 0) return report_quire_error();
    if (count == 0) break;
    if (const int code = write_out(buffer.get(), static_cast<std::size_t>(count)); code != 0) return code;
    offset += count;
    progress.update(static_cast<std::uint64_t>(offset));
  }
  if (!close_file(file) || !close_cache(cache)) return report_quire_error();
  return 0;
}

}  // namespace quire
