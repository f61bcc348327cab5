// Two readers of one cold page: one of them reads it from the disk, and neither sees it before it is there. Its folio
// goes into the index locked and odd, and is even only once its bytes are in place.
#include "races/scenario.h"

namespace quire::races {
namespace {

class FillJoined final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    expect(world_.read(0, kPage, 1).empty(), "the file is one page long");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      expect(is_all_of_one(world_.read(0, 1000, 100), "a"), "a read shows a page before it is filled");
      expect(is_all_of_one(world_.read(0, 0, 2000), "a"), "a long read shows a page before it is filled");
    };
    return {{"one", read}, {"other", read}};
  }
  void check() override { expect(world_.disk().reads() == 1, "the page is read from the disk once"); }

 private:
  World world_;
};

RACE(fill_joined, FillJoined, {Defect::fill_uptodate_before_read});

}  // namespace
}  // namespace quire::races
