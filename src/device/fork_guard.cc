// The list of descriptors that a forked child closes.
#include "device/fork_guard.h"

#include <unistd.h>

#include <utility>

#include "base/check.h"
#include "sync/atomic.h"

namespace quire {
namespace {

LockClass fork_guard_class("device.fork_guard");
constinit GuardedFd* first_guarded = nullptr;  // guarded by fork_guard_mutex()
constinit Atomic<bool> in_forked_child;        // written once, while the child has one thread

}  // namespace

Mutex& fork_guard_mutex() {
  static Mutex mutex(fork_guard_class);  // at first use: a ring may be made before main
  return mutex;
}

ForkGuard::ForkGuard() { fork_guard_mutex().lock(); }
ForkGuard::~ForkGuard() { fork_guard_mutex().unlock(); }

void ForkGuard::add(GuardedFd& guarded, int fd) {
  CHECK(guarded.fd_ < 0);
  guarded.fd_ = fd;
  guarded.previous_ = nullptr;
  guarded.next_ = first_guarded;
  if (first_guarded != nullptr) first_guarded->previous_ = &guarded;
  first_guarded = &guarded;
}

int ForkGuard::remove(GuardedFd& guarded) {
  CHECK(guarded.fd_ >= 0);
  if (guarded.previous_ != nullptr) {
    guarded.previous_->next_ = guarded.next_;
  } else {
    first_guarded = guarded.next_;
  }
  if (guarded.next_ != nullptr) guarded.next_->previous_ = guarded.previous_;
  return std::exchange(guarded.fd_, -1);
}

void device_before_fork() { fork_guard_mutex().lock(); }

void device_after_fork_parent() { fork_guard_mutex().unlock(); }

void device_after_fork_child() {
  in_forked_child.store(true, memory_order_relaxed);  // one thread: nothing to order
  for (GuardedFd* guarded = first_guarded; guarded != nullptr; guarded = guarded->next_) close(guarded->fd_);
  first_guarded = nullptr;
  fork_guard_mutex().unlock();
}

bool device_in_forked_child() noexcept {
  // Threads of the child are made after the store, and making a thread orders it.
  return in_forked_child.load(memory_order_relaxed);
}

}  // namespace quire
