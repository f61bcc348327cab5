// Contestants on a file that lies on disk; see bench_disk.h.
#include "cli/bench_disk.h"

#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "base/bytes.h"
#include "cli/bench.h"
#include "cli/bench_async.h"
#include "cli/bench_files.h"
#include "cli/bench_ops.h"

namespace quire {

namespace {

constexpr unsigned kBatch = 1;  // a disk read is long against a look at the clock

RandomOffsets random_offsets(const DiskTarget& target, const Work& work, unsigned thread) {
  return RandomOffsets(target.file_size, work.block_size, kPageSize,
                       static_cast<std::uint64_t>(monotonic_ns()) + thread);  // other blocks each turn
}

// Each thread's own part of the file: once if cold, round and round if warm.
SequentialOffsets sequential_offsets(const DiskTarget& target, const Work& work, unsigned thread) {
  const std::uint64_t part = target.file_size / work.threads / work.block_size * work.block_size;
  return SequentialOffsets(thread * part, (thread + 1) * part, work.block_size, !target.cold);
}

template <typename Op>
Worker synchronous_worker(const DiskTarget& target, const Work& work, unsigned thread, Op op) {
  if (work.pattern == Pattern::kSequential) {
    return [op, offsets = sequential_offsets(target, work, thread)](const Turn& turn) {
      return timed_loop(turn, kBatch, op, offsets);
    };
  }
  return [op, offsets = random_offsets(target, work, thread)](const Turn& turn) {
    return timed_loop(turn, kBatch, op, offsets);
  };
}

class DiskQuire : public Contestant {
 public:
  DiskQuire(const DiskTarget& target, const Work& work, std::uint64_t memory)
      : target_(target), caches_wanted_(work.depth > 1 ? work.threads : 1), memory_(memory / caches_wanted_) {}

  std::string_view system() const override { return "quire"; }
  std::string path() const override { return target_.directory; }

  void begin_turn() override {
    if (!open_.empty()) return;  // warm from the turns before
    if (target_.cold) {          // for hosts that refuse O_DIRECT to quire
      const Descriptor fd = open_or_throw(target_.file, O_RDONLY);
      drop_from_kernel_cache(fd.get(), target_.file);
    }
    for (unsigned i = 0; i < caches_wanted_; ++i) {
      Open& open = open_.emplace_back();
      open.cache = make_cache(memory_, target_.cache_flags);
      if (!open.cache) throw BenchError(quire_error_message());
      if (!target_.other.empty()) {
        open.other = open_file(*open.cache, target_.other);
        read_until(*open.other, memory_);
      }
      open.file = open_file(*open.cache, target_.file);
    }
    if (!target_.cold) read_until(*open_[0].file, target_.file_size);
  }

  Worker worker(const Work& work, unsigned thread) override {
    if (work.depth == 1) {
      const QuireOp<false> op{open_[0].file.get(), lend_buffer(work.block_size), work.block_size};
      return synchronous_worker(target_, work, thread, op);
    }
    const Open& open = open_[thread];
    return [cache = open.cache.get(), file = open.file.get(), size = work.block_size, depth = work.depth,
            buffers = lend_buffer(work.block_size * work.depth), offsets = random_offsets(target_, work, thread)](
               const Turn& turn) { return read_by_quire_submit(turn, cache, file, buffers, size, depth, offsets); };
  }

  void end_turn() override {
    if (!target_.cold) return;
    for (Open& open : open_) {
      const bool closed = close_file(open.file) && (open.other == nullptr || close_file(open.other));
      if (!closed || !close_cache(open.cache)) throw BenchError(quire_error_message());
    }
    open_.clear();
  }

 private:
  struct Open {
    CachePtr cache;  // before its files, which close first
    FilePtr other, file;
  };

  static FilePtr open_file(quire_cache& cache, const std::string& path) {
    FilePtr file(quire_open(&cache, path.c_str(), O_RDONLY, 0));
    if (!file) throw BenchError(quire_error_message());
    return file;
  }

