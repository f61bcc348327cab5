// Runs fills that are to be verified. See verity_queue.h.
#include "fs/verity_queue.h"

#include "base/check.h"

namespace quire {
namespace {

constinit LockClass queue_class{"verity queue"};

}  // namespace

void VerityQueue::List::push(PendingFill& fill) {
  fill.next = nullptr;
  (last != nullptr ? last->next : first) = &fill;
  last = &fill;
}

PendingFill* VerityQueue::List::pop() {
  PendingFill* const fill = first;
  if (fill == nullptr) return nullptr;
  first = fill->next;
  if (first == nullptr) last = nullptr;
  return fill;
}

VerityQueue::VerityQueue(Workers& workers) : workers_(workers), mutex_(queue_class) {
  for (Runner& runner : runners_) {
    runner.queue = this;
    runner.run = [](Work& work) {
      Runner& mine = static_cast<Runner&>(work);
      mine.queue->run_all(mine);
    };
  }
}

VerityQueue::~VerityQueue() {
  for (;;) {
    const std::uint32_t ticket = left_.prepare();
    bool any = false;
    {
      MutexLock lock(mutex_);
      CHECK(ready_.first == nullptr && aside_.first == nullptr);
      for (const Runner& runner : runners_) any |= runner.busy;
    }
    if (!any) break;
    left_.wait(ticket);
  }
  left_.cancel();
}

Work* VerityQueue::idle_runner_locked() {
  for (Runner& runner : runners_) {
    if (runner.busy) continue;
    runner.busy = true;
    return &runner;
  }
  return nullptr;  // those that run look again before they leave
}

void VerityQueue::push(PendingFill& fill) {
  Work* runner;
  {
    MutexLock lock(mutex_);
    ready_.push(fill);
    runner = idle_runner_locked();
  }
  if (runner != nullptr) workers_.submit(*runner);
}

PendingFill* VerityQueue::pop(std::uint64_t* seen) {
  MutexLock lock(mutex_);
  *seen = settled_;
  return ready_.pop();
}

void VerityQueue::run(PendingFill& fill) {
  std::uint64_t seen;
  {
    MutexLock lock(mutex_);
    seen = settled_;
  }
  run(fill, seen);
}

void VerityQueue::run(PendingFill& fill, std::uint64_t seen) {
  if (fill.try_to_end()) return;
  Work* runner = nullptr;
  {
    MutexLock lock(mutex_);
    if (settled_ == seen) return aside_.push(fill);
    ready_.push(fill);
    runner = idle_runner_locked();
  }
  if (runner != nullptr) workers_.submit(*runner);
}

void VerityQueue::help(const Folio& folio) {
  std::uint64_t seen;
  while (folio.has(kLocked)) {
    PendingFill* const fill = pop(&seen);
    if (fill == nullptr) return;
    run(*fill, seen);
  }
}

void VerityQueue::progress() {
  Work* runner = nullptr;
  {
    MutexLock lock(mutex_);
    ++settled_;
    if (aside_.first == nullptr) return;
    while (PendingFill* fill = aside_.pop()) ready_.push(*fill);
    runner = idle_runner_locked();
  }
  if (runner != nullptr) workers_.submit(*runner);
}

void VerityQueue::run_all(Runner& runner) {
  for (;;) {
    PendingFill* fill;
    std::uint64_t seen;
    {
      MutexLock lock(mutex_);
      seen = settled_;
      fill = ready_.pop();
      if (fill == nullptr) {
        runner.busy = false;
        left_.wake_all();  // under the mutex: who waits destroys the queue only after it had that
        return;
      }
    }
    run(*fill, seen);
  }
}

}  // namespace quire
