// Doubly linked lists of blocks, of which each block is on one at most: what every policy keeps its order in. The nodes
// are one array indexed by block, so moving a block costs no search and no allocation.
// Place: simulation, under all policies. Thread safety: none.
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"

namespace quire::simulation {

using Block = std::uint32_t;  // 0 .. blocks - 1, see trace.h

inline constexpr std::uint32_t kMaxBlocks = 1U << 27;

class BlockLists {
 public:
  static constexpr std::uint32_t kNoList = UINT32_MAX;

  // `lists` empty ones, numbered from 0, for blocks 0 .. blocks - 1.
  BlockLists(std::uint32_t blocks, std::uint32_t lists) : first_head_(blocks), nodes_(blocks + lists), sizes_(lists) {
    for (std::uint32_t head = blocks; head < blocks + lists; ++head) nodes_[head] = {head, head, kNoList};
  }

  std::uint32_t list_of(Block block) const { return nodes_[block].list; }
  bool is_on(std::uint32_t list, Block block) const { return list_of(block) == list; }
  std::uint32_t size(std::uint32_t list) const { return sizes_[list]; }
  Block back(std::uint32_t list) const {
    DCHECK(size(list) > 0);
    return nodes_[first_head_ + list].previous;
  }

  // The block is on no list.
  void push_front(std::uint32_t list, Block block) {
    DCHECK(list_of(block) == kNoList);
    const std::uint32_t head = first_head_ + list;
    const std::uint32_t next = nodes_[head].next;
    nodes_[block] = {head, next, list};
    nodes_[head].next = block;
    nodes_[next].previous = block;
    ++sizes_[list];
  }

  // The block is on a list.
  void remove(Block block) {
    Node& node = nodes_[block];
    DCHECK(node.list != kNoList);
    nodes_[node.previous].next = node.next;
    nodes_[node.next].previous = node.previous;
    --sizes_[node.list];
    node.list = kNoList;
  }

  Block pop_back(std::uint32_t list) {
    const Block block = back(list);
    remove(block);
    return block;
  }

  // From wherever it is.
  void move_to_front(std::uint32_t list, Block block) {
    remove(block);
    push_front(list, block);
  }

 private:
  struct Node {
    std::uint32_t previous = 0;  // towards the front
    std::uint32_t next = 0;
    std::uint32_t list = kNoList;
  };

  const std::uint32_t first_head_;  // nodes from here on are the heads of the lists: front is next, back is previous
  std::vector<Node> nodes_;
  std::vector<std::uint32_t> sizes_;
};

}  // namespace quire::simulation
