// The table of policies; see policy.h.
#include "simulation/policy.h"

namespace quire::simulation {

namespace {

struct Entry {
  std::string_view name;
  std::unique_ptr<Policy> (*make)(std::uint32_t frames, std::uint32_t blocks);
};
constexpr Entry kPolicies[] = {{"lru", &make_lru},        {"clock", &make_clock}, {"2q", &make_two_queue},
                               {"arc", &make_arc},        {"lirs", &make_lirs},   {"wtinylfu", &make_w_tiny_lfu},
                               {"s3fifo", &make_s3_fifo}, {"quire", &make_quire}};

}  // namespace

const std::vector<std::string_view>& policy_names() {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> all;
    for (const Entry& entry : kPolicies) all.push_back(entry.name);
    return all;
  }();
  return names;
}

std::unique_ptr<Policy> make_policy(std::string_view name, std::uint32_t frames, std::uint32_t blocks) {
  CHECK(frames > 0);
  CHECK(blocks <= kMaxBlocks);
  for (const Entry& entry : kPolicies) {
    if (entry.name == name) return entry.make(frames, blocks);
  }
  return nullptr;
}

}  // namespace quire::simulation
