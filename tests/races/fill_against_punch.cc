// A cold read that fills the pages that follow as well, beside a punch of one of them. The ram store poisons the freed
// block at once, as another file's bytes would: a read shows the old bytes or zeros. The fill holds the invalidate lock
// (instantiate) from before its folios are in the index until they are filled, and the punch waits for it. (The punched
// page is past what the punch's range lock keeps from the reader, which reaches around the largest folio.)
#include "races/scenario.h"

namespace quire::races {
namespace {

class FillAgainstPunch final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 6 * kPage));
    world_.warm(0, 2 * kPage, kPage);  // the next miss is sequential: it fills what follows, too
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      expect(is_all_of_one(world_.read(0, 3 * kPage, 100), "a"), "the page beside the punch is as it was");
      expect(is_all_of_one(world_.read(0, 5 * kPage, 100), std::string("a\0", 2)),
             "a read shows a block that the file had given up");
    };
    return {{"reader", read},
            {"puncher", [this] { expect(world_.file(0).punch(5 * kPage, kPage) == 0, "the punch succeeds"); }}};
  }
  void check() override {
    expect(world_.read(0, 0, 6 * kPage) == letters('a', 5 * kPage) + letters('\0', kPage), "the file ends up punched");
  }

 private:
  World world_;
};

RACE(fill_against_punch, FillAgainstPunch, {Defect::fill_without_instantiate});

}  // namespace
}  // namespace quire::races
