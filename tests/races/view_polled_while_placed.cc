// One thread's touch has a page placed in a view for stores, and another stores to it meanwhile: between the mapping
// and its protection that store is no fault. Closed by counting what was there before it was protected as stored to;
// and nobody ever sees a page that is mapped and does not have the file's bytes.
#include "races/views.h"

namespace quire::races {
namespace {

class ViewPolledWhilePlaced final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.warm(0, 0, 1);
    view_ = &world_.add_view(0, 1, true);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto poll = [this] {
      for (int i = 0; i < 2; ++i) expect(world_.load(*view_, 0) == 'a', "a load is of the file");
    };
    return {{"poller", poll}, {"storer", [this] { expect(world_.store(*view_, 10, 'b') == 0, "the store succeeds"); }}};
  }
  void check() override {
    world_.file(0).sync_and_drop();
    expect(world_.read(0, 0, kPage) == letters('a', 10) + 'b' + letters('a', kPage - 11), "no store is lost");
  }

 private:
  ViewWorld world_;
  View* view_ = nullptr;
};

RACE(view_polled_while_placed, ViewPolledWhilePlaced, {Defect::window_store_taken_for_clean});

}  // namespace
}  // namespace quire::races
