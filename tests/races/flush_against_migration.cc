// A flush ends and makes what was written clean, by the marks of the index and without any folio's lock or reference,
// just when such a folio migrates. Closed by handing over its state in one section of the xarray lock with the index:
// the flush finds the old folio before, or the new one after.
#include "races/migrations.h"

namespace quire::races {
namespace {

class FlushAgainstMigration final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 1000));
    expect(world_.write(0, 0, letters('b', 1000)) == 0, "the write succeeds");
    expect(write_back(world_.file(0).mapping(), 0, 0, CacheContext{}).ok(), "so does the writeback");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto flush_it = [this] { expect(flush(world_.file(0).mapping(), true).ok(), "the flush succeeds"); };
    return {{"flusher", flush_it}, {"migrator", [this] { migrate_page(world_, 0, 0); }}};
  }
  void check() override {
    Mapping& mapping = world_.file(0).mapping();
    expect(mapping.unstable_count.load(memory_order_relaxed) == 0, "all is clean");
    Folio* folio = get_folio(mapping, 0);
    expect(folio != nullptr && !folio->has(kUnstable), "and the folio knows it");
    world_.cache().put_folio(*folio);
    expect(world_.read(0, 0, 1000) == letters('b', 1000), "the write is there");
  }

 private:
  World world_;
};

RACE(flush_against_migration, FlushAgainstMigration, {Defect::migration_of_state_seen_before});

}  // namespace
}  // namespace quire::races
