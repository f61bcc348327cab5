// Traces against policies: one cell for each size, a table as it grows and JSON at the end; see bench_hit_ratio.h.
#include "cli/bench_hit_ratio.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/bench_json.h"
#include "simulation/hit_ratio.h"

namespace quire {

namespace {

using simulation::Trace;

constexpr std::uint32_t kFewFrames = 32;  // below, a policy that divides its frames is mostly rounding

// All before the work: a wrong one among them is said at once.
std::vector<Trace> read_traces(const std::vector<std::string>& paths) {
  std::vector<Trace> traces;
  for (const std::string& path : paths) {
    Result<Trace> trace = simulation::read_trace(path);
    if (!trace) {
      report_error(trace.errnum(), "%s", path.c_str());
      throw BenchError(error_message());
    }
    traces.push_back(trace.take());
  }
  return traces;
}

// One trace at one size.
struct Cell {
  const Trace* trace;
  double size_fraction;
  std::uint32_t frames;
  std::vector<std::uint64_t> misses;  // of each policy

  double miss_ratio(std::size_t policy) const {
    return static_cast<double>(misses[policy]) / static_cast<double>(trace->requests.size());
  }
};

class Table {
 public:
  Table(std::FILE* file, const std::vector<std::string>& policies, const std::vector<Trace>& traces)
      : file_(file), policies_(policies) {
    for (const Trace& trace : traces) name_width_ = std::max(name_width_, trace.name.size());
    begin_line("miss ratio of", "size", "frames", "requests");
    for (const std::string& policy : policies_) fmt::print(file_, " {:>8}", policy);
    end_line();
  }

  void add(const Cell& cell) {
    begin_line(cell.trace->name, fmt::format("{:g}", cell.size_fraction), fmt::format("{}", cell.frames),
               fmt::format("{}", cell.trace->requests.size()));
    for (std::size_t i = 0; i < policies_.size(); ++i) fmt::print(file_, " {:>8.4f}", cell.miss_ratio(i));
    end_line();
  }

  // Over the cells with at least `least_frames`.
  void add_mean(const std::vector<Cell>& cells, std::uint32_t least_frames) {
    std::vector<double> sums(policies_.size());
    std::size_t counted = 0;
    for (const Cell& cell : cells) {
      if (cell.frames < least_frames) continue;
      ++counted;
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += cell.miss_ratio(i);
    }
    if (counted == 0) return;
    begin_line(fmt::format("mean of {}", counted), "", least_frames > 0 ? fmt::format(">= {}", least_frames) : "", "");
    for (const double sum : sums) fmt::print(file_, " {:>8.4f}", sum / static_cast<double>(counted));
    end_line();
  }

 private:
  void begin_line(std::string_view name, std::string_view size, std::string_view frames, std::string_view requests) {
    fmt::print(file_, "{:<{}} {:>5} {:>8} {:>9}", name, name_width_, size, frames, requests);
  }
  void end_line() {
    fmt::print(file_, "\n");
    (void)std::fflush(file_);
  }

  std::FILE* const file_;
  const std::vector<std::string>& policies_;
  std::size_t name_width_ = std::string_view("miss ratio of").size();
};

std::string to_json(const std::vector<Cell>& cells, const std::vector<std::string>& policies) {
  const auto rounded = [](double value) { return std::round(value * 1e6) / 1e6; };
  auto array = nlohmann::ordered_json::array();
  for (const Cell& cell : cells) {
    for (std::size_t i = 0; i < policies.size(); ++i) {
      array.push_back({{"policy", policies[i]},
                       {"trace", cell.trace->name},
                       {"size_fraction", cell.size_fraction},
                       {"frames", cell.frames},
                       {"requests", cell.trace->requests.size()},
                       {"misses", cell.misses[i]},
                       {"miss_ratio", rounded(cell.miss_ratio(i))}});
    }
  }
  return array.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

int run_hit_ratio(const BenchOptions& options) {
  JsonFile json(options.json);
  const std::vector<Trace> traces = read_traces(options.traces);
  Table table(json.table(), options.policies, traces);
  std::vector<Cell> cells;
  for (const Trace& trace : traces) {
    for (const double fraction : options.sizes) {
      Cell cell{&trace, fraction, simulation::frames_for(fraction, trace.blocks), {}};
      for (const std::string& policy : options.policies) {
        cell.misses.push_back(simulation::count_misses(policy, trace, cell.frames));
      }
      table.add(cell);
      cells.push_back(std::move(cell));
    }
  }
  const auto is_small = [](const Cell& cell) { return cell.frames < kFewFrames; };
  if (cells.size() > 1) table.add_mean(cells, 0);
  if (std::any_of(cells.begin(), cells.end(), is_small)) table.add_mean(cells, kFewFrames);
  if (std::ferror(json.table()) != 0) throw BenchError("cannot write the table");
  if (json.wanted()) json.write(to_json(cells, options.policies));
  return 0;
}

}  // namespace quire
