// The `quire torture` command: reads a directory's files while they change, through quire or through plain system
// calls, and has the recorded history judged (testing/judge.h). Exit codes: 0 nothing violated, 1 a violation or an
// operation that failed as it should not, 2 wrong usage or nothing to run on.

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/size.h"
#include "cli/support.h"
#include "testing/judge.h"
#include "testing/pattern.h"

namespace quire {

namespace {

constexpr std::uint64_t kMebibyte = 1 << 20;

struct TortureOptions {
  std::string path;
  bool syscalls = false;
  std::uint64_t memory = 4 * kMebibyte;
  double seconds = 10;
  std::uint64_t seed = 0;
  bool seed_given = false;
  std::vector<judge::OpKind> ops;  // empty: all
  std::string json;
  int threads = 4;
};

std::vector<judge::OpKind> all_ops() {
  std::vector<judge::OpKind> ops;
  for (int i = 0; i < judge::kOpKinds; ++i) ops.push_back(static_cast<judge::OpKind>(i));
  return ops;
}

std::string names(const std::vector<judge::OpKind>& ops) {
  std::string text;
  for (const judge::OpKind op : ops) {
    if (!text.empty()) text += ",";
    text += judge::op_name(op);
  }
  return text;
}

std::vector<judge::OpKind> parse_ops(const std::string& list) {
  std::vector<judge::OpKind> ops;
  for (std::size_t from = 0; from <= list.size();) {
    const std::size_t comma = std::min(list.find(',', from), list.size());
    const std::string name = list.substr(from, comma - from);
    const auto op = judge::op_from_name(name);
    if (!op) {
      throw CLI::ValidationError("--ops", "'" + name + "' is not an operation: choose from " + names(all_ops()));
    }
    if (std::find(ops.begin(), ops.end(), *op) == ops.end()) ops.push_back(*op);
    from = comma + 1;
  }
  return ops;
}

// Files that together do not fit the cache, and operations that are never split.
judge::JudgeOptions judge_options(const TortureOptions& options) {
  judge::JudgeOptions result;
  result.seconds = options.seconds;
  result.seed = options.seed;
  result.ops = options.ops.empty() ? all_ops() : options.ops;
  result.threads = options.threads;
  if (options.syscalls) return result;
  result.max_operation = std::min(kMebibyte, options.memory / 4);
  const std::uint64_t wanted = options.memory / 2 * 3;
  result.files = static_cast<int>(std::clamp<std::uint64_t>(wanted / result.file_size + 1, 4, judge::kMaxFiles));
  result.file_size = std::clamp(wanted / static_cast<std::uint64_t>(result.files), result.file_size, 8 * kMebibyte);
  return result;
}

nlohmann::ordered_json to_json(const TortureOptions& options, const judge::JudgeOptions& judged,
                               const std::string& system, const judge::JudgeReport& report) {
  nlohmann::ordered_json ops = nlohmann::ordered_json::object();
  nlohmann::ordered_json skipped = nlohmann::ordered_json::array();
  for (const judge::OpKind op : judged.ops) {
    if (std::find(report.skipped.begin(), report.skipped.end(), op) == report.skipped.end()) {
      ops[std::string(judge::op_name(op))] = report.ops[static_cast<std::size_t>(op)];
    } else {
      skipped.push_back(std::string(judge::op_name(op)));
    }
  }
  nlohmann::ordered_json json = {
      {"system", system},          {"path", options.path},
      {"seed", options.seed},      {"seconds", options.seconds},
      {"windows", report.windows}, {"ops", ops},
      {"skipped", skipped},        {"reads", report.ops[static_cast<std::size_t>(judge::OpKind::kRead)]},
      {"torn", report.torn},       {"foreign", report.foreign},
      {"lost", report.lost},       {"linearizable", report.linearizable()},
      {"errors", report.errors},   {"witness", nullptr}};
  if (!report.witness.empty()) json["witness"] = report.witness;
  return json;
}

void print_summary(std::FILE* out, const TortureOptions& options, const std::string& system,
                   const judge::JudgeReport& report) {
  std::fprintf(out, "%s, %s, seed %llu: %llu windows, %llu reads: %llu torn, %llu foreign, %llu lost\n", system.c_str(),
               options.path.c_str(), static_cast<unsigned long long>(options.seed),
               static_cast<unsigned long long>(report.windows),
               static_cast<unsigned long long>(report.ops[static_cast<std::size_t>(judge::OpKind::kRead)]),
               static_cast<unsigned long long>(report.torn), static_cast<unsigned long long>(report.foreign),
               static_cast<unsigned long long>(report.lost));
  if (!report.skipped.empty()) std::fprintf(out, "not supported here: %s\n", names(report.skipped).c_str());
  for (const std::string& reason : report.reasons) std::fprintf(out, "  %s\n", reason.c_str());
  for (const std::string& error : report.errors) std::fprintf(out, "failed: %s\n", error.c_str());
  if (report.error_count > report.errors.size()) {
    std::fprintf(out, "failed: %llu more\n",
                 static_cast<unsigned long long>(report.error_count - report.errors.size()));
  }
  if (!report.witness.empty()) {
    std::fprintf(out, "the first was found after %.2f s; the smallest:\n%s", report.first_fault_seconds,
                 report.witness.c_str());
  }
  const char* verdict = !report.linearizable() ? "NOT linearizable"
                        : report.ok()          ? "linearizable"
                                               : "linearizable, but operations failed";
  std::fprintf(out, "%s\n", report.windows == 0 ? "nothing was judged" : verdict);
}

bool write_json(const std::string& path, const nlohmann::ordered_json& json) {
  const std::string text = json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  if (path == "-") return std::fputs(text.c_str(), stdout) >= 0;
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  return out.good();
}

int run_torture(TortureOptions options) {
  const auto& ops = options.ops;
  if (options.syscalls && std::find(ops.begin(), ops.end(), judge::OpKind::kDirectAsync) != ops.end()) {
    report_error("--syscalls has no direct-async: the host's own asynchronous calls are not judged");
    return 2;
  }
  if (!options.seed_given) options.seed = std::random_device{}() & 0x7FFFFFFF;
  const judge::JudgeOptions judged = judge_options(options);
  const std::unique_ptr<judge::System> system =
      options.syscalls ? judge::make_kernel_system(options.path)
                       : judge::make_quire_system(options.path, options.memory, cache_flags());
  const judge::JudgeReport report = judge::judge(*system, judged);
  const std::string name(system->name());
  print_summary(options.json == "-" ? stderr : stdout, options, name, report);
  if (!options.json.empty() && !write_json(options.json, to_json(options, judged, name, report))) {
    return report_error("cannot write %s: %s", options.json.c_str(), errno_text(errno).c_str());
  }
  if (report.windows == 0 && report.error_count > 0) return 2;
  return report.ok() ? 0 : 1;
}

}  // namespace

void add_torture_command(CLI::App& app, int& exit_code) {
  static TortureOptions options;  // one command line per process, and CLI11 keeps references

  CLI::App* torture = app.add_subcommand(
      "torture", "Judge whether reads, beside changes of the same range, each see the file at one instant");
  torture->add_option("--path", options.path, "the directory for its files, which are removed at the end")
      ->required()
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory);
  torture->add_flag("--syscalls", options.syscalls, "judge the directory's file system, through plain system calls");
  add_size_option(*torture, "--memory", options.memory, "memory given to the cache (default: 4M, to evict throughout)");
  torture->add_option("--seconds", options.seconds, "how long (default: 10)")->check(CLI::Range(0.1, 1e7));
  torture
      ->add_option_function<std::uint64_t>(
          "--seed",
          [](const std::uint64_t& seed) {
            options.seed = seed;
            options.seed_given = true;
          },
          "makes the choices of a run repeat (default: random, and printed)")
      ->type_name("N");
  torture
      ->add_option_function<std::string>(
          "--ops", [](const std::string& list) { options.ops = parse_ops(list); },
          "the operations, with commas between: " + names(all_ops()) + " (default: all that are supported)")
      ->type_name("LIST");
  torture->add_option("--threads", options.threads, "threads; half of them change (default: 4)")
      ->check(CLI::Range(2, 64));
  torture->add_option("--json", options.json, "also write the result as JSON; - is standard output")
      ->type_name("FILE|-");
  torture->callback([&exit_code] { exit_code = run_torture(options); });
}

}  // namespace quire
