// S3-FIFO (Yang, Zhang, Qiu, Yue and Rashmi, FIFO queues are all you need for cache eviction, SOSP 2023, algorithm 1):
// new blocks enter a small FIFO, a tenth of the frames. Those requested more than once there move to the main FIFO, the
// others leave and are remembered in a ghost FIFO as long as the main one; a request for one of these brings it into
// the main FIFO at once. Blocks at the main FIFO's end stay for another round for each request counted, up to three.
#include <algorithm>

#include "simulation/policy.h"

namespace quire::simulation {

namespace {

class S3Fifo final : public Policy {
 public:
  S3Fifo(std::uint32_t frames, std::uint32_t blocks)
      : frames_(frames),
        small_(std::max(1u, frames / 10)),
        most_main_(frames - small_),
        lists_(blocks, 3),
        counts_(blocks) {}

  bool access(Block block) override {
    if (is_resident(block)) {
      counts_[block] = static_cast<std::uint8_t>(std::min(counts_[block] + 1, kMaxCount));
      return true;
    }
    while (lists_.size(kSmall) + lists_.size(kMain) >= frames_) evict();
    counts_[block] = 0;
    if (lists_.is_on(kGhost, block)) {
      lists_.move_to_front(kMain, block);
    } else {
      lists_.push_front(kSmall, block);
    }
    return false;
  }

  bool is_resident(Block block) const override { return lists_.is_on(kSmall, block) || lists_.is_on(kMain, block); }

 private:
  static constexpr std::uint32_t kSmall = 0;
  static constexpr std::uint32_t kMain = 1;
  static constexpr std::uint32_t kGhost = 2;
  static constexpr int kMaxCount = 3;

  void evict() {
    if (lists_.size(kSmall) >= small_) {
      evict_small();
    } else {
      evict_main();
    }
  }

  // The first from the small FIFO's end that was not requested more than once leaves.
  void evict_small() {
    while (lists_.size(kSmall) > 0) {
      const Block block = lists_.pop_back(kSmall);
      if (counts_[block] <= 1) {
        lists_.push_front(kGhost, block);
        if (lists_.size(kGhost) > most_main_) (void)lists_.pop_back(kGhost);
        return;
      }
      counts_[block] = 0;
      lists_.push_front(kMain, block);
      if (lists_.size(kMain) > most_main_) evict_main();  // the small FIFO loses one all the same, as in the paper
    }
  }

  void evict_main() {
    while (lists_.size(kMain) > 0) {
      const Block block = lists_.pop_back(kMain);
      if (counts_[block] == 0) return;
      --counts_[block];
      lists_.push_front(kMain, block);
    }
  }

  const std::uint32_t frames_;
  const std::uint32_t small_;
  const std::uint32_t most_main_;
  BlockLists lists_;                  // front: newest
  std::vector<std::uint8_t> counts_;  // requests since the block came or moved, up to kMaxCount
};

}  // namespace

std::unique_ptr<Policy> make_s3_fifo(std::uint32_t frames, std::uint32_t blocks) {
  return std::make_unique<S3Fifo>(frames, blocks);
}

}  // namespace quire::simulation
