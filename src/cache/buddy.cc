// Splitting and merging of free blocks. See buddy.h.
#include "cache/buddy.h"

#include <bit>

namespace quire {

void Buddy::link(std::uint32_t id, unsigned order) {
  Folio& folio = folios_[id];
  folio.order.store(order, memory_order_relaxed);
  folio.flags.store(kFree, memory_order_relaxed);
  folio.previous_id = kNone;
  folio.next_id = heads_[order];
  if (folio.next_id != kNone) folios_[folio.next_id].previous_id = id;
  heads_[order] = id;
  used_ |= 1u << order;
}

void Buddy::unlink(std::uint32_t id, unsigned order) {
  Folio& folio = folios_[id];
  folio.flags.store(0, memory_order_relaxed);
  if (folio.next_id != kNone) folios_[folio.next_id].previous_id = folio.previous_id;
  if (folio.previous_id != kNone) {
    folios_[folio.previous_id].next_id = folio.next_id;
  } else {
    heads_[order] = folio.next_id;
    if (folio.next_id == kNone) used_ &= ~(1u << order);
  }
}

std::uint32_t Buddy::take(unsigned order) {
  if (!has(order)) return kNone;
  unsigned found = order + static_cast<unsigned>(std::countr_zero(used_ >> order));
  const std::uint32_t id = heads_[found];
  unlink(id, found);
  while (found > order) {
    --found;
    link(id + (1u << found), found);
  }
  folios_[id].order.store(order, memory_order_relaxed);
  return id;
}

void Buddy::free(std::uint32_t id, unsigned order) {
  DCHECK((id & ((1u << order) - 1)) == 0);
  DCHECK((folios_[id].flags.load(memory_order_relaxed) & kFree) == 0);
  for (; order < kMaxOrder; ++order) {
    const std::uint32_t other = id ^ (1u << order);
    // Relaxed: only we store kFree, and the order of what carries it.
    if (other + (1u << order) > end_ || (folios_[other].flags.load(memory_order_relaxed) & kFree) == 0 ||
        folios_[other].order.load(memory_order_relaxed) != order) {
      break;
    }
    unlink(other, order);
    id &= ~(1u << order);
  }
  link(id, order);
}

}  // namespace quire
