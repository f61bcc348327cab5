// A list of mappings that one of quire's threads visits in turns, the one visited longest ago first: those with
// unstable folios (flusher.h), those with ghosts (ghosts.h).
//
// A mapping is on the list while what it is listed for may not be 0. Whoever makes that more than 0 counts first and
// adds afterwards; the visitor drops a mapping that it sees at 0 under the list's mutex: the one or the other sees.
// Locks: its own mutex, a leaf, also under the index's.
#pragma once

#include <cstdint>

#include "sync/mutex.h"
#include "sync/wait_queue.h"

namespace quire {

struct Mapping;

// A mapping's place in one list; the list's mutex.
struct MappingLink {
  Mapping* next = nullptr;
  Mapping* previous = nullptr;
  bool listed = false;
  bool visited = false;  // just now: it is not destroyed meanwhile
};

class MappingList {
 public:
  enum class Visit : std::uint8_t { drop, pass_over, enter };

  MappingList(LockClass& lock_class, MappingLink Mapping::*link) : link_(link), mutex_(lock_class) {}
  MappingList(const MappingList&) = delete;
  MappingList& operator=(const MappingList&) = delete;

  void add(Mapping& mapping);     // unless it is there
  void forget(Mapping& mapping);  // before it is destroyed; waits until the visitor has left it
  std::uint64_t size();

  // Looks at the next mapping: decide(mapping), under the mutex, says what becomes of it. False: the list is empty.
  // *entered: the mapping to visit, which is the last of the list now, until leave(); or null.
  template <typename Decide>
  bool next(Decide decide, Mapping** entered) {
    *entered = nullptr;
    MutexLock lock(mutex_);
    Mapping* const mapping = head_;
    if (mapping == nullptr) return false;
    unlink_locked(*mapping);
    const Visit visit = decide(*mapping);
    if (visit != Visit::drop) link_last_locked(*mapping);
    if (visit == Visit::enter) {
      (mapping->*link_).visited = true;
      *entered = mapping;
    }
    return true;
  }
  void leave(Mapping& mapping);

  template <typename Each>
  void for_each(Each each) {
    MutexLock lock(mutex_);
    for (Mapping* mapping = head_; mapping != nullptr; mapping = (mapping->*link_).next) each(*mapping);
  }

 private:
  void link_last_locked(Mapping& mapping) REQUIRES(mutex_);
  void unlink_locked(Mapping& mapping) REQUIRES(mutex_);

  MappingLink Mapping::*const link_;
  Mutex mutex_;
  Mapping* head_ GUARDED_BY(mutex_) = nullptr;  // visited longest ago
  Mapping* tail_ GUARDED_BY(mutex_) = nullptr;
  std::uint64_t size_ GUARDED_BY(mutex_) = 0;
  WaitQueue left_queue_;  // forget() waits here
};

}  // namespace quire
