// Thread slots: a bitmap under a mutex; a thread-local destructor gives the slot back.
#include "sync/thread_slot.h"

#include <unistd.h>

#include <bitset>

#include "sync/mutex.h"

namespace quire {

constinit thread_local int thread_slot_value = -1;

namespace {

LockClass slot_lock_class{"thread slots"};

struct SlotTable {
  const pid_t owner = getpid();
  Mutex mutex{slot_lock_class};
  std::bitset<kThreadSlots> used GUARDED_BY(mutex);
};

SlotTable& table() {
  static SlotTable* const slots = new SlotTable;  // never destroyed: threads may end after static destructors ran
  return *slots;
}

struct SlotOwner {
  int slot = -1;
  ~SlotOwner() {
    // In a forked child another thread of the parent may have held the mutex at the fork: nobody would release it.
    if (slot < 0 || getpid() != table().owner) return;
    MutexLock lock(table().mutex);
    table().used.reset(static_cast<std::size_t>(slot));
    thread_slot_value = kThreadSlots - 1;  // later destructors of this thread count in the shared slot
  }
};
thread_local SlotOwner owner;

}  // namespace

int thread_slot_assign() noexcept {
  SlotTable& slots = table();
  MutexLock lock(slots.mutex);
  for (int i = 0; i < kThreadSlots - 1; ++i) {
    if (slots.used.test(static_cast<std::size_t>(i))) continue;
    slots.used.set(static_cast<std::size_t>(i));
    owner.slot = i;
    return thread_slot_value = i;
  }
  return thread_slot_value = kThreadSlots - 1;
}

}  // namespace quire
