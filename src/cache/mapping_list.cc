// See mapping_list.h.
#include "cache/mapping_list.h"

#include "cache/mapping.h"

namespace quire {

void MappingList::link_last_locked(Mapping& mapping) {
  MappingLink& link = mapping.*link_;
  link.previous = tail_;
  link.next = nullptr;
  link.listed = true;
  (tail_ != nullptr ? (tail_->*link_).next : head_) = &mapping;
  tail_ = &mapping;
  ++size_;
}

void MappingList::unlink_locked(Mapping& mapping) {
  MappingLink& link = mapping.*link_;
  (link.previous != nullptr ? (link.previous->*link_).next : head_) = link.next;
  (link.next != nullptr ? (link.next->*link_).previous : tail_) = link.previous;
  link.listed = false;
  --size_;
}

void MappingList::add(Mapping& mapping) {
  MutexLock lock(mutex_);
  if (!(mapping.*link_).listed) link_last_locked(mapping);
}

void MappingList::forget(Mapping& mapping) {
  MappingLink& link = mapping.*link_;
  for (;;) {
    const std::uint32_t ticket = left_queue_.prepare();
    {
      MutexLock lock(mutex_);
      if (!link.visited) {
        if (link.listed) unlink_locked(mapping);
        left_queue_.cancel();
        return;
      }
    }
    left_queue_.wait(ticket);
  }
}

std::uint64_t MappingList::size() {
  MutexLock lock(mutex_);
  return size_;
}

void MappingList::leave(Mapping& mapping) {
  {
    MutexLock lock(mutex_);
    (mapping.*link_).visited = false;
  }
  left_queue_.wake_all();
}

}  // namespace quire
