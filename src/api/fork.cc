// fork(): a child shares the parent's locks, rings and descriptors, and may use none of them. It closes what it would
// keep alive and marks its caches, so that every call of theirs fails with ENOTRECOVERABLE.
// Locks: the registry, then each cache's table, then the devices' list, held across the fork.
#include <pthread.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "api/cache_impl.h"
#include "device/fork_guard.h"

namespace quire {
namespace {

LockClass registry_lock_class{"cache registry"};

struct Registry {
  Mutex mutex{registry_lock_class};
  std::vector<CacheImpl*> caches GUARDED_BY(mutex);
};

Registry& registry() {
  static Registry* const living = new Registry;  // never destroyed: forks may come after static destructors
  return *living;
}

void before_fork() NO_THREAD_SAFETY_ANALYSIS {
  registry().mutex.lock();
  for (CacheImpl* cache : registry().caches) cache->before_fork();
  device_before_fork();
}

void after_fork_parent() NO_THREAD_SAFETY_ANALYSIS {
  device_after_fork_parent();
  for (CacheImpl* cache : registry().caches) cache->after_fork_parent();
  registry().mutex.unlock();
}

void after_fork_child() NO_THREAD_SAFETY_ANALYSIS {
  device_after_fork_child();
  for (CacheImpl* cache : registry().caches) cache->after_fork_child();
  registry().mutex.unlock();
}

}  // namespace

void register_cache(CacheImpl& cache) {
  static const int installed = pthread_atfork(before_fork, after_fork_parent, after_fork_child);
  static_cast<void>(installed);
  MutexLock lock(registry().mutex);
  auto& caches = registry().caches;  // by address: the order in which a fork locks their tables
  caches.insert(std::upper_bound(caches.begin(), caches.end(), &cache, std::less<>{}), &cache);
}

void unregister_cache(CacheImpl& cache) {
  MutexLock lock(registry().mutex);
  std::erase(registry().caches, &cache);
}

}  // namespace quire
