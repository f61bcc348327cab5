// A handle is closed with a request in flight, by a thread beside the one that reaps: close waits until the request is
// done, whoever runs it, and its result stays to be reaped.
#include "races/asynchronous.h"

namespace quire::races {
namespace {

class CloseAgainstSubmitted final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    engine_.emplace(world_.cache(), 8, true, nullptr);
    handle_.emplace();
    world_.file(0).open(*handle_);
    expect(submit_read(*engine_, *handle_, buffered_, 0).ok(), "the read is submitted");
    expect(submit_read(*engine_, *handle_, direct_, 0, kIoDirect).ok(), "the direct read is submitted");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto close = [this] {
      engine_->finish(*handle_);
      expect(handle_->submitted.load(memory_order_acquire) == 0, "nothing of a closed handle is under way");
    };
    return {{"closer", close}, {"reaper", [this] { engine_->reap(1, 1); }}};
  }
  void check() override {
    while (engine_->outstanding() != 0) engine_->reap(1, 4);
    expect(buffered_.got() == letters('a', 100), "the result has stayed");
    expect(direct_.got() == letters('a', 512), "the direct one, too");
  }

 private:
  World world_;
  std::optional<AsyncEngine> engine_;
  std::optional<OpenFile> handle_;
  SubmittedRead buffered_{100}, direct_{512};
};

RACE(close_against_submitted, CloseAgainstSubmitted, {Defect::close_does_not_wait});

}  // namespace
}  // namespace quire::races
