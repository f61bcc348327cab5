// A thread of quire's own: every signal blocked, since the program's signals are its own threads' business. In the sim
// build a fiber, if a scheduler is in charge.
#pragma once

#include <functional>
#include <thread>

#include "quire/result.h"
#include "sync/sim.h"

namespace quire {

class Thread {
 public:
  Thread() = default;
  ~Thread() { join(); }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  // name: at most 15 characters. EAGAIN or ENOMEM where there is no thread to be had.
  Status start(std::function<void()> body, const char* name);
  bool running() const;           // started, and not joined
  void join();                    // waits for its end; nothing if it is not running
  static void be_nice(int nice);  // the calling thread, one of quire's own: 1 to 19, as nice(2)
  void forget();                  // in a child of fork, where it does not exist: it is the parent's to join

 private:
  std::thread thread_;
#ifdef QUIRE_SIM
  void* fiber_ = nullptr;
#endif
};

}  // namespace quire
