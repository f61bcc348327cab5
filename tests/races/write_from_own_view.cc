// A write whose buffer is a view of the very range, cold, beside another of the same. Closed as two_views_crossed.
#include "races/views.h"

namespace quire::races {
namespace {

class WriteFromOwnView final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 100) + letters('b', 100));
    view_ = &world_.add_view(0, 1, false);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"one", [this] { expect(world_.write_from(*view_, 0, 0, 100) == 0, "the write succeeds"); }},
            {"shifted", [this] { expect(world_.write_from(*view_, 0, 100, 100) == 0, "the write succeeds"); }}};
  }
  void check() override { expect(world_.read(0, 0, kPage) == letters('a', 200), "each has copied what was there"); }

 private:
  ViewWorld world_;
  View* view_ = nullptr;
};

RACE(write_from_own_view, WriteFromOwnView, {Defect::view_touched_under_lock});

}  // namespace
}  // namespace quire::races
