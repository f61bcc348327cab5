// RCU over liburcu (memb flavour): readers pay a thread-local store; any thread may call, registration is automatic at
// its first read section and undone when it exits.
//
// What is retired is freed by whoever next waits for a grace period (rcu_synchronize, rcu_drain): rcu_retire never
// waits and may be called under any lock. liburcu is not instrumented, so ThreadSanitizer is told of the two orders it
// guarantees: a section's end before the end of a grace period that began later, and publication by release stores.
//
// Sections in line have compiler barriers only: the grace period's membarrier(2) is the fence that they lack. Whoever
// retires has unpublished before (release); the drainer's acquire and liburcu's fence carry that to every later
// section.
//
// A thread is unregistered by a pthread key's destructor, which runs after the destructors of C++ thread_local objects;
// those, and other keys' destructors, may therefore still read (and register the thread anew, for the next round). Only
// a read in the last of POSIX's rounds of key destructors would come too late.
// After fork() only the calling thread goes on in the child: the child must not call anything here but may exit.
#pragma once

#include <cstdint>

#include "sync/annotations.h"
#include "sync/atomic.h"

#if !defined(QUIRE_TSAN) && !defined(QUIRE_SIM)
#include <urcu/config.h>
#include <urcu/tls-compat.h>
// liburcu declares its reader thread_local, and C++ reaches an extern thread_local through a wrapper function, in case
// it needs construction. It is plain C data: __thread says so.
#ifdef CONFIG_RCU_TLS
#undef URCU_TLS_STORAGE_CLASS
#define URCU_TLS_STORAGE_CLASS __thread
#endif
// Nor need every section ask whether the kernel has membarrier(2): rcu_inline says so, by thread.
#define CONFIG_RCU_FORCE_SYS_MEMBARRIER 1
#include <urcu/static/urcu-memb.h>
#undef CONFIG_RCU_FORCE_SYS_MEMBARRIER
#undef urcu_memb_has_sys_membarrier
#endif

namespace quire {

namespace detail {
// This thread is registered, and the kernel has membarrier(2), so that sections need no fence of their own. Written by
// this thread only.
extern constinit thread_local bool rcu_inline;
void rcu_read_lock_slow() noexcept;  // registers the thread if it is not
void rcu_read_unlock_slow() noexcept;
}  // namespace detail

#if defined(QUIRE_TSAN) || defined(QUIRE_SIM)
void rcu_read_lock() noexcept;  // nests; never waits
void rcu_read_unlock() noexcept;
bool rcu_in_read_section() noexcept;  // for assertions
#else
inline void rcu_read_lock() noexcept {
  if (__builtin_expect(!detail::rcu_inline, 0)) return detail::rcu_read_lock_slow();
  _urcu_memb_read_lock();
}
inline void rcu_read_unlock() noexcept {
  if (__builtin_expect(!detail::rcu_inline, 0)) return detail::rcu_read_unlock_slow();
  _urcu_memb_read_unlock();
}
inline bool rcu_in_read_section() noexcept { return _urcu_memb_read_ongoing() != 0; }
#endif

class RcuReadLock {
 public:
  RcuReadLock() noexcept { rcu_read_lock(); }
  ~RcuReadLock() { rcu_read_unlock(); }
  RcuReadLock(const RcuReadLock&) = delete;
  RcuReadLock& operator=(const RcuReadLock&) = delete;
};

// Waits until every read section that was open at the call has ended, then frees what was retired before it.
// Never inside a read section, never under a lock that a reader or a free function may wait for.
void rcu_synchronize();

struct RcuHead {
  RcuHead* next = nullptr;
  void (*free)(RcuHead*) = nullptr;
};

// Frees head through head->free after a grace period. Never waits. The free function may retire, and must not wait for
// a grace period.
void rcu_retire(RcuHead* head, void (*free)(RcuHead*)) noexcept;

// Frees what is retired if more than `limit` objects are pending. May wait for a grace period, as rcu_synchronize; what
// another thread is about to free has been freed when it returns. What a free function retires is left to the next.
void rcu_drain(std::uint64_t limit = 0);

}  // namespace quire
