// A direct write in flight beside a truncate of the same file, and a write of another file that gets the freed block at
// once. The locks are held to the device's completion: the bytes must not land in the other file.
#include "races/scenario.h"

namespace quire::races {
namespace {

class DirectWriteAgainstTruncateAndReuse final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.add_file();
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto reuse = [this] {
      expect(world_.file(0).truncate(0) == 0, "the truncate succeeds");
      expect(world_.write(1, 0, letters('c', kPage), kIoDirect) == 0, "the other file is written");
    };
    return {
        {"writer", [this] { expect(world_.write(0, 0, letters('b', kPage), kIoDirect) == 0, "the write succeeds"); }},
        {"truncater", reuse}};
  }
  void check() override {
    expect(world_.read(1, 0, kPage) == letters('c', kPage), "the other file has its own bytes");
    const std::string got = world_.read(0, 0, kPage);
    expect(got.empty() || got == letters('b', kPage), "the file is cut or written anew");
  }

 private:
  World world_;
};

RACE(direct_write_against_truncate_and_reuse, DirectWriteAgainstTruncateAndReuse,
     {Defect::direct_unlocks_before_completion});

}  // namespace
}  // namespace quire::races
