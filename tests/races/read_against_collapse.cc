// A read over two pages beside a collapse that takes the second away and moves the third, which is dirty, in its place:
// the pages of before or those of after. The dirty page may leave the cache only once the backing has its bytes.
#include "races/reads.h"

namespace quire::races {
namespace {

class ReadAgainstCollapse final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage) + letters('b', kPage) + letters('c', kPage));
    world_.warm(0, 0, 3 * kPage);
    expect(world_.write(0, 2 * kPage, letters('C', kPage)) == 0, "the last page is written");
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"collapser",
             [this] {
               expect(world_.file(0).allocate(FALLOC_FL_COLLAPSE_RANGE, kPage, kPage) == 0, "the collapse succeeds");
             }},
            {"reader", [this] {
               const std::vector<std::string> states = {letters('a', 50) + letters('b', 50),
                                                        letters('a', 50) + letters('C', 50)};
               const int first = state_of(read_plain(world_, 0, kPage - 50, 100), states);
               const int second = state_of(read_plain(world_, 0, kPage - 50, 100), states);
               expect(first >= 0 && second >= 0, "a read shows the pages of before or those of after");
               expect(first <= second, "a later read shows no earlier state");
             }}};
  }
  void check() override {
    expect(world_.read(0, 0, 4 * kPage) == letters('a', kPage) + letters('C', kPage), "two pages are left");
  }

 private:
  World world_;
};

RACE(read_against_collapse, ReadAgainstCollapse, {Defect::cache_dropped_before_backing});

}  // namespace
}  // namespace quire::races
