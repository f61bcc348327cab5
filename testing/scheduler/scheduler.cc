// Running threads one at a time: steps, waits, the clock. See scheduler.h; what a failure prints is in report.cc.
#include "testing/scheduler/scheduler.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "sync/thread_slot.h"

namespace quire::scheduling {
namespace {

constexpr std::uint64_t kMaxSteps = 300'000;  // a schedule that is longer goes round in circles
constexpr unsigned kMaxIdleJumps = 64;
constexpr std::int64_t kStepNs = 100;
constexpr std::int64_t kStartNs = 1'000'000'000'000;

bool changes(sim::Op op) { return op != sim::Op::load && op != sim::Op::wait; }

}  // namespace

FiberScheduler::FiberScheduler(std::string name) : name_(std::move(name)) {}

FiberScheduler::~FiberScheduler() = default;

void FiberScheduler::run(Strategy& strategy, const std::function<void()>& scenario) {
  strategy_ = &strategy;
  threads_.clear();
  events_.clear();
  deviations_.clear();
  touched_.clear();
  exploring_ = false;
  now_ns_ = kStartNs;
  turns_ = steps_ = choice_ = interesting_choices_ = waits_ = 0;
  idle_jumps_ = 0;
  static_cast<void>(thread_slot());  // its first call takes steps that no later schedule would take
  SimThread& main = make_thread(scenario, "the scenario", false);
  sim::scheduler = this;
  current_ = &main;
  main.fiber->enter(outside_);
  sim::scheduler = nullptr;
  if (learning_) conclude_learning();
}

FiberScheduler::SimThread& FiberScheduler::make_thread(std::function<void()> body, const char* name, bool explored) {
  const int number = static_cast<int>(threads_.size());
  if (number == kMaxThreads) fail("a scenario has 16 threads at most, quire's own included");
  auto thread = std::make_unique<SimThread>();
  thread->number = number;
  thread->name = name;
  thread->explored = explored;
  SimThread& made = *thread;
  made.fiber = std::make_unique<Fiber>([this, &made, body = std::move(body)] {
    body();
    end_thread(made);
  });
  threads_.push_back(std::move(thread));
  return made;
}

void FiberScheduler::end_thread(SimThread& thread) {
  thread.state = State::ended;
  if (thread.nesting != 0) fail("thread '" + thread.name + "' ended inside an RCU read section");
  for (auto& other : threads_) {
    if (other->state == State::on_thread && other->joined == &thread) other->state = State::runnable;
  }
  if (thread.explored && --unfinished_ == 0) {
    exploring_ = false;
    threads_[0]->state = State::runnable;
  }
  if (thread.number == 0) thread.fiber->leave(outside_);
  switch_to(choose(false, false));
}

void FiberScheduler::explore(std::vector<NamedBody> bodies) {
  // quire's own threads go to where they wait first.
  for (bool others = true; others;) {
    others = (runnable() & ~1u) != 0;
    if (others) yield();
  }
  for (NamedBody& body : bodies) make_thread(std::move(body.body), body.name, true);
  unfinished_ = static_cast<unsigned>(bodies.size());
  exploring_ = unfinished_ != 0;
  while (unfinished_ != 0) {
    current_->state = State::on_explored;
    wait_here();
  }
}

std::uint32_t FiberScheduler::runnable() const {
  std::uint32_t mask = 0;
  for (const auto& thread : threads_) {
    if (thread->state == State::runnable) mask |= 1u << thread->number;
  }
  return mask;
}

// Nobody can run: the first sleeper's time comes.
void FiberScheduler::let_time_pass() {
  SimThread* first = nullptr;
  bool scenario_sleeps = false;
  for (auto& thread : threads_) {
    const bool timed = (thread->state == State::on_word || thread->state == State::asleep) && thread->deadline >= 0;
    if (!timed) continue;
    scenario_sleeps |= thread->explored || thread->number == 0;
    if (first == nullptr || thread->deadline < first->deadline) first = thread.get();
  }
  if (first == nullptr) fail("deadlock: every thread waits");
  idle_jumps_ = scenario_sleeps ? 0 : idle_jumps_ + 1;  // in setup and checks, too: they wait for nothing but wake-ups
  if (idle_jumps_ > kMaxIdleJumps) fail("deadlock or lost wake-up: only quire's own threads still run, by the clock");
  now_ns_ = std::max(now_ns_, first->deadline);
  first->timed_out = true;
  first->state = State::runnable;
}

int FiberScheduler::choose(bool current_runs, bool interesting) {
  while (runnable() == 0) let_time_pass();
  std::uint32_t mask = runnable();
  const int current = current_->number;
  int fallback = current;
  if (!current_runs) {
    if ((mask & ~(1u << current)) != 0) mask &= ~(1u << current);
    // The next in turn, the scenario's threads before quire's own.
    std::uint32_t preferred = 0;
    for (const auto& thread : threads_) {
      if (thread->explored) preferred |= mask & 1u << thread->number;
    }
    if (preferred == 0) preferred = mask;
    const std::uint32_t later = current + 1 < 32 ? preferred & (UINT32_MAX << (current + 1)) : 0;
    fallback = std::countr_zero(later != 0 ? later : preferred);
  }
  if (!exploring_) return fallback;
  if (const std::uint32_t held = held_back(mask); held != 0 && held != mask) {
    mask &= ~held;
    if ((mask >> fallback & 1) == 0) fallback = std::countr_zero(mask);
  }
  const Choice choice{choice_++, current_runs ? current : -1, mask, interesting, fallback};
  interesting_choices_ += interesting;
  if (std::popcount(mask) == 1) return std::countr_zero(mask);
  const int picked = strategy_->pick(choice);
  if (picked != fallback) deviations_.push_back({choice.number, picked, current_runs});
  return picked;
}

void FiberScheduler::switch_to(int number) {
  SimThread& next = *threads_[static_cast<std::size_t>(number)];
  next.ran = ++turns_;
  next.behind = 0;
  if (&next == current_) return;
  SimThread& left = *current_;
  current_ = &next;
  left.fiber->switch_to(*next.fiber);
}

std::uint64_t FiberScheduler::line_key(const sim::Where& where) {
  const auto [at, added] = files_.try_emplace(where.file_name(), 0);
  if (added) {
    const char* file = where.file_name();
    const auto ends = [file](const char* with) {
      const std::size_t length = std::strlen(file), tail = std::strlen(with);
      return length >= tail && std::strcmp(file + length - tail, with) == 0;
    };
    const bool counts = ends("/stats.h") || ends("/stats.cc") || ends("/io_stats.h");
    at->second = counts ? 0 : files_.size() << 20;
  }
  return at->second == 0 ? 0 : at->second | where.line();
}

void FiberScheduler::step(sim::Op op, const void* address, const sim::Where& where) {
  if (reporting_) return;
  const std::uint64_t line = line_key(where);
  if (line == 0) return;
  if (++steps_ > kMaxSteps) fail("livelock: 300,000 steps, and no end");
  now_ns_ += kStepNs;
  current_->last = where;
  current_->last_op = op;
  if (!exploring_) return;
  if (learning_) note_access(op, address, line);
  const bool interesting = op == sim::Op::grace_period || interesting_.contains(line);
  const int next = choose(true, interesting);
  switch_to(next);
  events_.push_back({current_->number, op, where.file_name(), where.line()});
}

void FiberScheduler::note_access(sim::Op op, const void* address, std::uint64_t line) {
  // Copies of overlapping bytes meet wherever they begin: of a folio, they count as one place.
  constexpr std::uintptr_t kFolio = 4096;
  if (op == sim::Op::copy)
    address = reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(address) & ~(kFolio - 1));
  Touched& touched = touched_[address];
  const std::uint32_t bit = 1u << current_->number;
  (changes(op) ? touched.writers : touched.readers) |= bit;
  if (std::find(touched.lines.begin(), touched.lines.end(), line) == touched.lines.end()) touched.lines.push_back(line);
}

