// A direct read beside a dedupe of the same range, which gives up the blocks that are being read and changes no byte:
// only the invalidate lock keeps them (direct against remove); the range lock is shared by both.
#include "races/scenario.h"

namespace quire::races {
namespace {

class DirectReadAgainstDedupe final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.add_file(letters('a', kPage));
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto dedupe = [this] {
      const auto shared = file_dedupe(world_.file(0).handle(), 0, world_.file(1).handle(), 0, kPage);
      expect(shared.ok() && shared.value() == kPage, "the dedupe succeeds");
    };
    const auto read = [this] {
      expect(world_.read(1, 0, kPage, kIoDirect) == letters('a', kPage), "a read shows a block that was given up");
    };
    return {{"deduper", dedupe}, {"reader", read}};
  }

 private:
  World world_;
};

RACE(direct_read_against_dedupe, DirectReadAgainstDedupe, {Defect::direct_read_without_direct_mode});

}  // namespace
}  // namespace quire::races
