// The index of the page cache: a radix tree from 64-bit indices to entries (folio pointers, value entries), with three
// marks per entry and multi-index entries. Lookups are lock-free, changes are made under the array's own lock.
//
// Locks: mutex() (class "xarray"), inner to all of the cache's. load, find, find_marked, next_gap and for_each run in a
// caller's RCU read section or under mutex(); the plain API takes what it needs itself; functions ending in _locked are
// called with mutex() held. Nothing here waits for I/O or for a grace period.
//
// The code of everything but load() is in xarray_impl.h, compiled once in xarray.cc for the 64-way tree.
#pragma once

#include <cstdint>

#include "quire/result.h"
#include "sync/annotations.h"
#include "sync/atomic.h"
#include "sync/lock_class.h"
#include "sync/mutex.h"
#include "sync/rcu.h"
#include "xarray/entry.h"
#include "xarray/node.h"

namespace quire {

extern LockClass xarray_lock_class;

template <unsigned Shift>
class BasicXArray {
 public:
  using Node = XNode<Shift>;
  static constexpr std::size_t kNodeBytes = sizeof(Node);

  // Nodes come from `store` (null: from the heap) and go back a grace period after their removal: it outlives the array
  // by a drain (rcu_synchronize, rcu_drain).
  explicit BasicXArray(XNodeStore* store = nullptr) : store_(store), mutex_(xarray_lock_class) {}
  ~BasicXArray() { clear(); }  // entries left are forgotten, not freed
  BasicXArray(const BasicXArray&) = delete;
  BasicXArray& operator=(const BasicXArray&) = delete;

  // --- Lookup: RCU read section or lock ---------------------------------------------------------------------------
  //
  // Why a lookup may walk while the tree changes:
  //  1. A node is complete before a release store links it, and every step down is an acquire load.
  //  2. An entry never changes its node, and a node neither its level nor the indices below it. Growing puts a root
  //  above
  //     the old one, shrinking takes it away; root and level are one word. A lookup from an old, lower root finds all
  //     that it held; an index beyond it was absent when that root was current.
  //  3. A removed root keeps slot 0, its only child, which stays the tree (or, being emptied later, is retired later:
  //  the
  //     same read section holds it too). So indices below it are found through the old root, as they are now; the
  //     others were absent when it was removed. Other nodes are removed when they are empty, or when a multi-index
  //     entry replaces all below them; a lookup inside then returns what was there when it set out.
  //  4. A removed node is freed, and its memory used again, only after a grace period: no lookup that can reach it is
  //     left.
  // Hence a lookup of an index that nobody changes always succeeds, and every other returns what the index held at some
  // instant of the call.
  XEntry load(std::uint64_t index) const {
    DCHECK(readable());
    const std::uintptr_t root = root_.load(memory_order_acquire);
    if (root == 0) return {};
    unsigned shift = root_shift(root);
    std::uint64_t slot = index >> shift;
    if (slot >= Node::kSlots) return {};
    std::uintptr_t word = root_node(root)->slots[slot].load(memory_order_acquire);
    while (__builtin_expect(Node::is_child(word), 1)) {
      shift -= Shift;
      slot = (index >> (shift & kShiftMask)) & Node::kOffsetMask;  // the mask is free: the instruction has it
      word = Node::child(word)->slots[slot].load(memory_order_acquire);
    }
    return XEntry{word};
  }

  // The next entry that covers an index in [*index, last], or an empty one. *index becomes the first such index: the
  // entry's first, or the one asked for if that lies inside a multi-index entry. *entry_last, if given, becomes the
  // last index that the entry covers: go on after it to meet each entry once. Beside concurrent changes an entry
  // present throughout is always found; one that comes, goes or is replaced meanwhile may be missed or met twice.
  XEntry find(std::uint64_t* index, std::uint64_t last, std::uint64_t* entry_last = nullptr) const;
  // The same among entries that carry the mark.
  XEntry find_marked(std::uint64_t* index, std::uint64_t last, unsigned mark,
                     std::uint64_t* entry_last = nullptr) const;
  // The first absent index in [index, last]; last + 1 (0 after UINT64_MAX) if all are present.
  std::uint64_t next_gap(std::uint64_t index, std::uint64_t last) const;

