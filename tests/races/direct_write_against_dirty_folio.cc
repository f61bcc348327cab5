// A direct write over a page that is dirty in the cache, beside a sync that writes it back: the older bytes must not
// land after the newer. The write sees the folio and goes through it.
#include "races/scenario.h"

namespace quire::races {
namespace {

class DirectWriteAgainstDirtyFolio final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    expect(world_.write(0, 0, letters('b', kPage)) == 0, "the page is dirty");
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {
        {"syncer", [this] { expect(world_.file(0).sync() == 0, "the sync succeeds"); }},
        {"writer", [this] { expect(world_.write(0, 0, letters('c', kPage), kIoDirect) == 0, "the write succeeds"); }}};
  }
  void check() override {
    expect(world_.read(0, 0, kPage) == letters('c', kPage), "the cache has what was written last");
    world_.file(0).drop_cached();  // without another sync: a direct write is on the device when it returns
    expect(world_.read(0, 0, kPage) == letters('c', kPage), "and so has the disk");
  }

 private:
  World world_;
};

RACE(direct_write_against_dirty_folio, DirectWriteAgainstDirtyFolio, {Defect::direct_ignores_folios});

}  // namespace
}  // namespace quire::races