void FiberScheduler::conclude_learning() {
  const std::size_t before = interesting_.size();
  for (const auto& [address, touched] : touched_) {
    const std::uint32_t all = touched.readers | touched.writers;
    if (touched.writers == 0 || std::popcount(all) < 2) continue;
    interesting_.insert(touched.lines.begin(), touched.lines.end());
  }
  learnt_last_run_ = interesting_.size() - before;
}

void FiberScheduler::wait_here() {
  current_->waiting_since = ++waits_;
  switch_to(choose(false, false));
}

bool FiberScheduler::wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t timeout_ns) {
  step(sim::Op::wait, &word, sim::Where::current());
  if (word.load(std::memory_order_relaxed) != expected) return true;
  SimThread& self = *current_;
  self.state = State::on_word;
  self.word = &word;
  self.deadline = timeout_ns < 0 ? -1 : now_ns_ + timeout_ns;
  self.timed_out = false;
  wait_here();
  return !self.timed_out;
}

void FiberScheduler::wake(const void* word, int count) {
  step(sim::Op::wake, word, sim::Where::current());
  for (; count > 0; --count) {
    SimThread* first = nullptr;
    for (auto& thread : threads_) {
      if (thread->state != State::on_word || thread->word != word) continue;
      if (first == nullptr || thread->waiting_since < first->waiting_since) first = thread.get();
    }
    if (first == nullptr) return;
    first->state = State::runnable;
    idle_jumps_ = 0;
  }
}

