// A copy that has its range locks and still needs a frame for its source, a reader that waits for the copy's lock, and
// just the frames that the copy needs. Closed by the order: a reader takes the range lock with no frame in hand.
#include <optional>

#include "races/few_frames.h"
#include "races/scenario.h"

namespace quire::races {
namespace {

class FramesExhaustedByReaders final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 300));
    world_.add_file(letters('b', 300));
    world_.warm(0, 0, 1);
    target_ = get_folio(world_.file(0).mapping(), 0);  // stays: its frame is not to be had
    few_.emplace(world_.cache(), 2);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto copy = [this] {
      const auto copied = file_copy(world_.file(1).handle(), 0, world_.file(0).handle(), 0, 300);
      expect(copied.ok() && copied.value() == 300, "the copy succeeds");
    };
    const auto read = [this] {
      std::string bytes(300, '?');
      const ssize_t n = world_.file(0).read(bytes.data(), bytes.size(), 0, kIoMissed);
      expect(n == 300 && is_all_of_one(bytes, "ab"), "a read shows half of the copy");
    };
    return {{"copier", copy}, {"reader", read}};
  }
  void check() override {
    few_.reset();
    world_.cache().put_folio(*target_);
    expect(world_.read(0, 0, 300) == letters('b', 300), "what was copied is there");
  }

 private:
  World world_{4096, 200};
  Folio* target_ = nullptr;
  std::optional<FewFrames> few_;
};

RACE(frames_exhausted_by_readers, FramesExhaustedByReaders, {Defect::reader_keeps_frames});

}  // namespace
}  // namespace quire::races
