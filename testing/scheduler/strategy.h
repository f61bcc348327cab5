// Strategies: who runs next. Each is deterministic: the same object, asked the same questions, gives the same answers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace quire::scheduling {

inline constexpr int kMaxThreads = 16;

// One question. Threads are numbered in the order of their making; 0 is the scenario's own.
struct Choice {
  std::uint64_t number;    // of choices before this one in the schedule
  int current;             // who asks; -1: it cannot go on, or stands aside
  std::uint32_t runnable;  // bit i: thread i could run
  bool interesting;        // the next access of `current` may meet another thread's
  int fallback;            // what a scheduler without ideas would take
};

class Strategy {
 public:
  virtual ~Strategy() = default;
  virtual int pick(const Choice& choice) = 0;  // one of choice.runnable
  // What replays this schedule: "random:SEED", "pct:SEED:DEPTH:LENGTH" or "choices:NUMBER>THREAD,...".
  virtual std::string token() const = 0;
};

// Now and then, somebody else.
std::unique_ptr<Strategy> random_strategy(std::uint64_t seed);

// Probabilistic concurrency testing (Burckhardt and others, ASPLOS 2010): threads have random priorities, the highest
// runs; at `depth` - 1 random places of about `length` the running one becomes the lowest. Finds a bug that needs
// `depth` orders with probability 1 / (threads * length^(depth - 1)) at least.
std::unique_ptr<Strategy> pct_strategy(std::uint64_t seed, unsigned depth, std::uint64_t length);

// Takes the given choices, and the fallback everywhere else; notes what else could have been taken after the last one.
class GivenChoices final : public Strategy {
 public:
  struct Given {
    std::uint64_t number;
    int thread;
    bool preempts;
  };
  // preemptions: how many the given ones and those noted may have in all.
  GivenChoices(std::vector<Given> given, unsigned preemptions);

  int pick(const Choice& choice) override;
  std::string token() const override;
  const std::vector<Given>& given() const { return given_; }
  const std::vector<Given>& alternatives() const { return alternatives_; }
  bool followed() const { return next_ == given_.size() && !strayed_; }

 private:
  std::vector<Given> given_;
  std::size_t next_ = 0;
  bool may_preempt_;
  bool strayed_ = false;  // a given thread could not run: not the same program
  std::vector<Given> alternatives_;
};

// From a token. Null, with what is wrong on standard error.
std::unique_ptr<Strategy> strategy_from_token(const std::string& token);

}  // namespace quire::scheduling
