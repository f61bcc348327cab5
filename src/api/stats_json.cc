// The statistics of a cache as JSON. Keys are documented in docs/PERFORMANCE.md.
#include <nlohmann/json.hpp>

#include "api/cache_impl.h"

namespace quire {

std::string CacheImpl::stats_json() {
  const PageCache& c = cache_;
  nlohmann::ordered_json j;
  j["memory"] = c.memory();
  j["frames"] = c.frames();
  j["free_frames"] = c.free_frames();
  j["folios"] = c.resident_pages();  // a large one is as many as it has pages
  j["folio_runs"] = c.resident_folios();
  j["folio_bytes"] = c.resident_pages() * kPageSize;
  j["metadata_bytes"] = c.metadata_bytes();
  const MemoryUse use = c.memory_use();
  j["memory_used"] = use.sum();
  j["arena_bytes"] = use.arena;
  j["descriptor_bytes"] = use.descriptors;
  j["huge_page_bytes"] = c.pool.huge_bytes();
  j["view_scrubbed"] = c.pool.scrubbed();
  j["index_bytes"] = use.index;
  j["file_bytes"] = use.files;
  j["prefetch_bytes"] = use.prefetch;
  j["bounce_bytes"] = use.bounce;
  j["counter_bytes"] = use.counters;
  j["readahead_folios"] = c.ahead.used();
  j["readahead_limit_folios"] = c.ahead.limit();
  j["unstable_folios"] = c.dirty.unstable();
  j["dirty_limit_folios"] = c.dirty.hard();
  j["background_dirty_folios"] = c.dirty.background();
  j["hits"] = c.stats.hits();
  for (int i = 0; i < static_cast<int>(Counter::count); ++i) {
    const auto counter = static_cast<Counter>(i);
    j[Stats::name(counter)] = c.stats.sum(counter);
  }
  nlohmann::ordered_json sizes;
  for (int b = 0; b < kSizeBuckets; ++b) {
    const std::uint64_t n = c.stats.reads_of_bucket(b);
    if (n != 0) sizes[std::to_string(b == 0 ? 0 : std::uint64_t{1} << (b - 1))] = n;
  }
  j["read_sizes"] = sizes.is_null() ? nlohmann::ordered_json::object() : sizes;
  const IoStats& io = c.io_stats;
  j["device_reads"] = IoStats::get(io.read_requests);
  j["device_writes"] = IoStats::get(io.write_requests);
  j["device_read_bytes"] = IoStats::get(io.read_bytes);
  j["device_write_bytes"] = IoStats::get(io.write_bytes);
  j["device_flushes"] = IoStats::get(io.flushes);
  j["device_errors"] = IoStats::get(io.errors);
  j["direct_fallbacks"] = IoStats::get(io.direct_fallbacks);
  j["engine_fallbacks"] = IoStats::get(io.engine_fallbacks);
  j["ring_setups"] = IoStats::get(io.ring_setups);
  j["fixed_requests"] = IoStats::get(io.fixed_requests);
  j["buffer_fallbacks"] = IoStats::get(io.buffer_fallbacks);
  j["aio_requests"] = IoStats::get(io.aio_requests);
  j["registered_bytes"] = IoStats::get(io.registered_bytes);
  return j.dump();
}

}  // namespace quire
