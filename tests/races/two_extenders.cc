// Two appends, one within the last page and one across it: each begins where the file ends once the other is done.
// Closed by reading the size again under the range lock, which both hold to infinity.
#include "races/scenario.h"

namespace quire::races {
namespace {

class TwoExtenders final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kOld));
    world_.warm(0, 0, kOld);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"short", [this] { expect(world_.append(0, letters('b', 50)) == 0, "the append succeeds"); }},
            {"long", [this] { expect(world_.append(0, letters('c', 200)) == 0, "the append succeeds"); }}};
  }
  void check() override {
    const std::string old = letters('a', kOld), b = letters('b', 50), c = letters('c', 200);
    const std::string now = world_.read(0, 0, 2 * kPage);
    expect(now == old + b + c || now == old + c + b, "both appends are there, one after the other");
  }

 private:
  static constexpr std::size_t kOld = kPage - 100;
  World world_;
};

RACE(two_extenders, TwoExtenders, {Defect::extender_keeps_old_size});

}  // namespace
}  // namespace quire::races
