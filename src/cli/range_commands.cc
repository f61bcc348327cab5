// The command lines of fallocate, clone, dedupe and exchange. The work is in ranges.cc.
#include <linux/falloc.h>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/range_operations.h"

namespace quire {

namespace {

constexpr const char* kMemoryHelp = "memory given to the cache (default: a quarter of the machine's)";

struct ModeName {
  const char* option;
  int mode;
  const char* help;
};
constexpr ModeName kModes[] = {
    {"--punch-hole", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, "make a hole; the size stays"},
    {"--zero-range", FALLOC_FL_ZERO_RANGE, "make it zeros, with blocks"},
    {"--collapse-range", FALLOC_FL_COLLAPSE_RANGE, "take the range out; what follows moves down"},
    {"--insert-range", FALLOC_FL_INSERT_RANGE, "insert a hole; what follows moves up"},
    {"--unshare-range", FALLOC_FL_UNSHARE_RANGE, "give the file blocks of its own where it shares them"},
};

struct AllocateOptions {
  std::string file;
  int mode = 0;
  bool keep_size = false;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t memory = 0;
};

void add_fallocate(CLI::App& app, int& exit_code) {
  static AllocateOptions options;
  CLI::App* command =
      app.add_subcommand("fallocate", "Allocate, punch, zero, collapse, insert or unshare a range of a file");
  command->add_option("FILE", options.file, "the file; made where it is missing, if only blocks are allocated")
      ->required();
  CLI::Option* keep =
      command->add_flag("--keep-size", options.keep_size, "do not let the file grow to the end of the range");
  std::vector<CLI::Option*> modes;
  for (const ModeName& name : kModes) {
    CLI::Option* option = command->add_flag_callback(
        name.option, [&name] { options.mode = name.mode; }, name.help);
    for (CLI::Option* other : modes) option->excludes(other);
    if (name.mode == FALLOC_FL_COLLAPSE_RANGE || name.mode == FALLOC_FL_INSERT_RANGE) option->excludes(keep);
    modes.push_back(option);
  }
  add_offset_option(*command, "--offset", options.offset, "where the range begins (default: 0)");
  add_size_option(*command, "--length", options.length, "how long it is")->required();
  add_size_option(*command, "--memory", options.memory, kMemoryHelp);
  command->callback([&exit_code] {
    check_range_end("--length", options.offset, options.length);
    const int mode = options.mode | (options.keep_size ? FALLOC_FL_KEEP_SIZE : 0);
    exit_code = allocate_in_file(options.file, mode, options.offset, options.length, options.memory);
  });
}

// clone, dedupe and exchange: two files, a range of each.
void add_pair_command(CLI::App& app, const char* name, const char* help, const char* source_help,
                      const char* destination_help, int (*work)(const RangePair&), int& exit_code) {
  static RangePair ranges;  // one command line per process, and CLI11 keeps references
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("SRC", ranges.source, source_help)->required();
  command->add_option("DST", ranges.destination, destination_help)->required();
  add_offset_option(*command, "--from-offset", ranges.from, "where the range of SRC begins (default: 0)");
  add_offset_option(*command, "--offset", ranges.offset, "where the range of DST begins (default: 0)");
  add_size_option(*command, "--length", ranges.length, "how long both are (default: to the end of SRC)");
  add_size_option(*command, "--memory", ranges.memory, kMemoryHelp);
  command->callback([work, &exit_code] {
    check_range_end("--length", std::max(ranges.from, ranges.offset), ranges.length);
    exit_code = work(ranges);
  });
}

}  // namespace

void add_range_commands(CLI::App& app, int& exit_code) {
  add_fallocate(app, exit_code);
  add_pair_command(app, "clone", "Let a range of DST share the blocks of a range of SRC", "the file to share from",
                   "the file that gets the range; made where it is missing", &clone_files, exit_code);
  add_pair_command(app, "dedupe", "Let two ranges share blocks if their bytes are equal; prints how many bytes do",
                   "the file whose blocks remain", "the file that shares them from now on", &dedupe_files, exit_code);
  add_pair_command(app, "exchange", "Swap the contents of two ranges at one instant", "the one file", "the other file",
                   &exchange_files, exit_code);
}

}  // namespace quire
