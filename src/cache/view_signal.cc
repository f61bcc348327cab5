// See view_signal.h.
#include "cache/view_signal.h"

#include <signal.h>

#include "base/error.h"
#include "sync/mutex.h"
#include "sync/view_region.h"

namespace quire {
namespace {

constinit LockClass signal_lock_class{"view signal"};
constinit Mutex signal_mutex{signal_lock_class};
constinit bool installed GUARDED_BY(signal_mutex) = false;
struct sigaction before;  // written before the handler can run

// Only what may be done in any handler: the access may have come from one that interrupted anything.
void handle(int signal, siginfo_t* info, void* context) {
  if (info->si_code > 0 && in_views(info->si_addr)) {
    note_fault(
        "SIGBUS in a mapped view: the access lies past the end of the file, or its page could not be read (it is tried "
        "again a second after)");
  }
  if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
    if (info->si_code <= 0 && before.sa_handler == SIG_IGN) return;  // sent by somebody, and ignored
    struct sigaction by_default = {};
    by_default.sa_handler = SIG_DFL;
    sigaction(signal, &by_default, nullptr);  // the access is made again, and ends the program as it would have
    if (info->si_code <= 0) raise(signal);    // sent by somebody: it would not come again
  } else if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(signal, info, context);
  } else {
    before.sa_handler(signal);
  }
}

}  // namespace

void note_view_signals() {
  MutexLock lock(signal_mutex);
  if (installed || sigaction(SIGBUS, nullptr, &before) != 0) return;
  struct sigaction action = {};
  action.sa_sigaction = &handle;
  action.sa_mask = before.sa_mask;
  action.sa_flags = SA_SIGINFO | (before.sa_flags & (SA_ONSTACK | SA_NODEFER | SA_RESTART));
  installed = sigaction(SIGBUS, &action, nullptr) == 0;
}

}  // namespace quire
