// Runs one policy over one trace; see hit_ratio.h.
#include "simulation/hit_ratio.h"

#include <algorithm>
#include <cmath>

#include "simulation/policy.h"

namespace quire::simulation {

std::uint32_t frames_for(double fraction, std::uint32_t blocks) {
  const double frames = std::clamp<double>(std::round(fraction * blocks), 1, kMaxBlocks);
  return static_cast<std::uint32_t>(frames);
}

std::uint64_t count_misses(std::string_view policy, const Trace& trace, std::uint32_t frames) {
  const auto cache = make_policy(policy, frames, trace.blocks);
  CHECK(cache != nullptr);
  std::uint64_t misses = 0;
  for (const Block block : trace.requests) misses += cache->access(block) ? 0 : 1;
  return misses;
}

}  // namespace quire::simulation
