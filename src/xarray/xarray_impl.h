// Code of BasicXArray: iteration, then changes. Included by xarray.cc, and by tests that want another width.
//
// Iteration goes down from the root again whenever it leaves a node, so that no position survives a change of the tree.
// Changes run under the array's lock and follow the order that lookups rely on (see load() in xarray.h).
// Locks: the array's mutex; nodes are allocated under it, without throwing, and freed through RCU.
#pragma once

#include <algorithm>
#include <cerrno>
#include <new>

#include "xarray/xarray.h"

namespace quire {

// --- Iteration ------------------------------------------------------------------------------------------------------

// Where a scan stopped. node is null where the tree does not reach.
template <unsigned Shift>
struct BasicXArray<Shift>::Hit {
  const Node* node = nullptr;
  unsigned slot = 0;
  std::uintptr_t word = 0;
  std::uint64_t index = 0;

  std::uint64_t entry_last() const {
    const unsigned shift = node->shift();
    // last_of may fall behind where the entry is being replaced by smaller ones.
    const unsigned asked = node->offset_of(index);
    const std::uint64_t slots = std::max(node->last_of(slot), asked) - asked;
    return (index | ((std::uint64_t{1} << shift) - 1)) + (slots << shift);
  }
};

// Finds the first index in [at, last] whose slot pick accepts. pick(node, slot, &word) returns the first slot from
// `slot` on that it wants, with its word, or kSlots; children that it returns are searched. An index beyond the tree
// stops the scan as an absent one.
template <unsigned Shift>
template <typename Pick>
bool BasicXArray<Shift>::scan(std::uint64_t at, std::uint64_t last, const Pick& pick, Hit* hit) const {
  DCHECK(readable());
  while (at <= last) {
    const std::uintptr_t root = root_.load(memory_order_acquire);
    if (root == 0 || (at >> root_shift(root)) >= Node::kSlots) {
      *hit = Hit{nullptr, 0, 0, at};
      return true;
    }
    const Node* node = root_node(root);
    for (;;) {
      const unsigned shift = node->shift();
      const unsigned asked = node->offset_of(at);
      std::uintptr_t word = 0;
      const unsigned slot = pick(*node, asked, &word);
      if (slot > asked) {
        // Slots of the top node past the end of the index space are never used, but a search for a gap meets them.
        const std::uint64_t to_next = (std::uint64_t{1} << shift) - (at & ((std::uint64_t{1} << shift) - 1));
        const unsigned __int128 next =
            static_cast<unsigned __int128>(at) + to_next + (static_cast<unsigned __int128>(slot - asked - 1) << shift);
        if (next > last) return false;
        at = static_cast<std::uint64_t>(next);
      }
      if (slot == Node::kSlots) break;  // on to the next node, from the root
      if (!Node::is_child(word)) {
        *hit = Hit{node, slot, word, at};
        return true;
      }
      node = Node::child(word);
    }
  }
  return false;
}

template <unsigned Shift>
XEntry BasicXArray<Shift>::find(std::uint64_t* index, std::uint64_t last, std::uint64_t* entry_last) const {
  const auto present = [](const Node& node, unsigned slot, std::uintptr_t* word) {
    while (slot < Node::kSlots && (*word = node.slots[slot].load(memory_order_acquire)) == 0) ++slot;
    return slot;
  };
  Hit hit;
  if (!scan(*index, last, present, &hit) || hit.node == nullptr) return {};
  *index = hit.index;
  if (entry_last != nullptr) *entry_last = hit.entry_last();
  return XEntry{hit.word};
}

template <unsigned Shift>
XEntry BasicXArray<Shift>::find_marked(std::uint64_t* index, std::uint64_t last, unsigned mark,
                                       std::uint64_t* entry_last) const {
  const auto marked_slot = [mark](const Node& node, unsigned slot, std::uintptr_t* word) {
    // Acquire: a bit was set after what it speaks of, below and in the slot.
    std::uint64_t left = node.marks[mark].load(memory_order_acquire);
    left &= UINT64_MAX << node.first_of(slot);
    for (; left != 0; left &= left - 1) {
      const unsigned first = static_cast<unsigned>(std::countr_zero(left));
      const unsigned found = std::max(first, slot);  // the mark of an entry that began before `slot` stands at `first`
      *word = node.slots[found].load(memory_order_acquire);
      if (*word == 0) continue;  // erased since the bit was read
      if (first < slot && (Node::is_child(*word) || node.last_of(first) < slot)) continue;  // replaced since first_of
      return found;
    }
    return Node::kSlots;
  };
  Hit hit;
  if (!scan(*index, last, marked_slot, &hit) || hit.node == nullptr) return {};
  *index = hit.index;
  if (entry_last != nullptr) *entry_last = hit.entry_last();
  return XEntry{hit.word};
}

template <unsigned Shift>
std::uint64_t BasicXArray<Shift>::next_gap(std::uint64_t index, std::uint64_t last) const {
  const auto absent_or_child = [](const Node& node, unsigned slot, std::uintptr_t* word) {
    for (; slot < Node::kSlots; ++slot) {
      *word = node.slots[slot].load(memory_order_acquire);
      if (*word == 0 || Node::is_child(*word)) break;
    }
    return slot;
  };
  Hit hit;
  return scan(index, last, absent_or_child, &hit) ? hit.index : last + 1;
}

// The node and slot where the walk to index ends, and the word there; null where the tree does not reach.
template <unsigned Shift>
const XNode<Shift>* BasicXArray<Shift>::descend(std::uint64_t index, unsigned* slot, std::uintptr_t* word) const {
  *word = 0;
  const std::uintptr_t root = root_.load(memory_order_acquire);
  if (root == 0 || (index >> root_shift(root)) >= Node::kSlots) return nullptr;
  for (const Node* node = root_node(root);; node = Node::child(*word)) {
    *slot = node->offset_of(index);
    *word = node->slots[*slot].load(memory_order_acquire);
    if (!Node::is_child(*word)) return node;
  }
}

template <unsigned Shift>
bool BasicXArray<Shift>::get_mark(std::uint64_t index, unsigned mark) const {
  RcuReadLock read_section;
  unsigned slot = 0;
  std::uintptr_t word = 0;
  const Node* node = descend(index, &slot, &word);
  if (word == 0) return false;
  return (node->marks[mark].load(memory_order_acquire) & Node::bit(node->first_of(slot))) != 0;
}

template <unsigned Shift>
bool BasicXArray<Shift>::marked(unsigned mark) const {
  RcuReadLock read_section;
  const std::uintptr_t root = root_.load(memory_order_acquire);
  return root != 0 && root_node(root)->marks[mark].load(memory_order_acquire) != 0;
}

// --- Plain API ------------------------------------------------------------------------------------------------------

template <unsigned Shift>
Result<XEntry> BasicXArray<Shift>::store(std::uint64_t index, XEntry entry) {
  State at(index);
  MutexLock lock(mutex_);
  return store_locked(at, entry);
}

template <unsigned Shift>
Result<XEntry> BasicXArray<Shift>::insert(std::uint64_t index, XEntry entry) {
  return cmpxchg(index, XEntry{}, entry);
}

template <unsigned Shift>
Result<XEntry> BasicXArray<Shift>::cmpxchg(std::uint64_t index, XEntry expected, XEntry desired) {
  State at(index);
  MutexLock lock(mutex_);
  const XEntry found = load_locked(at);
  if (found != expected) return found;
  return store_locked(at, desired);
}

template <unsigned Shift>
XEntry BasicXArray<Shift>::erase(std::uint64_t index) {
  State at(index);
  MutexLock lock(mutex_);
  return erase_locked(at);
}

template <unsigned Shift>
Result<XEntry> BasicXArray<Shift>::store_range(std::uint64_t index, unsigned order, XEntry entry) {
  MutexLock lock(mutex_);
  return store_range_locked(index, order, entry);
}

template <unsigned Shift>
bool BasicXArray<Shift>::set_mark(std::uint64_t index, unsigned mark) {
  State at(index);
  MutexLock lock(mutex_);
  return set_mark_locked(at, mark);
}

template <unsigned Shift>
bool BasicXArray<Shift>::clear_mark(std::uint64_t index, unsigned mark) {
  State at(index);
  MutexLock lock(mutex_);
  return clear_mark_locked(at, mark);
}

template <unsigned Shift>
void BasicXArray<Shift>::clear() {
  MutexLock lock(mutex_);
  const std::uintptr_t root = root_.load(memory_order_relaxed);  // under the lock
  if (root == 0) return;
  root_.store(0, memory_order_release);
  retire_tree_locked(root_node(root));
}

template <unsigned Shift>
void BasicXArray<Shift>::fail_allocation_after(unsigned successes) {
  MutexLock lock(mutex_);
  fail_countdown_ = successes + 1;
}

// --- Advanced API ---------------------------------------------------------------------------------------------------
// Loads under the lock are relaxed: whoever stored did so under it too. Stores that readers may follow are releases.

// Goes to at.index_ unless `at` still is there; the word found.
template <unsigned Shift>
std::uintptr_t BasicXArray<Shift>::locate_locked(State& at) const {
  if (at.node_ != nullptr && at.version_ == version_) {
    const std::uintptr_t word = at.node_->slots[at.slot_].load(memory_order_relaxed);
    if (!Node::is_child(word)) return word;
  }
  std::uintptr_t word = 0;
  at.node_ = const_cast<Node*>(descend(at.index_, &at.slot_, &word));
  at.version_ = version_;
  return word;
}

template <unsigned Shift>
XEntry BasicXArray<Shift>::load_locked(State& at) const {
  return XEntry{locate_locked(at)};
}

template <unsigned Shift>
Result<XEntry> BasicXArray<Shift>::store_locked(State& at, XEntry entry) {
  DCHECK(!Node::is_child(entry.bits));
  if (!entry) return erase_locked(at);
  const std::uintptr_t old = locate_locked(at);
  if (old == 0) {
    if (at.node_ == nullptr || at.node_->level != 0) {
      Node* node = reach_locked(at.index_, 0);
      if (node == nullptr) return fail(ENOMEM);
      at.node_ = node;
      at.slot_ = node->offset_of(at.index_);
      at.version_ = version_;
    }
    ++at.node_->count;
    at.node_->slots[at.slot_].store(entry.bits, memory_order_release);
    return XEntry{};
  }
  const unsigned last = at.node_->last_of(at.slot_);
  for (unsigned slot = at.node_->first_of(at.slot_); slot <= last; ++slot) {
    at.node_->slots[slot].store(entry.bits, memory_order_release);
  }
  return XEntry{old};
}

template <unsigned Shift>
XEntry BasicXArray<Shift>::erase_locked(State& at) {
  const std::uintptr_t old = locate_locked(at);
  if (old == 0) return {};
  Node* node = at.node_;
  const unsigned first = node->first_of(at.slot_), last = node->last_of(at.slot_);
  for (unsigned mark = 0; mark < kXMarks; ++mark) clear_mark_at_locked(node, first, mark);
  // Relaxed: emptiness publishes nothing, and the entry that follows in these slots is a release after both stores.
  for (unsigned slot = first; slot <= last; ++slot) node->slots[slot].store(0, memory_order_relaxed);
  node->siblings.store(node->siblings.load(memory_order_relaxed) & ~Node::bits(first, last), memory_order_relaxed);
  node->count = static_cast<std::uint8_t>(node->count - (last - first + 1));
  prune_locked(node);
  return XEntry{old};
}

template <unsigned Shift>
Result<XEntry> BasicXArray<Shift>::store_range_locked(std::uint64_t index, unsigned order, XEntry entry) {
  CHECK(order < 64);
  const std::uint64_t index_last = index + ((std::uint64_t{1} << order) - 1);
  CHECK((index & (index_last - index)) == 0);
  CHECK(!entry.empty());
  DCHECK(!Node::is_child(entry.bits));
  const unsigned level = order / Shift;
  const unsigned slots = 1u << (order - level * Shift);

  // The range lies inside a larger entry if it does so at its first index: entries are aligned to their size.
  State at(index);
  if (locate_locked(at) != 0) {
    const unsigned found = at.node_->last_of(at.slot_) - at.node_->first_of(at.slot_) + 1;
    if (at.node_->level > level || (at.node_->level == level && found > slots)) return fail(EEXIST);
  }
  std::uint64_t first_index = index;
  const XEntry old = find(&first_index, index_last);

  Node* node = reach_locked(index, level);
  if (node == nullptr) return fail(ENOMEM);
  const unsigned first = node->offset_of(index), last = first + slots - 1;
  const std::uint64_t range = Node::bits(first, last);
  for (Atomic<std::uint64_t>& marks : node->marks) {
    const std::uint64_t bits = marks.load(memory_order_relaxed);
    if ((bits & range) != 0) marks.store((bits & ~range) | Node::bit(first), memory_order_release);
  }
  // Before the slots, which are releases: who sees the entry in a slot sees how far it reaches.
  node->siblings.store((node->siblings.load(memory_order_relaxed) & ~range) | (range & ~Node::bit(first)),
                       memory_order_relaxed);
  for (unsigned slot = first; slot <= last; ++slot) {
    const std::uintptr_t word = node->slots[slot].load(memory_order_relaxed);
    if (word == 0) ++node->count;
    node->slots[slot].store(entry.bits, memory_order_release);
    if (Node::is_child(word)) retire_tree_locked(Node::child(word));
  }
  return old;
}

template <unsigned Shift>
bool BasicXArray<Shift>::set_mark_locked(State& at, unsigned mark) {
  if (locate_locked(at) == 0) return false;
  return set_mark_at_locked(at.node_, at.node_->first_of(at.slot_), mark);
}

template <unsigned Shift>
bool BasicXArray<Shift>::clear_mark_locked(State& at, unsigned mark) {
  if (locate_locked(at) == 0) return false;
  return clear_mark_at_locked(at.node_, at.node_->first_of(at.slot_), mark);
}

template <unsigned Shift>
bool BasicXArray<Shift>::get_mark_locked(State& at, unsigned mark) const {
  if (locate_locked(at) == 0) return false;
  const std::uint64_t bits = at.node_->marks[mark].load(memory_order_relaxed);
  return (bits & Node::bit(at.node_->first_of(at.slot_))) != 0;
}

// Upwards until a node above knows already. From below, so that who sees a bit (acquire) finds what it stands for.
template <unsigned Shift>
bool BasicXArray<Shift>::set_mark_at_locked(Node* node, unsigned slot, unsigned mark) {
  bool changed = false;
  for (; node != nullptr; slot = node->offset, node = node->parent) {
    Atomic<std::uint64_t>& marks = node->marks[mark];
    const std::uint64_t bits = marks.load(memory_order_relaxed);
    if ((bits & Node::bit(slot)) != 0) break;
    marks.store(bits | Node::bit(slot), memory_order_release);
    changed = true;
  }
  return changed;
}

// Upwards until a node has another. Relaxed: a clear bit makes nobody follow it.
template <unsigned Shift>
bool BasicXArray<Shift>::clear_mark_at_locked(Node* node, unsigned slot, unsigned mark) {
  bool changed = false;
  for (; node != nullptr; slot = node->offset, node = node->parent) {
    Atomic<std::uint64_t>& marks = node->marks[mark];
    const std::uint64_t bits = marks.load(memory_order_relaxed);
    if ((bits & Node::bit(slot)) == 0) break;
    marks.store(bits & ~Node::bit(slot), memory_order_relaxed);
    changed = true;
    if ((bits & ~Node::bit(slot)) != 0) break;
  }
  return changed;
}

// --- Nodes ----------------------------------------------------------------------------------------------------------

template <unsigned Shift>
XNode<Shift>* BasicXArray<Shift>::allocate_locked(unsigned level, unsigned offset, Node* parent) {
  if (fail_countdown_ != 0 && --fail_countdown_ == 0) return nullptr;
  if (store_ == nullptr) return new (std::nothrow) Node(level, offset, parent);
  void* memory = store_->take(sizeof(Node));
  return memory == nullptr ? nullptr : new (memory) Node(level, offset, parent);
}

// Raises the root until it covers index and is at least at `level`. False without memory; the tree is as before.
template <unsigned Shift>
bool BasicXArray<Shift>::grow_locked(std::uint64_t index, unsigned level) {
  std::uintptr_t root = root_.load(memory_order_relaxed);
  if (root == 0) {
    while ((index >> (level * Shift)) >= Node::kSlots) ++level;
    Node* node = allocate_locked(level, 0, nullptr);
    if (node == nullptr) return false;
    root_.store(root_word(node), memory_order_release);
    return true;
  }
  while (root_shift(root) < level * Shift || (index >> root_shift(root)) >= Node::kSlots) {
    Node* below = root_node(root);
    Node* above = allocate_locked(below->level + 1u, 0, nullptr);
    if (above == nullptr) {
      shrink_locked();
      return false;
    }
    // Relaxed: `above` is private until the root is stored.
    above->slots[0].store(below->as_child(), memory_order_relaxed);
    above->count = 1;
    for (unsigned mark = 0; mark < kXMarks; ++mark) {
      if (below->marks[mark].load(memory_order_relaxed) != 0) above->marks[mark].store(1, memory_order_relaxed);
    }
    below->parent = above;
    root = root_word(above);
    root_.store(root, memory_order_release);
  }
  return true;
}

// The node at `level` above index, made with all that leads to it where absent. No entry stands in the way. Null
// without memory; the tree is as before.
template <unsigned Shift>
XNode<Shift>* BasicXArray<Shift>::reach_locked(std::uint64_t index, unsigned level) {
  if (!grow_locked(index, level)) return nullptr;
  Node* node = root_node(root_.load(memory_order_relaxed));
  while (node->level > level) {
    const unsigned slot = node->offset_of(index);
    const std::uintptr_t word = node->slots[slot].load(memory_order_relaxed);
    if (word != 0) {
      DCHECK(Node::is_child(word));
      node = Node::child(word);
      continue;
    }
    Node* child = allocate_locked(node->level - 1u, slot, node);
    if (child == nullptr) {
      prune_locked(node);  // whatever was made on the way here is empty
      return nullptr;
    }
    ++node->count;
    node->slots[slot].store(child->as_child(), memory_order_release);
    node = child;
  }
  return node;
}

// Removes roots that hold nothing but a child in slot 0. The slot stays as it is, for the lookups inside.
template <unsigned Shift>
void BasicXArray<Shift>::shrink_locked() {
  const std::uintptr_t root = root_.load(memory_order_relaxed);
  if (root == 0) return;
  Node* node = root_node(root);
  Node* keep = node;
  while (keep->count == 1 && Node::is_child(keep->slots[0].load(memory_order_relaxed))) {
    keep = Node::child(keep->slots[0].load(memory_order_relaxed));
  }
  if (keep == node) return;
  Node* removed_last = keep->parent;
  keep->parent = nullptr;
  root_.store(root_word(keep), memory_order_release);
  while (removed_last != nullptr) {
    Node* above = removed_last->parent;
    retire_locked(removed_last);
    removed_last = above;
  }
}

// Removes node and the nodes above it as far as they are empty, then shrinks.
template <unsigned Shift>
void BasicXArray<Shift>::prune_locked(Node* node) {
  while (node != nullptr && node->count == 0) {
    Node* parent = node->parent;
    if (parent == nullptr) {
      root_.store(0, memory_order_relaxed);  // relaxed: leads nowhere
    } else {
      parent->slots[node->offset].store(0, memory_order_relaxed);
      --parent->count;
    }
    retire_locked(node);
    node = parent;
  }
  shrink_locked();
}

template <unsigned Shift>
void BasicXArray<Shift>::retire_locked(Node* node) {
  ++version_;
  node->store = store_;  // the parent is not needed any more
  rcu_retire(node, &BasicXArray::free_node);
}

template <unsigned Shift>
void BasicXArray<Shift>::retire_tree_locked(Node* node) {
  for (const Atomic<std::uintptr_t>& slot : node->slots) {
    const std::uintptr_t word = slot.load(memory_order_relaxed);
    if (Node::is_child(word)) retire_tree_locked(Node::child(word));  // at most kXLevels deep
  }
  retire_locked(node);
}

template <unsigned Shift>
void BasicXArray<Shift>::free_node(RcuHead* head) {
  Node* node = static_cast<Node*>(head);
  XNodeStore* store = node->store;
  if (store == nullptr) {
    delete node;
    return;
  }
  node->~Node();
  store->give(node, sizeof(Node));
}

}  // namespace quire

#include "xarray/xarray_split_impl.h"  // IWYU pragma: keep
