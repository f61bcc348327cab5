// A fast read copies straight into its caller's buffer while reclaim gives the frame to another file: not even a read
// that is thrown away afterwards may leave the other's bytes there. Closed by the grace period before a frame is free.
#include <optional>

#include "cache/buffered_read.h"
#include "races/few_frames.h"
#include "races/scenario.h"

namespace quire::races {
namespace {

class FrameFreedWithoutGracePeriod final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 1200));
    world_.add_file(letters('b', 1100));
    world_.warm(0, 0, 1);
    few_.emplace(world_.cache(), 0);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"reader",
             [this] {
               std::string bytes(1100, '?');
               const ssize_t n = read_fast(world_.file(0).mapping(), bytes.data(), bytes.size(), 0);
               expect(n == kSlow || n == 1100, "a fast read reads all or nothing");
               expect(bytes.find('b') == std::string::npos, "another file's bytes in the buffer of a fast read");
               expect(n == kSlow || is_all_of_one(bytes, "a"), "a read shows its own file");
             }},
            {"other", [this] { expect(is_all_of_one(world_.read(1, 0, 100), "b"), "a read shows its own file"); }}};
  }
  void check() override { few_.reset(); }

 private:
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(frame_freed_without_grace_period, FrameFreedWithoutGracePeriod, {Defect::frame_freed_without_grace_period});

}  // namespace
}  // namespace quire::races
