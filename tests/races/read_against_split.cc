// A read that finds a page in a large folio, which is split before the read looks at it or while it copies: what then
// changes in the page changes under another folio's sequence. Closed by the identity (the page is not in what is left
// of the folio) and by the split's odd sequence.
#include "races/reads.h"

namespace quire::races {
namespace {

class ReadAgainstSplit final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 4 * kPage));
    world_.warm_large(0, 0, 2);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      const std::string bytes = read_plain(world_, 0, 2 * kPage, 400);
      expect(is_all_of_one(bytes, "ab"), "a read shows the page before the write, or after it");
    };
    const auto write = [this] {
      expect(world_.write(0, 3 * kPage, "c") == 0, "the write that splits succeeds");
      expect(world_.write(0, 2 * kPage, letters('b', 400)) == 0, "the write succeeds");
    };
    return {{"reader", read}, {"writer", write}};
  }
  void check() override {
    expect(world_.cache().stats.sum(Counter::folio_splits) != 0, "the folio was split");
    std::string now = letters('a', 4 * kPage);
    now[3 * kPage] = 'c';
    now.replace(2 * kPage, 400, letters('b', 400));
    expect(world_.read(0, 0, 4 * kPage) == now, "the cache has both writes");
    expect(world_.file(0).sync() == 0, "the sync succeeds");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, 4 * kPage) == now, "the disk has both writes");
  }

 private:
  World world_;
};

RACE(read_against_split, ReadAgainstSplit, {Defect::fast_read_without_identity, Defect::split_without_odd_sequence});

}  // namespace
}  // namespace quire::races
