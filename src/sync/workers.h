// Workers: a few threads of quire's own for what may have to wait, so that who meets it need not: asynchronous calls
// that are not ready at once, page faults on views, the ends of requests that take locks.
//
// First come, first served, to an idle worker at once, else to the next that is done; threads are started one by one as
// all are busy. Work may wait for anything but other work, for that may be behind it. Who must not wait behind waiting
// work has Workers of its own.
// States of a worker: not started -> running <-> idle (in the list, or handed its work and about to wake), all under
// the mutex; an idle one sleeps on its own word. Work belongs to the Workers from submit() until its `run` begins,
// which may free it. Locks: its own, a leaf; nothing is held while work runs.
#pragma once

#include <array>

#include "quire/result.h"
#include "sync/annotations.h"
#include "sync/grant.h"
#include "sync/mutex.h"
#include "sync/thread.h"

namespace quire {

struct Work {
  void (*run)(Work&) = nullptr;
  Work* next = nullptr;  // the Workers' from submit() on
};

class Workers {
 public:
  static constexpr unsigned kMost = 8;

  // At most `most` threads, 1 to kMost. name: at most 15 characters. nice: 0 to 19, for work that others come before.
  Workers(unsigned most, const char* name, int nice = 0);
  ~Workers() { end(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // The first thread; before submit(). Once is enough. EAGAIN or ENOMEM where there is none to be had.
  Status start();
  // Never waits. Any thread, workers and completions too.
  void submit(Work& work);
  void end();     // everything submitted is run, and the threads are gone; nobody submits any more
  void forget();  // in a child of fork, where the threads do not exist: nothing more is run

 private:
  struct Worker {
    Thread thread;
    Grant grant;
    Work* work = nullptr;  // handed over with the grant; null: end
    Worker* next_idle = nullptr;
  };

  void run(Worker& worker);
  Status start_one_locked() REQUIRES(mutex_);

  const unsigned most_;
  const char* const name_;
  const int nice_;
  Mutex mutex_;
  Work* first_ GUARDED_BY(mutex_) = nullptr;
  Work* last_ GUARDED_BY(mutex_) = nullptr;
  Worker* idle_ GUARDED_BY(mutex_) = nullptr;
  unsigned started_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::array<Worker, kMost> workers_;
};

}  // namespace quire
