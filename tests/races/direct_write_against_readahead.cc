// A direct write of a page that a readahead window is filling. Closed as direct_write_against_fill: the window holds
// the invalidate lock (instantiate) until it is complete, whoever waits for it or nobody; the write (direct) looks for
// folios under its own.
#include "races/scenario.h"

namespace quire::races {
namespace {

class DirectWriteAgainstReadahead final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 6 * kPage));
    // As in readahead_against_truncate: whoever reads page 2 starts the window that follows page 4.
    expect(is_all_of_one(world_.read(0, 0, 100), "a"), "the first page is read");
    expect(is_all_of_one(world_.read(0, kPage, 100), "a"), "the second page is read");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      expect(is_all_of_one(world_.read(0, 2 * kPage, 100), "a"), "the page before the window is as it was");
    };
    return {{"reader", read}, {"writer", [this] {
                                 expect(world_.write(0, 5 * kPage, letters('b', kPage), kIoDirect) == 0,
                                        "the write succeeds");
                               }}};
  }
  void check() override {
    expect(world_.read(0, 5 * kPage, kPage) == letters('b', kPage), "the cache has what was written directly");
    world_.file(0).drop_cached();  // without a sync: a direct write is on the device when it returns
    expect(world_.read(0, 5 * kPage, kPage) == letters('b', kPage), "and so has the disk");
  }

 private:
  World world_;
};

RACE(direct_write_against_readahead, DirectWriteAgainstReadahead, {Defect::direct_without_direct_mode});

}  // namespace
}  // namespace quire::races
