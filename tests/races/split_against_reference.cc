// Somebody copies from a page of a large folio under a reference alone, while a small write to another of its
// pages splits it: the page would be a folio of its own that reclaim may take, with nobody's reference. Closed by the
// freeze: a folio is split only by who has its one reference.
#include <optional>

#include "cache/buffered_read.h"
#include "cache/split.h"
#include "races/few_frames.h"
#include "races/scenario.h"

namespace quire::races {
namespace {

class SplitAgainstReference final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    world_.add_file(letters('b', 2 * kPage));
    world_.warm_large(0, 0, 1);
    few_.emplace(world_.cache(), 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      std::string bytes(100, '?');
      const iovec to{bytes.data(), bytes.size()};
      UserBuffer buffer(std::span(&to, 1));
      const std::size_t n = read_resident(world_.file(0).mapping(), buffer, kPage, bytes.size());
      expect(n == 0 || is_all_of_one(bytes, "a"), "a read shows its own file");
    };
    // As a read of the other file: takes the frames that reclaim gives, and fills them.
    const auto fill = [this] {
      FrameReservation frames(world_.cache().pool);
      if (!world_.cache().try_reserve(frames, 2)) return;
      const auto filled = fill_range(world_.file(1).mapping(), 0, 1, frames, CacheContext{});
      expect(filled.ok() && filled.value().first != nullptr, "the fill succeeds");
      world_.cache().put_folio(*filled.value().first);
    };
    const auto split = [this, fill] {  // as a small write does
      Mapping& mapping = world_.file(0).mapping();
      Folio* folio = get_folio(mapping, 0);
      if (folio == nullptr) return;
      lock_folio(*folio);
      if (folio_is(*folio, &mapping, 0)) static_cast<void>(split_folio(mapping, *folio, 0, 0));
      unlock_folio(*folio);
      world_.cache().put_folio(*folio);
      fill();
    };
    return {{"reader", read}, {"splitter", split}};
  }
  void check() override {
    few_.reset();
    expect(world_.read(0, 0, 2 * kPage) == letters('a', 2 * kPage), "the file is as it was");
    expect(world_.read(1, 0, 2 * kPage) == letters('b', 2 * kPage), "the other file is as it was");
  }

 private:
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(split_against_reference, SplitAgainstReference, {Defect::split_despite_references});

}  // namespace
}  // namespace quire::races
