// A deterministic scheduler: runs the threads of a scenario one at a time and decides, before every access that they
// share (an Atomic, a piece of a racy copy, a sleep or wake-up, a grace period, an I/O), who goes on. A schedule is
// replayed by its token. What it cannot show: orders weaker than sequential consistency (docs/DESIGN.md).
//
// Threads are fibers of one thread of the system. Number 0 runs the scenario's setup, then explore(), then its checks;
// outside explore() there is nothing to decide: who runs goes on until it waits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "sync/sim.h"
#include "testing/scheduler/fiber.h"
#include "testing/scheduler/strategy.h"

namespace quire::scheduling {

struct NamedBody {
  const char* name;
  std::function<void()> body;
};

class FiberScheduler final : public sim::Scheduler {
 public:
  // name: of the scenario, for messages.
  explicit FiberScheduler(std::string name);
  ~FiberScheduler() override;

  // Runs `scenario` as thread 0 to its end under the strategy. A failure is told on standard error, with the schedule
  // and its token, and ends the process with kFailed.
  void run(Strategy& strategy, const std::function<void()>& scenario);
  static constexpr int kFailed = 3;
  [[noreturn]] void fail(const std::string& what);

  // By thread 0, once a run: runs the bodies side by side until all have ended.
  void explore(std::vector<NamedBody> bodies);

  // While learning, a run notes which lines touch what another thread touches too (one of them changing it): only there
  // does it matter who goes on. Returns how many lines the last run added.
  void learn(bool on) { learning_ = on; }
  std::size_t learnt_last_run() const { return learnt_last_run_; }
  std::uint64_t choices_last_run() const { return choice_; }
  std::uint64_t interesting_last_run() const { return interesting_choices_; }

  void step(sim::Op op, const void* address, const sim::Where& where) override;
  bool wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t timeout_ns) override;
  void wake(const void* word, int count) override;
  void yield() override;
  void sleep(std::int64_t ns) override;
  std::int64_t now_ns() override { return now_ns_; }
  void* spawn(std::function<void()> body, const char* name) override;
  void join(void* thread) override;
  void read_lock() override;
  void read_unlock() override;
  bool in_read_section() override;
  void wait_for_readers() override;

 private:
  enum class State : std::uint8_t { runnable, on_word, asleep, on_readers, on_thread, on_explored, ended };
  struct SimThread {
    int number;
    std::string name;
    bool explored;  // one of explore()'s
    State state = State::runnable;
    const void* word = nullptr;       // on_word
    std::uint64_t waiting_since = 0;  // orders waiters
    std::int64_t deadline = -1;       // on_word, asleep; negative: none
    bool timed_out = false;
    SimThread* joined = nullptr;  // on_thread
    std::uint64_t ran = 0;        // turns_ when it last went on
    std::uint64_t yielded = 0;    // turns_ at its last yield; 0: none yet
    std::uint32_t behind = 0;     // who, by number, goes on first since that yield; see yield()
    unsigned nesting = 0;         // of RCU read sections
    std::uint64_t section = 0;
    sim::Where last{};
    sim::Op last_op{};
    std::unique_ptr<Fiber> fiber;
  };
  struct Event {
    int thread;
    sim::Op op;
    const char* file;
    unsigned line;
  };
  struct Touched {
    std::uint32_t readers = 0, writers = 0;
    std::vector<std::uint64_t> lines;
  };

  SimThread& make_thread(std::function<void()> body, const char* name, bool explored);
  int choose(bool current_runs, bool interesting);
  std::uint32_t runnable() const;
  std::uint32_t held_back(std::uint32_t mask) const;
  void let_time_pass();
  void switch_to(int number);
  void wait_here();  // the current thread's state says for what
  void end_thread(SimThread& thread);
  std::uint64_t line_key(const sim::Where& where);  // 0: counts only, never of interest
  void note_access(sim::Op op, const void* address, std::uint64_t line);
  void conclude_learning();
  void print_schedule();
  std::string token() const;

  const std::string name_;
  Strategy* strategy_ = nullptr;
  ucontext_t outside_{};
  std::vector<std::unique_ptr<SimThread>> threads_;
  SimThread* current_ = nullptr;
  bool exploring_ = false;
  bool reporting_ = false;
  unsigned unfinished_ = 0;  // of explore()'s threads
  std::int64_t now_ns_ = 0;
  std::uint64_t turns_ = 0;
  std::uint64_t steps_ = 0, choice_ = 0, interesting_choices_ = 0, waits_ = 0;
  unsigned idle_jumps_ = 0;  // of the clock, with every explored thread waiting for another's wake-up
  std::vector<GivenChoices::Given> deviations_;
  std::vector<Event> events_;

  bool learning_ = false;
  std::size_t learnt_last_run_ = 0;
  std::unordered_map<const void*, Touched> touched_;
  std::unordered_map<const char*, std::uint64_t> files_;
  std::unordered_set<std::uint64_t> interesting_;
};

}  // namespace quire::scheduling
