// Files through quire's C API, with a cache small enough to evict all the time. See system.h. No locks of its
// own: handles are opened before the threads start and closed after they have ended.
#include <fcntl.h>
#include <quire/quire.h>
#include <sys/uio.h>

#include <cerrno>
#include <vector>

#include "testing/host_files.h"
#include "testing/system.h"

namespace quire::judge {
namespace {

ssize_t answer(ssize_t result) { return result < 0 ? -errno : result; }

class QuireSystem final : public System {
 public:
  QuireSystem(const std::string& directory, size_t memory, unsigned flags)
      : files_(directory), memory_(memory), flags_(flags) {}

  ~QuireSystem() override {
    for (quire_file* file : handles_) quire_close(file);
    if (cache_ != nullptr) quire_cache_destroy(cache_, QUIRE_DISCARD);
  }

  std::string_view name() const override { return "quire"; }

  int create(int count) override {
    quire_options options{};
    options.struct_size = sizeof options;
    options.memory = memory_;
    options.flags = flags_;
    cache_ = quire_cache_create(&options);
    if (cache_ == nullptr) return -errno;
    for (int i = 0; i < count; ++i) {
      quire_file* file = quire_open(cache_, files_.path(i).c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
      if (file == nullptr) return -errno;
      files_.made(i);
      handles_.push_back(file);
    }
    return 0;
  }

  ssize_t read(int file, void* buffer, size_t count, uint64_t offset) override {
    return answer(quire_pread(at(file), buffer, count, static_cast<off_t>(offset)));
  }

  ssize_t write(int file, const void* buffer, size_t count, uint64_t offset) override {
    return answer(quire_pwrite(at(file), buffer, count, static_cast<off_t>(offset)));
  }

  ssize_t append(int file, const void* buffer, size_t count) override {
    const iovec part{const_cast<void*>(buffer), count};
    return answer(quire_pwritev2(at(file), &part, 1, 0, RWF_APPEND));
  }

  int truncate(int file, uint64_t size) override {
    return static_cast<int>(answer(quire_ftruncate(at(file), static_cast<off_t>(size))));
  }

  int fallocate(int file, int mode, uint64_t offset, uint64_t length) override {
    return static_cast<int>(
        answer(quire_fallocate(at(file), mode, static_cast<off_t>(offset), static_cast<off_t>(length))));
  }

  int clone(int source, uint64_t source_offset, int file, uint64_t offset, uint64_t length) override {
    return static_cast<int>(answer(quire_clone_range(at(source), static_cast<off_t>(source_offset), at(file),
                                                     static_cast<off_t>(offset), length)));
  }

  ssize_t dedupe(int source, uint64_t source_offset, int file, uint64_t offset, uint64_t length) override {
    return answer(quire_dedupe_range(at(source), static_cast<off_t>(source_offset), at(file),
                                     static_cast<off_t>(offset), length));
  }

  int exchange(int source, uint64_t source_offset, int file, uint64_t offset, uint64_t length) override {
    return static_cast<int>(answer(quire_exchange_range(at(source), static_cast<off_t>(source_offset), at(file),
                                                        static_cast<off_t>(offset), length)));
  }

  ssize_t copy(int source, uint64_t source_offset, int file, uint64_t offset, uint64_t length) override {
    return answer(
        quire_copy_range(at(source), static_cast<off_t>(source_offset), at(file), static_cast<off_t>(offset), length));
  }

  int finish() override {
    int status = 0;
    for (quire_file* file : handles_) {
      if (quire_fsync(file) != 0 && status == 0) status = -errno;
    }
    while (!handles_.empty()) {
      if (quire_close(handles_.back()) != 0) return status == 0 ? -errno : status;
      handles_.pop_back();
    }
    if (quire_cache_destroy(cache_, 0) != 0) return status == 0 ? -errno : status;
    cache_ = nullptr;
    return status;
  }

  int reread(int file, std::vector<unsigned char>* content) override { return files_.reread(file, content); }

  bool keeps_tail() const override { return true; }
  std::string last_error() const override { return quire_error_message(); }

 private:
  quire_file* at(int file) const { return handles_[static_cast<size_t>(file)]; }

  HostFiles files_;
  const size_t memory_;
  const unsigned flags_;
  quire_cache* cache_ = nullptr;
  std::vector<quire_file*> handles_;
};

}  // namespace

std::unique_ptr<System> make_quire_system(const std::string& directory, size_t memory, unsigned flags) {
  return std::make_unique<QuireSystem>(directory, memory, flags);
}

}  // namespace quire::judge
