// CLOCK, with one bit a frame (Corbato, A Paging Experiment with the Multics System, 1969): a hit sets the bit; the
// hand passes over frames whose bit is set, clearing it, and takes the first that is clear. A block comes in with the
// bit clear: the request that brought it is no second one.
#include <algorithm>

#include "simulation/policy.h"

namespace quire::simulation {

namespace {

class Clock final : public Policy {
 public:
  Clock(std::uint32_t frames, std::uint32_t blocks) : frames_(frames), frame_of_(blocks, kNowhere) {
    ring_.reserve(std::min(frames, blocks));
  }

  bool access(Block block) override {
    if (is_resident(block)) {
      ring_[frame_of_[block]].referenced = true;
      return true;
    }
    if (ring_.size() < frames_) {
      frame_of_[block] = static_cast<std::uint32_t>(ring_.size());
      ring_.push_back({block, false});
      return false;
    }
    while (ring_[hand_].referenced) {
      ring_[hand_].referenced = false;
      advance();
    }
    frame_of_[ring_[hand_].block] = kNowhere;
    frame_of_[block] = hand_;
    ring_[hand_] = {block, false};
    advance();
    return false;
  }

  bool is_resident(Block block) const override { return frame_of_[block] != kNowhere; }

 private:
  static constexpr std::uint32_t kNowhere = UINT32_MAX;

  struct Frame {
    Block block;
    bool referenced;
  };

  void advance() { hand_ = hand_ + 1 == frames_ ? 0 : hand_ + 1; }

  const std::uint32_t frames_;
  std::vector<Frame> ring_;  // grows to frames_
  std::vector<std::uint32_t> frame_of_;
  std::uint32_t hand_ = 0;
};

}  // namespace

std::unique_ptr<Policy> make_clock(std::uint32_t frames, std::uint32_t blocks) {
  return std::make_unique<Clock>(frames, blocks);
}

}  // namespace quire::simulation
