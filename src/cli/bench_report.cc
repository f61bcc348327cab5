// Tables and JSON of a benchmark; see bench_report.h.
#include "cli/bench_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "cli/size.h"

namespace quire {

namespace {

constexpr const char* kLine = "{:<13} {:<5} {:<6} {:>3} {:>3} {:>6} {:>5} {:<10} {:<4} {:>12} {:>9} {:>10} {:>7}  {}\n";

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

void BenchReport::add(const std::vector<BenchRow>& rows) {
  std::FILE* const table = json_.table();
  if (!header_printed_) {
    fmt::print(table, kLine, "scenario", "op", "system", "thr", "qd", "file", "block", "mode", "", "ops/s", "MiB/s",
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
    fmt::print(table, kLine, row.scenario, row.op, row.system, row.threads, row.depth, format_size(row.file_size),
               format_size(row.block_size), row.mode, row.cold ? "cold" : "", fmt::format("{:.0f}", row.ops_per_s),
               fmt::format("{:.1f}", row.mib_per_s()), fmt::format("{:.1f}", row.ns_per_op()), ratio, row.path + torn);
    rows_.push_back(row);
  }
  (void)std::fflush(table);
}

void BenchReport::finish() {
  if (!json_.wanted()) return;
  auto array = nlohmann::ordered_json::array();
  for (const BenchRow& row : rows_) array.push_back(to_json(row));
  json_.write(array.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace quire
