// Reclaim wants a few frames and finds a folio that is much larger: it is cut, a part goes, and the frames are filled
// for another file, while a slow read takes a reference to the part and a fast one copies from the rest. Closed by the
// freeze, twice: for the split and for what goes.
#include <optional>

#include "cache/buffered_read.h"
#include "races/few_frames.h"
#include "races/reads.h"

namespace quire::races {
namespace {

class PartialReclaimAgainstRead final : public Scenario {
 public:
  void setup() override {
    world_.cache().set_max_order(kOrder);
    world_.add_file(letters('a', kPages * kPage));
    world_.add_file(letters('b', 200));
    world_.warm_large(0, 0, kOrder);
    few_.emplace(world_.cache(), 0);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      std::string bytes(100, '?');
      const iovec to{bytes.data(), bytes.size()};
      UserBuffer buffer(std::span(&to, 1));
      const std::size_t n = read_resident(world_.file(0).mapping(), buffer, 0, bytes.size());
      expect(n == 0 || is_all_of_one(bytes, "a"), "a read shows its own file");
      const std::string rest = hit(world_, 0, (kPages - 1) * kPage, 100);
      expect(rest.empty() || is_all_of_one(rest, "a"), "so does a read of what stays");
    };
    const auto fill = [this] { expect(fill_if_room(world_, 1), "the fill succeeds"); };
    return {{"reader", read}, {"other", fill}};
  }
  void check() override {
    PageCache& cache = world_.cache();
    // Where the reader has it just then it is not cut: it stays whole, or goes whole a moment later.
    const std::uint64_t left = cache.resident_pages();
    expect(left <= 1 || left >= kPages / 2, "no more of it goes than is wanted");  // one may be the other file's
    few_.reset();
    expect(world_.read(0, 0, kPages * kPage) == letters('a', kPages * kPage), "the file is as it was");
    expect(world_.read(1, 0, 200) == letters('b', 200), "the other file is as it was");
    world_.reclaim(cache.frames());
    expect(cache.resident_pages() == 0, "all of it can be reclaimed: the queue knows every part");
    expect(cache.pool.free_frames() == cache.frames(), "no frame is lost");
  }

 private:
  static constexpr unsigned kOrder = 4;
  static constexpr std::size_t kPages = std::size_t{1} << kOrder;
  World world_{4096, 200};
  std::optional<FewFrames> few_;
};

RACE(partial_reclaim_against_read, PartialReclaimAgainstRead,
     {Defect::reclaim_without_freeze, Defect::split_despite_references});

}  // namespace
}  // namespace quire::races
