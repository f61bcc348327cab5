// A write in place finds its folio without a reference, and reclaim takes the folio out before the write has its lock.
// Closed by asking, under the lock, whether the folio still is this page's: what is written to a removed one is lost.
#include "cache/buffered_write.h"
#include "races/scenario.h"

namespace quire::races {
namespace {

class RemovedFolioLockedByWaiter final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 1000));
    world_.warm(0, 0, 1000);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto write = [this] {
      const std::string bytes = letters('b', 100);
      wrote_ = write_fast(world_.file(0).mapping(), bytes.data(), bytes.size(), 100, true);
    };
    return {{"writer", write}, {"reclaimer", [this] { world_.reclaim(1); }}};
  }
  void check() override {
    const std::string wanted = letters('a', 100) + letters(wrote_ ? 'b' : 'a', 100) + letters('a', 800);
    expect(world_.read(0, 0, kPage) == wanted, "what was written is there");
    expect(world_.file(0).sync() == 0, "the sync succeeds");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, kPage) == wanted, "what was written is on the disk");
  }

 private:
  World world_;
  bool wrote_ = false;
};

RACE(removed_folio_locked_by_waiter, RemovedFolioLockedByWaiter, {Defect::waiter_without_identity});

}  // namespace
}  // namespace quire::races