  // fn(index, entry) for each entry in [first, last], once each, index as find gives it, while fn returns true.
  template <typename Fn>
  void for_each(std::uint64_t first, std::uint64_t last, Fn&& fn) const {
    std::uint64_t entry_last = 0;
    for (std::uint64_t index = first;; index = entry_last + 1) {
      const XEntry entry = find(&index, last, &entry_last);
      if (!entry || !fn(index, entry) || entry_last >= last) return;
    }
  }
  template <typename Fn>
  void for_each_marked(std::uint64_t first, std::uint64_t last, unsigned mark, Fn&& fn) const {
    std::uint64_t entry_last = 0;
    for (std::uint64_t index = first;; index = entry_last + 1) {
      const XEntry entry = find_marked(&index, last, mark, &entry_last);
      if (!entry || !fn(index, entry) || entry_last >= last) return;
    }
  }

  // --- Plain API: takes the lock, or a read section, itself --------------------------------------------------------
  //
  // A multi-index entry is one thing under all of its indices: storing to any replaces it under all, erasing any erases
  // it, marks belong to the whole. Storing over an entry keeps its marks; erasing forgets them. Storing an empty entry
  // erases. ENOMEM changes nothing.

  // The entry that was there.
  Result<XEntry> store(std::uint64_t index, XEntry entry) EXCLUDES(mutex_);
  // Stores only where nothing is: the entry that was in the way, empty if stored.
  Result<XEntry> insert(std::uint64_t index, XEntry entry) EXCLUDES(mutex_);
  // Stores only over `expected`: the entry found, which equals expected if stored.
  Result<XEntry> cmpxchg(std::uint64_t index, XEntry expected, XEntry desired) EXCLUDES(mutex_);
  XEntry erase(std::uint64_t index) EXCLUDES(mutex_);
  // One entry over the 2^order indices from index (aligned to them; order < 64, the cache uses up to 9). Entries of the
  // same or a smaller order inside are replaced, their marks joined; the first of them is returned. EEXIST if the range
  // is a part of a larger entry.
  Result<XEntry> store_range(std::uint64_t index, unsigned order, XEntry entry) EXCLUDES(mutex_);

  // Marks of absent indices are clear and cannot be set. True if the mark changed.
  bool set_mark(std::uint64_t index, unsigned mark) EXCLUDES(mutex_);
  bool clear_mark(std::uint64_t index, unsigned mark) EXCLUDES(mutex_);
  bool get_mark(std::uint64_t index, unsigned mark) const;
  bool marked(unsigned mark) const;  // does any entry carry it?
  bool empty() const { return root_.load(memory_order_acquire) == 0; }
  void clear() EXCLUDES(mutex_);  // forgets every entry

  // --- Advanced API: the caller holds mutex() ----------------------------------------------------------------------

  Mutex& mutex() RETURN_CAPABILITY(mutex_) { return mutex_; }

  // A place in the array, so that several steps on one index walk down once. It may outlive the lock section: a place
  // that is no longer valid is found again. Used by one thread, with one array.
  class State {
   public:
    explicit State(std::uint64_t index) : index_(index) {}
    std::uint64_t index() const { return index_; }
    void set_index(std::uint64_t index) {
      index_ = index;
      node_ = nullptr;
    }

   private:
    friend class BasicXArray;
    std::uint64_t index_;
    Node* node_ = nullptr;  // where the last walk ended; good while the array's version_ is version_
    unsigned slot_ = 0;
    std::uint64_t version_ = 0;
  };

  XEntry load_locked(State& at) const REQUIRES(mutex_);
  Result<XEntry> store_locked(State& at, XEntry entry) REQUIRES(mutex_);
  XEntry erase_locked(State& at) REQUIRES(mutex_);
  Result<XEntry> store_range_locked(std::uint64_t index, unsigned order, XEntry entry) REQUIRES(mutex_);
  // Of the entry that covers index: it covers 2^order indices.
  unsigned order_locked(std::uint64_t index) const REQUIRES(mutex_);
  // Cuts the entry that covers index, of a higher order, so that one of 2^order indices covers index and all others are
  // as large as they can be. The part that begins n indices after the entry gets its word plus n * step (descriptors in
  // an array). Every part has the entry's marks. ENOMEM changes nothing.
  Status split_locked(std::uint64_t index, unsigned order, std::uintptr_t step) REQUIRES(mutex_);
  bool set_mark_locked(State& at, unsigned mark) REQUIRES(mutex_);
  bool clear_mark_locked(State& at, unsigned mark) REQUIRES(mutex_);
  bool get_mark_locked(State& at, unsigned mark) const REQUIRES(mutex_);