// A thread that yields again without having seen what it waits for goes on only after those who could have run in
// between and did not: else two that poll would hand on to each other for ever, and each time there would be a choice
// (Musuvathi and Qadeer, "Fair stateless model checking", PLDI 2008).
void FiberScheduler::yield() {
  SimThread& self = *current_;
  if (self.yielded != 0) {
    for (const auto& other : threads_) {
      const bool could_have = other->state == State::runnable && other.get() != &self;
      if (could_have && other->ran < self.yielded) self.behind |= 1u << other->number;
    }
  }
  self.yielded = ++turns_;
  switch_to(choose(false, false));
}

// Of those in the mask, who has to let others in it go first.
std::uint32_t FiberScheduler::held_back(std::uint32_t mask) const {
  std::uint32_t held = 0;
  for (const auto& thread : threads_) {
    for (std::uint32_t left = thread->behind & mask; left != 0; left &= left - 1) {
      const int other = std::countr_zero(left);
      if (threads_[static_cast<std::size_t>(other)]->ran < thread->yielded) held |= 1u << thread->number;
    }
  }
  return held & mask;
}

void FiberScheduler::sleep(std::int64_t ns) {
  SimThread& self = *current_;
  self.state = State::asleep;
  self.deadline = now_ns_ + ns;
  wait_here();
}

void* FiberScheduler::spawn(std::function<void()> body, const char* name) {
  return &make_thread(std::move(body), name, false);
}

void FiberScheduler::join(void* thread) {
  SimThread& target = *static_cast<SimThread*>(thread);
  SimThread& self = *current_;
  while (target.state != State::ended) {
    self.state = State::on_thread;
    self.joined = &target;
    wait_here();
  }
}

void FiberScheduler::read_lock() {
  if (current_->nesting++ == 0) ++current_->section;
}

void FiberScheduler::read_unlock() {
  if (--current_->nesting != 0) return;
  for (auto& thread : threads_) {
    if (thread->state == State::on_readers) thread->state = State::runnable;  // to look again
  }
}

bool FiberScheduler::in_read_section() { return current_->nesting != 0; }

void FiberScheduler::wait_for_readers() {
  step(sim::Op::grace_period, this, sim::Where::current());
  SimThread& self = *current_;
  if (self.nesting != 0) fail("a grace period is waited for inside an RCU read section");
  std::vector<std::pair<SimThread*, std::uint64_t>> readers;
  for (auto& thread : threads_) {
    if (thread->nesting != 0) readers.emplace_back(thread.get(), thread->section);
  }
  const auto inside = [](const auto& reader) {
    return reader.first->nesting != 0 && reader.first->section == reader.second;
  };
  while (std::any_of(readers.begin(), readers.end(), inside)) {
    self.state = State::on_readers;
    wait_here();
  }
}

}  // namespace quire::scheduling
