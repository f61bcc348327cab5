// Contestants of view; see bench_view.h.
#include "cli/bench_view.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "cli/bench.h"
#include "cli/bench_files.h"
#include "cli/bench_ops.h"
#include "cli/support.h"

namespace quire {

namespace {

constexpr unsigned kBatch = 256;  // operations between two looks at the clock

struct StoreOp {
  char* to;
  const char* buffer;
  std::size_t size;
  bool operator()(std::uint64_t offset) const {
    std::memcpy(to + offset, buffer, size);
    asm volatile("" : : "r"(to) : "memory");
    return true;
  }
  static std::string error(std::uint64_t) { return {}; }
};

struct TouchOp {
  const char* from;
  bool operator()(std::uint64_t offset) const {
    static_cast<void>(*static_cast<const volatile char*>(from + offset));
    return true;
  }
  static std::string error(std::uint64_t) { return {}; }
};

// What both share: the turns and the workers.
class Mapped : public ViewContestant {
 public:
  explicit Mapped(std::uint64_t file_size) : file_size_(file_size) {}

  void map_anew(bool each_turn) override { each_turn_ = each_turn; }
  void begin_turn() override {
    if (base_ != nullptr && each_turn_) unmap(std::exchange(base_, nullptr));
    if (base_ == nullptr) base_ = map();
    if (each_turn_) return;
    for (std::uint64_t at = 0; at < file_size_; at += kPageSize) {  // there, and open to stores
      volatile char* const byte = base_ + at;
      *byte = *byte;
    }
  }
  Worker worker(const Work& work, unsigned thread) override {
    char* const base = base_;
    if (work.pattern == Pattern::kSequential) {
      const SequentialOffsets offsets(0, file_size_, kPageSize, false);
      return [=](const Turn& turn) { return timed_loop(turn, kBatch, TouchOp{base}, offsets); };
    }
    const RandomOffsets offsets(file_size_, work.block_size, work.block_size, std::uint64_t{thread} + 1);
    char* const buffer = lend_buffer(std::max<std::size_t>(work.block_size, kPageSize));
    const std::size_t size = work.block_size;
    if (work.write)
      return [=](const Turn& turn) { return timed_loop(turn, kBatch, StoreOp{base, buffer, size}, offsets); };
    return [=](const Turn& turn) { return timed_loop(turn, kBatch, MemcpyOp{base, buffer, size}, offsets); };
  }

 protected:
  virtual char* map() = 0;
  virtual void unmap(char* base) = 0;
  const std::uint64_t file_size_;
  char* base_ = nullptr;

 private:
  bool each_turn_ = false;
};

class QuireView final : public Mapped {
 public:
  QuireView(const std::string& directory, std::uint64_t file_size, std::uint64_t memory)
      : Mapped(file_size), directory_(directory), scratch_(directory, file_size), cache_(make_cache(memory)) {
    if (!cache_) throw BenchError(quire_error_message());
    file_.reset(quire_open(cache_.get(), scratch_.path().c_str(), O_RDWR, 0));
    if (!file_) throw BenchError(quire_error_message());
    const std::size_t chunk = chunk_size(0);
    const AlignedBuffer buffer = make_buffer(chunk);
    read_whole(file_size, chunk, [&](std::uint64_t offset, std::size_t size) {
      QuireOp<false> read{file_.get(), buffer.get(), size};
      if (!read(offset)) throw BenchError(scratch_.path() + ": " + read.error(offset));
    });
  }
  ~QuireView() override {
    if (base_ != nullptr) quire_munmap(cache_.get(), base_, file_size_);
  }
  std::string_view system() const override { return "quire"; }
  std::string path() const override { return directory_; }
  char* map() override {
    void* const base = quire_mmap(file_.get(), 0, file_size_, PROT_READ | PROT_WRITE);
    if (base == MAP_FAILED) throw BenchError(quire_error_message());
    return static_cast<char*>(base);
  }
  void unmap(char* base) override {
    if (quire_munmap(cache_.get(), base, file_size_) != 0) throw BenchError(quire_error_message());
  }

 private:
  const std::string directory_;
  ScratchFile scratch_;
  CachePtr cache_;  // before its file, which closes first
  FilePtr file_;
};

class TmpfsView final : public Mapped {
 public:
  explicit TmpfsView(std::uint64_t file_size) : Mapped(file_size), file_(memfd_create("quire-bench", MFD_CLOEXEC)) {
    if (file_.get() < 0 || ftruncate(file_.get(), static_cast<off_t>(file_size)) != 0) {
      throw BenchError("cannot make a file in memory: " + errno_text(errno));
    }
    const std::size_t chunk = chunk_size(0);
    const AlignedBuffer buffer = make_buffer(chunk);
    std::memset(buffer.get(), 1, chunk);
    read_whole(file_size, chunk, [&](std::uint64_t offset, std::size_t size) {
      KernelOp<true> write{file_.get(), buffer.get(), size};
      if (!write(offset)) throw BenchError(write.error(offset));
    });
  }
  ~TmpfsView() override {
    if (base_ != nullptr) munmap(base_, file_size_);
  }
  std::string_view system() const override { return "kernel"; }
  std::string path() const override { return "tmpfs"; }
  char* map() override {
    void* const base = mmap(nullptr, file_size_, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
    if (base == MAP_FAILED) throw BenchError("cannot map a file in memory: " + errno_text(errno));
    return static_cast<char*>(base);
  }
  void unmap(char* base) override { munmap(base, file_size_); }

 private:
  Descriptor file_;
};

}  // namespace

std::unique_ptr<ViewContestant> make_view_quire(const std::string& directory, std::uint64_t file_size,
                                                std::uint64_t memory) {
  return std::make_unique<QuireView>(directory, file_size, memory);
}

std::unique_ptr<ViewContestant> make_view_tmpfs(std::uint64_t file_size) {
  return std::make_unique<TmpfsView>(file_size);
}

}  // namespace quire
