// Somebody takes a reference to a folio that is about to migrate, and copies from its old frame under that reference
// alone, which then is another file's. Closed by the freeze: a folio migrates only if its one reference goes to zero in
// one step.
#include <optional>

#include "cache/buffered_read.h"
#include "races/few_frames.h"
#include "races/migrations.h"

namespace quire::races {
namespace {

class MigrationAgainstReference final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 200));
    world_.add_file(letters('b', 200));
    world_.warm(0, 0, 200);
    few_.emplace(world_.cache(), 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      std::string bytes(100, '?');
      const iovec to{bytes.data(), bytes.size()};
      UserBuffer buffer(std::span(&to, 1));
      const std::size_t n = read_resident(world_.file(0).mapping(), buffer, 0, bytes.size());
      expect(n == 0 || is_all_of_one(bytes, "a"), "a read shows its own file");
    };
    const auto migrate = [this] {
      migrate_page(world_, 0, 0);
      FrameReservation frames(world_.cache().pool);
      if (!world_.cache().try_reserve(frames, 1)) return;
      const auto filled = fill_range(world_.file(1).mapping(), 0, 0, frames, CacheContext{});
      expect(filled.ok() && filled.value().first != nullptr, "the fill succeeds");
      world_.cache().put_folio(*filled.value().first);
    };
    return {{"reader", read}, {"migrator", migrate}};
  }
  void check() override {
    few_.reset();
    expect(world_.read(0, 0, 200) == letters('a', 200), "the file is as it was");
    expect(world_.read(1, 0, 200) == letters('b', 200), "the other file is as it was");
  }

 private:
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(migration_against_reference, MigrationAgainstReference, {Defect::migration_despite_references});

}  // namespace
}  // namespace quire::races
