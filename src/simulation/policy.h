// A replacement policy in simulation: told each request, it says whether the block was resident. Each baseline follows
// its paper (the source stands at the top of its file) and sees every request, hits included; `quire` is the cache's
// own, which does not. Place: simulation; hit_ratio.h runs traces through policies. Thread safety: none.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "simulation/block_lists.h"

namespace quire::simulation {

class Policy {
 public:
  virtual ~Policy() = default;
  // Requests the block; true where it was resident, a hit. It is resident afterwards.
  virtual bool access(Block block) = 0;
  virtual bool is_resident(Block block) const = 0;
};

// The names that make_policy knows, in the order of tables.
const std::vector<std::string_view>& policy_names();

// A policy with `frames` > 0 frames, all free, for blocks 0 .. blocks - 1; null for an unknown name.
std::unique_ptr<Policy> make_policy(std::string_view name, std::uint32_t frames, std::uint32_t blocks);

std::unique_ptr<Policy> make_lru(std::uint32_t frames, std::uint32_t blocks);
std::unique_ptr<Policy> make_clock(std::uint32_t frames, std::uint32_t blocks);
std::unique_ptr<Policy> make_two_queue(std::uint32_t frames, std::uint32_t blocks);
std::unique_ptr<Policy> make_arc(std::uint32_t frames, std::uint32_t blocks);
std::unique_ptr<Policy> make_lirs(std::uint32_t frames, std::uint32_t blocks);
std::unique_ptr<Policy> make_w_tiny_lfu(std::uint32_t frames, std::uint32_t blocks);
std::unique_ptr<Policy> make_s3_fifo(std::uint32_t frames, std::uint32_t blocks);
std::unique_ptr<Policy> make_quire(std::uint32_t frames, std::uint32_t blocks);

}  // namespace quire::simulation
