// A read that reaches past the end of a file beside a truncate: the caller's bytes past the count that it returns are
// as they were, although more were there when it began. What a short read copies stays on the stack until it is known
// to be good.
#include "races/reads.h"

namespace quire::races {
namespace {

class BytesPastShortCount final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 200));
    world_.warm(0, 0, 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"truncater", [this] { expect(world_.file(0).truncate(50) == 0, "the truncate succeeds"); }},
            {"reader", [this] {
               std::string bytes = letters('?', 300);
               const iovec v{bytes.data(), bytes.size()};
               const auto n = file_read(world_.file(0).handle(), std::span(&v, 1), 0, 0);
               expect(n.ok() && (n.value() == 200 || n.value() == 50), "the whole file, before or after");
               expect(bytes == letters('a', n.value()) + letters('?', 300 - n.value()), "the rest is left alone");
             }}};
  }

 private:
  World world_;
};

RACE(bytes_past_short_count, BytesPastShortCount, {Defect::short_read_copies_past_count});

}  // namespace
}  // namespace quire::races
