// Loads of two pages through a view beside a punch of both. Closed by taking all pages of the range from the views
// before the backing changes, with the invalidate lock held: a load is a fault from then on, and waits until both are
// gone.
#include "races/views.h"

namespace quire::races {
namespace {

class ViewLoadsAgainstPunch final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    view_ = &world_.add_view(0, 2, false);
    expect(world_.load(*view_, 0) == 'a' && world_.load(*view_, kPage) == 'a', "both pages are shown");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto load = [this] {
      const int first = world_.load(*view_, 0), second = world_.load(*view_, kPage);
      expect(first == 'a' || first == 0, "a load is of the file");
      expect(second == 0 || (second == 'a' && first == 'a'), "where one page is punched the other is");
    };
    return {{"puncher", [this] { expect(world_.file(0).punch(0, 2 * kPage) == 0, "the punch succeeds"); }},
            {"loader", load}};
  }
  void check() override {
    expect(world_.load(*view_, 0) == 0 && world_.load(*view_, kPage) == 0, "the view shows what was punched");
  }

 private:
  ViewWorld world_;
  View* view_ = nullptr;
};

RACE(view_loads_against_punch, ViewLoadsAgainstPunch, {Defect::fault_without_instantiate});

}  // namespace
}  // namespace quire::races