  // The same for one step on an index.
  XEntry load_locked(std::uint64_t index) const REQUIRES(mutex_) {
    State at(index);
    return load_locked(at);
  }
  Result<XEntry> store_locked(std::uint64_t index, XEntry entry) REQUIRES(mutex_) {
    State at(index);
    return store_locked(at, entry);
  }
  XEntry erase_locked(std::uint64_t index) REQUIRES(mutex_) {
    State at(index);
    return erase_locked(at);
  }
  bool set_mark_locked(std::uint64_t index, unsigned mark) REQUIRES(mutex_) {
    State at(index);
    return set_mark_locked(at, mark);
  }
  bool clear_mark_locked(std::uint64_t index, unsigned mark) REQUIRES(mutex_) {
    State at(index);
    return clear_mark_locked(at, mark);
  }
  bool get_mark_locked(std::uint64_t index, unsigned mark) const REQUIRES(mutex_) {
    State at(index);
    return get_mark_locked(at, mark);
  }

  // Tests: the node allocation after `successes` further ones fails, once.
  void fail_allocation_after(unsigned successes) EXCLUDES(mutex_);

 private:
  friend struct XArrayInspector;  // tests check the invariants of the tree
  struct Hit;

  // The root's address and its shift in one word.
  static constexpr std::uintptr_t kShiftMask = 63;
  static_assert(alignof(Node) > kShiftMask);
  static unsigned root_shift(std::uintptr_t root) { return static_cast<unsigned>(root & kShiftMask); }
  static Node* root_node(std::uintptr_t root) { return reinterpret_cast<Node*>(root & ~kShiftMask); }
  static std::uintptr_t root_word(const Node* node) { return reinterpret_cast<std::uintptr_t>(node) | node->shift(); }

  bool readable() const { return rcu_in_read_section() || lock_held_by_me(&mutex_); }
  template <typename Pick>
  bool scan(std::uint64_t at, std::uint64_t last, const Pick& pick, Hit* hit) const;
  const Node* descend(std::uint64_t index, unsigned* slot, std::uintptr_t* word) const;

  std::uintptr_t locate_locked(State& at) const REQUIRES(mutex_);
  Node* allocate_locked(unsigned level, unsigned offset, Node* parent) REQUIRES(mutex_);
  bool grow_locked(std::uint64_t index, unsigned level) REQUIRES(mutex_);
  Node* reach_locked(std::uint64_t index, unsigned level) REQUIRES(mutex_);
  struct Parts {
    std::uint64_t first_index;  // of the entry that is split, and its word
    std::uintptr_t word;
    std::uintptr_t step;
    std::uint64_t marked;  // bit by mark
  };
  void split_slots_locked(Node* node, unsigned first, unsigned last, std::uint64_t index, unsigned order, Node* below,
                          const Parts& parts) REQUIRES(mutex_);
  void shrink_locked() REQUIRES(mutex_);
  void prune_locked(Node* node) REQUIRES(mutex_);
  bool set_mark_at_locked(Node* node, unsigned slot, unsigned mark) REQUIRES(mutex_);
  bool clear_mark_at_locked(Node* node, unsigned slot, unsigned mark) REQUIRES(mutex_);
  void retire_locked(Node* node) REQUIRES(mutex_);
  void retire_tree_locked(Node* node) REQUIRES(mutex_);
  static void free_node(RcuHead* head);

  // The hit path reads this line; what writers of the index change stands on another.
  Atomic<std::uintptr_t> root_;  // node and its level in one word; 0: empty. Stored under mutex_
  XNodeStore* const store_;

  alignas(64) Mutex mutex_;
  std::uint64_t version_ GUARDED_BY(mutex_) =
      0;  // of the set of nodes: a State from an older one may hold a freed node
  unsigned fail_countdown_ GUARDED_BY(mutex_) = 0;
};

using XArray = BasicXArray<6>;
using XaState = XArray::State;

extern template class BasicXArray<6>;

}  // namespace quire
