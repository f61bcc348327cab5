// A direct write of some sectors of a page beside a buffered read of others, which fills the page. The fill holds the
// invalidate lock (instantiate) from before it looks until the folio is filled, the write (direct) from before it looks
// for folios to its completion, and looks under it: so a folio is there for the write to see, or is filled after it.
#include "races/scenario.h"

namespace quire::races {
namespace {

class DirectWriteAgainstFill final : public Scenario {
 public:
  void setup() override { world_.add_file(letters('a', kPage)); }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      expect(is_all_of_one(world_.read(0, 1024, 100), "a"), "the sectors beside the write are as they were");
    };
    return {{"reader", read}, {"writer", [this] {
                                 expect(world_.write(0, 0, letters('b', 512), kIoDirect) == 0, "the write succeeds");
                               }}};
  }
  void check() override {
    const std::string wanted = letters('b', 512) + letters('a', kPage - 512);
    expect(world_.read(0, 0, kPage) == wanted, "the cache has what was written directly");
    expect(world_.file(0).sync() == 0, "the sync succeeds");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, kPage) == wanted, "and so has the disk");
  }

 private:
  World world_{512};
};

RACE(direct_write_against_fill, DirectWriteAgainstFill,
     {Defect::direct_without_direct_mode, Defect::direct_looks_before_it_locks});

}  // namespace
}  // namespace quire::races
