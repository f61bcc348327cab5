// Descriptors that a forked child must not keep: rings and eventfds. A child that used one would reap its parent's
// completions, or keep its parent's files open. Locks: the fork guard's mutex, a leaf, held across fork() so that the
// list and the descriptor table agree in the child.
//
// Whoever owns the pthread_atfork handlers calls the three functions below. In the child everything of this folder
// answers ENOTRECOVERABLE from then on, and destructors leave descriptors (whose numbers may have been used again) and
// threads (which do not exist there) alone.
#pragma once

#include "sync/mutex.h"

namespace quire {

// Part of its owner, which stays at a fixed address while it is listed.
class GuardedFd {
 public:
  GuardedFd() = default;
  GuardedFd(const GuardedFd&) = delete;
  GuardedFd& operator=(const GuardedFd&) = delete;
  int fd() const { return fd_; }

 private:
  friend class ForkGuard;
  friend void device_after_fork_child();
  int fd_ = -1;
  GuardedFd* next_ = nullptr;      // the fork guard's
  GuardedFd* previous_ = nullptr;  // the fork guard's
};

Mutex& fork_guard_mutex();

// Keeps forks out while a descriptor is opened and listed, or unlisted and closed.
class SCOPED_CAPABILITY ForkGuard {
 public:
  ForkGuard() ACQUIRE(fork_guard_mutex());
  ~ForkGuard() RELEASE();
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;

  void add(GuardedFd& guarded, int fd);
  int remove(GuardedFd& guarded);  // the descriptor, which the caller closes before this guard ends
};

void device_before_fork() ACQUIRE(fork_guard_mutex());
void device_after_fork_parent() RELEASE(fork_guard_mutex());
void device_after_fork_child() RELEASE(fork_guard_mutex());

bool device_in_forked_child() noexcept;

}  // namespace quire
