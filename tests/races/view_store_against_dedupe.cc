// Stores to both files of a dedupe, which compares what the disk has: first the source ceases to be what the target
// then becomes, so that they are never equal. Closed by writing both back once more under the invalidate lock, which
// protects their pages: what is compared stands still.
#include "races/views.h"

namespace quire::races {
namespace {

class ViewStoreAgainstDedupe final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.add_file("b" + letters('a', kPage - 1));
    source_ = &world_.add_view(0, 1, true);
    target_ = &world_.add_view(1, 1, true);
    expect(world_.store(*source_, 0, 'a') == 0 && world_.store(*target_, 0, 'b') == 0, "both pages are open");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto dedupe = [this] {
      const auto shared = file_dedupe(world_.file(0).handle(), 0, world_.file(1).handle(), 0, kPage);
      expect(!shared.ok() || shared.value() == 0, "what was never equal is not shared");
    };
    const auto store = [this] {
      expect(world_.store(*source_, 0, 'c') == 0, "the store succeeds");
      expect(world_.store(*target_, 0, 'a') == 0, "the store succeeds");
    };
    return {{"deduper", dedupe}, {"storer", store}};
  }
  void check() override {
    for (const std::size_t number : {0, 1}) world_.file(number).sync_and_drop();
    expect(world_.read(0, 0, kPage) == "c" + letters('a', kPage - 1), "the source has what was stored");
    expect(world_.read(1, 0, kPage) == letters('a', kPage), "the target has what was stored");
  }

 private:
  ViewWorld world_;
  View *source_ = nullptr, *target_ = nullptr;
};

RACE(view_store_against_dedupe, ViewStoreAgainstDedupe, {Defect::stores_not_written_again});

}  // namespace
}  // namespace quire::races
