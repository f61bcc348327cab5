// The command lines of top and residency. The work is in top.cc and residency.cc.
#include <limits>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/residency.h"
#include "cli/top.h"

namespace quire {

namespace {

constexpr double kShortestInterval = 0.25;  // a published cache writes its counters anew as often

constexpr const char* kPublishedHelp =
    "The process must publish its cache: by QUIRE_PUBLISH in its quire_options; a quire command, by the environment "
    "variable QUIRE_PUBLISH=1. Only its own user and root may look.";

CLI::Option* add_pid(CLI::App& app, pid_t& pid) {
  return app.add_option("PID", pid, "the process")
      ->required()
      ->check(CLI::Range(1, std::numeric_limits<pid_t>::max()))
      ->type_name("");
}

}  // namespace

void add_see_commands(CLI::App& app, int& exit_code) {
  static TopOptions top_options;  // one command line per process, and CLI11 keeps references
  static ResidencyOptions residency_options;

  CLI::App* top_app = app.add_subcommand(
      "top",
      "Watch the caches of a running process: hit ratio (of all reads, those that needed no lock and no I/O), "
      "fills, evictions, refaults, dirty bytes, writeback, memory. On a terminal a live view (q ends), else a "
      "line for each cache and interval; until the process ends, which is exit status 1");
  top_app->footer(kPublishedHelp);
  add_pid(*top_app, top_options.pid);
  top_app->add_option("--interval", top_options.interval_seconds, "between two looks (default: 1; at least 0.25)")
      ->check(CLI::Range(kShortestInterval, 86'400.0))
      ->type_name("SECONDS");
  top_app->add_option("--count", top_options.count, "end after so many intervals, and print lines even on a terminal")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 62))
      ->type_name("N");
  top_app->add_flag("--json", top_options.json,
                    "an object a line; rates are of the interval, \"total\" since the start");
  top_app->callback([&exit_code] { exit_code = top(top_options); });

  CLI::App* residency =
      app.add_subcommand("residency", "Show what of a file a running process has in its cache, and in which state");
  residency->footer(kPublishedHelp);
  add_pid(*residency, residency_options.pid);
  residency->add_option("FILE", residency_options.file, "the file, by any path that leads to it here")->required();
  residency
      ->add_option("--svg", residency_options.svg,
                   "write an image there instead of text; - is standard output (of several caches, the one that has "
                   "most of the file)")
      ->type_name("FILE|-");
  residency->add_flag("--json", residency_options.json, "an object for each cache: docs of quire_residency_json");
  residency->callback([&exit_code] {
    if (residency_options.json && residency_options.svg == "-") {
      throw CLI::ValidationError("--svg", "standard output is taken by --json");
    }
    exit_code = show_residency(residency_options);
  });
}

}  // namespace quire
