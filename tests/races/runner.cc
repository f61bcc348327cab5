// Tries the schedules of scenarios. Every scenario runs in a process of its own: a failure ends that process, and a
// defect must make it fail, and fail again in the replay.
//
//   races [NAME...]; races NAME [--defect DEFECT] --replay TOKEN; races --help for the rest
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>

#include "races/scenario.h"

namespace quire::races {
namespace {

using scheduling::FiberScheduler;
using scheduling::GivenChoices;

constexpr int kLearningRuns = 60;
constexpr int kUsage = 2;

struct Options {
  std::vector<std::string> names;
  unsigned preemptions = 2;
  std::uint64_t pct_runs = 500;
  std::uint64_t seed = 1;
  unsigned jobs = 2;
  bool defects = true;
  bool list = false;
  std::string defect, replay;
};

const char* defect_name(Defect defect) {
  static constexpr const char* kNames[] = {
#define QUIRE_DEFECT_TEXT(name) #name,
      QUIRE_DEFECTS(QUIRE_DEFECT_TEXT)
#undef QUIRE_DEFECT_TEXT
  };
  return kNames[static_cast<std::size_t>(defect)];
}

FiberScheduler* crashing = nullptr;

void on_crash(int signal) {
  crashing->fail(signal == SIGABRT ? "an assertion failed, or abort() was called" : "a crash: invalid memory access");
}

// One process's worth: the schedules of one scenario, real or with a defect.
class Explorer {
 public:
  Explorer(const RegisteredRace& race, const Options& options) : race_(race), options_(options), scheduler_(race.name) {
    crashing = &scheduler_;
    static char stack[64 * 1024];
    const stack_t alternative{stack, 0, sizeof stack};
    sigaltstack(&alternative, nullptr);
    struct sigaction action = {};
    action.sa_handler = on_crash;
    action.sa_flags = SA_ONSTACK | SA_RESETHAND;
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGILL}) sigaction(signal, &action, nullptr);
  }

  void replay(const std::string& token) {
    const auto strategy = scheduling::strategy_from_token(token);
    if (strategy == nullptr) _exit(kUsage);
    if (!token.starts_with("choices:")) learn();
    run(*strategy);
  }

  // All schedules of at most so many preemptions, at the places that matter; then seeded ones without a bound.
  void explore() {
    learn();
    const auto begin = std::chrono::steady_clock::now();
    const std::uint64_t bounded = explore_bounded();
    for (std::uint64_t i = 0; i < options_.pct_runs; ++i) {
      const std::uint64_t seed = options_.seed + i;
      const auto strategy = i % 4 == 3 ? scheduling::random_strategy(seed)
                                       : scheduling::pct_strategy(seed, 2 + static_cast<unsigned>(i % 3), length_);
      run(*strategy);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("%llu schedules of at most %u preemptions, %llu seeded ones, %llu places of %llu, %.1f s\n",
                static_cast<unsigned long long>(bounded), options_.preemptions,
                static_cast<unsigned long long>(options_.pct_runs), static_cast<unsigned long long>(length_),
                static_cast<unsigned long long>(choices_), seconds);
  }

 private:
  void run(scheduling::Strategy& strategy) {
    scheduler_.run(strategy, [this] {
      const std::unique_ptr<Scenario> scenario = race_.make();
      scenario->scheduler = &scheduler_;
      scenario->setup();
      scheduler_.explore(scenario->threads());
      scenario->check();
    });
  }

  void learn() {
    scheduler_.learn(true);
    for (int i = 0; i < kLearningRuns; ++i) {
      const auto strategy = scheduling::random_strategy(static_cast<std::uint64_t>(i) + 1'000'000);
      run(*strategy);
    }
    scheduler_.learn(false);
    GivenChoices plain({}, 0);
    run(plain);
    length_ = scheduler_.interesting_last_run();
    choices_ = scheduler_.choices_last_run();
  }

  std::uint64_t explore_bounded() {
    std::uint64_t runs = 0;
    std::deque<std::vector<GivenChoices::Given>> left;
    left.emplace_back();
    while (!left.empty()) {
      GivenChoices strategy(std::move(left.back()), options_.preemptions);
      left.pop_back();
      run(strategy);
      ++runs;
      if (!strategy.followed()) scheduler_.fail("the schedule did not replay: something outlives a schedule");
      for (const GivenChoices::Given& other : strategy.alternatives()) {
        left.push_back(strategy.given());
        left.back().push_back(other);
      }
    }
    return runs;
  }

  const RegisteredRace& race_;
  const Options& options_;
  FiberScheduler scheduler_;
  std::uint64_t length_ = 0, choices_ = 0;
};

struct Job {
  const RegisteredRace* race;
  Defect defect;
  std::string replay;  // of a caught defect
  std::string first_line;
};

struct Running {
  Job job;
  pid_t process;
  int output;
};

Running start(const Job& job, const Options& options) {
  int ends[2];
  if (pipe(ends) != 0) {
    std::perror("pipe");
    _exit(1);
  }
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) {
    std::perror("fork");
    _exit(1);
  }
  if (child == 0) {
    close(ends[0]);
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    active_defect = job.defect;
    Explorer explorer(*job.race, options);
    if (job.replay.empty()) {
      explorer.explore();
    } else {
      explorer.replay(job.replay);
    }
    std::fflush(nullptr);
    _exit(0);
  }
  close(ends[1]);
  return Running{job, child, ends[0]};
}

