// Two exchanges of the same two files, named in either order, beside a reader of both: each read is of one file whole,
// before or after an exchange, and the two together leave everything where it was. The locks of both files are taken in
// the order of their numbers.
#include "races/scenario.h"

namespace quire::races {
namespace {

class ExchangeBothWays final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    world_.add_file(letters('b', 2 * kPage));
    world_.warm(0, 0, 2 * kPage);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto exchange = [this](std::size_t one, std::size_t other) {
      const Status done = file_exchange(world_.file(one).handle(), 0, world_.file(other).handle(), 0, 2 * kPage);
      expect(done.ok(), "the exchange succeeds");
    };
    const auto exchange_and_read = [this, exchange] {
      exchange(1, 0);
      for (const std::size_t number : {0, 1}) {
        expect(is_all_of_one(world_.read(number, kPage - 1000, 2000), "ab"), "a read shows parts of both files");
      }
    };
    return {{"there", [exchange] { exchange(0, 1); }}, {"back", exchange_and_read}};
  }
  void check() override {
    expect(world_.read(0, 0, 2 * kPage) == letters('a', 2 * kPage), "the one file has its bytes again");
    expect(world_.read(1, 0, 2 * kPage) == letters('b', 2 * kPage), "the other file has its bytes again");
  }

 private:
  World world_;
};

RACE(exchange_both_ways, ExchangeBothWays, {Defect::two_files_in_call_order});

}  // namespace
}  // namespace quire::races
