// The system calls behind futex.h.
#include "sync/futex.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace quire {

bool futex_wait(Atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t timeout_ns) noexcept {
#ifdef QUIRE_SIM
  if (sim::scheduler != nullptr) return sim::scheduler->wait(word.raw(), expected, timeout_ns);
#endif
  timespec timeout{timeout_ns / 1'000'000'000, timeout_ns % 1'000'000'000};
  const long rc =
      syscall(SYS_futex, &word.raw(), FUTEX_WAIT_PRIVATE, expected, timeout_ns < 0 ? nullptr : &timeout, nullptr, 0);
  return rc == 0 || errno != ETIMEDOUT;
}

void futex_wake(Atomic<std::uint32_t>& word, int count) noexcept {
#ifdef QUIRE_SIM
  if (sim::scheduler != nullptr) return sim::scheduler->wake(&word.raw(), count);
#endif
  syscall(SYS_futex, &word.raw(), FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

void thread_yield() noexcept {
#ifdef QUIRE_SIM
  if (sim::scheduler != nullptr) return sim::scheduler->yield();
#endif
  sched_yield();
}

}  // namespace quire
