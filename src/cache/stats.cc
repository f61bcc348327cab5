// Sums and names of the counters.
#include "cache/stats.h"

#include <new>

#include "base/check.h"

namespace quire {
namespace {

constexpr const char* kNames[] = {"miss_absent",
                                  "miss_changing",
                                  "miss_identity",
                                  "miss_readahead_mark",
                                  "miss_gate",
                                  "miss_changed",
                                  "miss_too_long",
                                  "miss_vector",
                                  "slow_reads",
                                  "writes_fast",
                                  "writes_few",
                                  "writes_gate",
                                  "write_retries",
                                  "fills",
                                  "fill_requests",
                                  "fills_joined",
                                  "zero_fills",
                                  "readahead_windows",
                                  "readahead_skipped",
                                  "folio_splits",
                                  "order_misses",
                                  "migrations",
                                  "evictions",
                                  "refaults",
                                  "reclaim_scans",
                                  "writeback_folios",
                                  "writeback_bytes",
                                  "writeback_requests",
                                  "writeback_errors",
                                  "flushes",
                                  "flush_errors",
                                  "throttled",
                                  "paced",
                                  "reservation_waits",
                                  "truncates",
                                  "range_changes",
                                  "direct_reads",
                                  "direct_writes",
                                  "direct_grown",
                                  "direct_cached",
                                  "direct_retries",
                                  "async_submitted",
                                  "async_queued",
                                  "view_faults",
                                  "view_stores",
                                  "view_parked",
                                  "view_runs",
                                  "view_resets",
                                  "verity_blocks",
                                  "verity_hash_blocks",
                                  "verity_hash_reads",
                                  "verity_late_hash_reads",
                                  "verity_failures"};
static_assert(sizeof(kNames) / sizeof(kNames[0]) == static_cast<std::size_t>(Counter::count));

}  // namespace

constinit thread_local Stats::Current Stats::current{};

std::uint64_t Stats::next_id() noexcept {
  static constinit Atomic<std::uint64_t> last;
  return last.fetch_add(1, memory_order_relaxed) + 1;
}

void Stats::count_hit_slow(std::uint64_t size) noexcept {
  Block& mine = block();
  if (!thread_slot_is_shared(thread_slot()) && &mine != &fallback_) current = Current{id_, &mine};
  add(mine.fast_reads[bucket(size)], 1);
}

Stats::~Stats() {
  for (auto& slot : blocks_) delete slot.load(memory_order_relaxed);
}

const char* Stats::name(Counter counter) { return kNames[static_cast<std::size_t>(counter)]; }

Stats::Block& Stats::make_block() noexcept {
  Block* fresh = new (std::nothrow) Block;
  if (fresh == nullptr) return fallback_;
  Block* expected = nullptr;
  auto& slot = blocks_[static_cast<std::size_t>(thread_slot())];
  // Only the shared slot can be raced for.
  if (slot.compare_exchange(expected, fresh, memory_order_acq_rel, memory_order_acquire)) {
    block_bytes_.fetch_add(sizeof(Block), memory_order_relaxed);
    return *fresh;
  }
  delete fresh;
  return *expected;
}

std::uint64_t Stats::sum(Counter counter) const {
  std::uint64_t total = fallback_.counters[static_cast<std::size_t>(counter)].load(memory_order_relaxed);
  for (const auto& slot : blocks_) {
    const Block* b = slot.load(memory_order_acquire);
    if (b != nullptr) total += b->counters[static_cast<std::size_t>(counter)].load(memory_order_relaxed);
  }
  return total;
}

std::uint64_t Stats::hits() const {
  std::uint64_t total = 0;
  for (const auto& slot : blocks_) {
    const Block* b = slot.load(memory_order_acquire);
    if (b == nullptr) continue;
    for (const auto& n : b->fast_reads) total += n.load(memory_order_relaxed);
  }
  return total;
}

std::uint64_t Stats::reads_of_bucket(int bucket) const {
  std::uint64_t total = 0;
  for (const auto& slot : blocks_) {
    const Block* b = slot.load(memory_order_acquire);
    if (b == nullptr) continue;
    total += b->fast_reads[static_cast<std::size_t>(bucket)].load(memory_order_relaxed);
    total += b->slow_reads[static_cast<std::size_t>(bucket)].load(memory_order_relaxed);
  }
  return total;
}

}  // namespace quire
