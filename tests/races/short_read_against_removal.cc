// Short hits on two pages that share one frame, while the first pushes the second out: a hit that began on the page
// before must notice (its sequence has changed), and one that comes while the frame is filled finds the page that it
// wants, but nobody yet who has read it there.
#include <optional>

#include "races/few_frames.h"
#include "races/reads.h"

namespace quire::races {
namespace {

class ShortReadAgainstRemoval final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage) + letters('b', kPage));
    few_.emplace(world_.cache(), 1);
    world_.warm(0, 0, 1);
    world_.warm(0, kPage, 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {
        {"evictor", [this] { expect(is_all_of_one(read_plain(world_, 0, 0, 100), "a"), "the first page's bytes"); }},
        {"reader", [this] {
           const std::string second = hit(world_, 0, kPage, 100);
           const std::string first = hit(world_, 0, 0, 100);
           expect(second.empty() || is_all_of_one(second, "b"), "the second page's bytes, or no hit");
           expect(first.empty() || is_all_of_one(first, "a"), "the first page's bytes, or no hit");
         }}};
  }

 private:
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(short_read_against_removal, ShortReadAgainstRemoval, {Defect::hit_without_sequence_recheck});

}  // namespace
}  // namespace quire::races
