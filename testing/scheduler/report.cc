// What a failed schedule prints: what is wrong, who did what in which order, where everybody is, and how to replay it.
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "testing/scheduler/scheduler.h"

namespace quire::scheduling {
namespace {

const char* op_name(sim::Op op) {
  switch (op) {
    case sim::Op::load:
      return "load";
    case sim::Op::store:
      return "store";
    case sim::Op::update:
      return "update";
    case sim::Op::copy:
      return "copy";
    case sim::Op::wait:
      return "wait";
    case sim::Op::wake:
      return "wake";
    case sim::Op::grace_period:
      return "grace period";
    case sim::Op::io:
      return "I/O";
  }
  return "?";
}

// From the project's own folders on.
const char* short_name(const char* file) {
  for (const char* folder : {"/src/", "/testing/", "/tests/"}) {
    if (const char* found = std::strstr(file, folder)) return found + 1;
  }
  return file;
}

}  // namespace

std::string FiberScheduler::token() const { return GivenChoices(deviations_, 0).token(); }

void FiberScheduler::print_schedule() {
  // A stretch is what one thread did without another in between.
  std::fprintf(stderr, "schedule:\n");
  for (std::size_t i = 0; i < events_.size();) {
    std::size_t end = i;
    while (end < events_.size() && events_[end].thread == events_[i].thread) ++end;
    const SimThread& thread = *threads_[static_cast<std::size_t>(events_[i].thread)];
    std::fprintf(stderr, "  %-12s %4zu steps  %s:%u %s", thread.name.c_str(), end - i, short_name(events_[i].file),
                 events_[i].line, op_name(events_[i].op));
    if (end - i > 1) {
      const Event& last = events_[end - 1];
      std::fprintf(stderr, " ... %s:%u %s", short_name(last.file), last.line, op_name(last.op));
    }
    std::fprintf(stderr, "\n");
    i = end;
  }
  std::fprintf(stderr, "threads:\n");
  for (const auto& thread : threads_) {
    static constexpr const char* kStates[] = {"can run",           "waits to be woken",  "sleeps",
                                              "waits for readers", "waits for a thread", "waits for all",
                                              "has ended"};
    std::fprintf(stderr, "  %-12s %s%s", thread->name.c_str(), kStates[static_cast<std::size_t>(thread->state)],
                 thread.get() == current_ ? " (current)" : "");
    if (thread->last.line() != 0 && thread->state != State::ended) {
      std::fprintf(stderr, ", last at %s:%u %s", short_name(thread->last.file_name()), thread->last.line(),
                   op_name(thread->last_op));
    }
    std::fprintf(stderr, "\n");
  }
}

void FiberScheduler::fail(const std::string& what) {
  if (reporting_) _exit(kFailed);
  reporting_ = true;
  std::fprintf(stderr, "%s: %s\n", name_.c_str(), what.c_str());
  print_schedule();
  if (strategy_ != nullptr) std::fprintf(stderr, "found by %s\n", strategy_->token().c_str());
  std::fprintf(stderr, "replay %s\n", token().c_str());
  std::fflush(nullptr);
  _exit(kFailed);
}

}  // namespace quire::scheduling
