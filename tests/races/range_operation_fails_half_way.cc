// A punch that the backing does and then says has failed, beside a sync of what it punched: the cache keeps every byte
// that is not durable, and makes what was written but not flushed dirty again, so that a later sync brings back what
// readers saw. What was durable is dropped, and reads as the backing has it now.
#include "races/scenario.h"

namespace quire::races {
namespace {

class RangeOperationFailsHalfWay final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    expect(world_.write(0, 0, letters('b', kPage)) == 0, "the file is written");
    world_.backing(0).half_way_errnum.store(EIO, memory_order_relaxed);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto sync_and_read = [this] {
      expect(world_.file(0).sync() == 0, "the sync succeeds");
      read_ = world_.read(0, 1000, 100);
      expect(is_all_of_one(read_, std::string("b\0", 2)), "a read shows the page as before the punch, or as after it");
    };
    return {{"syncer", sync_and_read},
            {"puncher", [this] { expect(world_.file(0).punch(0, kPage) == EIO, "the punch fails"); }}};
  }
  void check() override {
    const std::string seen = world_.read(0, 0, kPage);
    expect(is_all_of_one(seen, std::string("b\0", 2)), "the page is as before the punch, or as after it");
    expect(!(read_[0] == '\0' && seen[0] == 'b'), "a read shows the page as before the punch, after one that did not");
    expect(world_.file(0).sync() == 0, "the sync afterwards succeeds");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, kPage) == seen, "the disk has what was last read");
  }

 private:
  World world_;
  std::string read_;
};

RACE(range_operation_fails_half_way, RangeOperationFailsHalfWay, {Defect::half_way_keeps_unflushed});

}  // namespace
}  // namespace quire::races
