// A read over two pages finds the first, which then migrates; a write changes both, and only then the read finds the
// second. The first page's old frame has its old bytes still. Closed by the old folio's odd sequence: the read fails
// its recheck, whatever the frame holds.
#include "races/migrations.h"
#include "races/reads.h"

namespace quire::races {
namespace {

class ReadAgainstMigration final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    world_.warm(0, 0, 2 * kPage);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      const std::string bytes = read_plain(world_, 0, kPage - 200, 400);
      expect(is_all_of_one(bytes, "ab"), "a read shows the pages before the write, or after it");
    };
    const auto write = [this] { expect(world_.write(0, kPage - 200, letters('b', 400)) == 0, "the write succeeds"); };
    return {{"reader", read}, {"migrator", [this, write] { migrate_page(world_, 0, 0, write); }}};
  }
  void check() override {
    const std::string half = letters('a', kPage - 200);
    const std::string now = world_.read(0, 0, 2 * kPage);
    expect(now == half + letters('b', 400) + half || now == letters('a', 2 * kPage),
           "the write is there, or was not made");
  }

 private:
  World world_;
};

RACE(read_against_migration, ReadAgainstMigration, {Defect::migration_without_odd_sequence});

}  // namespace
}  // namespace quire::races
