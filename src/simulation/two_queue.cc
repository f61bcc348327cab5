// 2Q, full version (Johnson and Shasha, 2Q: A Low Overhead High Performance Buffer Management Replacement Algorithm,
// VLDB 1994): new blocks pass through a FIFO, A1in; those that leave it are remembered in A1out, and a request for one
// of these brings it into Am, an LRU. Kin is a quarter of the frames, Kout half of them, as the paper recommends.
#include "simulation/policy.h"

namespace quire::simulation {

namespace {

class TwoQueue final : public Policy {
 public:
  TwoQueue(std::uint32_t frames, std::uint32_t blocks)
      : frames_(frames), most_in_(frames / 4), most_out_(frames / 2), lists_(blocks, 3) {}

  bool access(Block block) override {
    switch (lists_.list_of(block)) {
      case kAm:
        lists_.move_to_front(kAm, block);
        return true;
      case kA1in:  // requests that follow close upon the first say nothing
        return true;
      case kA1out:
        lists_.remove(block);
        reclaim();
        lists_.push_front(kAm, block);
        return false;
      default:
        reclaim();
        lists_.push_front(kA1in, block);
        return false;
    }
  }

  bool is_resident(Block block) const override { return lists_.is_on(kA1in, block) || lists_.is_on(kAm, block); }

 private:
  static constexpr std::uint32_t kA1in = 0;
  static constexpr std::uint32_t kA1out = 1;  // not resident
  static constexpr std::uint32_t kAm = 2;

  // Makes a frame free.
  void reclaim() {
    if (lists_.size(kA1in) + lists_.size(kAm) < frames_) return;
    if (lists_.size(kA1in) <= most_in_ && lists_.size(kAm) > 0) {
      (void)lists_.pop_back(kAm);  // not remembered: it was not requested for long
      return;
    }
    lists_.push_front(kA1out, lists_.pop_back(kA1in));
    if (lists_.size(kA1out) > most_out_) (void)lists_.pop_back(kA1out);
  }

  const std::uint32_t frames_;
  const std::uint32_t most_in_;
  const std::uint32_t most_out_;
  BlockLists lists_;
};

}  // namespace

std::unique_ptr<Policy> make_two_queue(std::uint32_t frames, std::uint32_t blocks) {
  return std::make_unique<TwoQueue>(frames, blocks);
}

}  // namespace quire::simulation
