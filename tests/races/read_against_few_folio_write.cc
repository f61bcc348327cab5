// A read of two folios beside a write of both: all of them are odd before the first changes, and even only after the
// last has, so that a reader who finds both even and unchanged has them before the write or after it.
#include "races/reads.h"

namespace quire::races {
namespace {

class ReadAgainstFewFolioWrite final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    world_.warm(0, 0, 2 * kPage);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"writer", [this] { expect(world_.write(0, kPage - 700, letters('b', 1400)) == 0, "the write succeeds"); }},
            {"reader", [this] {
               const std::string first = read_plain(world_, 0, kPage - 50, 100);     // through the stack
               const std::string second = read_plain(world_, 0, kPage - 600, 1200);  // straight out
               const std::string third = read_short(world_, 0, kPage + 250, 200);
               expect(is_all_of_one(first, "ab") && is_all_of_one(second, "ab") && is_all_of_one(third, "ab"),
                      "a read shows part of a write");
               expect(first[0] <= second[0] && second[0] <= third[0], "a later read shows no earlier state");
             }}};
  }

 private:
  World world_;
};

RACE(read_against_few_folio_write, ReadAgainstFewFolioWrite,
     {Defect::write_made_even_one_by_one, Defect::fast_read_without_sequence_recheck, Defect::fast_read_of_odd_sequence,
      Defect::hit_of_odd_sequence});

}  // namespace
}  // namespace quire::races
