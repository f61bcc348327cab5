// Reads over the new end of a file that is truncated into a page: the long file's bytes or the short file's, never
// zeros in a file that still is long. The gate closes over the zeroing of the edge and the size together: a hit that
// loaded the size before is told by the gate alone. Grown again, the file shows zeros past that end.
#include "races/reads.h"

namespace quire::races {
namespace {

class ReadAgainstPartialTruncate final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.warm(0, 0, kPage);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"truncater", [this] { expect(world_.file(0).truncate(100) == 0, "the file shrinks"); }},
            {"reader", [this] {
               const int first = state_of(read_short(world_, 0, 50, 100), {letters('a', 100), letters('a', 50)});
               const int second = state_of(read_plain(world_, 0, 100, 100), {letters('a', 100), ""});
               expect(first >= 0 && second >= 0, "a read shows one state of the file");
               expect(first <= second, "a later read shows no earlier state");
             }}};
  }
  void check() override {
    expect(world_.file(0).truncate(kPage) == 0, "the file grows");
    expect(world_.read(0, 0, kPage) == letters('a', 100) + letters('\0', kPage - 100), "nothing old past the end");
  }

 private:
  World world_;
};

RACE(read_against_partial_truncate, ReadAgainstPartialTruncate,
     {Defect::hit_without_gate_recheck, Defect::fast_read_of_odd_gate, Defect::edge_zeroed_before_gate});

}  // namespace
}  // namespace quire::races
