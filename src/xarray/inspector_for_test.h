// For tests: checks the invariants of an array's tree, node by node. The caller lets nobody change it meanwhile.
#pragma once

#include <gtest/gtest.h>

#include "xarray/xarray.h"

namespace quire {

struct XArrayInspector {
  // Returns the number of nodes; failures are gtest's.
  template <unsigned Shift>
  static std::int64_t check(const BasicXArray<Shift>& array) {
    const std::uintptr_t root = array.root_.load(memory_order_acquire);
    if (root == 0) return 0;
    const XNode<Shift>* node = array.root_node(root);
    EXPECT_EQ(array.root_shift(root), node->shift());
    EXPECT_EQ(node->parent, nullptr);
    EXPECT_EQ(node->offset, 0);
    const bool only_child = node->count == 1 && node->is_child(node->slots[0].load(memory_order_relaxed));
    EXPECT_FALSE(only_child) << "a root that should have been removed";
    return check_node(node);
  }

 private:
  template <unsigned Shift>
  static std::int64_t check_node(const XNode<Shift>* node) {
    using Node = XNode<Shift>;
    std::int64_t nodes = 1;
    unsigned used = 0;
    const std::uint64_t siblings = node->siblings.load(memory_order_relaxed);
    EXPECT_EQ(siblings & 1, 0u);
    for (unsigned slot = 0; slot < Node::kSlots; ++slot) {
      const std::uintptr_t word = node->slots[slot].load(memory_order_relaxed);
      const bool sibling = (siblings & Node::bit(slot)) != 0;
      if (word != 0) ++used;
      if (sibling) {
        EXPECT_EQ(word, node->slots[slot - 1].load(memory_order_relaxed));
      }
      if (sibling) {
        EXPECT_NE(word, 0u);
      }
      for (const auto& marks : node->marks) {
        const bool mark = (marks.load(memory_order_relaxed) & Node::bit(slot)) != 0;
        if (mark) {
          EXPECT_NE(word, 0u);
        }
        if (mark) {
          EXPECT_FALSE(sibling);
        }
      }
      if (!Node::is_child(word)) continue;
      const Node* child = Node::child(word);
      EXPECT_EQ(child->parent, node);
      EXPECT_EQ(child->offset, slot);
      EXPECT_EQ(child->level + 1, node->level);
      for (unsigned mark = 0; mark < kXMarks; ++mark) {
        const bool above = (node->marks[mark].load(memory_order_relaxed) & Node::bit(slot)) != 0;
        EXPECT_EQ(above, child->marks[mark].load(memory_order_relaxed) != 0);
      }
      nodes += check_node(child);
    }
    EXPECT_EQ(used, node->count);
    EXPECT_GT(used, 0u) << "an empty node";
    return nodes;
  }
};

}  // namespace quire
