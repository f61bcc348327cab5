// A punch of one page of a large dirty folio beside the writeback of another, which writes the whole folio, and another
// file's writeback that takes the freed block at once. Closed by the locks: a range operation's reach around whatever
// folio may lie on an edge of its range.
#include "races/scenario.h"

namespace quire::races {
namespace {

class PunchInLargeFolio final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('o', 4 * kPage));
    world_.add_file();
    expect(world_.write(0, 0, letters('a', 4 * kPage)) == 0, "the one file is written, as one folio");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto punch_and_reuse = [this] {
      expect(world_.file(0).punch(2 * kPage, kPage) == 0, "the punch succeeds");
      world_.disk().put(world_.backing(1), 0, std::vector<char>(kPage, 'b'), kPage);
    };
    const auto sync = [this] {
      expect(sync_range(world_.file(0).mapping(), 0, 0, false).ok(), "the sync of the first page succeeds");
    };
    return {{"syncer", sync}, {"puncher", punch_and_reuse}};
  }
  void check() override {
    std::vector<char> block(kPage);
    const auto extent = world_.backing(1).map(0, kPage);
    expect(extent.ok() && extent.value().length == kPage, "the other file has its block");
    world_.disk().store.memory().peek(extent.value().address, block.data(), kPage);
    expect(block == std::vector<char>(kPage, 'b'), "the other file's block has the other file's bytes");
    expect(world_.file(0).sync() == 0, "the sync succeeds");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, 2 * kPage) == letters('a', 2 * kPage), "the pages before the punch are as they were");
    expect(world_.read(0, 2 * kPage, kPage) == letters('\0', kPage), "the one page is punched");
    expect(world_.read(0, 3 * kPage, kPage) == letters('a', kPage), "and the page after it");
  }

 private:
  World world_;
};

RACE(punch_in_large_folio, PunchInLargeFolio, {Defect::range_operation_locks_pages_only});

}  // namespace
}  // namespace quire::races
