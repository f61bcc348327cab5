// Files through plain system calls, so that any file system can be judged. See system.h. No locks: descriptors
// are opened before the threads start and closed after they have ended.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "testing/host_files.h"
#include "testing/system.h"
#include "testing/view_word.h"

namespace quire::judge {
namespace {

// XFS_IOC_EXCHANGE_RANGE of Linux 6.10, not in older headers.
struct ExchangeRange {
  int32_t other_fd;
  uint32_t pad;
  uint64_t other_offset;
  uint64_t offset;
  uint64_t length;
  uint64_t flags;
};
constexpr size_t kViewBytes = 64 << 20;  // files are shorter
constexpr unsigned long kExchangeRange = _IOW('X', 129, ExchangeRange);

ssize_t answer(ssize_t result) { return result < 0 ? -errno : result; }

class KernelSystem final : public System {
 public:
  explicit KernelSystem(const std::string& directory) : files_(directory) {}
  ~KernelSystem() override {
    for (char* view : views_) munmap(view, kViewBytes);
    close_all();
  }

  std::string_view name() const override { return "kernel"; }

  int create(int count) override {
    for (int i = 0; i < count; ++i) {
      const int fd = open(files_.path(i).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
      if (fd < 0) return -errno;
      files_.made(i);
      fds_.push_back(fd);
    }
    return 0;
  }

  ssize_t read(int file, void* buffer, size_t count, uint64_t offset) override {
    return answer(pread(fd(file), buffer, count, static_cast<off_t>(offset)));
  }

  ssize_t write(int file, const void* buffer, size_t count, uint64_t offset) override {
    return answer(pwrite(fd(file), buffer, count, static_cast<off_t>(offset)));
  }

  ssize_t append(int file, const void* buffer, size_t count) override {
    const iovec part{const_cast<void*>(buffer), count};
    return answer(pwritev2(fd(file), &part, 1, 0, RWF_APPEND));
  }

  int truncate(int file, uint64_t size) override {
    return static_cast<int>(answer(ftruncate(fd(file), static_cast<off_t>(size))));
  }

  int fallocate(int file, int mode, uint64_t offset, uint64_t length) override {
    return static_cast<int>(
        answer(::fallocate(fd(file), mode, static_cast<off_t>(offset), static_cast<off_t>(length))));
  }

  int clone(int source, uint64_t source_offset, int file, uint64_t offset, uint64_t length) override {
    file_clone_range range{};
    range.src_fd = fd(source);
    range.src_offset = source_offset;
    range.src_length = length;
    range.dest_offset = offset;
    return static_cast<int>(answer(ioctl(fd(file), FICLONERANGE, &range)));
  }

  ssize_t dedupe(int source, uint64_t source_offset, int file, uint64_t offset, uint64_t length) override {
    alignas(file_dedupe_range) unsigned char space[sizeof(file_dedupe_range) + sizeof(file_dedupe_range_info)] = {};
    auto* range = reinterpret_cast<file_dedupe_range*>(space);
    range->src_offset = source_offset;
    range->src_length = length;
    range->dest_count = 1;
    range->info[0].dest_fd = fd(file);
    range->info[0].dest_offset = offset;
    if (ioctl(fd(source), FIDEDUPERANGE, range) != 0) return -errno;
    if (range->info[0].status == FILE_DEDUPE_RANGE_DIFFERS) return -EBADE;
    if (range->info[0].status < 0) return range->info[0].status;
    return static_cast<ssize_t>(range->info[0].bytes_deduped);
  }

  int exchange(int source, uint64_t source_offset, int file, uint64_t offset, uint64_t length) override {
    ExchangeRange range{fd(source), 0, source_offset, offset, length, 0};
    return static_cast<int>(answer(ioctl(fd(file), kExchangeRange, &range)));
  }

  ssize_t copy(int source, uint64_t source_offset, int file, uint64_t offset, uint64_t length) override {
    auto from = static_cast<off_t>(source_offset);
    auto to = static_cast<off_t>(offset);
    return answer(copy_file_range(fd(source), &from, fd(file), &to, length, 0));
  }

  // Not kDirectAsync: the command refuses it.
  int prepare(OpKind kind) override {
    if (kind == OpKind::kViewLoad || kind == OpKind::kViewStore) return map();
    if (kind != OpKind::kDirect) return -ENOSYS;
    for (int i = static_cast<int>(direct_.size()); i < static_cast<int>(fds_.size()); ++i) {
      const int fd = open(files_.path(i).c_str(), O_RDWR | O_CLOEXEC | O_DIRECT);
      if (fd < 0) return errno == EINVAL ? -EOPNOTSUPP : -errno;
      direct_.push_back(fd);
    }
    return 0;
  }

  // What O_DIRECT refuses for its alignment goes the other way.
  ssize_t read_direct(int file, void* buffer, size_t count, uint64_t offset) override {
    const ssize_t result = answer(pread(direct_[static_cast<size_t>(file)], buffer, count, static_cast<off_t>(offset)));
    return result == -EINVAL ? read(file, buffer, count, offset) : result;
  }

  ssize_t write_direct(int file, const void* buffer, size_t count, uint64_t offset) override {
    const ssize_t result =
        answer(pwrite(direct_[static_cast<size_t>(file)], buffer, count, static_cast<off_t>(offset)));
    return result == -EINVAL ? write(file, buffer, count, offset) : result;
  }

  int view_load(int file, uint64_t offset, uint64_t* word) override {
    return load_view_word(views_[static_cast<size_t>(file)] + offset, word);
  }

  int view_store(int file, uint64_t offset, uint64_t word) override {
    return store_view_word(views_[static_cast<size_t>(file)] + offset, word);
  }

  int sync() override {
    int status = 0;
    for (const int fd : fds_) {
      if (fsync(fd) != 0 && status == 0) status = -errno;
    }
    return status;
  }

  int finish() override {
    const int status = sync();
    close_all();
    return status;
  }

  int reread(int file, std::vector<unsigned char>* content) override { return files_.reread(file, content); }

 private:
  int fd(int file) const { return fds_[static_cast<size_t>(file)]; }

  int map() {
    catch_sigbus();
    for (size_t i = views_.size(); i < fds_.size(); ++i) {
      void* const view = mmap(nullptr, kViewBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds_[i], 0);
      if (view == MAP_FAILED) return -errno;
      views_.push_back(static_cast<char*>(view));
    }
    return 0;
  }

  void close_all() {
    for (std::vector<int>* fds : {&fds_, &direct_}) {
      for (const int fd : *fds) close(fd);
      fds->clear();
    }
  }

  HostFiles files_;
  std::vector<int> fds_;
  std::vector<int> direct_;   // opened with O_DIRECT, if wanted
  std::vector<char*> views_;  // if wanted
};

}  // namespace

std::unique_ptr<System> make_kernel_system(const std::string& directory) {
  return std::make_unique<KernelSystem>(directory);
}

}  // namespace quire::judge
