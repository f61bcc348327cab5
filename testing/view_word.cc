// Words of views, and the handler around them: see view_word.h.
#include "testing/view_word.h"

#include <setjmp.h>
#include <signal.h>

#include <cerrno>
#include <mutex>

namespace quire::judge {
namespace {

thread_local sigjmp_buf* landing = nullptr;  // of the access that this thread is at

void on_sigbus(int) {
  if (landing != nullptr) siglongjmp(*landing, 1);
  signal(SIGBUS, SIG_DFL);  // not ours: it is raised again
}

// Not inlined: what sigsetjmp returns to twice must have no other locals.
template <typename Access>
[[gnu::noinline]] int guarded(Access access) {
  sigjmp_buf here;
  if (sigsetjmp(here, 0) != 0) {
    landing = nullptr;
    sigset_t bus;  // still blocked, as in the handler
    sigemptyset(&bus);
    sigaddset(&bus, SIGBUS);
    pthread_sigmask(SIG_UNBLOCK, &bus, nullptr);
    return -EFAULT;
  }
  landing = &here;
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  access();
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
  landing = nullptr;
  return 0;
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
  return guarded([=] { *word = __atomic_load_n(static_cast<const uint64_t*>(address), __ATOMIC_ACQUIRE); });
}

int store_view_word(void* address, uint64_t word) {
  return guarded([=] { __atomic_store_n(static_cast<uint64_t*>(address), word, __ATOMIC_RELEASE); });
}

}  // namespace quire::judge
