// Free frames in blocks of 2^order neighbours, split as they are taken and merged as they come back: Knowlton, "A fast
// storage allocator" (CACM 1965). Lists run through the descriptors of the blocks' first frames, which are the pool's
// while they are free. Not thread-safe: the pool's mutex guards it.
#pragma once

#include <array>
#include <cstdint>

#include "cache/folio.h"

namespace quire {

class Buddy {
 public:
  static constexpr std::uint32_t kNone = UINT32_MAX;

  Buddy() { heads_.fill(kNone); }
  void use(Folio* folios) { folios_ = folios; }
  // Frames before `end` have descriptors: what lies there may be merged.
  void extend(std::uint32_t end) { end_ = end; }

  // A block of exactly 2^order frames, cut from the smallest that holds one; kNone if there is none.
  std::uint32_t take(unsigned order);
  // `id` is a multiple of 2^order.
  void free(std::uint32_t id, unsigned order);
  // The free block that begins at `id` is taken as it is.
  void take_at(std::uint32_t id) { unlink(id, folios_[id].order.load(memory_order_relaxed)); }
  bool has(unsigned order) const { return (used_ >> order) != 0; }  // a block of that order or a larger one

 private:
  void link(std::uint32_t id, unsigned order);
  void unlink(std::uint32_t id, unsigned order);

  Folio* folios_ = nullptr;
  std::uint32_t end_ = 0;
  std::uint32_t used_ = 0;  // bit by order: its list is not empty
  std::array<std::uint32_t, kMaxOrder + 1> heads_;
};

}  // namespace quire
