// Splitting a multi-index entry. Included by xarray_impl.h.
//
// The entry is halved around one index until the part that holds it is small enough, so that all other parts stay as
// large as they can: of 512 pages around one, ten parts. Marks stay with every part. Locks: the array's mutex.
#pragma once

#include <array>
#include <bit>

#include "xarray/xarray.h"

namespace quire {

// Halves the slots [first, last] of node down to `keep` slots around `slot`. part(first, last) for each half that is
// left as it is; the bounds of what is kept come back in *first and *last.
template <typename Part>
void halve_slots(unsigned* first, unsigned* last, unsigned slot, unsigned keep, Part part) {
  while (*last - *first + 1 > keep) {
    const unsigned middle = *first + (*last - *first + 1) / 2;
    if (slot < middle) {
      part(middle, *last);
      *last = middle - 1;
    } else {
      part(*first, middle - 1);
      *first = middle;
    }
  }
}

template <unsigned Shift>
unsigned BasicXArray<Shift>::order_locked(std::uint64_t index) const {
  State at(index);
  CHECK(locate_locked(at) != 0);
  const unsigned slots = at.node_->last_of(at.slot_) - at.node_->first_of(at.slot_) + 1;
  return at.node_->shift() + static_cast<unsigned>(std::bit_width(slots)) - 1;
}

template <unsigned Shift>
Status BasicXArray<Shift>::split_locked(std::uint64_t index, unsigned order, std::uintptr_t step) {
  State at(index);
  const std::uintptr_t old = locate_locked(at);
  CHECK(old != 0);
  Node* const node = at.node_;
  const unsigned level = order / Shift;
  DCHECK(level <= node->level);
  // The nodes below the slot of `index`, from the top, before anything changes.
  std::array<Node*, kXLevels<Shift>> made{};
  for (unsigned n = node->level; n-- > level;) {
    made[n] = allocate_locked(n, Node::offset_at(index, n + 1), nullptr);
    if (made[n] != nullptr) continue;
    while (++n < node->level) retire_locked(made[n]);
    return fail(ENOMEM);
  }
  const std::uint64_t entry_first = node->first_index(index, node->first_of(at.slot_));
  std::uint64_t marked = 0;  // bit by mark of the whole entry
  for (unsigned mark = 0; mark < kXMarks; ++mark) {
    if ((node->marks[mark].load(memory_order_relaxed) & Node::bit(node->first_of(at.slot_))) != 0) marked |= 1u << mark;
  }
  // From below, so that who gets to a node finds it complete.
  for (unsigned n = level; n < node->level; ++n) {
    Node* const below = n == level ? nullptr : made[n - 1];
    split_slots_locked(made[n], 0, Node::kSlots - 1, index, order, below,
                       Parts{.first_index = entry_first, .word = old, .step = step, .marked = marked});
    made[n]->count = Node::kSlots;
    made[n]->parent = n + 1 == node->level ? node : made[n + 1];
  }
  split_slots_locked(node, node->first_of(at.slot_), node->last_of(at.slot_), index, order,
                     node->level == level ? nullptr : made[node->level - 1],
                     Parts{.first_index = entry_first, .word = old, .step = step, .marked = marked});
  shrink_locked();  // a root with one entry may have become one with a child
  return {};
}

// The slots [first, last] become parts around the slot of index, which leads to `below` if that is not null.
template <unsigned Shift>
void BasicXArray<Shift>::split_slots_locked(Node* node, unsigned first, unsigned last, std::uint64_t index,
                                            unsigned order, Node* below, const Parts& parts) {
  const unsigned shift = node->shift();
  const unsigned keep = order > shift ? 1u << (order - shift) : 1;
  const auto part = [&](unsigned begin, unsigned end, std::uintptr_t word) {
    const std::uint64_t range = Node::bits(begin, end);
    // Before the slots, which are releases: who sees the part in a slot sees how far it reaches.
    node->siblings.store((node->siblings.load(memory_order_relaxed) & ~range) | (range & ~Node::bit(begin)),
                         memory_order_relaxed);
    for (unsigned mark = 0; mark < kXMarks; ++mark) {
      if ((parts.marked >> mark & 1) == 0) continue;
      const std::uint64_t bits = node->marks[mark].load(memory_order_relaxed);
      node->marks[mark].store(bits | Node::bit(begin), memory_order_release);
    }
    for (unsigned slot = begin; slot <= end; ++slot) node->slots[slot].store(word, memory_order_release);
  };
  const auto entry_of = [&](unsigned slot) {
    return parts.word + (node->first_index(index, slot) - parts.first_index) * parts.step;
  };
  halve_slots(&first, &last, node->offset_of(index), keep,
              [&](unsigned begin, unsigned end) { part(begin, end, entry_of(begin)); });
  part(first, last, below != nullptr ? below->as_child() : entry_of(first));
}

}  // namespace quire
