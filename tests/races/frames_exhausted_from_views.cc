// Writes from cold views, which need frames for what is read through the view, and then for what is written, where
// there is one frame. Closed by the order: who waits for frames to read through a view has none itself.
#include <optional>

#include "races/few_frames.h"
#include "races/views.h"

namespace quire::races {
namespace {

class FramesExhaustedFromViews final : public Scenario {
 public:
  void setup() override {
    for (const char letter : {'a', 'b'}) world_.add_file(letters(letter, 100));
    view_ = &world_.add_view(0, 1, false);
    // The flusher waits for this file, as in frames_exhausted_by_writers.
    world_.add_file(letters('d', 100));
    expect(world_.write(2, 0, letters('e', 100)) == 0, "the write succeeds");
    busy_.emplace(world_.file(2).mapping().invalidate);
    busy_->acquire(0, 0, kRemove);
    few_.emplace(world_.cache(), 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto take = [this] {
      FrameReservation frames(world_.cache().pool);
      world_.cache().try_reserve(frames, 1);
    };
    return {{"writer", [this] { expect(world_.write_from(*view_, 1, 0, 100) == 0, "the write succeeds"); }},
            {"other", take}};
  }
  void check() override {
    few_.reset();
    busy_.reset();
    expect(world_.read(1, 0, 100) == letters('a', 100), "what was written is there");
  }

 private:
  ViewWorld world_{4096, 200};
  View* view_ = nullptr;
  std::optional<RangeGuard> busy_;
  std::optional<FewFrames> few_;
};

RACE(frames_exhausted_from_views, FramesExhaustedFromViews, {Defect::bounce_after_reserve});

}  // namespace
}  // namespace quire::races
