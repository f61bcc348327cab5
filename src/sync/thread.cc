// Starting and joining quire's own threads. See thread.h.
#include "sync/thread.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <memory>
#include <system_error>

#include "base/error.h"

namespace quire {

Status Thread::start(std::function<void()> body, const char* name) {
#ifdef QUIRE_SIM
  if (sim::scheduler != nullptr) {
    fiber_ = sim::scheduler->spawn(std::move(body), name);
    return {};
  }
#endif
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int errnum = 0;
  try {
    thread_ = std::thread(std::move(body));
  } catch (const std::system_error& e) {
    errnum = e.code().value();
  }
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  if (errnum != 0) return fail_with(errnum, "cannot start the thread %s", name);
  pthread_setname_np(thread_.native_handle(), name);
  return {};
}

void Thread::be_nice(int nice) {
#ifdef QUIRE_SIM
  if (sim::scheduler != nullptr) return;
#endif
  // Of one thread, on Linux. To be nicer is always allowed.
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), nice);
}

bool Thread::running() const {
#ifdef QUIRE_SIM
  if (fiber_ != nullptr) return true;
#endif
  return thread_.joinable();
}

void Thread::forget() {
#ifdef QUIRE_SIM
  fiber_ = nullptr;
#endif
  std::construct_at(&thread_);  // not detached: in this process there is nothing to detach
}

void Thread::join() {
#ifdef QUIRE_SIM
  if (fiber_ != nullptr) {
    sim::scheduler->join(fiber_);
    fiber_ = nullptr;
    return;
  }
#endif
  if (thread_.joinable()) thread_.join();
}

}  // namespace quire