  void read_until(quire_file& file, std::uint64_t end) {
    const std::size_t chunk = chunk_size(memory_);
    const AlignedBuffer buffer = make_buffer(chunk);
    for (std::uint64_t offset = 0; offset < end; offset += chunk) {
      QuireOp<false> read{&file, buffer.get(), static_cast<std::size_t>(std::min<std::uint64_t>(chunk, end - offset))};
      if (!read(offset)) throw BenchError(read.error(offset));
    }
  }

  const DiskTarget target_;
  const unsigned caches_wanted_;
  const std::uint64_t memory_;  // of each cache
  std::vector<Open> open_;
};

class DiskKernel : public Contestant {
 public:
  DiskKernel(const DiskTarget& target, const Work& work) : target_(target) {
    if (target.cold && work.pattern == Pattern::kRandom) {
      direct_ = Descriptor(open(target.file.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
      if (direct_.get() < 0) {
        print_note("%s: no O_DIRECT here (%s): the kernel's rows are buffered reads", target.file.c_str(),
                   errno_text(errno).c_str());
      }
    }
    buffered_ = open_or_throw(target.file, O_RDONLY);
    if (work.pattern == Pattern::kRandom) (void)posix_fadvise(buffered_.get(), 0, 0, POSIX_FADV_RANDOM);
    if (!target.cold) read_whole();
  }

  std::string_view system() const override { return "kernel"; }
  std::string path() const override { return target_.directory; }

  void begin_turn() override {
    if (target_.cold) drop_from_kernel_cache(buffered_.get(), target_.file);
  }

  Worker worker(const Work& work, unsigned thread) override {
    const int fd = direct_.get() >= 0 ? direct_.get() : buffered_.get();
    if (work.depth == 1) {
      const KernelOp<false> op{fd, lend_buffer(work.block_size), work.block_size};
      return synchronous_worker(target_, work, thread, op);
    }
    return [fd, size = work.block_size, depth = work.depth, buffers = lend_buffer(work.block_size * work.depth),
            offsets = random_offsets(target_, work, thread)](const Turn& turn) {
      return read_by_io_uring(turn, fd, buffers, size, depth, offsets);
    };
  }

 private:
  void read_whole() {
    const std::size_t chunk = chunk_size(0);
    const AlignedBuffer buffer = make_buffer(chunk);
    for (std::uint64_t offset = 0; offset < target_.file_size; offset += chunk) {
      const std::uint64_t size = std::min<std::uint64_t>(chunk, target_.file_size - offset);
      KernelOp<false> read{buffered_.get(), buffer.get(), static_cast<std::size_t>(size)};
      if (!read(offset)) throw BenchError(target_.file + ": " + read.error(offset));
    }
    if (kernel_cached_bytes(buffered_.get(), target_.file_size) < target_.file_size / 64 * 63) {
      print_note("%s does not fit into the kernel's cache: its warm rows are partly cold", target_.file.c_str());
    }
  }

  const DiskTarget target_;
  Descriptor direct_;  // only for random cold reads
  Descriptor buffered_;
};

void ignore_completion(void*, ssize_t) {}

}  // namespace

std::unique_ptr<Contestant> make_disk_quire(const DiskTarget& target, const Work& work, std::uint64_t memory) {
  return std::make_unique<DiskQuire>(target, work, memory);
}

std::unique_ptr<Contestant> make_disk_kernel(const DiskTarget& target, const Work& work) {
  return std::make_unique<DiskKernel>(target, work);
}

bool quire_reads_asynchronously(const DiskTarget& target, std::uint64_t memory) {
  CachePtr cache = make_cache(memory);
  if (!cache) throw BenchError(quire_error_message());
  FilePtr file(quire_open(cache.get(), target.file.c_str(), O_RDONLY, 0));
  if (!file) throw BenchError(quire_error_message());
  const AlignedBuffer buffer = make_buffer(kPageSize);
  if (quire_submit_pread(file.get(), buffer.get(), kPageSize, 0, &ignore_completion, nullptr) != 0) {
    if (errno == ENOSYS) return false;
    throw BenchError(quire_error_message());
  }
  if (quire_reap(cache.get(), 1, 1) < 0) throw BenchError(quire_error_message());
  return true;
}

}  // namespace quire
