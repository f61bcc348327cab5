// Two direct writers of different sectors of one block that holds nothing yet. Each writes the whole block, zeros
// around its own bytes, and so locks to the block's edges: the second finds the first one's bytes in it, and writes in
// place.
#include "races/scenario.h"

namespace quire::races {
namespace {

class TwoDirectWritersOfOneBlock final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    expect(world_.file(0).punch(0, kPage) == 0, "the first block is a hole");
    world_.file(0).sync_and_drop();
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto write = [this](std::uint64_t offset, char letter) {
      expect(world_.write(0, offset, letters(letter, 512), kIoDirect) == 0, "the write succeeds");
    };
    return {{"first", [write] { write(512, 'b'); }}, {"second", [write] { write(2048, 'c'); }}};
  }
  void check() override {
    const std::string wanted = letters('\0', 512) + letters('b', 512) + letters('\0', 1024) + letters('c', 512) +
                               letters('\0', kPage - 2560) + letters('a', kPage);
    expect(world_.read(0, 0, 2 * kPage) == wanted, "both are there, and zeros around them");
  }

 private:
  World world_;
};

RACE(two_direct_writers_of_one_block, TwoDirectWritersOfOneBlock,
     {Defect::direct_range_not_grown, Defect::direct_block_not_zeroed});

}  // namespace
}  // namespace quire::races
