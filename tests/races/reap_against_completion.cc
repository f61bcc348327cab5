// A thread that reaps two requests, one of which another submits meanwhile, and falls asleep as it completes: it
// prepares to wait, looks once more, and only then sleeps.
#include "races/asynchronous.h"

namespace quire::races {
namespace {

class ReapAgainstCompletion final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 2 * kPage));
    engine_.emplace(world_.cache(), 8, true, nullptr);
    expect(submit_read(*engine_, world_.file(0).handle(), first_, 0).ok(), "the read is submitted");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto submit = [this] {
      expect(submit_read(*engine_, world_.file(0).handle(), second_, kPage).ok(), "the read is submitted");
    };
    return {{"reaper", [this] { reaped_ += engine_->reap(2, 2); }}, {"submitter", submit}};
  }
  void check() override {
    while (engine_->outstanding() != 0) reaped_ += engine_->reap(1, 4);
    expect(reaped_ == 2, "two callbacks ran");
    expect(first_.got() == letters('a', 100) && second_.got() == letters('a', 100), "both have read");
  }

 private:
  World world_;
  std::optional<AsyncEngine> engine_;
  SubmittedRead first_{100}, second_{100};
  unsigned reaped_ = 0;
};

RACE(reap_against_completion, ReapAgainstCompletion, {Defect::reap_waits_without_a_look});

}  // namespace
}  // namespace quire::races
