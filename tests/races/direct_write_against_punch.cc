// A direct write of a sector of a block that holds data beside a punch of that block: what has to be written, the
// sector or the whole block, is decided again under the locks.
#include "races/scenario.h"

namespace quire::races {
namespace {

class DirectWriteAgainstPunch final : public Scenario {
 public:
  void setup() override { world_.add_file(letters('a', 2 * kPage)); }
  std::vector<scheduling::NamedBody> threads() override {
    return {
        {"writer", [this] { expect(world_.write(0, 512, letters('b', 512), kIoDirect) == 0, "the write succeeds"); }},
        {"puncher", [this] { expect(world_.file(0).punch(0, kPage) == 0, "the punch succeeds"); }}};
  }
  void check() override {
    const std::string punched = letters('\0', kPage);
    const std::string written = letters('\0', 512) + letters('b', 512) + letters('\0', kPage - 1024);
    const std::string page = world_.read(0, 0, kPage);
    expect(page == punched || page == written, "the write came before the punch or after it");
    expect(world_.read(0, kPage, kPage) == letters('a', kPage), "the next block is as it was");
  }

 private:
  World world_;
};

RACE(direct_write_against_punch, DirectWriteAgainstPunch, {Defect::direct_not_decided_again});

}  // namespace
}  // namespace quire::races
