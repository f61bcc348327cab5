// The thread that completes requests of memory and faulty devices later.
#include "device/delay_thread.h"

#include "base/check.h"
#include "device/fork_guard.h"
#include "sync/clock.h"

namespace quire {
namespace {

enum Field : unsigned { kDue, kRun, kOwner };  // of Request::private_

std::int64_t due_of(const Request& request) { return static_cast<std::int64_t>(request.private_[kDue]); }

}  // namespace

LockClass DelayThread::lock_class_("device.delay_thread");

void DelayThread::stop() {
  if (device_in_forked_child()) {
    thread_.forget();
    return;
  }
  {
    MutexLock lock(mutex_);
    if (!started_ || stopping_) return;
    stopping_ = true;
  }
  changed_.wake_all();
  thread_.join();
}

void DelayThread::post(Request& request, std::int64_t delay_ns, Run run, void* owner) {
  request.private_[kDue] = static_cast<std::uint64_t>(clock_ns(CLOCK_MONOTONIC) + delay_ns);
  request.private_[kRun] = reinterpret_cast<std::uintptr_t>(run);
  request.private_[kOwner] = reinterpret_cast<std::uintptr_t>(owner);
  {
    MutexLock lock(mutex_);
    if (!started_) {
      CHECK(thread_.start([this] { loop(); }, name_).ok());
      started_ = true;
    }
    Request** link = &first_;
    while (*link != nullptr && due_of(**link) <= due_of(request)) link = &(*link)->next;
    request.next = *link;
    *link = &request;
  }
  changed_.wake_all();
}

// The next request whose time has come. Else null, with how long to wait for the next (-1: until there is one).
Request* DelayThread::take_due(std::int64_t* wait_ns, bool* stop) {
  MutexLock lock(mutex_);
  *stop = stopping_ && first_ == nullptr;
  *wait_ns = -1;
  if (first_ == nullptr) return nullptr;
  const std::int64_t left_ns = due_of(*first_) - clock_ns(CLOCK_MONOTONIC);
  if (left_ns > 0 && !stopping_) {
    *wait_ns = left_ns;
    return nullptr;
  }
  Request* const request = first_;
  first_ = request->next;
  return request;
}

void DelayThread::loop() {
  for (;;) {
    const std::uint32_t ticket = changed_.prepare();
    std::int64_t wait_ns;
    bool stop;
    Request* const request = take_due(&wait_ns, &stop);
    if (request == nullptr && !stop) {
      changed_.wait(ticket, wait_ns);
      continue;
    }
    changed_.cancel();
    if (stop) return;
    const Run run = reinterpret_cast<Run>(request->private_[kRun]);
    run(*request, reinterpret_cast<void*>(request->private_[kOwner]));
  }
}

}  // namespace quire
