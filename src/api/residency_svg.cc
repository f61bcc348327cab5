// Residency as an SVG image: the file from left to right, each column's colours in the shares of its states. See
// residency_draw.h.
#include <algorithm>

#include "api/residency_draw.h"

namespace quire {
namespace {

constexpr int kWidth = 960, kHeight = 90;  // of the strip, in units of the image
constexpr int kLeft = 20, kTop = 44, kLegendStep = 160;
constexpr int kImageWidth = kWidth + 2 * kLeft, kImageHeight = kTop + kHeight + 76;

constexpr const char* kColours[kRunStates] = {"#4c9f70", "#d1495b", "#edae49", "#8e6bbf", "#3a86c8", "#b9bcc6"};
constexpr const char* kAbsentColour = "#eeeeee";
// From the bottom of the strip up.
constexpr std::uint32_t kStack[] = {QUIRE_RUN_DIRTY,   QUIRE_RUN_WRITEBACK, QUIRE_RUN_UNFLUSHED,
                                    QUIRE_RUN_FILLING, QUIRE_RUN_CLEAN,     QUIRE_RUN_GHOST};

// The length in bytes of the UTF-8 character that `text` begins with; 0: it is none that XML may hold.
std::size_t utf8_length(std::string_view text) {
  const auto at = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  if (at(0) < 0x80) return at(0) >= 0x20 && at(0) != 0x7f;
  const std::size_t length = at(0) >= 0xf0 ? 4 : at(0) >= 0xe0 ? 3 : 2;
  if (at(0) < 0xc2 || at(0) > 0xf4 || text.size() < length) return 0;
  std::uint32_t code = at(0) & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
    code = (code << 6) | (at(i) & 0x3fu);
  }
  constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  const bool excluded = surrogate || code > 0x10ffff || code == 0xfffe || code == 0xffff;
  return code < kSmallest[length] || excluded ? 0 : length;
}

std::string escape(std::string_view name) {
  std::string text;
  while (!name.empty()) {
    const std::size_t length = utf8_length(name);
    switch (name[0]) {
      case '&':
        text += "&amp;";
        break;
      case '<':
        text += "&lt;";
        break;
      case '>':
        text += "&gt;";
        break;
      case '"':
        text += "&quot;";
        break;
      default:
        text += length == 0 ? std::string_view("\xef\xbf\xbd") : name.substr(0, length);
    }
    name.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return text;
}

void append_rect(std::string& svg, double x, double y, double width, double height, const char* colour) {
  append_format(svg, "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"%s\"/>\n", x, y, width, height,
                colour);
}

// Cells [first, end), which are alike. Every state that is there shows, however small its share.
void append_columns(std::string& svg, const Cells& cells, std::size_t first, std::size_t end) {
  const double unit = static_cast<double>(kWidth) / static_cast<double>(cells.cells.size());
  const double x = kLeft + static_cast<double>(first) * unit, width = static_cast<double>(end - first) * unit;
  double bottom = kTop + kHeight;
  for (const std::uint32_t state : kStack) {
    const std::uint64_t bytes = cells.cells[first][state];
    if (bytes == 0) continue;
    const double share = static_cast<double>(bytes) / static_cast<double>(cells.length(first));
    const double height = std::min(std::max(share * kHeight, 2.0), bottom - kTop);
    bottom -= height;
    append_rect(svg, x, bottom, width, height, kColours[state]);
  }
}

void append_axis(std::string& svg, std::uint64_t extent) {
  constexpr unsigned kTicks = 4;
  constexpr const char* kAnchors[] = {"start", "middle", "end"};
  for (unsigned tick = 0; tick <= kTicks; ++tick) {
    const int x = kLeft + kWidth * static_cast<int>(tick) / static_cast<int>(kTicks);
    const std::uint64_t offset = extent / kTicks * tick + extent % kTicks * tick / kTicks;
    append_format(svg, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#444\"/>\n", x, kTop + kHeight, x,
                  kTop + kHeight + 5);
    append_format(svg, "<text x=\"%d\" y=\"%d\" text-anchor=\"%s\">%llu</text>\n", x, kTop + kHeight + 19,
                  kAnchors[tick == 0        ? 0
                           : tick == kTicks ? 2
                                            : 1],
                  static_cast<unsigned long long>(offset));
  }
}

void append_legend(std::string& svg, const StateBytes& totals) {
  const int y = kTop + kHeight + 44;
  for (std::uint32_t state = 0; state < kRunStates; ++state) {
    const int x = kLeft + kLegendStep * static_cast<int>(state);
    append_rect(svg, x, y, 12, 12, kColours[state]);
    append_format(svg, "<text x=\"%d\" y=\"%d\">%s %s</text>\n", x + 17, y + 11, state_name(state),
                  human_size(totals[state]).c_str());
  }
}

}  // namespace

std::string residency_svg(const ResidencyView& view) {
  const StateBytes totals = state_totals(view.runs);
  const Cells cells = divide(view, kWidth);
  std::string svg;
  append_format(svg,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
                "font-family=\"sans-serif\" font-size=\"12\">\n",
                kImageWidth, kImageHeight, kImageWidth, kImageHeight);
  append_rect(svg, 0, 0, kImageWidth, kImageHeight, "#ffffff");
  append_format(svg, "<text x=\"%d\" y=\"28\">", kLeft);
  svg += escape(view.name);
  append_format(svg, ": %llu bytes, %s in the cache, %s not durable yet; offsets in bytes</text>\n",
                static_cast<unsigned long long>(view.file_size), human_size(resident_bytes(totals)).c_str(),
                human_size(dirty_bytes(totals)).c_str());
  append_rect(svg, kLeft, kTop, kWidth, kHeight, kAbsentColour);
  for (std::size_t first = 0, end; first < cells.cells.size(); first = end) {
    for (end = first + 1; end < cells.cells.size(); ++end) {
      if (cells.cells[end] != cells.cells[first] || cells.length(end) != cells.length(first)) break;
    }
    append_columns(svg, cells, first, end);
  }
  append_axis(svg, cells.extent);
  append_legend(svg, totals);
  return svg + "</svg>\n";
}

}  // namespace quire
