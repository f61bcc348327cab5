// Words of views, and the handler around them: see view_word.h.
#include "testing/view_word.h"

#include <setjmp.h>
#include <signal.h>

#include <cerrno>
#include <mutex>

namespace quire::judge {
namespace {

thread_local sigjmp_buf* landing = nullptr;  // of the access that this thread is at

// What a thread blocks outside handlers, as it was at its first access: in a handler it is SIGBUS as well, and
// everything where ThreadSanitizer calls it.
const sigset_t& own_mask() {
  thread_local const sigset_t mask = [] {
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    return now;
  }();
  return mask;
}

void on_sigbus(int) {
  if (landing != nullptr) siglongjmp(*landing, 1);
  signal(SIGBUS, SIG_DFL);  // not ours: it is raised again
}

// Not inlined: what sigsetjmp returns to twice must have no other locals.
template <typename Access>
[[gnu::noinline]] int guarded(Access access) {
  const sigset_t& mask = own_mask();
  sigjmp_buf here;
  if (sigsetjmp(here, 0) != 0) {
    landing = nullptr;
    pthread_sigmask(SIG_SETMASK, &mask, nullptr);
    return -EFAULT;
  }
  landing = &here;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  access();
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  landing = nullptr;
  return 0;
}

// No atomic operations: ThreadSanitizer's hold a lock while they access, which siglongjmp would leave held.
#define NOT_BY_TSAN __attribute__((noinline, no_sanitize("thread")))

NOT_BY_TSAN uint64_t load_acquire(const void* address) {
  const uint64_t word = *static_cast<const volatile uint64_t*>(address);
  __atomic_thread_fence(__ATOMIC_ACQUIRE);
  return word;
}

NOT_BY_TSAN void store_release(void* address, uint64_t word) {
  __atomic_thread_fence(__ATOMIC_RELEASE);
  *static_cast<volatile uint64_t*>(address) = word;
}

}  // namespace

void catch_sigbus() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_handler = on_sigbus;
    sigaction(SIGBUS, &action, nullptr);
  });
}

int load_view_word(const void* address, uint64_t* word) {
  return guarded([=] { *word = load_acquire(address); });
}

int store_view_word(void* address, uint64_t word) {
  return guarded([=] { store_release(address, word); });
}

}  // namespace quire::judge
