// A short hit of a file whose frame is taken for the same page of another file, before the hit looks at it (the folio
// says that it is the other's) or while it copies (the sequence has changed): never the other file's bytes.
#include <optional>

#include "races/few_frames.h"
#include "races/reads.h"

namespace quire::races {
namespace {

class ShortReadAgainstRecycling final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.add_file(letters('x', kPage));
    few_.emplace(world_.cache(), 1);
    world_.warm(0, 0, 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"other file's reader",
             [this] {
               for (int i = 0; i < 2; ++i) {  // a second time: hits are of what was read before
                 expect(is_all_of_one(read_plain(world_, 1, 0, 100), "x"), "the other file's bytes");
               }
             }},
            {"reader", [this] {
               const std::string bytes = hit(world_, 0, 0, 100);
               expect(bytes.empty() || is_all_of_one(bytes, "a"), "the file's own bytes, or no hit");
             }}};
  }

 private:
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(short_read_against_recycling, ShortReadAgainstRecycling,
     {Defect::hit_without_identity, Defect::hit_without_sequence_recheck});

}  // namespace
}  // namespace quire::races
