// Files through quire's C API, with a cache small enough to evict all the time. See system.h. Direct operations have
// handles of their own, opened with O_DIRECT. No locks of its own: handles are opened and views mapped before the
// threads start, and closed and unmapped after they have ended.
#include <fcntl.h>
#include <quire/quire.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "testing/host_files.h"
#include "testing/system.h"
#include "testing/view_word.h"

namespace quire::judge {
namespace {

constexpr size_t kViewBytes = 64 << 20;  // files are shorter

ssize_t answer(ssize_t result) { return result < 0 ? -errno : result; }

class QuireSystem final : public System {
 public:
  QuireSystem(const std::string& directory, size_t memory, unsigned flags)
      : files_(directory), memory_(memory), flags_(flags) {}

  ~QuireSystem() override {
    for (std::vector<quire_file*>* handles : {&direct_, &handles_}) {
      for (quire_file* file : *handles) quire_close(file);
    }
    for (const int fd : hosts_) ::close(fd);
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
      const int host = ::open(files_.path(i).c_str(), O_RDONLY | O_CLOEXEC);
      if (host < 0) return -errno;
      hosts_.push_back(host);
    }
    return 0;
  }

  int prepare(OpKind kind) override {
    if (kind == OpKind::kViewLoad) return map(PROT_READ, &loads_);
    if (kind == OpKind::kViewStore) return map(PROT_READ | PROT_WRITE, &stores_);
    for (int i = static_cast<int>(direct_.size()); i < static_cast<int>(handles_.size()); ++i) {
      quire_file* file = quire_open(cache_, files_.path(i).c_str(), O_RDWR | O_DIRECT, 0);
      if (file == nullptr) return -errno;
      direct_.push_back(file);
    }
    return 0;
  }

  ssize_t read_direct(int file, void* buffer, size_t count, uint64_t offset) override {
    return answer(quire_pread(direct_at(file), buffer, count, static_cast<off_t>(offset)));
  }

  ssize_t write_direct(int file, const void* buffer, size_t count, uint64_t offset) override {
    return answer(quire_pwrite(direct_at(file), buffer, count, static_cast<off_t>(offset)));
  }

  int submit_read(int file, void* buffer, size_t count, uint64_t offset, bool direct, Done done,
                  void* argument) override {
    quire_file* const handle = direct ? direct_at(file) : at(file);
    return static_cast<int>(
        answer(quire_submit_pread(handle, buffer, count, static_cast<off_t>(offset), done, argument)));
  }

  int submit_write(int file, const void* buffer, size_t count, uint64_t offset, bool direct, Done done,
                   void* argument) override {
    quire_file* const handle = direct ? direct_at(file) : at(file);
    return static_cast<int>(
        answer(quire_submit_pwrite(handle, buffer, count, static_cast<off_t>(offset), done, argument)));
  }

  int reap(unsigned min, unsigned max) override { return static_cast<int>(answer(quire_reap(cache_, min, max))); }

  int view_load(int file, uint64_t offset, uint64_t* word) override {
    return load_view_word(loads_[static_cast<size_t>(file)] + offset, word);
  }

  int view_store(int file, uint64_t offset, uint64_t word) override {
    return store_view_word(stores_[static_cast<size_t>(file)] + offset, word);
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

  // The host is asked as well, by descriptors that were there before the first write: it keeps what it reports to each
  // of them, and quire may have been told of a failure that nobody was to see.
  int sync() override {
    int status = 0;
    for (const std::vector<quire_file*>* handles : {&handles_, &direct_}) {
      for (quire_file* file : *handles) {
        if (quire_fsync(file) != 0 && status == 0) status = -errno;
      }
    }
    for (const int fd : hosts_) {
      if (::fsync(fd) != 0 && status == 0) status = -errno;
    }
    return status;
  }

  int finish() override {
    int status = sync();
    for (std::vector<char*>* views : {&loads_, &stores_}) {
      for (char* view : *views) {
        if (quire_munmap(cache_, view, kViewBytes) != 0 && status == 0) status = -errno;
      }
      views->clear();
    }
    for (std::vector<quire_file*>* handles : {&direct_, &handles_}) {
      while (!handles->empty()) {
        if (quire_close(handles->back()) != 0) return status == 0 ? -errno : status;
        handles->pop_back();
      }
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
  quire_file* direct_at(int file) const { return direct_[static_cast<size_t>(file)]; }

  int map(int prot, std::vector<char*>* views) {
    catch_sigbus();
    for (size_t i = views->size(); i < handles_.size(); ++i) {
      void* const view = quire_mmap(handles_[i], 0, kViewBytes, prot);
      if (view == MAP_FAILED) return -errno;
      views->push_back(static_cast<char*>(view));
    }
    return 0;
  }

  HostFiles files_;
  const size_t memory_;
  const unsigned flags_;
  quire_cache* cache_ = nullptr;
  std::vector<quire_file*> handles_;
  std::vector<quire_file*> direct_;  // opened with O_DIRECT, if wanted
  std::vector<int> hosts_;           // the same files without quire
  std::vector<char*> loads_;         // views, if wanted
  std::vector<char*> stores_;
};

}  // namespace

std::unique_ptr<System> make_quire_system(const std::string& directory, size_t memory, unsigned flags) {
  return std::make_unique<QuireSystem>(directory, memory, flags);
}

}  // namespace quire::judge
