// One thread submits a direct write and then, before it reaps, writes the same range: it waits for a lock that its own
// request holds. Closed by ending requests on quire's threads, whoever reaps or does not.
#include "races/asynchronous.h"

namespace quire::races {
namespace {

class SubmittedWriteThenWrite final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    engine_.emplace(world_.cache(), 8, true, nullptr);
    handle_.emplace();
    world_.file(0).open(*handle_);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto work = [this] {
      expect(submit_write(*engine_, *handle_, direct_, 0, kIoDirect).ok(), "the direct write is submitted");
      expect(world_.write(0, 0, letters('c', 512)) == 0, "the write succeeds");
      engine_->reap(1, 1);
      expect(direct_.result == 512, "the direct write succeeds");
    };
    return {{"program", work}};
  }
  void check() override {
    const std::string got = world_.read(0, 0, kPage);
    expect(is_all_of_one(got.substr(0, 512), "bc"), "one of them was the last");
    world_.file(0).sync_and_drop();
    expect(world_.read(0, 0, kPage) == got, "the disk has what the cache had");
    engine_->finish(*handle_);
  }

 private:
  World world_{512};
  std::optional<AsyncEngine> engine_;
  std::optional<OpenFile> handle_;
  SubmittedWrite direct_{'b', 512};
};

RACE(submitted_write_then_write, SubmittedWriteThenWrite, {Defect::direct_ends_when_reaped});

}  // namespace
}  // namespace quire::races
