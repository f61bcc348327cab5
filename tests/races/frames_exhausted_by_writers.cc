// Two operations that each need a frame and the same bytes' range lock, and one frame for both. Closed by the order:
// who waits for frames holds no range lock, so whoever has the frame gets the lock and ends.
#include <optional>

#include "races/few_frames.h"
#include "races/scenario.h"

namespace quire::races {
namespace {

class FramesExhaustedByWriters final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 100));
    world_.warm(0, 0, 1);
    target_ = get_folio(world_.file(0).mapping(), 0);  // stays: its frame is not to be had
    // The flusher waits for this file while the two run: its rounds would multiply the schedules.
    world_.add_file(letters('d', 100));
    expect(world_.write(1, 0, letters('e', 100)) == 0, "the write succeeds");
    busy_.emplace(world_.file(1).mapping().invalidate);
    busy_->acquire(0, 0, kRemove);
    few_.emplace(world_.cache(), 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto write = [this] { expect(world_.write(0, 0, letters('b', 100), kIoWithin) == 0, "the write succeeds"); };
    const auto take = [this] {  // what a copy has before it reads its source
      FrameReservation frames(world_.cache().pool);
      world_.cache().reserve(frames, 1);
      RangeGuard range(world_.file(0).inode().range);
      range.acquire(0, 99, kExclusive);
    };
    return {{"writer", write}, {"other", take}};
  }
  void check() override {
    few_.reset();
    busy_.reset();
    world_.cache().put_folio(*target_);
    expect(world_.read(0, 0, 100) == letters('b', 100), "what was written is there");
  }

 private:
  World world_{4096, 200};
  Folio* target_ = nullptr;
  std::optional<RangeGuard> busy_;
  std::optional<FewFrames> few_;
};

RACE(frames_exhausted_by_writers, FramesExhaustedByWriters, {Defect::frames_reserved_under_range_lock});

}  // namespace
}  // namespace quire::races
