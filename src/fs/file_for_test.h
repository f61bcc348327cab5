// For tests: a file of a small cache over any backing, with one handle of its own and calls that return what a system
// call would. Thread safety: as OpenFile; closing is the owner's alone.  Locks: what file operations take.
#pragma once

#include <linux/falloc.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cache/cache_for_test.h"
#include "cache/read_hit.h"
#include "cache/writeback.h"
#include "fs/open_file.h"

namespace quire::testing_support {

// Memory as direct I/O likes it.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t size) : bytes_(static_cast<char*>(std::aligned_alloc(kPageSize, size))) {}
  ~AlignedBytes() { std::free(bytes_); }
  AlignedBytes(const AlignedBytes&) = delete;
  AlignedBytes& operator=(const AlignedBytes&) = delete;
  char* data() const { return bytes_; }

 private:
  char* const bytes_;
};

class TestFile {
 public:
  TestFile(PageCache& cache, std::unique_ptr<Backing> backing, std::uint64_t id = next_id()) {
    inode_.emplace(cache, std::move(backing), id);
    open(handle_);
  }
  ~TestFile() {
    if (inode_) close();
  }
  TestFile(const TestFile&) = delete;
  TestFile& operator=(const TestFile&) = delete;

  // Forgets what is cached, dirty or not, and gives the backing back.
  std::unique_ptr<Backing> close() {
    drop_cached();
    std::unique_ptr<Backing> backing = std::move(inode_->backing);
    inode_.reset();
    return backing;
  }
  // A file that nobody uses leaves the cache, dirty or not.
  void drop_cached() {
    drain_ahead(mapping());
    RangeGuard remove(mapping().invalidate);
    remove.acquire(0, kRangeEnd, kRemove);
    remove_folios(mapping(), 0, UINT64_MAX);
  }

  void sync_and_drop() {
    if (sync() == 0) drop_cached();
  }

  void open(OpenFile& handle) {
    handle.inode = &*inode_;
    handle.readable = handle.writable = true;
    handle.error_seen.store(sample_error(mapping()), memory_order_relaxed);
  }
  Inode& inode() { return *inode_; }
  Mapping& mapping() { return inode_->mapping; }
  OpenFile& handle() { return handle_; }
  std::uint64_t size() { return mapping().size.load(memory_order_acquire); }

  // Counts, or -errno.
  ssize_t read(void* to, std::size_t count, std::uint64_t offset, unsigned flags = 0) {
    // Short hits in line, as the API takes them, and by turns as everybody else does.
    if (handle_.readable && count - 1 < kRegisterBytes && (turns_.fetch_add(1, memory_order_relaxed) & 1) != 0) {
      const ssize_t n = read_hit(mapping(), static_cast<char*>(to), count, offset);
      if (n != kSlow) return n;
    }
    const iovec v{to, count};
    return answer(file_read(handle_, std::span(&v, 1), offset, flags));
  }
  ssize_t write(const void* from, std::size_t count, std::uint64_t offset, unsigned flags = 0) {
    const iovec v{const_cast<void*>(from), count};
    return answer(file_write(handle_, std::span(&v, 1), offset, flags));
  }
  ssize_t write(const std::vector<char>& bytes, std::uint64_t offset, unsigned flags = 0) {
    return write(bytes.data(), bytes.size(), offset, flags);
  }
  ssize_t append(const std::vector<char>& bytes) { return write(bytes.data(), bytes.size(), 0, kIoAppend); }
  int truncate(std::uint64_t size) { return file_truncate(handle_, size).errnum(); }
  // 0 or errno.
  int allocate(int mode, std::uint64_t offset, std::uint64_t length) {
    return file_allocate(handle_, mode, offset, length).errnum();
  }
  int punch(std::uint64_t offset, std::uint64_t length) {
    return allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }
  int sync() { return file_sync(handle_, false).errnum(); }

  // The whole file through the cache; an error is an empty answer.
  std::vector<char> content() { return range(0, size()); }
  std::vector<char> range(std::uint64_t offset, std::size_t count) {
    std::vector<char> bytes(count + 1);
    const ssize_t n = read(bytes.data(), bytes.size() - 1, offset);
    bytes.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return bytes;
  }

 private:
  static std::uint64_t next_id() {
    static Atomic<std::uint64_t> last;
    return last.fetch_add(1, memory_order_relaxed) + 1;
  }
  static ssize_t answer(const Result<std::size_t>& result) {
    return result.ok() ? static_cast<ssize_t>(result.value()) : -result.errnum();
  }

  std::optional<Inode> inode_;
  OpenFile handle_;
  Atomic<std::uint32_t> turns_;
};

}  // namespace quire::testing_support
