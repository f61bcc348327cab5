// What an index of the array maps to: a pointer, a small integer, or nothing. Plain values, no locks.
//
// One word. Pointers are aligned to at least 8, so their low bits are free; bit 0 set makes a value entry; bit 1 set is
// the tree's own (a child node) and never reaches a caller. A bit each, so that a lookup tests without masking.
#pragma once

#include <cstdint>

#include "base/check.h"

namespace quire {

struct XEntry {
  std::uintptr_t bits = 0;

  static constexpr std::uint64_t kMaxValue = UINT64_MAX >> 2;  // values have 62 bits

  static XEntry from_pointer(const void* pointer) {
    const auto bits = reinterpret_cast<std::uintptr_t>(pointer);
    DCHECK((bits & 7) == 0);
    return XEntry{bits};
  }
  static XEntry from_value(std::uint64_t value) {
    DCHECK(value <= kMaxValue);
    return XEntry{(value << 2) | 1};
  }

  constexpr bool empty() const { return bits == 0; }
  constexpr bool is_value() const { return (bits & 1) != 0; }
  constexpr bool is_pointer() const { return bits != 0 && !is_value(); }
  constexpr explicit operator bool() const { return !empty(); }

  constexpr std::uint64_t value() const { return bits >> 2; }      // of a value entry
  void* pointer() const { return reinterpret_cast<void*>(bits); }  // of a pointer entry

  friend constexpr bool operator==(XEntry, XEntry) = default;
};

static_assert(sizeof(std::uintptr_t) == 8, "value entries of 62 bits need 64-bit words");

// An entry carries three marks, 0 to 2; the user of the array names them.
inline constexpr unsigned kXMarks = 3;

}  // namespace quire
