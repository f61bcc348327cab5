// A direct append beside a read across the end: old size and old bytes, or new size and new bytes. The range lock, to
// infinity, keeps from the reader what the append has not finished; the size changes once the device has the bytes.
#include "races/scenario.h"

namespace quire::races {
namespace {

class DirectAppendAgainstRead final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    world_.warm(0, 0, kPage);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      const std::string got = world_.read(0, kPage - 100, 300);
      expect(got == letters('a', 100) || got == letters('a', 100) + letters('b', 200), "a read is old or new");
      const auto size = world_.file(0).size();
      expect(size == kPage || world_.read(0, kPage, kPage) == letters('b', kPage), "a new size has its bytes");
    };
    const auto append = [this] {
      expect(world_.write(0, 0, letters('b', kPage), kIoDirect | kIoAppend) == 0, "the append succeeds");
    };
    return {{"reader", read}, {"appender", append}};
  }
  void check() override {
    expect(world_.read(0, 0, 3 * kPage) == letters('a', kPage) + letters('b', kPage), "the file has grown");
  }

 private:
  World world_;
};

RACE(direct_append_against_read, DirectAppendAgainstRead, {});

}  // namespace
}  // namespace quire::races
