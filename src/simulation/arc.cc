// ARC (Megiddo and Modha, ARC: A Self-Tuning, Low Overhead Replacement Cache, FAST 2003, figure 4): T1 holds blocks
// requested once lately, T2 those requested more often, B1 and B2 remember what left each; a request for a remembered
// block moves the target size of T1 towards the side that would have had it.
#include <algorithm>

#include "simulation/policy.h"

namespace quire::simulation {

namespace {

class Arc final : public Policy {
 public:
  Arc(std::uint32_t frames, std::uint32_t blocks) : frames_(frames), lists_(blocks, 4) {}

  bool access(Block block) override {
    switch (lists_.list_of(block)) {
      case kT1:
      case kT2:
        lists_.move_to_front(kT2, block);
        return true;
      case kB1:
        target_ = std::min<double>(frames_, target_ + std::max(1.0, ratio(kB2, kB1)));
        replace(false);
        lists_.move_to_front(kT2, block);
        return false;
      case kB2:
        target_ = std::max(0.0, target_ - std::max(1.0, ratio(kB1, kB2)));
        replace(true);
        lists_.move_to_front(kT2, block);
        return false;
      default:
        make_room();
        lists_.push_front(kT1, block);
        return false;
    }
  }

  bool is_resident(Block block) const override { return lists_.is_on(kT1, block) || lists_.is_on(kT2, block); }

 private:
  static constexpr std::uint32_t kT1 = 0;
  static constexpr std::uint32_t kT2 = 1;
  static constexpr std::uint32_t kB1 = 2;
  static constexpr std::uint32_t kB2 = 3;

  double ratio(std::uint32_t list, std::uint32_t to) const {
    return static_cast<double>(lists_.size(list)) / lists_.size(to);
  }

  // Case IV of the paper: the block is on none of the lists.
  void make_room() {
    const std::uint32_t once = lists_.size(kT1) + lists_.size(kB1);
    const std::uint32_t more = lists_.size(kT2) + lists_.size(kB2);
    if (once == frames_) {
      if (lists_.size(kT1) < frames_) {
        (void)lists_.pop_back(kB1);
        replace(false);
      } else {
        (void)lists_.pop_back(kT1);
      }
    } else if (once + more >= frames_) {
      if (once + more == 2 * std::uint64_t{frames_}) (void)lists_.pop_back(kB2);
      replace(false);
    }
  }

  // One resident block leaves and is remembered.
  void replace(bool requested_in_b2) {
    const std::uint32_t size = lists_.size(kT1);
    const bool from_t1 = size >= 1 && (size > target_ || (requested_in_b2 && size == target_));
    const Block victim = lists_.pop_back(from_t1 ? kT1 : kT2);
    lists_.push_front(from_t1 ? kB1 : kB2, victim);
  }

  const std::uint32_t frames_;
  double target_ = 0;  // of the size of T1: p in the paper
  BlockLists lists_;
};

}  // namespace

std::unique_ptr<Policy> make_arc(std::uint32_t frames, std::uint32_t blocks) {
  return std::make_unique<Arc>(frames, blocks);
}

}  // namespace quire::simulation
