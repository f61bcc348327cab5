// W-TinyLFU (Einziger, Friedman and Manes, TinyLFU: A Highly Efficient Cache Admission Policy, ACM Transactions on
// Storage 2017, section 4): new blocks pass through a small LRU, the window (1 % of the frames). What leaves it enters
// the main part only if it was requested more often than what would leave that. The main part is a segmented LRU, four
// fifths of it protected. No doorkeeper.
#include <algorithm>

#include "simulation/frequency_sketch.h"
#include "simulation/policy.h"

namespace quire::simulation {

namespace {

class WTinyLfu final : public Policy {
 public:
  WTinyLfu(std::uint32_t frames, std::uint32_t blocks)
      : frames_(frames),
        most_window_(std::max(1u, frames / 100)),
        most_protected_(static_cast<std::uint32_t>(std::uint64_t{frames - most_window_} * 4 / 5)),
        sketch_(frames),
        lists_(blocks, 3) {}

  bool access(Block block) override {
    sketch_.add(block);
    switch (lists_.list_of(block)) {
      case kWindow:
        lists_.move_to_front(kWindow, block);
        return true;
      case kProbation:
      case kProtected:
        lists_.move_to_front(kProtected, block);
        if (lists_.size(kProtected) > most_protected_) lists_.move_to_front(kProbation, lists_.back(kProtected));
        return true;
      default:
        lists_.push_front(kWindow, block);
        if (lists_.size(kWindow) > most_window_) leave_window();
        return false;
    }
  }

  bool is_resident(Block block) const override { return lists_.list_of(block) != BlockLists::kNoList; }

 private:
  static constexpr std::uint32_t kWindow = 0;
  static constexpr std::uint32_t kProbation = 1;
  static constexpr std::uint32_t kProtected = 2;

  // The coldest of the window goes to the main part, and the less requested of it and the coldest there leaves.
  void leave_window() {
    const Block candidate = lists_.pop_back(kWindow);
    if (lists_.size(kWindow) + lists_.size(kProbation) + lists_.size(kProtected) < frames_) {
      lists_.push_front(kProbation, candidate);
      return;
    }
    const std::uint32_t coldest = lists_.size(kProbation) > 0 ? kProbation : kProtected;
    if (lists_.size(coldest) == 0) return;  // a window and nothing else
    const Block victim = lists_.back(coldest);
    if (sketch_.count(candidate) <= sketch_.count(victim)) return;
    lists_.remove(victim);
    lists_.push_front(kProbation, candidate);
  }

  const std::uint32_t frames_;
  const std::uint32_t most_window_;
  const std::uint32_t most_protected_;
  FrequencySketch sketch_;
  BlockLists lists_;
};

}  // namespace

std::unique_ptr<Policy> make_w_tiny_lfu(std::uint32_t frames, std::uint32_t blocks) {
  return std::make_unique<WTinyLfu>(frames, blocks);
}

}  // namespace quire::simulation
