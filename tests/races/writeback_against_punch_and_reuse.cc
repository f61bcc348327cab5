// A page that is being written back beside a punch of it and another file's writeback, which takes the freed block at
// once: no file's bytes get into the other's block. Writeback holds the invalidate lock (instantiate) from before it
// asks where the block is until the device is done, and the punch waits for it.
#include "races/scenario.h"

namespace quire::races {
namespace {

class WritebackAgainstPunchAndReuse final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('o', kPage));
    world_.add_file();
    expect(world_.write(0, 0, letters('a', kPage)) == 0, "the one file is written");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto punch_and_reuse = [this] {
      expect(world_.file(0).punch(0, kPage) == 0, "the punch succeeds");
      world_.disk().put(world_.backing(1), 0, std::vector<char>(kPage, 'b'), kPage);
    };
    return {{"syncer", [this] { expect(world_.file(0).sync() == 0, "the sync succeeds"); }},
            {"puncher", punch_and_reuse}};
  }
  void check() override {
    std::vector<char> block(kPage);
    const auto extent = world_.backing(1).map(0, kPage);
    expect(extent.ok() && extent.value().length == kPage, "the other file has its block");
    world_.disk().store.memory().peek(extent.value().address, block.data(), kPage);
    expect(block == std::vector<char>(kPage, 'b'), "the other file's block has the other file's bytes");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, kPage) == letters('\0', kPage), "the one file ends up punched");
  }

 private:
  World world_;
};

RACE(writeback_against_punch_and_reuse, WritebackAgainstPunchAndReuse, {Defect::writeback_without_instantiate});

}  // namespace
}  // namespace quire::races
