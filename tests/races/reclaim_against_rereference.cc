// A slow read takes a reference to a folio that reclaim is about to take away for another file. Closed by the freeze:
// reclaim goes on only if it takes the last reference to zero in one step.
#include <optional>

#include "cache/buffered_read.h"
#include "races/few_frames.h"
#include "races/scenario.h"

namespace quire::races {
namespace {

class ReclaimAgainstRereference final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 200));
    world_.add_file(letters('b', 200));
    world_.warm(0, 0, 200);
    few_.emplace(world_.cache(), 0);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      std::string bytes(100, '?');
      const iovec to{bytes.data(), bytes.size()};
      UserBuffer buffer(std::span(&to, 1));
      const std::size_t n = read_resident(world_.file(0).mapping(), buffer, 0, bytes.size());
      expect(n == 0 || is_all_of_one(bytes, "a"), "a read shows its own file");
    };
    const auto fill = [this] { expect(fill_if_room(world_, 1), "the fill succeeds"); };
    return {{"reader", read}, {"other", fill}};
  }
  void check() override {
    few_.reset();
    expect(world_.read(0, 0, 200) == letters('a', 200), "the file is as it was");
    expect(world_.read(1, 0, 200) == letters('b', 200), "the other file is as it was");
  }

 private:
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(reclaim_against_rereference, ReclaimAgainstRereference, {Defect::reclaim_without_freeze});

}  // namespace
}  // namespace quire::races
