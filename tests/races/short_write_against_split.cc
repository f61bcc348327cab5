// A short write that finds its page in the index just when another write splits the large folio around it: it must not
// get the lock of a part that is still being made. Closed by the order: parts are complete and locked before the index
// shows them; and by the sequence, which is odd until they are whole.
#include "cache/split.h"
#include "races/reads.h"

namespace quire::races {
namespace {

class ShortWriteAgainstSplit final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    world_.warm_large(0, 0, 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      const std::string bytes = read_plain(world_, 0, kPage, 300);
      expect(is_all_of_one(bytes, "ab"), "a read shows the page before the write, or after it");
    };
    const auto split = [this] {  // as a write to the other page does
      Mapping& mapping = world_.file(0).mapping();
      Folio* folio = get_folio(mapping, 0);
      lock_folio(*folio);
      static_cast<void>(split_folio(mapping, *folio, 0, 0));
      unlock_folio(*folio);
      world_.cache().put_folio(*folio);
    };
    const auto write = [this] { expect(world_.write(0, kPage, letters('b', 300)) == 0, "the write succeeds"); };
    return {{"reader", read}, {"splitter", split}, {"writer", write}};
  }
  void check() override {
    expect(world_.read(0, kPage, kPage) == letters('b', 300) + letters('a', kPage - 300), "the write is there");
    for (std::uint64_t page = 0; page < 2; ++page) {
      Folio* folio = get_folio(world_.file(0).mapping(), page);
      expect(!folio->sequence.odd() && !folio->has(kLocked), "every part is even and unlocked");
      expect(folio->has(kDirty) || page == 0, "what was written is dirty");
      world_.cache().put_folio(*folio);
    }
  }

 private:
  World world_;
};

RACE(short_write_against_split, ShortWriteAgainstSplit, {Defect::split_shows_unmade_parts});

}  // namespace
}  // namespace quire::races
