// quire's own policy, src/cache/eviction.h, as the cache uses it: it is told of misses and evictions only. A hit sets
// its frame's reference bit, and the index keeps a ghost for each block that left.
#include <algorithm>
#include <utility>

#include "cache/eviction.h"
#include "simulation/policy.h"

namespace quire::simulation {

namespace {

static_assert(kMaxBlocks <= Eviction::kMaxFrames);

class QuirePolicy final : public Policy {
 public:
  QuirePolicy(std::uint32_t frames, std::uint32_t blocks)
      : frames_(std::min(frames, blocks)), frame_of_(blocks, kNowhere), ghosts_(blocks) {
    table_.frames.reserve(frames_);
    CHECK(eviction_.create(frames_).ok());
  }

  bool access(Block block) override {
    if (is_resident(block)) {
      table_.frames[frame_of_[block]].referenced = true;
      return true;
    }
    const std::uint32_t frame = free_frame();
    table_.frames[frame] = {block, false};
    frame_of_[block] = frame;
    eviction_.admit(frame, ghosts_[block]);
    ghosts_[block] = 0;
    return false;
  }

  bool is_resident(Block block) const override { return frame_of_[block] != kNowhere; }

 private:
  static constexpr std::uint32_t kNowhere = UINT32_MAX;
  static constexpr std::uint32_t kScanBatch = 64;

  struct Frame {
    Block block = 0;
    bool referenced = false;
  };
  // What the policy asks about frames. None is ever in use here.
  struct FrameTable {
    std::vector<Frame> frames;

    bool test_and_clear_referenced(std::uint32_t id) { return std::exchange(frames[id].referenced, false); }
    bool try_take(std::uint32_t) { return true; }
  };

  std::uint32_t free_frame() {
    if (table_.frames.size() < frames_) {
      table_.frames.emplace_back();
      return static_cast<std::uint32_t>(table_.frames.size() - 1);
    }
    std::uint32_t victim = Eviction::kNone;
    std::uint64_t ghost = 0;
    while (victim == Eviction::kNone) {  // each batch clears bits
      std::uint32_t scanned = 0;
      victim = eviction_.evict(table_, kScanBatch, &scanned, &ghost);
    }
    const Block left = table_.frames[victim].block;
    frame_of_[left] = kNowhere;
    ghosts_[left] = ghost;
    return victim;
  }

  const std::uint32_t frames_;
  FrameTable table_;
  std::vector<std::uint32_t> frame_of_;
  std::vector<std::uint64_t> ghosts_;  // what the index holds for blocks that left; 0: nothing
  Eviction eviction_;
};

}  // namespace

std::unique_ptr<Policy> make_quire(std::uint32_t frames, std::uint32_t blocks) {
  return std::make_unique<QuirePolicy>(frames, blocks);
}

}  // namespace quire::simulation
