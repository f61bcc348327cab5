// The commands of `quire`: each function adds one subcommand, which sets exit_code when it runs (0 done, 1 failed).
// A wrong command line is a CLI::ParseError thrown while parsing or by the subcommand's callback: main turns it into
// exit code 2. Place: cli, over the public C API.
#pragma once

namespace CLI {
class App;
}

namespace quire {

void add_file_commands(CLI::App& app, int& exit_code);   // cat, cp, stat
void add_range_commands(CLI::App& app, int& exit_code);  // fallocate, clone, dedupe, exchange
void add_see_commands(CLI::App& app, int& exit_code);    // top, residency
void add_verity_command(CLI::App& app, int& exit_code);  // enable, measure, check, status
void add_bench_command(CLI::App& app, int& exit_code);
void add_torture_command(CLI::App& app, int& exit_code);

}  // namespace quire
