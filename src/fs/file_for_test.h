// For tests: a small cache, and a file of it over any backing, with data whose every word names its file, its writing
// and its place. Thread safety: as OpenFile; closing is the owner's alone.  Locks: what file operations take.
#pragma once

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "cache/fill.h"
#include "cache/invalidate.h"
#include "cache/page_cache.h"
#include "cache/writeback.h"
#include "fs/open_file.h"

namespace quire::testing_support {

// Eight bytes of a file: file number, generation (which writing), and the word's index in the file.
constexpr std::uint64_t word_of(unsigned file, unsigned generation, std::uint64_t offset) {
  return std::uint64_t{file & 0xff} << 56 | std::uint64_t{generation & 0xffffff} << 32 | (offset >> 3 & 0xffffffff);
}
constexpr unsigned word_file(std::uint64_t word) { return static_cast<unsigned>(word >> 56); }
constexpr unsigned word_generation(std::uint64_t word) { return static_cast<unsigned>(word >> 32) & 0xffffff; }
constexpr std::uint64_t word_index(std::uint64_t word) { return word & 0xffffffff; }

// Fills [offset, offset + count) of a file's image; any alignment.
inline void fill_words(void* to, std::size_t count, unsigned file, unsigned generation, std::uint64_t offset) {
  auto* out = static_cast<unsigned char*>(to);
  for (std::size_t done = 0; done < count;) {
    const std::uint64_t word = word_of(file, generation, offset + done);
    const std::size_t inside = (offset + done) & 7;
    const std::size_t n = std::min<std::size_t>(8 - inside, count - done);
    std::memcpy(out + done, reinterpret_cast<const char*>(&word) + inside, n);
    done += n;
  }
}
inline std::vector<char> words(std::size_t count, unsigned file, unsigned generation, std::uint64_t offset) {
  std::vector<char> bytes(count);
  fill_words(bytes.data(), count, file, generation, offset);
  return bytes;
}
inline std::uint64_t load_word(const char* bytes) {
  std::uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

struct TestCache {
  explicit TestCache(std::uint32_t frames = PageCache::kMinFrames) {
    PageCacheOptions options;
    options.memory = PageCache::min_memory() + (frames - PageCache::kMinFrames) * (kPageSize + sizeof(Folio) + 10);
    CHECK(cache.create(options).ok());
  }
  std::uint64_t sum(Counter counter) const { return cache.stats.sum(counter); }

  PageCache cache;
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
};

}  // namespace quire::testing_support
