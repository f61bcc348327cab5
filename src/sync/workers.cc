// Hand-over of work to quire's threads.
#include "sync/workers.h"

#include "base/check.h"
#include "base/error.h"

namespace quire {

namespace {

constinit LockClass workers_class{"workers"};

}  // namespace

Workers::Workers(unsigned most, const char* name, int nice)
    : most_(most), name_(name), nice_(nice), mutex_(workers_class) {
  CHECK(most >= 1);
  CHECK(most <= kMost);
}

void Workers::end() {
  Worker* idle;
  unsigned started;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    idle = idle_;
    idle_ = nullptr;
    started = started_;
    started_ = 0;
  }
  while (idle != nullptr) {
    Worker* const next = idle->next_idle;
    idle->work = nullptr;
    idle->grant.give();
    idle = next;
  }
  for (unsigned i = 0; i < started; ++i) workers_[i].thread.join();
}

Status Workers::start() {
  MutexLock lock(mutex_);
  return started_ != 0 ? Status{} : start_one_locked();
}

Status Workers::start_one_locked() {
  Worker& worker = workers_[started_];
  QUIRE_TRY(worker.thread.start([this, &worker] { run(worker); }, name_));
  ++started_;
  return {};
}

void Workers::submit(Work& work) {
  work.next = nullptr;
  Worker* woken;
  {
    MutexLock lock(mutex_);
    DCHECK(started_ != 0);
    woken = idle_;
    if (woken != nullptr) {
      idle_ = woken->next_idle;
      woken->work = &work;
    } else {
      (last_ != nullptr ? last_->next : first_) = &work;
      last_ = &work;
      // Without another thread it waits for those that there are.
      if (started_ < most_) static_cast<void>(start_one_locked());
    }
  }
  if (woken != nullptr) woken->grant.give();
}

void Workers::run(Worker& worker) {
  if (nice_ != 0) Thread::be_nice(nice_);
  for (;;) {
    Work* work;
    {
      MutexLock lock(mutex_);
      work = first_;
      if (work != nullptr) {
        first_ = work->next;
        if (first_ == nullptr) last_ = nullptr;
      } else if (stopping_) {
        return;
      } else {
        worker.grant.reset();
        worker.next_idle = idle_;
        idle_ = &worker;
      }
    }
    if (work == nullptr) {
      worker.grant.wait();
      work = worker.work;
      if (work == nullptr) return;
    }
    work->run(*work);
  }
}

void Workers::forget() {
  for (Worker& worker : workers_) {
    if (worker.thread.running()) worker.thread.forget();
  }
}

}  // namespace quire
