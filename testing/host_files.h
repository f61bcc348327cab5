// The files in a directory that a judged system works on: their names, their removal, and how another program
// sees them. No locks.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

namespace quire::judge {

class HostFiles {
 public:
  explicit HostFiles(std::string directory) : directory_(std::move(directory)) {}
  ~HostFiles() {
    for (int i = 0; i < count_; ++i) unlink(path(i).c_str());
  }
  HostFiles(const HostFiles&) = delete;
  HostFiles& operator=(const HostFiles&) = delete;

  std::string path(int file) const {
    return directory_ + "/.quire-torture-" + std::to_string(getpid()) + "-" + std::to_string(file);
  }

  // To be called for each file that is about to be made.
  void made(int file) {
    if (file >= count_) count_ = file + 1;
  }

  int reread(int file, std::vector<unsigned char>* content) const {
    const int fd = open(path(file).c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    struct stat st;
    int status = fstat(fd, &st) == 0 ? 0 : -errno;
    if (status == 0) content->resize(static_cast<size_t>(st.st_size));
    for (size_t done = 0; status == 0 && done < content->size();) {
      const ssize_t n = pread(fd, content->data() + done, content->size() - done, static_cast<off_t>(done));
      if (n <= 0) status = n < 0 ? -errno : -EIO;
      if (n > 0) done += static_cast<size_t>(n);
    }
    close(fd);
    return status;
  }

 private:
  const std::string directory_;
  int count_ = 0;
};

}  // namespace quire::judge
