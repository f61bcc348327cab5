// The command lines of cat, cp and stat. The work is in cat.cc, copy.cc and stat.cc.
#include "cli/commands.h"
#include "cli/file_operations.h"
#include "cli/options.h"

namespace quire {

namespace {

struct FileOptions {
  ReadFile source;
  std::string destination;
  std::uint64_t memory = 0;
};

constexpr const char* kMemoryHelp = "memory given to the cache (default: a quarter of the machine's)";

}  // namespace

void add_file_commands(CLI::App& app, int& exit_code) {
  static FileOptions options;  // one command line per process, and CLI11 keeps references

  CLI::App* cat = app.add_subcommand("cat", "Write a file to standard output, read through the cache");
  cat->add_option("FILE", options.source.path, "the file: regular, or a block device")->required();
  add_size_option(*cat, "--memory", options.memory, kMemoryHelp);
  add_trust_options(*cat, options.source.digest, options.source.certificates);
  cat->callback([&exit_code] { exit_code = cat_file(options.source, options.memory); });

  CLI::App* cp = app.add_subcommand("cp", "Copy a file through the cache, and sync the copy");
  cp->add_option("SRC", options.source.path, "the file to read")->required();
  cp->add_option("DST", options.destination, "the file to make, or to overwrite")->required();
  add_size_option(*cp, "--memory", options.memory, kMemoryHelp);
  add_trust_options(*cp, options.source.digest, options.source.certificates);
  cp->callback([&exit_code] { exit_code = copy_file(options.source, options.destination, options.memory); });

  CLI::App* stat =
      app.add_subcommand("stat", "Show a file's attributes as the cache sees them, and the cache's counters");
  stat->add_option("FILE", options.source.path, "the file: regular, or a block device")->required();
  add_size_option(*stat, "--memory", options.memory, kMemoryHelp);
  add_trust_options(*stat, options.source.digest, options.source.certificates);
  stat->callback([&exit_code] { exit_code = stat_file(options.source, options.memory); });
}

}  // namespace quire
