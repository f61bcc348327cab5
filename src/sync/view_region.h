// Where the mapped views of a process lie: one reserved region of addresses for all caches, so that one compare tells
// whether a caller's pointer may lead into a view. A copy from or to there can fault, and the fault is served by quire
// itself: so no such copy is made while anything is held that serving it may need (R4).
#pragma once

#include <cstdint>

#include "sync/atomic.h"

namespace quire {

// Both 0 until the first view is made, then never changed. Set before any address in the region is handed out, so
// whoever has one sees them: relaxed loads will do.
struct ViewRegion {
  Atomic<std::uintptr_t> base;
  Atomic<std::uintptr_t> size;
};
inline constinit ViewRegion view_region;

inline bool views_exist() { return __builtin_expect(view_region.size.load(memory_order_relaxed) != 0, 0); }

inline bool in_views(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) - view_region.base.load(memory_order_relaxed) <
         view_region.size.load(memory_order_relaxed);
}

// Does any of [address, address + count) lie in the region? It begins and ends with addresses that are never mapped, so
// a buffer with both ends outside lies outside.
inline bool touches_views(const void* address, std::uint64_t count) {
  const std::uintptr_t size = view_region.size.load(memory_order_relaxed);
  if (!views_exist() || count == 0) return false;
  const std::uintptr_t inside = reinterpret_cast<std::uintptr_t>(address) - view_region.base.load(memory_order_relaxed);
  return inside < size || inside + (count - 1) < size;
}

}  // namespace quire
