// A submitted read whose page leaves the cache, here since it is cut off, between its fill and its reaping: the fill
// promises nothing, and the read that is then run is one of its own.
#include "races/asynchronous.h"

namespace quire::races {
namespace {

class SubmittedReadAgainstEviction final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    engine_.emplace(world_.cache(), 8, true, nullptr);
    expect(submit_read(*engine_, world_.file(0).handle(), read_, kPage - 50).ok(), "the read is submitted");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto cut = [this] {
      expect(world_.file(0).truncate(kPage) == 0, "the truncate down succeeds");
      expect(world_.file(0).truncate(2 * kPage) == 0, "the truncate up succeeds");
    };
    return {{"reaper", [this] { engine_->reap(1, 1); }}, {"truncater", cut}};
  }
  void check() override {
    const std::string got = read_.got();
    const std::string cut = letters('a', 50);
    expect(got == letters('a', 100) || got == cut || got == cut + letters('\0', 50), "the read is of one instant");
    expect(read_.times == 1, "its callback ran once");
  }

 private:
  World world_;
  std::optional<AsyncEngine> engine_;
  SubmittedRead read_{100};
};

RACE(submitted_read_against_eviction, SubmittedReadAgainstEviction, {Defect::runnable_trusts_its_fill});

}  // namespace
}  // namespace quire::races
