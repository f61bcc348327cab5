// Where the deterministic scheduler (testing/scheduler) takes over: in the `sim` build every shared atomic, sleep,
// grace period, thread and clock of quire asks here first; in all others this is nothing. Under the scheduler all
// threads are fibers of one thread of the system, so none of this needs any synchronisation.
#pragma once

#ifdef QUIRE_SIM

#include <atomic>
#include <cstdint>
#include <functional>
#include <source_location>

namespace quire::sim {

using Where = std::source_location;
enum class Op : std::uint8_t { load, store, update, copy, wait, wake, grace_period, io };

class Scheduler {
 public:
  virtual ~Scheduler() = default;
  // Called before each access; another thread may run before it returns.
  virtual void step(Op op, const void* address, const Where& where) = 0;
  // Sleeps while *word == expected. False once timeout_ns (negative: none) has passed.
  virtual bool wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t timeout_ns) = 0;
  virtual void wake(const void* word, int count) = 0;
  virtual void yield() = 0;  // lets others run, in a loop that waits for them
  virtual void sleep(std::int64_t ns) = 0;
  virtual std::int64_t now_ns() = 0;
  virtual void* spawn(std::function<void()> body, const char* name) = 0;
  virtual void join(void* thread) = 0;
  virtual void read_lock() = 0;  // RCU, by thread
  virtual void read_unlock() = 0;
  virtual bool in_read_section() = 0;
  virtual void wait_for_readers() = 0;
};

extern constinit thread_local Scheduler* scheduler;  // of this thread of the system; null: threads are the system's

inline void step(Op op, const void* address, const Where& where) {
  if (scheduler != nullptr) scheduler->step(op, address, where);
}

}  // namespace quire::sim

#define QUIRE_WHERE , ::quire::sim::Where where = ::quire::sim::Where::current()
#define QUIRE_STEP(op, address) ::quire::sim::step(::quire::sim::Op::op, address, where)

#define QUIRE_STEP_HERE(op, address) ::quire::sim::step(::quire::sim::Op::op, address, ::quire::sim::Where::current())

#else

#define QUIRE_STEP_HERE(op, address) ((void)0)
#define QUIRE_WHERE
#define QUIRE_STEP(op, address) ((void)0)

#endif
