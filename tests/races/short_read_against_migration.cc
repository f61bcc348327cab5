// A short hit is led by the lookaside to a frame whose folio has migrated, and which is the same page of another file
// by now, or becomes it while the hit copies. Closed by the identity (the folio says that it is the other's) and by the
// sequence, which no two lives of a frame share.
#include <optional>

#include "races/few_frames.h"
#include "races/migrations.h"
#include "races/reads.h"

namespace quire::races {
namespace {

class ShortReadAgainstMigration final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.add_file(letters('x', kPage));
    world_.warm(0, 0, 1);
    few_.emplace(world_.cache(), 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto migrate = [this] {
      migrate_page(world_, 0, 0);    // to the only free frame: its own is the next one's
      for (int i = 0; i < 2; ++i) {  // a second time: hits are of what was read before
        expect(is_all_of_one(read_plain(world_, 1, 0, 100), "x"), "the other file's bytes");
      }
    };
    const auto read = [this] {
      const std::string bytes = hit(world_, 0, 0, 100);
      expect(bytes.empty() || is_all_of_one(bytes, "a"), "the file's own bytes, or no hit");
    };
    return {{"migrator", migrate}, {"reader", read}};
  }
  void check() override {
    few_.reset();
    expect(world_.read(0, 0, kPage) == letters('a', kPage), "the file is as it was");
  }

 private:
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(short_read_against_migration, ShortReadAgainstMigration,
     {Defect::hit_without_identity, Defect::hit_without_sequence_recheck});

}  // namespace
}  // namespace quire::races
