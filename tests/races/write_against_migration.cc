// A write in place finds its folio without a reference, just when that migrates: what it writes must not stay behind in
// the old frame. Closed by copying under the folio's lock, and by asking, under that lock, whether the folio still is
// this page's.
#include "cache/buffered_write.h"
#include "races/migrations.h"

namespace quire::races {
namespace {

class WriteAgainstMigration final : public Scenario {
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
    return {{"writer", write}, {"migrator", [this] { migrate_page(world_, 0, 0); }}};
  }
  void check() override {
    const std::string wanted = letters('a', 100) + letters(wrote_ ? 'b' : 'a', 100) + letters('a', 800);
    expect(world_.read(0, 0, kPage) == wanted, "what was written is there");
    expect(world_.file(0).sync() == 0, "the sync succeeds");
    expect(world_.cache().dirty.unstable() == 0, "and leaves nothing unstable");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, kPage) == wanted, "what was written is on the disk");
  }

 private:
  World world_;
  bool wrote_ = false;
};

RACE(write_against_migration, WriteAgainstMigration,
     {Defect::migration_copies_unlocked, Defect::waiter_without_identity});

}  // namespace
}  // namespace quire::races
