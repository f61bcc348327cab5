// A clone from one file to another, both dirty, beside a clone and a dedupe the other way: each waits for the other or
// goes before it, and every page ends up whole. The locks of both files are taken in the order of their numbers,
// whichever is the source.
#include "races/scenario.h"

namespace quire::races {
namespace {

class CloneAndDedupePopulate final : public Scenario {
 public:
  void setup() override {
    for (const char letter : {'a', 'b'}) {
      const std::size_t number = letter - 'a';
      world_.add_file(letters('o', kPage));
      expect(world_.write(number, 0, letters(letter, kPage)) == 0, "the file is written");
    }
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto clone = [this](std::size_t from, std::size_t to) {
      const Status cloned = file_clone(world_.file(from).handle(), 0, world_.file(to).handle(), 0, kPage);
      expect(cloned.ok(), "the clone succeeds");
    };
    const auto dedupe_and_clone = [this, clone] {
      const auto shared = file_dedupe(world_.file(1).handle(), 0, world_.file(0).handle(), 0, kPage);
      expect(shared.ok() ? shared.value() == kPage : shared.errnum() == EBADE, "the pages are the same, or differ");
      clone(1, 0);
    };
    return {{"there", [clone] { clone(0, 1); }}, {"back", dedupe_and_clone}};
  }
  void check() override {
    const std::string one = world_.read(0, 0, kPage);
    expect(one.size() == kPage && is_all_of_one(one, "ab"), "the page is whole");
    expect(world_.read(1, 0, kPage) == one, "both files hold the same");
    for (const std::size_t number : {0, 1}) {
      expect(world_.file(number).sync() == 0, "the sync succeeds");
      world_.file(number).drop_cached();
      expect(world_.read(number, 0, kPage) == one, "the disk has it, too");
    }
  }

 private:
  World world_;
};

RACE(clone_and_dedupe_populate, CloneAndDedupePopulate, {Defect::two_files_in_call_order});

}  // namespace
}  // namespace quire::races
