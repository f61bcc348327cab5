// A folio is written to again while its bytes are on their way to the disk. Closed by clearing dirty when writeback
// begins: set again meanwhile, it stays, and the folio is written once more.
#include "races/scenario.h"

namespace quire::races {
namespace {

class WritebackAgainstRedirty final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 1000));
    expect(world_.write(0, 0, letters('b', 100)) == 0, "the write succeeds");
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"syncer", [this] { expect(world_.file(0).sync() == 0, "the sync succeeds"); }},
            {"writer", [this] { expect(world_.write(0, 50, letters('c', 100)) == 0, "the write succeeds"); }}};
  }
  void check() override {
    const std::string wanted = letters('b', 50) + letters('c', 100) + letters('a', 850);
    expect(world_.file(0).sync() == 0, "the sync succeeds");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, kPage) == wanted, "after a sync the disk has what was written before it");
  }

 private:
  World world_;
};

RACE(writeback_against_redirty, WritebackAgainstRedirty, {Defect::writeback_cleans_redirtied});

}  // namespace
}  // namespace quire::races
