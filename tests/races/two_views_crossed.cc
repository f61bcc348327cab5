// Two writes whose buffers lie in each other's file's view. Closed by taking the buffer's bytes to private memory
// before anything is locked (R4).
#include "races/views.h"

namespace quire::races {
namespace {

class TwoViewsCrossed final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 100));
    world_.add_file(letters('b', 100));
    first_ = &world_.add_view(0, 1, false);
    second_ = &world_.add_view(1, 1, false);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"to the first", [this] { expect(world_.write_from(*second_, 0, 0, 100) == 0, "the write succeeds"); }},
            {"to the second", [this] { expect(world_.write_from(*first_, 1, 0, 100) == 0, "the write succeeds"); }}};
  }
  void check() override {
    for (const std::size_t number : {0, 1}) {
      expect(is_all_of_one(world_.read(number, 0, kPage), "ab"), "each has what the other had before or after");
    }
  }

 private:
  ViewWorld world_;
  View *first_ = nullptr, *second_ = nullptr;
};

RACE(two_views_crossed, TwoViewsCrossed, {Defect::view_touched_under_lock});

}  // namespace
}  // namespace quire::races
