// Sizes and rounding. All values in bytes unless the name says otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quire {

inline constexpr unsigned kPageShift = 12;
inline constexpr std::size_t kPageSize = std::size_t{1} << kPageShift;  // a frame; a folio is 2^order of them
inline constexpr std::uint64_t kMaxFileSize = INT64_MAX;                // largest off_t

constexpr std::uint64_t round_down(std::uint64_t value, std::uint64_t power_of_two) {
  return value & ~(power_of_two - 1);
}
constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t power_of_two) {
  return round_down(value + power_of_two - 1, power_of_two);
}
constexpr bool is_aligned(std::uint64_t value, std::uint64_t power_of_two) { return (value & (power_of_two - 1)) == 0; }

}  // namespace quire
