// Contestants on cached files; see bench_cached.h.
#include "cli/bench_cached.h"

#include <utility>
#include <vector>

#include "base/bytes.h"
#include "cli/bench.h"
#include "cli/bench_files.h"
#include "cli/bench_ops.h"

namespace quire {

namespace {

constexpr unsigned kBatch = 256;  // operations between two looks at the clock

// Blocks of whole pages lie on page boundaries, shorter ones anywhere.
RandomOffsets offsets_of(const Work& work, unsigned thread, std::uint64_t file_size) {
  const std::uint64_t step = is_aligned(work.block_size, kPageSize) ? kPageSize : 1;
  return RandomOffsets(file_size, work.block_size, step, 2 * std::uint64_t{thread} + (work.write ? 1 : 2));
}

unsigned file_of(const Work& work, unsigned thread) { return work.different_files ? thread : 0; }

class CachedQuire : public Contestant {
 public:
  CachedQuire(const std::string& directory, std::uint64_t file_size, unsigned files, std::uint64_t memory)
      : directory_(directory), file_size_(file_size), cache_(make_cache(memory)) {
    if (!cache_) throw BenchError(quire_error_message());
    const std::size_t chunk = chunk_size(memory);
    const AlignedBuffer buffer = make_buffer(chunk);
    for (unsigned i = 0; i < files; ++i) {
      const ScratchFile& scratch = scratch_.emplace_back(directory, file_size);
      files_.emplace_back(quire_open(cache_.get(), scratch.path().c_str(), O_RDWR, 0));
      if (!files_.back()) throw BenchError(quire_error_message());
      read_whole(file_size, chunk, [&](std::uint64_t offset, std::size_t size) {
        QuireOp<false> read{files_.back().get(), buffer.get(), size};
        if (!read(offset)) throw BenchError(read.error(offset));
      });
    }
  }

  std::string_view system() const override { return "quire"; }
  std::string path() const override { return directory_; }

  Worker worker(const Work& work, unsigned thread) override {
    wrote_ = wrote_ || work.write;
    quire_file* const file = files_[file_of(work, thread)].get();
    char* const buffer = lend_buffer(work.block_size);
    const RandomOffsets offsets = offsets_of(work, thread, file_size_);
    const std::size_t size = work.block_size;
    if (work.write)
      return [=](const Turn& t) { return timed_loop(t, kBatch, QuireOp<true>{file, buffer, size}, offsets); };
    return [=](const Turn& t) { return timed_loop(t, kBatch, QuireOp<false>{file, buffer, size}, offsets); };
  }

  void end_turn() override {
    if (!std::exchange(wrote_, false)) return;
    for (const FilePtr& file : files_) {
      if (quire_fsync(file.get()) != 0) throw BenchError(quire_error_message());
    }
  }

 private:
  const std::string directory_;
  const std::uint64_t file_size_;
  std::vector<ScratchFile> scratch_;
  CachePtr cache_;  // before its files, which close first
  std::vector<FilePtr> files_;
  bool wrote_ = false;
};

class CachedKernel : public Contestant {
 public:
  CachedKernel(const std::string& directory, std::uint64_t file_size, unsigned files)
      : directory_(directory), file_size_(file_size) {
    const std::size_t chunk = chunk_size(0);
    const AlignedBuffer buffer = make_buffer(chunk);
    for (unsigned i = 0; i < files; ++i) {
      const ScratchFile& scratch = scratch_.emplace_back(directory, file_size);
      files_.push_back(open_or_throw(scratch.path(), O_RDWR));
      read_whole(file_size, chunk, [&](std::uint64_t offset, std::size_t size) {
        KernelOp<false> read{files_.back().get(), buffer.get(), size};
        if (!read(offset)) throw BenchError(scratch.path() + ": " + read.error(offset));
      });
    }
  }

  std::string_view system() const override { return "kernel"; }
  std::string path() const override { return directory_; }

  Worker worker(const Work& work, unsigned thread) override {
    wrote_ = wrote_ || work.write;
    const int fd = files_[file_of(work, thread)].get();
    char* const buffer = lend_buffer(work.block_size);
    const RandomOffsets offsets = offsets_of(work, thread, file_size_);
    const std::size_t size = work.block_size;
    if (work.write)
      return [=](const Turn& t) { return timed_loop(t, kBatch, KernelOp<true>{fd, buffer, size}, offsets); };
    return [=](const Turn& t) { return timed_loop(t, kBatch, KernelOp<false>{fd, buffer, size}, offsets); };
  }

  void end_turn() override {
    if (!std::exchange(wrote_, false)) return;
    for (std::size_t i = 0; i < files_.size(); ++i) {
      if (fsync(files_[i].get()) != 0) throw BenchError("cannot sync " + scratch_[i].path() + ": " + errno_text(errno));
    }
  }

 private:
  const std::string directory_;
  const std::uint64_t file_size_;
  std::vector<ScratchFile> scratch_;
  std::vector<Descriptor> files_;
  bool wrote_ = false;
};

class CachedMemcpy : public Contestant {
 public:
  CachedMemcpy(std::uint64_t file_size, unsigned files) : file_size_(file_size) {
    for (unsigned i = 0; i < files; ++i) {
      files_.push_back(make_buffer(file_size));
      std::memset(files_.back().get(), static_cast<int>('a' + i % 26), file_size);
    }
  }

  std::string_view system() const override { return "memcpy"; }
  std::string path() const override { return {}; }

  Worker worker(const Work& work, unsigned thread) override {
    const MemcpyOp op{files_[file_of(work, thread)].get(), lend_buffer(work.block_size), work.block_size};
    const RandomOffsets offsets = offsets_of(work, thread, file_size_);
    return [=](const Turn& turn) { return timed_loop(turn, kBatch, op, offsets); };
  }

 private:
  const std::uint64_t file_size_;
  std::vector<AlignedBuffer> files_;
};

}  // namespace

std::unique_ptr<Contestant> make_cached_quire(const std::string& directory, std::uint64_t file_size, unsigned files,
                                              std::uint64_t memory) {
  return std::make_unique<CachedQuire>(directory, file_size, files, memory);
}

std::unique_ptr<Contestant> make_cached_kernel(const std::string& directory, std::uint64_t file_size, unsigned files) {
  return std::make_unique<CachedKernel>(directory, file_size, files);
}

std::unique_ptr<Contestant> make_cached_memcpy(std::uint64_t file_size, unsigned files) {
  return std::make_unique<CachedMemcpy>(file_size, files);
}

}  // namespace quire
