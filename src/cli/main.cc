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

// "Usage: quire cp [OPTIONS] SRC DST" of the subcommand that was being parsed.
std::string usage_line(const CLI::App& app) {
  const auto parsed = app.get_subcommands();
  const std::string name = parsed.empty() ? "quire" : "quire " + parsed.back()->get_name();
  const std::string help = parsed.empty() ? app.help() : parsed.back()->help("quire");
  const std::size_t begin = help.find("Usage:");
  std::string line = begin == std::string::npos ? "Usage: " + name : help.substr(begin, help.find('\n', begin) - begin);
  return line + "\nRun '" + name + " --help' for the whole of it.\n";
}

// CLI11 says only that a subcommand is missing where the first word is none.
std::string what_is_wrong(const CLI::App& app, const CLI::ParseError& error) {
  if (!app.get_subcommands().empty()) return error.what();
  const auto words = app.remaining();
  if (words.empty()) return "a command is needed";
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
