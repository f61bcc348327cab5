// A node of the radix tree behind BasicXArray: 2^Shift slots, each empty, an entry, or a child node.
//
// Readers (RCU) touch slots, siblings and marks only; everything else belongs to the holder of the array's lock.
// States: private (being built) -> linked (reachable) -> retired (unlinked, readers may still be inside) -> freed.
//
// A multi-index entry takes a power of two of neighbouring slots and stands in every one of them, so that a lookup
// never follows a second slot; `siblings` tells its later slots from its first, and its marks are kept at its first.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "sync/atomic.h"
#include "sync/rcu.h"
#include "xarray/entry.h"
#include "xarray/node_store.h"

namespace quire {

template <unsigned Shift>
inline constexpr unsigned kXLevels = (64 + Shift - 1) / Shift;  // of a tree that reaches UINT64_MAX

// The alignment leaves room for a shift (0 .. 63) in the low bits of the root word, and lays slots on cache lines.
template <unsigned Shift>
struct alignas(64) XNode : RcuHead {
  static_assert(Shift >= 2 && Shift <= 6, "a bitmap of slots is one 64-bit word");
  static constexpr unsigned kSlots = 1u << Shift;
  static constexpr std::uint64_t kOffsetMask = kSlots - 1;
  static constexpr std::uintptr_t kChildTag = 2;

  XNode(unsigned level_of_node, unsigned offset_in_parent, XNode* parent_node)
      : parent(parent_node),
        level(static_cast<std::uint8_t>(level_of_node)),
        offset(static_cast<std::uint8_t>(offset_in_parent)) {}

  static bool is_child(std::uintptr_t word) { return (word & kChildTag) != 0; }
  static XNode* child(std::uintptr_t word) { return reinterpret_cast<XNode*>(word - kChildTag); }
  std::uintptr_t as_child() const { return reinterpret_cast<std::uintptr_t>(this) + kChildTag; }

  unsigned shift() const { return level * Shift; }
  unsigned offset_of(std::uint64_t index) const { return offset_at(index, level); }
  static unsigned offset_at(std::uint64_t index, unsigned level) {
    return static_cast<unsigned>((index >> (level * Shift)) & kOffsetMask);
  }
  // The first index of `slot` in the node of this level that holds `index`.
  std::uint64_t first_index(std::uint64_t index, unsigned slot) const {
    return ((index >> shift()) - offset_of(index) + slot) << shift();
  }

  static constexpr std::uint64_t bit(unsigned slot) { return std::uint64_t{1} << slot; }
  // Bits of slots first .. last.
  static constexpr std::uint64_t bits(unsigned first, unsigned last) {
    return (UINT64_MAX << first) & (UINT64_MAX >> (63 - last));
  }

  // The first and last slot of the entry that stands in `slot`. Exact under the lock. Under RCU exact for an entry that
  // stays: siblings are changed before the slots that they describe are stored (release), so whoever loaded the entry
  // (acquire) sees its siblings or later ones, and later ones describe it until it goes. Slot 0 is nobody's sibling.
  unsigned first_of(unsigned slot) const {
    return static_cast<unsigned>(std::bit_width(~siblings.load(memory_order_acquire) & bits(0, slot))) - 1;
  }
  unsigned last_of(unsigned slot) const {
    return slot + static_cast<unsigned>(std::countr_one((siblings.load(memory_order_acquire) >> slot) >> 1));
  }

  union {
    XNode* parent;      // while linked; null at the root
    XNodeStore* store;  // once retired: whom to give it back to, or null
  };
  std::uint8_t level;      // 0: its slots are single indices; a slot covers 2^(level * Shift) of them
  std::uint8_t offset;     // its slot in the parent
  std::uint8_t count = 0;  // slots in use
  Atomic<std::uint64_t> siblings;
  Atomic<std::uint64_t> marks[kXMarks];  // of a child's slot: set if any mark inside the child is
  Atomic<std::uintptr_t> slots[kSlots];
};

}  // namespace quire
