// Reclaim has chosen a folio, which is locked and off its queue, and will be given up or put back; at that moment its
// block is to be rebuilt. Closed by the lock, which both only try: the queue and the index name the same folios always.
#include <optional>

#include "races/few_frames.h"
#include "races/migrations.h"
#include "races/reads.h"

namespace quire::races {
namespace {

class ReclaimAgainstMigration final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 200));
    world_.add_file(letters('b', 200));
    world_.warm(0, 0, 200);
    few_.emplace(world_.cache(), 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto fill = [this] { expect(fill_if_room(world_, 1), "the fill succeeds"); };
    return {{"migrator", [this] { migrate_page(world_, 0, 0); }}, {"other", fill}};
  }
  void check() override {
    PageCache& cache = world_.cache();
    expect(cache.eviction.size() == cache.resident_pages(), "the queue has what the index has");
    few_.reset();
    world_.reclaim(cache.frames());
    expect(cache.resident_pages() == 0, "and all of it can be reclaimed");
    expect(cache.pool.free_frames() == cache.frames(), "no frame is lost");
    expect(world_.read(0, 0, 200) == letters('a', 200), "the file is as it was");
    expect(world_.read(1, 0, 200) == letters('b', 200), "the other file is as it was");
  }

 private:
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(reclaim_against_migration, ReclaimAgainstMigration, {Defect::migration_despite_lock});

}  // namespace
}  // namespace quire::races
