// A store to a view beside a sync of the folio that it goes to. Closed by protecting the page before the folio becomes
// clean: a store after that is a fault, which waits for the folio's lock and makes it dirty anew.
#include "races/views.h"

namespace quire::races {
namespace {

class ViewStoreAgainstWriteback final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    view_ = &world_.add_view(0, 1, true);
    expect(world_.store(*view_, 0, 'b') == 0, "the first store makes the page open");
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"syncer", [this] { expect(world_.file(0).sync() == 0, "the sync succeeds"); }},
            {"storer", [this] { expect(world_.store(*view_, 10, 'c') == 0, "the store succeeds"); }}};
  }
  void check() override {
    const std::string wanted = "b" + letters('a', 9) + "c" + letters('a', kPage - 11);
    expect(world_.read(0, 0, kPage) == wanted, "what was stored is read");
    expect(world_.file(0).sync() == 0, "the sync succeeds");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, kPage) == wanted, "after a sync the disk has what was stored before it");
  }

 private:
  ViewWorld world_;
  View* view_ = nullptr;
};

RACE(view_store_against_writeback, ViewStoreAgainstWriteback, {Defect::writeback_leaves_views_open});

}  // namespace
}  // namespace quire::races
