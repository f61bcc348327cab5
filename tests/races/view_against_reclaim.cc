// A page that a view shows is reclaimed, and its frame becomes another file's. Closed by taking it from the views
// first: a viewed folio has a reference of theirs, and is not given up with it.
#include "races/few_frames.h"
#include "races/views.h"

namespace quire::races {
namespace {

class ViewAgainstReclaim final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    view_ = &world_.add_view(0, 1, false);
    expect(world_.load(*view_, 0) == 'a', "the page is shown");
    few_.emplace(world_.cache(), 0);
    take_frame();  // the first reclaim takes it from the view, and passes it over
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"reclaimer", [this] { take_frame(); }},
            {"loader", [this] { expect(world_.load(*view_, 5) == 'a', "a load is of its file"); }}};
  }
  void check() override { expect(world_.load(*view_, 5) == 'a', "a load is of its file"); }

 private:
  // As who fills another file's page.
  void take_frame() {
    FrameReservation frames(world_.cache().pool);
    if (!world_.cache().try_reserve(frames, 1)) return;
    Folio* const folio = frames.take();
    std::memset(folio->bytes(), 'b', kPage);
    frames.put(*folio);
  }

  ViewWorld world_{4096, 200};
  View* view_ = nullptr;
  std::optional<FewFrames> few_;
};

RACE(view_against_reclaim, ViewAgainstReclaim, {Defect::reclaim_of_viewed});

}  // namespace
}  // namespace quire::races
