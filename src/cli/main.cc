// The `quire` command: parses the command line, runs one subcommand. Exit codes: 0 done, 1 failed, 2 wrong usage.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/support.h"

#ifndef QUIRE_VERSION
#define QUIRE_VERSION "0.1.0"
#endif

namespace quire {

namespace {

// A closed standard descriptor would be given to the next open: `quire cat FILE >&-` would then write to FILE. The
// stand-in is opened the wrong way round, so that using it still fails with EBADF.
bool fill_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) != -1) continue;
    if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd) return false;
  }
  return true;
}

// The command that was being parsed, and its name: "quire cp", "quire verity enable".
const CLI::App* parsed_command(const CLI::App& app, std::string* name) {
  const CLI::App* command = &app;
  *name = "quire";
  for (auto parsed = app.get_subcommands(); !parsed.empty(); parsed = command->get_subcommands()) {
    command = parsed.back();
    *name += " " + command->get_name();
  }
  return command;
}

// "Usage: quire cp [OPTIONS] SRC DST" of the command that was being parsed.
std::string usage_line(const CLI::App& app) {
  std::string name;
  const CLI::App* const command = parsed_command(app, &name);
  const std::string help = command == &app ? app.help() : command->help(name.substr(0, name.rfind(' ')));
  const std::size_t begin = help.find("Usage:");
  std::string line = begin == std::string::npos ? "Usage: " + name : help.substr(begin, help.find('\n', begin) - begin);
  return line + "\nRun '" + name + " --help' for the whole of it.\n";
}

// CLI11 says only that a subcommand is missing where the first word is none.
std::string what_is_wrong(const CLI::App& app, const CLI::ParseError& error) {
  std::string name;
  const CLI::App* const command = parsed_command(app, &name);
  if (command->get_require_subcommand_min() == 0) return error.what();
  const auto words = app.remaining(true);
  if (words.empty()) return name == "quire" ? "a command is needed" : name + " needs one of its commands";
  return (words[0].starts_with("-") ? "there is no option '" : "there is no command '") + words[0] + "'";
}

int run(int argc, char** argv) {
  int exit_code = 0;
  CLI::App app{"quire: a page cache in user space over files that exist", "quire"};
  app.set_version_flag("--version", "quire " QUIRE_VERSION);
  app.require_subcommand(1);
  add_file_commands(app, exit_code);
  add_range_commands(app, exit_code);
  add_see_commands(app, exit_code);
  add_verity_command(app, exit_code);
  add_bench_command(app, exit_code);
  add_torture_command(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    app.exit(request);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "quire: %s\n%s", what_is_wrong(app, error).c_str(), usage_line(app).c_str());
    return 2;
  }
  if (std::fflush(stdout) != 0 && exit_code == 0) {
    exit_code = report_error("cannot write to standard output: %s", errno_text(errno).c_str());
  }
  return exit_code;
}

}  // namespace

}  // namespace quire

int main(int argc, char** argv) {
  if (!quire::fill_standard_descriptors()) return 1;
  std::signal(SIGPIPE, SIG_IGN);  // a reader that goes away is EPIPE from write, told apart from failures there
  try {
    return quire::run(argc, argv);
  } catch (const std::bad_alloc&) {
    return quire::report_error("out of memory: ask for less with --memory or --file-size");
  } catch (const std::exception& error) {
    return quire::report_error("%s", error.what());
  }
}
