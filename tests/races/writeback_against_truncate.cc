// A truncate down into a page and up again beside that page's writeback, which had read the old size and the old bytes:
// no byte past the smaller end comes back, neither at once nor from the disk. The truncate waits for what is being
// written (the invalidate lock), and only then changes the backing and the cache.
#include "races/scenario.h"

namespace quire::races {
namespace {

class WritebackAgainstTruncate final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('o', kPage));
    expect(world_.write(0, 0, letters('a', kPage)) == 0, "the file is written");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto truncate = [this] {
      expect(world_.file(0).truncate(kKept) == 0, "the truncate down succeeds");
      expect(world_.file(0).truncate(kPage) == 0, "the truncate up succeeds");
    };
    return {{"syncer", [this] { expect(world_.file(0).sync() == 0, "the sync succeeds"); }}, {"truncater", truncate}};
  }
  void check() override {
    const std::string wanted = letters('a', kKept) + letters('\0', kPage - kKept);
    expect(world_.read(0, 0, 2 * kPage) == wanted, "the file ends up cut, and zero where it was");
    expect(world_.file(0).sync() == 0, "the sync afterwards succeeds");
    world_.file(0).drop_cached();
    expect(world_.backing(0).size() == kPage, "the disk has the last size");
    expect(world_.read(0, 0, 2 * kPage) == wanted, "the disk has no byte of past the smaller end");
  }

 private:
  static constexpr std::size_t kKept = 1000;
  World world_;
};

RACE(writeback_against_truncate, WritebackAgainstTruncate, {Defect::writeback_without_instantiate});

}  // namespace
}  // namespace quire::races
