// A short hit beside a punch that zeroes the edges of two folios: old bytes or zeros, never both, and no word of old
// bytes after zeros were seen. Both edges change inside one closed gate, each in an odd section of its folio: for bytes
// inside one folio either is enough.
#include "races/reads.h"

namespace quire::races {
namespace {

class ShortReadAgainstPunch final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    world_.warm(0, 0, 2 * kPage);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"puncher", [this] { expect(world_.file(0).punch(1000, 5000) == 0, "the punch succeeds"); }},
            {"reader", [this] {
               const std::string first = read_short(world_, 0, kPage, 100);
               const std::string second = read_short(world_, 0, 1000, 100);
               const std::string allowed("a\0", 2);
               expect(is_all_of_one(first, allowed) && is_all_of_one(second, allowed),
                      "a read shows half of the punch");
               expect(!(first[0] == '\0' && second[0] == 'a'), "a read shows the bytes of before the punch, too late");
             }}};
  }
  void check() override {
    const std::string wanted = letters('a', 1000) + letters('\0', 5000) + letters('a', 2 * kPage - 6000);
    expect(world_.read(0, 0, 2 * kPage) == wanted, "the file ends up punched");
  }

 private:
  World world_;
};

RACE(short_read_against_punch, ShortReadAgainstPunch, {Defect::edge_zeroed_before_gate});

}  // namespace
}  // namespace quire::races
