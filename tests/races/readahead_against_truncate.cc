// A readahead window in flight beside a truncate and the last close: the truncate waits for it (it holds the invalidate
// lock until it is complete), and what was cut off stays away; the close waits for its very end, since the completion
// touches the mapping after it has let go of the lock.
#include "races/scenario.h"

namespace quire::races {
namespace {

class ReadaheadAgainstTruncate final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 6 * kPage));
    // The second miss is sequential and fills pages 1 to 4; whoever reads page 2 starts the window that follows.
    expect(is_all_of_one(world_.read(0, 0, 100), "a"), "the first page is read");
    expect(is_all_of_one(world_.read(0, kPage, 100), "a"), "the second page is read");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      expect(is_all_of_one(world_.read(0, 2 * kPage, 100), "a"), "the page before the window is as it was");
      last_use_ended();
    };
    const auto truncate = [this] {
      expect(world_.file(0).truncate(5 * kPage) == 0, "the truncate succeeds");
      last_use_ended();
    };
    return {{"reader", read}, {"truncater", truncate}};
  }
  void check() override {
    expect(closed_, "the file was closed");
    expect(world_.file(0).truncate(6 * kPage) == 0, "the truncate up succeeds");
    expect(world_.read(0, 5 * kPage, kPage) == letters('\0', kPage), "a read shows what was cut off");
  }

 private:
  // Whoever is last closes.
  void last_use_ended() {
    if (users_.fetch_sub(1, memory_order_acq_rel) != 1) return;
    world_.file(0).drop_cached();
    expect(world_.file(0).mapping().ahead.load(memory_order_acquire) == 0, "no readahead is left that uses the file");
    closed_ = true;
  }

  World world_;
  Atomic<int> users_{2};
  bool closed_ = false;
};

RACE(readahead_against_truncate, ReadaheadAgainstTruncate, {Defect::readahead_not_drained});

}  // namespace
}  // namespace quire::races
