// A direct write of one sector that was submitted, on its way to the disk, beside a buffered write of the next sector
// of the same page. Neither is lost: the direct one holds the invalidate lock (direct) to its completion, so the
// buffered one's fill comes before it, and then it goes through the cache, or after it.
#include "races/asynchronous.h"

namespace quire::races {
namespace {

class SubmittedDirectWriteAgainstWrite final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage));
    engine_.emplace(world_.cache(), 8, true, nullptr);
    handle_.emplace();
    world_.file(0).open(*handle_);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto submit = [this] {
      expect(submit_write(*engine_, *handle_, direct_, 0, kIoDirect).ok(), "the direct write is submitted");
    };
    return {{"submitter", submit},
            {"writer", [this] { expect(world_.write(0, 512, letters('c', 512)) == 0, "the write succeeds"); }}};
  }
  void check() override {
    engine_->reap(1, 1);
    expect(direct_.result == 512, "the direct write succeeds");
    const std::string wanted = letters('b', 512) + letters('c', 512) + letters('a', kPage - 1024);
    expect(world_.read(0, 0, kPage) == wanted, "the cache has both");
    world_.file(0).sync_and_drop();
    expect(world_.read(0, 0, kPage) == wanted, "and so has the disk");
    engine_->finish(*handle_);
  }

 private:
  World world_{512};
  std::optional<AsyncEngine> engine_;
  std::optional<OpenFile> handle_;
  SubmittedWrite direct_{'b', 512};
};

RACE(submitted_direct_write_against_write, SubmittedDirectWriteAgainstWrite, {Defect::direct_without_direct_mode});

}  // namespace
}  // namespace quire::races
