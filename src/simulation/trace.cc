// Parsing and renumbering; see trace.h.
#include "simulation/trace.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "simulation/decompress.h"

namespace quire::simulation {

namespace {

constexpr std::size_t kLookedAt_bytes = 4096;
constexpr std::size_t kBinaryBlock_bytes = 4;
constexpr int kQuoted = 40;  // bytes of a wrong line that are shown

// Gives out the dense numbers.
class Renumbering {
 public:
  Status add(std::uint64_t number, Trace& trace) {
    const auto [entry, is_new] = dense_.try_emplace(number, trace.blocks);
    if (is_new) {
      if (trace.blocks == kMaxBlocks) return fail_with(EFBIG, "more than %u distinct blocks", kMaxBlocks);
      ++trace.blocks;
    }
    trace.requests.push_back(entry->second);
    return {};
  }

 private:
  std::unordered_map<std::uint64_t, Block> dense_;
};

bool is_text(std::string_view content) {
  const std::string_view begin = content.substr(0, kLookedAt_bytes);
  return std::all_of(begin.begin(), begin.end(),
                     [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r' || c == '\t'; });
}

std::string_view trimmed(std::string_view line) {
  constexpr std::string_view kSpace = " \t\r";
  const std::size_t begin = line.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return line.substr(begin, line.find_last_not_of(kSpace) - begin + 1);
}

// What is wrong with a line that is no block number; the rest of an error message.
Failure wrong_line(std::size_t number, std::string_view line) {
  std::string shown(line.substr(0, kQuoted));
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  const bool digits = line.find_first_not_of("0123456789") == std::string_view::npos;
  return fail_with(EINVAL, "line %zu: '%s%s' is %s", number, shown.c_str(), line.size() > kQuoted ? "..." : "",
                   digits ? "beyond 64 bits" : "no block number (one decimal number a line)");
}

Status parse_text(std::string_view content, Trace& trace) {
  Renumbering renumbering;
  std::size_t line_number = 0;
  while (!content.empty()) {
    const std::size_t end = std::min(content.find('\n'), content.size());
    const std::string_view line = trimmed(content.substr(0, end));
    content.remove_prefix(std::min(end + 1, content.size()));
    ++line_number;
    if (line.empty() || line.find('*') != std::string_view::npos) continue;
    std::uint64_t number = 0;
    const auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), number);
    if (error != std::errc() || stop != line.data() + line.size()) return wrong_line(line_number, line);
    QUIRE_TRY(renumbering.add(number, trace));
  }
  return {};
}

Status parse_binary(std::string_view content, Trace& trace) {
  const std::size_t rest = content.size() % kBinaryBlock_bytes;
  if (rest != 0) {
    return fail_with(EINVAL, "offset %zu: a binary trace of 32-bit block numbers ends after %zu bytes of one",
                     content.size() - rest, rest);
  }
  Renumbering renumbering;
  trace.requests.reserve(content.size() / kBinaryBlock_bytes);
  for (std::size_t at = 0; at < content.size(); at += kBinaryBlock_bytes) {
    std::uint32_t number = 0;
    for (std::size_t byte = kBinaryBlock_bytes; byte-- > 0;) {
      number = number << 8 | static_cast<unsigned char>(content[at + byte]);
    }
    QUIRE_TRY(renumbering.add(number, trace));
  }
  return {};
}

}  // namespace

Result<Trace> parse_trace(std::string_view content) {
  Trace trace;
  const Status parsed = is_text(content) ? parse_text(content, trace) : parse_binary(content, trace);
  if (!parsed) return fail(parsed.errnum());
  if (trace.requests.empty()) return fail_with(EINVAL, "holds no block number");
  return trace;
}

Result<Trace> read_trace(const std::string& path) {
  Result<std::string> content = read_decompressed(path);
  if (!content) return fail(content.errnum());
  Result<Trace> trace = parse_trace(*content);
  if (trace) trace->name = path.substr(path.rfind('/') + 1);
  return trace;
}

}  // namespace quire::simulation
