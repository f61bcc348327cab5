// Keeping freed nodes. See node_store.h.
#include "xarray/node_store.h"

namespace quire {

constinit LockClass node_store_lock_class("index nodes");

void XNodeStore::keep(std::uint32_t nodes) {
#if defined(QUIRE_ASAN)
  nodes = 0;
#endif
  Kept* freed = nullptr;
  {
    MutexLock lock(mutex_);
    keep_ = nodes;
    if (nodes == 0) {
      freed = kept_;
      kept_ = nullptr;
      kept_count_ = 0;
      kept_bytes_.store(0, memory_order_relaxed);
    }
  }
  while (freed != nullptr) {
    Kept* next = freed->next;
    ::operator delete(freed, kAlignment);
    freed = next;
  }
}

void* XNodeStore::take(std::size_t size) {
  void* node = nullptr;
  {
    MutexLock lock(mutex_);
    if (kept_ != nullptr) {
      node = kept_;
      kept_ = kept_->next;
      --kept_count_;
      kept_bytes_.fetch_sub(static_cast<std::int64_t>(size), memory_order_relaxed);
    }
  }
  if (node == nullptr) node = ::operator new(size, kAlignment, std::nothrow);
  if (node != nullptr) bytes_.fetch_add(static_cast<std::int64_t>(size), memory_order_relaxed);
  return node;
}

void XNodeStore::give(void* node, std::size_t size) {
  bytes_.fetch_sub(static_cast<std::int64_t>(size), memory_order_relaxed);
  {
    MutexLock lock(mutex_);
    if (kept_count_ < keep_) {
      kept_ = new (node) Kept{kept_};
      ++kept_count_;
      kept_bytes_.fetch_add(static_cast<std::int64_t>(size), memory_order_relaxed);
      return;
    }
  }
  ::operator delete(node, kAlignment);
}

}  // namespace quire
