// The sweep. See ghosts.h.
#include "cache/ghosts.h"

#include "cache/mapping.h"

namespace quire {

LockClass ghosts_lock_class{"ghosts"};

namespace {

constexpr int kSlice = 128;  // entries looked at in one turn of the index's mutex

}  // namespace

void GhostKeeper::link_locked(Mapping& mapping) {
  mapping.ghost_previous = tail_;
  mapping.ghost_next = nullptr;
  (tail_ != nullptr ? tail_->ghost_next : head_) = &mapping;
  tail_ = &mapping;
  mapping.on_ghost_list = true;
  ++listed_;
}

void GhostKeeper::unlink_locked(Mapping& mapping) {
  (mapping.ghost_previous != nullptr ? mapping.ghost_previous->ghost_next : head_) = mapping.ghost_next;
  (mapping.ghost_next != nullptr ? mapping.ghost_next->ghost_previous : tail_) = mapping.ghost_previous;
  mapping.on_ghost_list = false;
  --listed_;
}

void GhostKeeper::added(Mapping& mapping, std::uint64_t count) {
  count_.fetch_add(count, memory_order_relaxed);
  mapping.ghost_count += count;
  if (mapping.ghost_count != count) return;  // not the first
  MutexLock lock(mutex_);
  if (!mapping.on_ghost_list) link_locked(mapping);
}

void GhostKeeper::removed(Mapping& mapping, std::uint64_t count) {
  mapping.ghost_count -= count;
  count_.fetch_sub(count, memory_order_relaxed);
}

void GhostKeeper::forget(Mapping& mapping) {
  for (;;) {
    const std::uint32_t ticket = idle_queue_.prepare();
    {
      MutexLock lock(mutex_);
      if (!mapping.ghost_sweep_inside) {
        if (mapping.on_ghost_list) unlink_locked(mapping);
        idle_queue_.cancel();
        return;
      }
    }
    idle_queue_.wait(ticket);
  }
}

// A sparse file's ghosts may hold a node of the index each.
bool GhostKeeper::index_is_large() const {
  return static_cast<std::uint64_t>(cache_.nodes.bytes()) > cache_.memory() / 16;
}

// Ghosts count for two caches' worth of evictions: of what is past that many and a half, some is dead.
bool GhostKeeper::due() const {
  const std::uint64_t ghosts = count();
  const std::uint64_t frames = cache_.frames();
  return ghosts > 2 * frames + frames / 2 || (index_is_large() && ghosts > frames / 4);
}

void GhostKeeper::sweep(const Atomic<bool>& stop) {
  if (!due()) return;
  std::uint64_t left;
  {
    MutexLock lock(mutex_);
    left = listed_;
  }
  const std::uint64_t within = index_is_large() ? cache_.frames() / 8 : UINT64_MAX;
  while (left-- != 0 && !stop.load(memory_order_relaxed) && sweep_next(within)) {
  }
}

bool GhostKeeper::sweep_next(std::uint64_t within) {
  Mapping* mapping;
  {
    MutexLock lock(mutex_);
    if (head_ == nullptr) return false;
    mapping = head_;
    unlink_locked(*mapping);
    mapping->ghost_sweep_inside = true;
  }
  sweep_mapping(*mapping, cache_.eviction.ghost_age(), within);
  {
    // The index first: whoever adds a ghost to a mapping without any holds its mutex when it looks at the list.
    MutexLock pages(mapping->pages.mutex());
    MutexLock lock(mutex_);
    if (mapping->ghost_count != 0 && !mapping->on_ghost_list) link_locked(*mapping);
    mapping->ghost_sweep_inside = false;
  }
  idle_queue_.wake_all();
  return true;
}

void GhostKeeper::sweep_mapping(Mapping& mapping, const GhostAge& age, std::uint64_t within) {
  std::uint64_t page = 0;
  for (;;) {
    MutexLock lock(mapping.pages.mutex());
    for (int i = 0; i < kSlice; ++i) {
      std::uint64_t last = 0;
      const XEntry entry = mapping.pages.find(&page, UINT64_MAX, &last);
      if (entry.empty()) return;
      if (entry.is_value() && !age.is_live(entry.value(), within)) {
        mapping.pages.erase_locked(page);
        removed(mapping);
      }
      if (last == UINT64_MAX) return;
      page = last + 1;
    }
  }
}

}  // namespace quire
