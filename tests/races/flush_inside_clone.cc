// A clone beside a sync of its source, while one flush of the disk fails and then the backing refuses to clone: the
// target reads as before all along, and neither file loses a byte that only the cache has. The backing comes first:
// nothing leaves the cache before it has the clone.
#include "races/scenario.h"

namespace quire::races {
namespace {

class FlushInsideClone final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('o', kPage));
    world_.add_file(letters('p', kPage));
    expect(world_.write(0, 0, letters('s', kPage)) == 0, "the source is written");
    expect(world_.write(1, 0, letters('t', kPage)) == 0, "the target is written");
    world_.disk().fail_flushes(1);
    world_.backing(1).range_errnum.store(EIO, memory_order_relaxed);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto clone = [this] {
      const Status cloned = file_clone(world_.file(0).handle(), 0, world_.file(1).handle(), 0, kPage);
      expect(cloned.errnum() == EIO, "the clone fails");
      expect(world_.read(1, 0, kPage) == letters('t', kPage), "the target is as before");
    };
    const auto sync = [this] {
      const int errnum = world_.file(0).sync();
      expect(errnum == 0 || errnum == EIO, "the sync succeeds or tells of the flush");
    };
    return {{"cloner", clone}, {"syncer", sync}};
  }
  void check() override {
    for (const std::size_t number : {0, 1}) {
      // The flush that failed may still have to be told.
      const int errnum = world_.file(number).sync();
      expect(errnum == 0 || (errnum == EIO && world_.file(number).sync() == 0), "a sync afterwards succeeds");
      world_.file(number).drop_cached();
      expect(world_.read(number, 0, kPage) == letters(number == 0 ? 's' : 't', kPage), "the disk has what was written");
    }
  }

 private:
  World world_;
};

RACE(flush_inside_clone, FlushInsideClone, {Defect::cache_dropped_before_backing});

}  // namespace
}  // namespace quire::races
