// For tests: a small cache and a bare mapping of it, threads that are watched, and data whose every word names its
// file, its writing and its place. Thread safety: each thing as what it wraps.  Locks: none of its own.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "cache/fill.h"
#include "cache/invalidate.h"
#include "cache/mapping.h"
#include "cache/page_cache.h"
#include "sync/wait_queue.h"

namespace quire::testing_support {

// Eight bytes of a file: file number, generation (which writing), and the word's index in the file.
constexpr std::uint64_t word_of(unsigned file, unsigned generation, std::uint64_t offset) {
  return std::uint64_t{file & 0xff} << 56 | std::uint64_t{generation & 0xffffff} << 32 | (offset >> 3 & 0xffffffff);
}
constexpr unsigned word_file(std::uint64_t word) { return static_cast<unsigned>(word >> 56); }
constexpr unsigned word_generation(std::uint64_t word) { return static_cast<unsigned>(word >> 32) & 0xffffff; }
// Whether it names this file and this place, of whatever generation.
constexpr bool word_fits(std::uint64_t word, unsigned file, std::uint64_t offset) {
  return word == word_of(file, word_generation(word), offset);
}

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
// Every word of [offset, offset + size) of an image, offset a multiple of 8, is this file's and in its place.
inline ::testing::AssertionResult all_of_file(const std::vector<char>& bytes, unsigned file, std::uint64_t offset) {
  for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const std::uint64_t word = load_word(bytes.data() + i);
    if (word_fits(word, file, offset + i)) continue;
    return ::testing::AssertionFailure() << "word " << std::hex << word << " at " << offset + i << " of file " << file;
  }
  return ::testing::AssertionSuccess();
}
inline ::testing::AssertionResult all_zero(const std::vector<char>& bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != 0) return ::testing::AssertionFailure() << "byte " << int{bytes[i]} << " at " << i;
  }
  return ::testing::AssertionSuccess();
}

struct TestCache {
  explicit TestCache(std::uint32_t frames = PageCache::kMinFrames) {
    PageCacheOptions options;
    options.memory = PageCache::min_memory() +
                     (frames - PageCache::kMinFrames) *
                         (kPageSize + sizeof(Folio) + Lookaside::kBytesPerFrame + Eviction::kBytesPerFrame + 10);
    options.io_thread = false;  // files in memory need none
    CHECK(cache.create(options).ok());
    cache.set_max_order(2);  // large folios in small caches, too
  }
  std::uint64_t sum(Counter counter) const { return cache.stats.sum(counter); }

  PageCache cache;
};

// A mapping without a file's locks over it: what the tests of single steps work on.
struct TestMapping {
  TestMapping(PageCache& cache, Backing& backing, std::uint64_t id = 1) : mapping(cache, backing, id, backing.size()) {}
  ~TestMapping() { drop_cached(); }

  // The page, new, uptodate and full of words; referenced and not locked.
  Folio& add(std::uint64_t page, unsigned file = 1, unsigned generation = 1) {
    FrameReservation frames(mapping.cache.pool);
    mapping.cache.reserve(frames, 1);
    Folio* folio = frames.take();
    CHECK(insert_new(mapping, *folio, page).ok());
    const std::vector<char> image = words(kPageSize, file, generation, page * kPageSize);
    racy_copy_to_folio(folio->bytes(), image.data(), kPageSize);
    make_uptodate(*folio);
    unlock_folio(*folio);
    return *folio;
  }
  // The 2^order pages from `page` on as one folio, like add().
  Folio& add_large(std::uint64_t page, unsigned order, unsigned file = 1, unsigned generation = 1) {
    FrameReservation frames(mapping.cache.pool);
    mapping.cache.reserve(frames, 1u << order, order);
    Folio* folio = frames.take(order);
    CHECK(folio != nullptr);
    CHECK(insert_new(mapping, *folio, page).ok());
    const std::vector<char> image = words(folio->size_bytes(), file, generation, page * kPageSize);
    racy_copy_to_folio(folio->bytes(), image.data(), image.size());
    make_uptodate(*folio);
    unlock_folio(*folio);
    return *folio;
  }
  void dirty(Folio& folio) {
    lock_folio(folio);
    set_dirty(mapping, folio);
    unlock_folio(folio);
  }
  // One more page of the file, dirty, with no reference kept.
  void add_dirty(std::uint64_t page, unsigned file = 1, unsigned generation = 1) {
    Folio& folio = add(page, file, generation);
    const std::uint64_t end = (page + 1) * kPageSize;
    if (mapping.size.load(memory_order_relaxed) < end) mapping.size.store(end, memory_order_release);
    dirty(folio);
    mapping.cache.put_folio(folio);
  }
  void drop_cached() {
    drain_ahead(mapping);
    RangeGuard remove(mapping.invalidate);
    remove.acquire(0, kRangeEnd, kRemove);
    remove_folios(mapping, 0, UINT64_MAX);
  }

  Mapping mapping;
};

// Runs body(0) to body(count - 1) side by side.
inline void run_threads(int count, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(body, i);
  for (std::thread& thread : threads) thread.join();
}

// Ends the program with a word on what hangs, sooner than the test runner would.
class Watchdog {
 public:
  explicit Watchdog(const char* what, std::int64_t seconds = 120)
      : thread_([this, what, seconds] {
          const std::uint32_t ticket = queue_.prepare();
          if (stopped_.load(memory_order_acquire)) return queue_.cancel();
          if (queue_.wait(ticket, seconds * 1'000'000'000) || stopped_.load(memory_order_acquire)) return;
          std::fprintf(stderr, "hangs: %s\n", what);
          std::abort();
        }) {}
  ~Watchdog() {
    stopped_.store(true, memory_order_release);
    queue_.wake_all();
    thread_.join();
  }

 private:
  WaitQueue queue_;
  Atomic<bool> stopped_;
  std::thread thread_;
};

}  // namespace quire::testing_support
