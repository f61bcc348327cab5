// Sizes as people write them on a command line. Units are binary: K is 1024 bytes.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quire {

inline constexpr std::string_view kSizeUnits = "KMGTPE";  // unit i is 2^(10 * (i + 1)) bytes

// "4096", "4096B", "64K", "64k", "64KiB", ... in bytes. Nothing for signs, fractions, blanks, sizes of 2^64 and more,
// and for "KB" and its like, which some read as 1000.
inline std::optional<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  std::string_view suffix(rest, static_cast<std::size_t>(text.data() + text.size() - rest));
  if (suffix.empty() || suffix == "B" || suffix == "b") return value;
  const char letter = (suffix[0] >= 'a' && suffix[0] <= 'z') ? static_cast<char>(suffix[0] - 'a' + 'A') : suffix[0];
  const std::size_t unit = kSizeUnits.find(letter);
  if (unit == std::string_view::npos) return std::nullopt;
  suffix.remove_prefix(1);
  if (!suffix.empty() && suffix != "iB" && suffix != "ib") return std::nullopt;
  const unsigned shift = 10 * static_cast<unsigned>(unit + 1);
  if (value > (UINT64_MAX >> shift)) return std::nullopt;
  return value << shift;
}

// The shortest exact form that parse_size reads back: 4096 is "4K", 4097 is "4097".
inline std::string format_size(std::uint64_t bytes) {
  std::size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit < kSizeUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  std::string text = std::to_string(bytes);
  if (unit > 0) text += kSizeUnits[unit - 1];
  return text;
}

}  // namespace quire
