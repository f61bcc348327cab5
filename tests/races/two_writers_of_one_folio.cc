// Two writes of different bytes of one folio: their range locks let both in, and there is one sequence for both. Closed
// by the folio lock: nobody makes the sequence even while another still copies.
#include "races/scenario.h"

namespace quire::races {
namespace {

class TwoWritersOfOneFolio final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.warm(0, 0, kPage);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto write = [this](std::uint64_t offset, char letter) {
      expect(world_.write(0, offset, letters(letter, 100)) == 0, "the write succeeds");
    };
    return {
        {"first", [write] { write(0, 'b'); }},
        {"second", [write] { write(2000, 'c'); }},
        {"reader", [this] { expect(is_all_of_one(world_.read(0, 2000, 100), "ac"), "a read shows half of a write"); }}};
  }
  void check() override {
    const std::string wanted = letters('b', 100) + letters('a', 1900) + letters('c', 100) + letters('a', kPage - 2100);
    expect(world_.read(0, 0, kPage) == wanted, "both writes are there");
  }

 private:
  World world_;
};

RACE(two_writers_of_one_folio, TwoWritersOfOneFolio, {Defect::writer_without_folio_lock});

}  // namespace
}  // namespace quire::races
