// A read of two folios beside a write of more folios than are made odd together: they change one by one behind a closed
// gate. A reader that finds it closed, or changed at its end, keeps nothing of what it saw.
#include "cache/buffered_write.h"
#include "races/reads.h"

namespace quire::races {
namespace {

constexpr std::uint32_t kPages = kFewFolios + 1;

class ReadAgainstGateWrite final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPages * kPage));
    world_.warm(0, 0, kPages * kPage);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"writer", [this] { expect(world_.write(0, 0, letters('b', kPages * kPage)) == 0, "the write succeeds"); }},
            {"reader", [this] {
               const std::string bytes = read_plain(world_, 0, kPage - 50, 100);
               expect(is_all_of_one(bytes, "ab"), "a read shows part of a write");
             }}};
  }

 private:
  World world_{4096, 8 * kPages};
};

RACE(read_against_gate_write, ReadAgainstGateWrite,
     {Defect::fast_read_without_gate_recheck, Defect::fast_read_of_odd_gate});

}  // namespace
}  // namespace quire::races
