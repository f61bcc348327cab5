// Registration of threads, grace periods and what is freed after them.
#include "sync/rcu.h"

#include <limits.h>
#include <pthread.h>
#include <urcu/urcu-memb.h>

#include "base/check.h"
#include "sync/atomic.h"
#include "sync/lock_class.h"
#include "sync/mutex.h"

#ifdef QUIRE_TSAN
extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

#ifdef _LGPL_SOURCE
#error "the slow sections need liburcu's own functions, which look for membarrier(2)"
#endif
extern "C" int urcu_memb_has_sys_membarrier;  // of liburcu, for its static header; set by its constructor

namespace quire {

namespace {

// --- registration -----------------------------------------------------------------------------------------------

constinit pthread_once_t key_once = PTHREAD_ONCE_INIT;
constinit pthread_key_t key;
constinit bool in_forked_child = false;     // written by the child's only thread
constinit thread_local int key_rounds = 0;  // how often this thread's key destructor has run
constinit thread_local bool registered = false;

void unregister_thread(void*) {
  ++key_rounds;
  if (!registered || in_forked_child) return;
  registered = false;
  detail::rcu_inline = false;
  urcu_memb_unregister_thread();
}

void create_key() {
  CHECK(pthread_key_create(&key, unregister_thread) == 0);
  // A thread that does not exist in the child may have held liburcu's registry lock: exiting must not ask for it.
  pthread_atfork(nullptr, nullptr, [] { in_forked_child = true; });
}

void register_thread() {
  pthread_once(&key_once, create_key);
  // Later there would be no destructor to unregister it, and liburcu would keep a pointer to a dead thread.
  CHECK(key_rounds < PTHREAD_DESTRUCTOR_ITERATIONS);
  urcu_memb_register_thread();
  registered = true;
  detail::rcu_inline = urcu_memb_has_sys_membarrier != 0;
  CHECK(pthread_setspecific(key, &registered) == 0);
}

// --- what is retired -----------------------------------------------------------------------------------------------

// Pushed by any thread, taken as a whole by whoever drains: a push that loses sight of the list in between links to
// whatever head its compare-exchange then confirms, so reuse of addresses does no harm.
struct alignas(64) Retired {
  Atomic<RcuHead*> head;
  Atomic<std::uint64_t> count;  // retired and not yet freed
};
constinit Retired retired;

constinit LockClass drain_class{"rcu drain"};
constinit Mutex drain_mutex{drain_class};  // one drainer at a time, from taking the list until all of it is freed

#ifdef QUIRE_TSAN
constinit char section_token;
#endif

void wait_for_grace_period() {
#ifdef QUIRE_SIM
  if (sim::scheduler != nullptr) return sim::scheduler->wait_for_readers();
#endif
  urcu_memb_synchronize_rcu();
#ifdef QUIRE_TSAN
  __tsan_acquire(&section_token);
#endif
}

void free_all(RcuHead* list) {
  std::uint64_t freed = 0;
  for (; list != nullptr; ++freed) {
    RcuHead* next = list->next;
    list->free(list);
    list = next;
  }
  // Release: who reads the lower count (rcu_drain) sees what the free functions did.
  if (freed > 0) retired.count.fetch_sub(freed, memory_order_release);
}

}  // namespace

namespace detail {

constinit thread_local bool rcu_inline = false;

void rcu_read_lock_slow() noexcept {
  if (!registered) register_thread();
  urcu_memb_read_lock();
}

void rcu_read_unlock_slow() noexcept { urcu_memb_read_unlock(); }

}  // namespace detail

#if defined(QUIRE_SIM)
// The scheduler knows whose sections are open; its fibers share liburcu's thread.
void rcu_read_lock() noexcept {
  if (sim::scheduler != nullptr) return sim::scheduler->read_lock();
  detail::rcu_read_lock_slow();
}

void rcu_read_unlock() noexcept {
  if (sim::scheduler != nullptr) return sim::scheduler->read_unlock();
  urcu_memb_read_unlock();
}

bool rcu_in_read_section() noexcept {
  return sim::scheduler != nullptr ? sim::scheduler->in_read_section() : urcu_memb_read_ongoing() != 0;
}
#elif defined(QUIRE_TSAN)
void rcu_read_lock() noexcept { detail::rcu_read_lock_slow(); }

void rcu_read_unlock() noexcept {
  __tsan_release(&section_token);
  urcu_memb_read_unlock();
}

bool rcu_in_read_section() noexcept { return urcu_memb_read_ongoing() != 0; }
#endif

void rcu_synchronize() {
  CHECK(!rcu_in_read_section());
  MutexLock guard(drain_mutex);
  // Acquire: sees what each retirer wrote into its object.
  RcuHead* list = retired.head.exchange(nullptr, memory_order_acquire);
  wait_for_grace_period();
  free_all(list);
}

void rcu_retire(RcuHead* head, void (*free)(RcuHead*)) noexcept {
  head->free = free;
  // Relaxed, and first: the push's release puts it before any subtraction, so the count never wraps. `first` is only
  // linked, never followed. The push's release pairs with the drainer's exchange; pushes are read-modify-writes, so
  // that one acquire sees every retirer's object.
  retired.count.fetch_add(1, memory_order_relaxed);
  RcuHead* first = retired.head.load(memory_order_relaxed);
  do {
    head->next = first;
  } while (!retired.head.compare_exchange(first, head, memory_order_release, memory_order_relaxed));
}

void rcu_drain(std::uint64_t limit) {
  CHECK(!rcu_in_read_section());
  if (retired.count.load(memory_order_acquire) <= limit) return;
  MutexLock guard(drain_mutex);
  RcuHead* list = retired.head.exchange(nullptr, memory_order_acquire);
  if (list == nullptr) return;  // another thread freed it while this one waited for the mutex
  wait_for_grace_period();
  free_all(list);
}

}  // namespace quire
