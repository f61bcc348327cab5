// Counters by thread (single writer each, so a hit pays two plain instructions), summed when asked.
// Thread safety: count() from any thread; sum() gives a value between the call and the return.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "sync/atomic.h"
#include "sync/thread_slot.h"

namespace quire {

// Why a read left the fast path, and what the slow paths did. Names of the JSON keys: stats.cc.
enum class Counter : std::uint8_t {
  miss_absent,          // no folio
  miss_changing,        // sequence odd: being filled or written
  miss_identity,        // recycled between lookup and check
  miss_readahead_mark,  // its first reader starts the next window
  miss_gate,            // a range operation over these bytes
  miss_changed,         // a sequence, the gate or the size changed during the copy
  miss_too_long,        // more folios than the fast path tracks
  miss_vector,          // several buffers
  slow_reads,
  writes_fast,    // one resident folio
  writes_few,     // all folios locked and odd together
  writes_gate,    // under the gate
  write_retries,  // range or frames had to grow
  fills,          // pages filled by reading
  fill_requests,  // device requests for them
  fills_joined,   // waited for somebody else's fill
  zero_fills,     // folios of holes, or wholly overwritten
  readahead_windows,
  readahead_skipped,
  folio_splits,
  order_misses,  // a large folio was wanted and free frames enough, but none of them together
  migrations,    // folios moved for such
  evictions,
  refaults,  // fills of pages that were evicted not long ago: counted once evictions leave ghosts
  reclaim_scans,
  writeback_folios,
  writeback_bytes,
  writeback_requests,
  writeback_errors,
  flushes,
  flush_errors,
  throttled,  // waits for room below the dirty limit
  paced,      // waits to keep to the device's rate
  reservation_waits,
  truncates,
  range_changes,   // fallocate, clone, dedupe, exchange
  direct_reads,    // past the cache
  direct_writes,   // past the cache
  direct_grown,    // of those: to the edges of blocks that held nothing
  direct_cached,   // direct writes that went through it
  direct_retries,  // that found it otherwise under the locks
  async_submitted,
  async_queued,            // of those: run by a worker, which could wait
  view_faults,             // touches of pages of views that were not there
  view_stores,             // first stores to pages of views since they were written back
  view_parked,             // of both, those that had to wait for something
  view_runs,               // of pages, placed in views
  view_resets,             // parts of views made blank, to have fewer mappings
  verity_blocks,           // of data, verified
  verity_hash_blocks,      // of hash trees, verified
  verity_hash_reads,       // device requests for them
  verity_late_hash_reads,  // of those: sent after the data that they are for had come
  verity_failures,         // blocks of either that did not verify
  count
};

inline constexpr int kSizeBuckets = 26;  // read sizes by bit width: 0, 1, 2-3, 4-7, ... >= 16 MiB

class Stats {
 public:
  Stats() = default;
  ~Stats();
  Stats(const Stats&) = delete;
  Stats& operator=(const Stats&) = delete;

  void count(Counter counter, std::uint64_t n = 1) noexcept {
    add(block().counters[static_cast<std::size_t>(counter)], n);
  }
  // A read that the fast path served; size in bytes as asked for.
  void count_hit(std::uint64_t size) noexcept {
    if (current.id == id_) {
      current.block->fast_reads[bucket(size)].increment_alone();
    } else {
      count_hit_slow(size);
    }
  }
  // In line, for 1 byte to 1 MiB: if this thread counted its last hit in the Stats of this id, in a block of its own,
  // counts one more there; else false.
  [[gnu::always_inline]] static bool count_short_hit(std::uint64_t id, std::uint64_t size) noexcept {
    if (__builtin_expect(current.id != id, 0)) return false;
    const auto width_less_1 = 63u ^ static_cast<unsigned>(__builtin_clzl(size));
    current.block->fast_reads[std::size_t{width_less_1} + 1].increment_alone();
    return true;
  }
  std::uint64_t id() const noexcept { return id_; }

  void count_slow_read(std::uint64_t size) noexcept {
    add(block().slow_reads[bucket(size)], 1);
    count(Counter::slow_reads);
  }

  std::uint64_t sum(Counter counter) const;
  std::uint64_t hits() const;
  std::uint64_t reads_of_bucket(int bucket) const;
  static const char* name(Counter counter);
  std::int64_t memory_bytes() const { return block_bytes_.load(memory_order_relaxed); }

 private:
  struct alignas(64) Block {
    std::array<Atomic<std::uint64_t>, static_cast<std::size_t>(Counter::count)> counters;
    std::array<Atomic<std::uint64_t>, kSizeBuckets> fast_reads;
    std::array<Atomic<std::uint64_t>, kSizeBuckets> slow_reads;
  };
  // The block that this thread counted its last hit in, by the id of its Stats (ids are never used again).
  struct Current {
    std::uint64_t id;
    Block* block;
  };
  static constinit thread_local Current current;
  static std::uint64_t next_id() noexcept;
  void count_hit_slow(std::uint64_t size) noexcept;

  static std::size_t bucket(std::uint64_t size) {
    return std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(size)), kSizeBuckets - 1);
  }
  static void add(Atomic<std::uint64_t>& counter, std::uint64_t n) noexcept {
    if (__builtin_expect(thread_slot_is_shared(thread_slot()), 0)) {
      counter.fetch_add(n, memory_order_relaxed);
    } else {
      counter.store(counter.load(memory_order_relaxed) + n, memory_order_relaxed);  // this thread alone writes it
    }
  }
  Block& block() noexcept {
    Block* b = blocks_[static_cast<std::size_t>(thread_slot())].load(memory_order_acquire);
    return __builtin_expect(b != nullptr, 1) ? *b : make_block();
  }
  Block& make_block() noexcept;

  std::array<Atomic<Block*>, kThreadSlots> blocks_;
  const std::uint64_t id_ = next_id();
  Atomic<std::int64_t> block_bytes_;
  Block fallback_;  // when a block cannot be allocated; counts may then be lost, never anything else
};

}  // namespace quire
