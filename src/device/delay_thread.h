// A thread that runs a function for each request it is given, when its time has come: completions of the devices for
// tests, asynchronous as a disk's are. Locks: its own mutex, a leaf; functions run without it.
#pragma once

#include <cstdint>

#include "device/device.h"
#include "sync/mutex.h"
#include "sync/thread.h"
#include "sync/wait_queue.h"

namespace quire {

class DelayThread {
 public:
  using Run = void (*)(Request& request, void* owner);

  // The thread is made by the first post().
  explicit DelayThread(const char* name) : name_(name) {}
  ~DelayThread() { stop(); }
  DelayThread(const DelayThread&) = delete;
  DelayThread& operator=(const DelayThread&) = delete;

  // Runs what is left at once, whatever its time, and what that posts; no post() from elsewhere runs or comes later.
  void stop();

  // Calls run(request, owner) on the thread, delay_ns from now or later; equal times in order of posting. Uses the
  // request's next and private_ until then.
  void post(Request& request, std::int64_t delay_ns, Run run, void* owner);

 private:
  void loop();
  Request* take_due(std::int64_t* wait_ns, bool* stop) EXCLUDES(mutex_);

  static LockClass lock_class_;
  const char* const name_;
  Mutex mutex_{lock_class_};
  WaitQueue changed_;
  Request* first_ GUARDED_BY(mutex_) = nullptr;  // by time
  bool started_ GUARDED_BY(mutex_) = false;
  bool stopping_ GUARDED_BY(mutex_) = false;
  Thread thread_;  // started under mutex_ by the first post(), joined by stop()
};

}  // namespace quire
