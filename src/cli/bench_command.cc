// The command line of `quire bench`, and what of it makes no sense. The work is in bench_scenarios.cc.
#include <algorithm>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "cli/bench.h"
#include "cli/bench_ranges.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/support.h"
#include "simulation/policy.h"

namespace quire {

namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kMaxDepth = 4096;
constexpr std::uint64_t kMaxFileSize_bytes = std::uint64_t{1} << 50;
constexpr std::uint64_t kSequentialBlock = 128 << 10;

constexpr const char* kHitRatioOptions[] = {"--trace", "--sizes", "--policy"};
constexpr const char* kSystemOptions[] = {"--path",      "--threads", "--depth", "--seconds",
                                          "--file-size", "--memory",  "--file"};

// hit-ratio simulates, the others measure systems, and they share no option but --json.
void validate_kind(const CLI::App& bench, const BenchOptions& options) {
  const bool hit_ratio = options.scenario == "hit-ratio";
  for (const char* name : kHitRatioOptions) {
    if (!hit_ratio && bench.count(name) > 0) throw CLI::ValidationError(name, "works with hit-ratio only");
  }
  for (const char* name : kSystemOptions) {
    if (hit_ratio && bench.count(name) > 0) throw CLI::ValidationError(name, "does not work with hit-ratio");
  }
  if (!hit_ratio) return;
  if (options.traces.empty()) throw CLI::ValidationError("--trace", "hit-ratio needs a trace");
  for (const double size : options.sizes) {
    if (!(size > 0 && size <= 1)) throw CLI::ValidationError("--sizes", "a size is above 0 and at most 1");
  }
}

// What the parser cannot see option by option. Throws CLI::ValidationError.
void validate(const BenchOptions& options) {
  const std::uint64_t size = options.file_size;
  const bool sequential = options.scenario == "seq-read";
  const unsigned threads = options.threads == 0 ? 1 : options.threads;
  if (size > kMaxFileSize_bytes) throw CLI::ValidationError("--file-size", format_size(size) + " is beyond 1P");
  if (size != 0 && options.scenario != "short-read" && !is_aligned(size, kPageSize)) {
    throw CLI::ValidationError("--file-size", std::to_string(size) + " is not a multiple of the block, 4096 bytes");
  }
  if (size != 0 && sequential && size / threads < kSequentialBlock) {
    throw CLI::ValidationError("--file-size", format_size(size) + " is smaller than a block of 128K for each thread");
  }
  if (size != 0 && options.scenario == "range-mix" && size < kMixRange) {
    throw CLI::ValidationError("--file-size", format_size(size) + " is smaller than a range of 120000 bytes");
  }
  if (!options.file.empty() && options.scenario != "rand-read") {
    throw CLI::ValidationError("--file", "works with rand-read only");
  }
  if (options.depth > 1 && options.scenario != "rand-read") {
    throw CLI::ValidationError("--depth", "above 1 works with rand-read only");
  }
}

void add_hit_ratio_options(CLI::App& bench, BenchOptions& options) {
  const auto& names = simulation::policy_names();
  bench
      .add_option("--trace", options.traces,
                  "hit-ratio: block numbers, as text (one decimal number a line; lines with * are skipped) or 32-bit "
                  "little-endian; binary is what begins (4096 bytes) with a byte that no text has. Names that end in "
                  ".gz or .xz are decompressed. May be given several times")
      ->check(CLI::ExistingFile)
      ->allow_extra_args(false)
      ->type_name("FILE");
  bench
      .add_option("--sizes", options.sizes,
                  "hit-ratio: fractions of a trace's distinct blocks, rounded to the nearest frame, at least one "
                  "(default 0.01,0.05,0.1,0.2,0.4)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("F,...");
  std::vector<std::string> known(names.begin(), names.end());
  known.push_back("all");
  bench.add_option("--policy", options.policies, "hit-ratio: policies to simulate, or all (the default)")
      ->delimiter(',')
      ->check(CLI::IsMember(known))
      ->allow_extra_args(false)
      ->type_name("NAME,...");
}

// "all" and nothing stand for every policy.
void complete_policies(std::vector<std::string>& policies) {
  if (!policies.empty() && std::find(policies.begin(), policies.end(), "all") == policies.end()) return;
  const auto& names = simulation::policy_names();
  policies.assign(names.begin(), names.end());
}

}  // namespace

void add_bench_command(CLI::App& app, int& exit_code) {
  static BenchOptions options;  // one command line per process, and CLI11 keeps references
  CLI::App* bench = app.add_subcommand(
      "bench", "Measure the same work through quire and through system calls, in turns; prints a table");
  bench
      ->add_option(
          "SCENARIO", options.scenario,
          "short-read, overwrite, mixed, range-mix, seq-read, rand-read, view or verity; or hit-ratio, which simulates "
          "replacement policies on traces")
      ->required()
      ->check(CLI::IsMember(
          {"short-read", "overwrite", "mixed", "range-mix", "seq-read", "rand-read", "view", "verity", "hit-ratio"}));
  CLI::Option* path = bench
                          ->add_option("--path", options.directories,
                                       "measure system calls here; quire in the first (default: the current directory)")
                          ->check(CLI::ExistingDirectory)
                          ->allow_extra_args(false)
                          ->type_name("DIR");
  bench
      ->add_option("--threads", options.threads,
                   "threads per system (default 2; seq-read, view 1; mixed, range-mix: 1 and 1)")
      ->check(CLI::Range(1u, kMaxThreads))
      ->type_name("N");
  bench->add_option("--depth", options.depth, "rand-read: reads in flight per thread (default 1)")
      ->check(CLI::Range(1u, kMaxDepth))
      ->type_name("N");
  bench->add_option("--seconds", options.seconds, "measuring time per row (default 1)")
      ->check(CLI::Range(0.001, 86400.0))
      ->type_name("S");
  CLI::Option* size = add_size_option(*bench, "--file-size", options.file_size,
                                      "file size (default: short-read 4K and 1M; overwrite, mixed, range-mix, view "
                                      "64M; seq-read, rand-read, verity 1G)");
  add_size_option(*bench, "--memory", options.memory, "quire's memory (default: what suits the scenario)");
  bench->add_option("--json", options.json, "also write the rows as JSON; -: to standard output, the table to stderr")
      ->type_name("FILE");
  bench->add_option("--file", options.file, "rand-read: read this existing file instead of making one")
      ->check(CLI::ExistingPath)
      ->excludes(path)
      ->excludes(size)
      ->type_name("FILE");
  add_hit_ratio_options(*bench, options);
  bench->callback([&exit_code, bench] {
    validate_kind(*bench, options);
    validate(options);
    complete_policies(options.policies);
    if (options.directories.empty()) options.directories.push_back(".");
    if ((options.scenario == "mixed" || options.scenario == "range-mix") && options.threads > 1) {
      print_note("%s runs one reader and one writer; --threads %u is not used", options.scenario.c_str(),
                 options.threads);
    }
    try {
      exit_code = run_bench(options);
    } catch (const BenchError& error) {
      exit_code = report_error("%s", error.what());
    }
  });
}

}  // namespace quire
