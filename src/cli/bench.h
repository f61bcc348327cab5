// `quire bench`: what was asked for, and what was measured. bench_command.cc parses, bench_scenarios.cc decides what
// runs against what, bench_harness runs and times it, bench_cached and bench_disk do the work, bench_report prints.
// hit-ratio times nothing: bench_hit_ratio does all of it, over src/simulation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace quire {

struct BenchOptions {
  std::string scenario;
  std::vector<std::string> directories;  // never empty; quire runs in the first
  unsigned threads = 0;                  // 0: the scenario's default
  unsigned depth = 1;                    // requests in flight per thread, rand-read only
  double seconds = 1;                    // measuring time per row
  std::uint64_t file_size = 0;           // 0: the scenario's default
  std::uint64_t memory = 0;              // 0: the scenario's default
  std::string json;                      // a file, "-" or empty
  std::string file;                      // rand-read: this file instead of scratch files; only ever read
  // hit-ratio, which uses none of the above but the scenario and json:
  std::vector<std::string> traces;                       // never empty
  std::vector<double> sizes{0.01, 0.05, 0.1, 0.2, 0.4};  // fractions of a trace's distinct blocks, in (0, 1]
  std::vector<std::string> policies;                     // names of simulation/policy.h; never empty
};

// One line of the table and one object of the JSON.
struct BenchRow {
  std::string scenario;
  std::string op;      // read, write
  std::string system;  // quire, kernel, memcpy
  std::string path;    // the directory; empty for memcpy
  unsigned threads = 1;
  unsigned depth = 1;
  std::uint64_t file_size = 0;
  std::uint64_t block_size = 0;
  std::string mode;  // same, different, alone, mixed or empty
  bool cold = false;
  double ops_per_s = 0;
  std::int64_t torn = -1;  // reads found torn in a run of their own beside it; -1: nobody looked

  double mib_per_s() const { return ops_per_s * static_cast<double>(block_size) / (1 << 20); }
  double ns_per_op() const { return ops_per_s > 0 ? threads * 1e9 / ops_per_s : 0; }
};

// A benchmark that cannot go on; the text is for the user. Thrown and caught inside src/cli only.
struct BenchError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Runs the scenario; returns an exit code, having reported what went wrong. May throw BenchError.
int run_bench(const BenchOptions& options);

}  // namespace quire
