// `quire top`: the counters of a running process's caches, again and again.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quire/published.h"

namespace quire {

struct TopOptions {
  pid_t pid = 0;
  double interval_seconds = 1;
  std::uint64_t count = 0;  // of intervals; 0: until the process ends
  bool json = false;
};

int top(const TopOptions& options);

// What went on between two snapshots of one cache; by the second, where that is a rate.
struct CacheRates {
  double seconds = 0;               // between the snapshots
  std::optional<double> hit_ratio;  // of all reads, those that the fast path served; nothing without reads
  double reads = 0, hits = 0, fills = 0, evictions = 0, refaults = 0;
  double writeback_bytes = 0;
};

struct CacheSample {
  quire_published now;
  CacheRates rates;
};

}  // namespace quire
