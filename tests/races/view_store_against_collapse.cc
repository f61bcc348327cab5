// A store to a page that a collapse moves. Closed by the invalidate lock: the fault of a store that comes after the
// flush inside the collapse waits, and then finds the page past the end of the file; one before it is written back.
#include "races/views.h"

namespace quire::races {
namespace {

class ViewStoreAgainstCollapse final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage) + letters('b', kPage));
    view_ = &world_.add_view(0, 2, true);
    expect(world_.store(*view_, kPage, 'b') == 0, "the page is shown, and open");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto collapse = [this] {
      expect(world_.file(0).allocate(FALLOC_FL_COLLAPSE_RANGE, 0, kPage) == 0, "the collapse succeeds");
    };
    return {{"collapser", collapse}, {"storer", [this] { stored_ = world_.store(*view_, kPage + 10, 'c'); }}};
  }
  void check() override {
    expect(stored_ == 0 || stored_ == -SIGBUS, "a store is made, or lies past the end");
    world_.file(0).sync_and_drop();
    const char at = stored_ == 0 ? 'c' : 'b';
    expect(world_.read(0, 0, 2 * kPage) == letters('b', 10) + at + letters('b', kPage - 11), "no store is lost");
  }

 private:
  ViewWorld world_;
  View* view_ = nullptr;
  int stored_ = 1;
};

RACE(view_store_against_collapse, ViewStoreAgainstCollapse, {Defect::fault_without_instantiate});

}  // namespace
}  // namespace quire::races