// Without the lines in which quire itself tells of something, bad blocks above all: scenarios bring those about.
std::string read_all(int fd) {
  std::string text;
  FILE* const file = fdopen(fd, "r");
  char* line = nullptr;
  std::size_t size = 0;
  while (getline(&line, &size, file) > 0) {
    if (!std::string_view(line).starts_with("quire: ")) text += line;
  }
  std::free(line);
  std::fclose(file);
  return text;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string replay_token(const std::string& text) {
  const std::size_t at = text.rfind("\nreplay ");
  if (at == std::string::npos) return "";
  const std::size_t begin = at + 8;
  return text.substr(begin, text.find('\n', begin) - begin);
}

// Judges what a process printed and how it ended. Returns whether that is as it should be; a caught defect queues its
// replay.
bool judge(const Job& job, const std::string& text, int status, std::deque<Job>* jobs) {
  const bool failed = WIFEXITED(status) && WEXITSTATUS(status) == FiberScheduler::kFailed;
  const bool passed = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (job.defect == Defect::none) {
    std::printf("%s %s: %s\n", passed ? "ok   " : "FAIL ", job.race->name, text.c_str());
    return passed;
  }
  if (!failed) {
    std::printf("FAIL  %s with %s: not caught: %s\n", job.race->name, defect_name(job.defect), text.c_str());
    return false;
  }
  if (job.replay.empty()) {
    Job again = job;
    again.replay = replay_token(text);
    again.first_line = first_line(text);
    if (again.replay.empty()) {
      std::printf("FAIL  %s with %s: no token to replay it by: %s\n", job.race->name, defect_name(job.defect),
                  text.c_str());
      return false;
    }
    jobs->push_front(std::move(again));
    return true;
  }
  if (first_line(text) != job.first_line) {
    std::printf("FAIL  %s with %s: the replay of %s ends otherwise: %s\nand not: %s\n", job.race->name,
                defect_name(job.defect), job.replay.c_str(), text.c_str(), job.first_line.c_str());
    return false;
  }
  std::printf("ok    %s with %s: caught, and again by %s\n", job.race->name, defect_name(job.defect),
              job.replay.c_str());
  return true;
}

int run_all(const Options& options, std::deque<Job> jobs) {
  int bad = 0, good = 0;
  std::vector<Running> active;
  while (!jobs.empty() || !active.empty()) {
    while (!jobs.empty() && active.size() < options.jobs) {
      active.push_back(start(jobs.front(), options));
      jobs.pop_front();
    }
    // The oldest first: its pipe ends with it.
    Running one = std::move(active.front());
    active.erase(active.begin());
    const std::string text = read_all(one.output);
    int status = 0;
    waitpid(one.process, &status, 0);
    const bool fine = judge(one.job, text, status, &jobs);
    ++(fine ? good : bad);
    std::fflush(stdout);
  }
  std::printf("%d as they should be, %d not\n", good, bad);
  return bad == 0 ? 0 : 1;
}

Defect defect_of(const std::string& name) {
  for (int i = 0; i < kDefects; ++i) {
    if (name == defect_name(static_cast<Defect>(i))) return static_cast<Defect>(i);
  }
  std::fprintf(stderr, "there is no defect '%s'\n", name.c_str());
  std::exit(kUsage);
}

int main_of_races(const Options& options) {
  auto& races = registered_races();
  std::sort(races.begin(), races.end(), [](const auto& a, const auto& b) { return std::strcmp(a.name, b.name) < 0; });
  if (options.list) {
    for (const RegisteredRace& race : races) {
      std::printf("%s", race.name);
      for (const Defect defect : race.defects) std::printf(" %s", defect_name(defect));
      std::printf("\n");
    }
    return 0;
  }
  std::deque<Job> jobs;
  for (const std::string& name : options.names) {
    if (std::none_of(races.begin(), races.end(), [&](const auto& race) { return name == race.name; })) {
      std::fprintf(stderr, "there is no scenario '%s': --list names them\n", name.c_str());
      return kUsage;
    }
  }
  for (const RegisteredRace& race : races) {
    const bool wanted = options.names.empty() ||
                        std::find(options.names.begin(), options.names.end(), race.name) != options.names.end();
    if (!wanted) continue;
    if (!options.replay.empty() || !options.defect.empty()) {
      active_defect = options.defect.empty() ? Defect::none : defect_of(options.defect);
      Explorer explorer(race, options);
      if (options.replay.empty()) {
        explorer.explore();
      } else {
        explorer.replay(options.replay);
      }
      return 0;
    }
    jobs.push_back(Job{&race, Defect::none, "", ""});
    if (options.defects) {
      for (const Defect defect : race.defects) jobs.push_back(Job{&race, defect, "", ""});
    }
  }
  return run_all(options, std::move(jobs));
}

}  // namespace
}  // namespace quire::races

int main(int argc, char** argv) {
  quire::races::Options options;
  CLI::App app{"races: tries the schedules of scenarios", "races"};
  app.add_option("names", options.names, "scenarios; all of them if none is named");
  app.add_flag("--list", options.list, "name the scenarios, each with its defects");
  app.add_option("--preemptions", options.preemptions, "of the systematic search, at most");
  app.add_option("--pct", options.pct_runs, "seeded runs of each");
  app.add_option("--seed", options.seed, "the first of them");
  app.add_option("--jobs", options.jobs, "processes at a time")->check(CLI::Range(1u, 1024u));
  app.add_flag("!--no-defects", options.defects, "the scenarios as they are, without their mistakes");
  app.add_option("--defect", options.defect, "only with this mistake");
  app.add_option("--replay", options.replay, "the schedule of this token, of one scenario");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : quire::races::kUsage;
  }
  return quire::races::main_of_races(options);
}
