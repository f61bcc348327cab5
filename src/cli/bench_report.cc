// Tables and JSON of a benchmark; see bench_report.h.
#include "cli/bench_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "cli/size.h"
#include "cli/support.h"

namespace quire {

namespace {

constexpr const char* kLine = "{:<10} {:<5} {:<6} {:>3} {:>3} {:>6} {:>5} {:<9} {:<4} {:>12} {:>9} {:>10} {:>7}  {}\n";

// Keys in the order in which they are documented; figures rounded to what the clock can tell.
nlohmann::ordered_json to_json(const BenchRow& row) {
  const auto rounded = [](double value) { return std::round(value * 1000) / 1000; };
  nlohmann::ordered_json json = {{"scenario", row.scenario},
                                 {"op", row.op},
                                 {"system", row.system},
                                 {"path", row.path},
                                 {"threads", row.threads},
                                 {"depth", row.depth},
                                 {"file_size", row.file_size},
                                 {"block_size", row.block_size},
                                 {"mode", row.mode},
                                 {"cold", row.cold},
                                 {"ops_per_s", rounded(row.ops_per_s)},
                                 {"mib_per_s", rounded(row.mib_per_s())},
                                 {"ns_per_op", rounded(row.ns_per_op())}};
  if (row.torn >= 0) json["torn"] = row.torn;
  return json;
}

}  // namespace

BenchReport::BenchReport(const std::string& json) : json_path_(json), table_(json == "-" ? stderr : stdout) {
  if (json.empty()) return;
  json_ = json == "-" ? stdout : std::fopen(json.c_str(), "we");
  if (json_ == nullptr) throw BenchError("cannot write " + json + ": " + errno_text(errno));
}

BenchReport::~BenchReport() {
  if (json_ != nullptr && json_ != stdout) (void)std::fclose(json_);
}

void BenchReport::add(const std::vector<BenchRow>& rows) {
  if (!header_printed_) {
    fmt::print(table_, kLine, "scenario", "op", "system", "thr", "qd", "file", "block", "mode", "", "ops/s", "MiB/s",
               "ns/op", "quire/", "path");
    header_printed_ = true;
  }
  for (const BenchRow& row : rows) {
    // The same work by quire, as a multiple of this row's rate.
    const auto quire = std::find_if(rows.begin(), rows.end(), [&](const BenchRow& other) {
      return other.system == "quire" && other.op == row.op && other.block_size == row.block_size;
    });
    std::string ratio;
    if (quire != rows.end() && row.system != "quire" && row.ops_per_s > 0) {
      ratio = fmt::format("{:.2f}x", quire->ops_per_s / row.ops_per_s);
    }
    const std::string torn = row.torn < 0 ? "" : fmt::format(" ({} torn)", row.torn);
    fmt::print(table_, kLine, row.scenario, row.op, row.system, row.threads, row.depth, format_size(row.file_size),
               format_size(row.block_size), row.mode, row.cold ? "cold" : "", fmt::format("{:.0f}", row.ops_per_s),
               fmt::format("{:.1f}", row.mib_per_s()), fmt::format("{:.1f}", row.ns_per_op()), ratio, row.path + torn);
    rows_.push_back(row);
  }
  (void)std::fflush(table_);
}

void BenchReport::finish() {
  if (json_ == nullptr) return;
  auto array = nlohmann::ordered_json::array();
  for (const BenchRow& row : rows_) array.push_back(to_json(row));
  const std::string text = array.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  std::FILE* const file = std::exchange(json_, nullptr);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0;
  const int errnum = errno;
  const bool closed = file == stdout || std::fclose(file) == 0;
  if (!written || !closed) throw BenchError("cannot write " + json_path_ + ": " + errno_text(written ? errno : errnum));
}

}  // namespace quire
