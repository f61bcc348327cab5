// Memory of a cache's index nodes: counted, and some of what is freed kept for the next, since random reads of a large
// file through a small cache make and free a node each.
// Thread safety: any thread. Locks: its own mutex, a leaf (inner to the array's).
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include "sync/atomic.h"
#include "sync/mutex.h"

namespace quire {

extern LockClass node_store_lock_class;

class XNodeStore {
 public:
  XNodeStore() : mutex_(node_store_lock_class) {}
  // All arrays that used it are gone, and what they retired has been freed (rcu_synchronize).
  ~XNodeStore() { keep(0); }
  XNodeStore(const XNodeStore&) = delete;
  XNodeStore& operator=(const XNodeStore&) = delete;

  // Freed nodes kept from now on, at most. AddressSanitizer wants to see every one freed: it keeps none.
  void keep(std::uint32_t nodes);

  // Memory for a node of `size` bytes, always the same one, aligned to a cache line; null if there is none.
  void* take(std::size_t size);
  void give(void* node, std::size_t size);

  // Of nodes from take() to give(): reachable ones, and retired ones that wait for a grace period.
  std::int64_t bytes() const { return bytes_.load(memory_order_relaxed); }
  std::int64_t kept_bytes() const { return kept_bytes_.load(memory_order_relaxed); }

 private:
  struct Kept {
    Kept* next;
  };
  static constexpr std::align_val_t kAlignment{64};

  Mutex mutex_;
  Kept* kept_ GUARDED_BY(mutex_) = nullptr;
  std::uint32_t kept_count_ GUARDED_BY(mutex_) = 0;
  std::uint32_t keep_ GUARDED_BY(mutex_) = 0;
  Atomic<std::int64_t> bytes_;
  Atomic<std::int64_t> kept_bytes_;
};

}  // namespace quire
