// LRU: the block whose last request is longest ago leaves.
#include "simulation/policy.h"

namespace quire::simulation {

namespace {

class Lru final : public Policy {
 public:
  Lru(std::uint32_t frames, std::uint32_t blocks) : frames_(frames), lists_(blocks, 1) {}

  bool access(Block block) override {
    if (is_resident(block)) {
      lists_.move_to_front(kResident, block);
      return true;
    }
    if (lists_.size(kResident) == frames_) (void)lists_.pop_back(kResident);
    lists_.push_front(kResident, block);
    return false;
  }

  bool is_resident(Block block) const override { return lists_.is_on(kResident, block); }

 private:
  static constexpr std::uint32_t kResident = 0;

  const std::uint32_t frames_;
  BlockLists lists_;  // front: most recent
};

}  // namespace

std::unique_ptr<Policy> make_lru(std::uint32_t frames, std::uint32_t blocks) {
  return std::make_unique<Lru>(frames, blocks);
}

}  // namespace quire::simulation
