// Runs of residency as JSON, text and SVG. Plain functions of their arguments; std::bad_alloc is the caller's to catch.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quire/quire.h"

namespace quire {

inline constexpr std::uint32_t kRunStates = QUIRE_RUN_GHOST + 1;

// What is drawn: runs ascend and have length.
struct ResidencyView {
  std::string_view name;
  std::uint64_t file_size;  // bytes
  std::span<const quire_residency_run> runs;
};

std::string residency_json(const ResidencyView& view);
std::string residency_text(const ResidencyView& view);
std::string residency_svg(const ResidencyView& view);

// --- what the formats share ---

const char* state_name(std::uint32_t state);

using StateBytes = std::array<std::uint64_t, kRunStates>;  // bytes by state
StateBytes state_totals(std::span<const quire_residency_run> runs);
std::uint64_t resident_bytes(const StateBytes& totals);  // ghosts are not
std::uint64_t dirty_bytes(const StateBytes& totals);     // not durable yet

// The file in at most max_cells parts of equal length, in whole pages; the last may be shorter.
struct Cells {
  std::uint64_t extent = 0;      // bytes: the file's pages, and whatever else is in the cache
  std::uint64_t cell_bytes = 0;  // above 0
  std::vector<StateBytes> cells;
  std::uint64_t length(std::size_t cell) const;  // bytes
};
Cells divide(const ResidencyView& view, std::uint64_t max_cells);

std::string human_size(std::uint64_t bytes);  // "1.5 MiB"
[[gnu::format(printf, 2, 3)]] void append_format(std::string& text, const char* format, ...);

}  // namespace quire
