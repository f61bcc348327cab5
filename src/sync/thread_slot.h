// A small integer per living thread, given back at its exit: index of per-thread blocks that outlive their threads.
// A slot's next owner sees what its last one wrote (the slot passes through a mutex).
#pragma once

namespace quire {

inline constexpr int kThreadSlots = 512;  // threads past that share the last slot: see thread_slot_is_shared

extern constinit thread_local int thread_slot_value;
int thread_slot_assign() noexcept;

inline int thread_slot() noexcept {
  const int slot = thread_slot_value;
  return __builtin_expect(slot >= 0, 1) ? slot : thread_slot_assign();
}
inline bool thread_slot_is_shared(int slot) noexcept { return slot == kThreadSlots - 1; }

}  // namespace quire
