// Reads that reach the end of a file beside a write that overwrites and extends it at once, and an append: the bytes
// and the size of one state. The size rises inside the odd section of the bytes it comes with; a read that was clipped
// to the size it loaded looks at the size again.
#include "races/reads.h"

namespace quire::races {
namespace {

class ReadAgainstAppend final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 100));
    world_.warm(0, 0, 1);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"writer",
             [this] {
               expect(world_.write(0, 0, letters('b', 200)) == 0, "the write succeeds");
               expect(world_.append(0, letters('c', 100)) == 0, "the append succeeds");
             }},
            {"reader", [this] {
               const std::string last = letters('b', 200) + letters('c', 100);
               const int first = state_of(read_plain(world_, 0, 0, 400), {letters('a', 100), letters('b', 200), last});
               const int second = state_of(read_short(world_, 0, 150, 100),
                                           {"", letters('b', 50), letters('b', 50) + letters('c', 50)});
               expect(first >= 0 && second >= 0, "a read shows the bytes and the end of one state");
               expect(first <= second, "a later read shows no earlier state");
             }}};
  }

 private:
  World world_;
};

RACE(read_against_append, ReadAgainstAppend,
     {Defect::append_size_before_bytes, Defect::fast_read_without_size_recheck});

}  // namespace
}  // namespace quire::races
