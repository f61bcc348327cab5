// Residency as JSON and as text, and what they share with SVG. See residency_draw.h.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/residency_draw.h"
#include "base/bytes.h"

namespace quire {
namespace {

constexpr std::size_t kColumns = 64;
constexpr std::size_t kRows = 16;

constexpr const char* kStateNames[kRunStates] = {"clean", "dirty", "writeback", "unflushed", "filling", "ghost"};
constexpr char kStateMarks[kRunStates] = {'#', 'D', 'W', 'U', 'F', 'g'};
constexpr char kPartlyClean = '+', kAbsent = '.';
// Where a cell holds several states it shows the one that people look for.
constexpr std::uint32_t kMostUrgentFirst[] = {QUIRE_RUN_WRITEBACK, QUIRE_RUN_DIRTY, QUIRE_RUN_UNFLUSHED,
                                              QUIRE_RUN_FILLING};

char mark_of(const StateBytes& cell, std::uint64_t length) {
  for (const std::uint32_t state : kMostUrgentFirst) {
    if (cell[state] != 0) return kStateMarks[state];
  }
  if (cell[QUIRE_RUN_CLEAN] != 0) return cell[QUIRE_RUN_CLEAN] == length ? kStateMarks[QUIRE_RUN_CLEAN] : kPartlyClean;
  return cell[QUIRE_RUN_GHOST] != 0 ? kStateMarks[QUIRE_RUN_GHOST] : kAbsent;
}

// A name may hold what a terminal would obey.
std::string printable(std::string_view name) {
  std::string text(name);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text;
}

}  // namespace

const char* state_name(std::uint32_t state) { return kStateNames[state]; }

StateBytes state_totals(std::span<const quire_residency_run> runs) {
  StateBytes totals{};
  for (const quire_residency_run& run : runs) totals[run.state] += run.length;
  return totals;
}

std::uint64_t resident_bytes(const StateBytes& totals) {
  std::uint64_t sum = 0;
  for (std::uint32_t state = 0; state < kRunStates; ++state) sum += state == QUIRE_RUN_GHOST ? 0 : totals[state];
  return sum;
}

std::uint64_t dirty_bytes(const StateBytes& totals) {
  return totals[QUIRE_RUN_DIRTY] + totals[QUIRE_RUN_WRITEBACK] + totals[QUIRE_RUN_UNFLUSHED];
}

std::uint64_t Cells::length(std::size_t cell) const { return std::min(cell_bytes, extent - cell * cell_bytes); }

Cells divide(const ResidencyView& view, std::uint64_t max_cells) {
  Cells result;
  const std::uint64_t file_pages = (view.file_size >> kPageShift) + (view.file_size % kPageSize != 0);
  result.extent = std::min(file_pages, UINT64_MAX >> kPageShift) << kPageShift;
  if (!view.runs.empty()) result.extent = std::max(result.extent, view.runs.back().offset + view.runs.back().length);
  const std::uint64_t pages = (result.extent >> kPageShift) + (result.extent % kPageSize != 0);
  result.cell_bytes = std::max<std::uint64_t>(1, pages / max_cells + (pages % max_cells != 0)) << kPageShift;
  result.cells.resize(result.extent / result.cell_bytes + (result.extent % result.cell_bytes != 0));
  for (const quire_residency_run& run : view.runs) {
    for (std::uint64_t at = run.offset; at < run.offset + run.length;) {
      const std::uint64_t cell = at / result.cell_bytes;
      const std::uint64_t left = run.offset + run.length - at;
      const std::uint64_t part = std::min(left, result.cell_bytes - at % result.cell_bytes);
      result.cells[cell][run.state] += part;
      at += part;
    }
  }
  return result;
}

std::string human_size(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::string text;
  if (bytes < 1024) {
    append_format(text, "%llu B", static_cast<unsigned long long>(bytes));
    return text;
  }
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  append_format(text, "%.1f %s", value, kUnits[unit]);
  return text;
}

void append_format(std::string& text, const char* format, ...) {
  char part[512];  // of numbers and short words only
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(part, sizeof part, format, arguments);
  va_end(arguments);
  if (length > 0) text.append(part, std::min(static_cast<std::size_t>(length), sizeof part - 1));
}

std::string residency_json(const ResidencyView& view) {
  const StateBytes totals = state_totals(view.runs);
  const nlohmann::json name{std::string(view.name)};  // as a list of one; a name need not be UTF-8
  const std::string quoted = name.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string text = "{\"file\":" + quoted.substr(1, quoted.size() - 2);
  append_format(text, ",\"size\":%llu,\"page_size\":%zu,\"resident_bytes\":%llu,\"dirty_bytes\":%llu,\"runs\":[",
                static_cast<unsigned long long>(view.file_size), kPageSize,
                static_cast<unsigned long long>(resident_bytes(totals)),
                static_cast<unsigned long long>(dirty_bytes(totals)));
  bool first = true;
  for (const quire_residency_run& run : view.runs) {
    append_format(text, "%s{\"offset\":%llu,\"length\":%llu,\"state\":\"%s\",\"order\":%u}", first ? "" : ",",
                  static_cast<unsigned long long>(run.offset), static_cast<unsigned long long>(run.length),
                  state_name(run.state), run.order);
    first = false;
  }
  return text + "]}";
}

std::string residency_text(const ResidencyView& view) {
  const StateBytes totals = state_totals(view.runs);
  const Cells cells = divide(view, kColumns * kRows);
  std::string text = printable(view.name) + ": ";
  const double share = cells.extent == 0 ? 0 : 100.0 * static_cast<double>(resident_bytes(totals)) / cells.extent;
  append_format(text, "%llu bytes, %s in the cache (%.1f %%)", static_cast<unsigned long long>(view.file_size),
                human_size(resident_bytes(totals)).c_str(), share);
  if (dirty_bytes(totals) != 0) text += ", " + human_size(dirty_bytes(totals)) + " of it not durable yet";
  text += '\n';
  for (std::size_t cell = 0; cell < cells.cells.size(); ++cell) {
    if (cell % kColumns == 0) append_format(text, "%11s  ", human_size(cell * cells.cell_bytes).c_str());
    text += mark_of(cells.cells[cell], cells.length(cell));
    if (cell % kColumns == kColumns - 1 || cell + 1 == cells.cells.size()) text += '\n';
  }
  append_format(text, "one character: %s\n", human_size(cells.cell_bytes).c_str());
  for (std::uint32_t state = 0; state < kRunStates; ++state) {
    append_format(text, "%c %s %s", kStateMarks[state], state_name(state), human_size(totals[state]).c_str());
    text += state == QUIRE_RUN_CLEAN ? " (+ in part)   " : "   ";
  }
  return text + ". not in the cache\n";
}

}  // namespace quire
