// What each scenario of `quire bench` sets against what, and on files of which size. Rows appear as they are measured.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/bytes.h"
#include "cli/bench.h"
#include "cli/bench_cached.h"
#include "cli/bench_disk.h"
#include "cli/bench_files.h"
#include "cli/bench_hit_ratio.h"
#include "cli/bench_ranges.h"
#include "cli/bench_report.h"
#include "cli/bench_verity.h"
#include "cli/bench_view.h"
#include "cli/size.h"
#include "cli/support.h"

namespace quire {

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kSmallestCache = 4 * kMiB;

using Contestants = std::vector<std::unique_ptr<Contestant>>;

// What a set of rows has in common.
struct Label {
  std::uint64_t file_size;
  const char* mode;
  bool cold;
  std::vector<std::int64_t> torn = {};  // reads of each contestant; empty: nobody looked
};

void measure(const BenchOptions& options, const Contestants& contestants, const std::vector<Work>& works,
             const Label& label, BenchReport& report) {
  std::vector<Contestant*> field;
  for (const auto& contestant : contestants) field.push_back(contestant.get());
  const auto rates = compete(field, works, options.seconds);
  std::vector<BenchRow> rows;
  for (std::size_t w = 0; w < works.size(); ++w) {
    for (std::size_t c = 0; c < field.size(); ++c) {
      rows.push_back({.scenario = options.scenario,
                      .op = works[w].write ? "write" : "read",
                      .system = std::string(field[c]->system()),
                      .path = field[c]->path(),
                      .threads = works[w].threads,
                      .depth = works[w].depth,
                      .file_size = label.file_size,
                      .block_size = works[w].block_size,
                      .mode = label.mode,
                      .cold = label.cold,
                      .ops_per_s = rates[c][w],
                      .torn = works[w].write || label.torn.empty() ? -1 : label.torn[c]});
    }
  }
  report.add(rows);
}

// quire's own memory for files that stay cached: far from any limit on dirty bytes, as the kernel's is.
std::uint64_t roomy_memory(const BenchOptions& options, std::uint64_t total) {
  return options.memory != 0 ? options.memory : std::max(256 * kMiB, 16 * total);
}

Contestants make_cached(const BenchOptions& options, std::uint64_t file_size, unsigned files, bool with_memcpy) {
  Contestants contestants;
  contestants.push_back(
      make_cached_quire(options.directories[0], file_size, files, roomy_memory(options, file_size * files)));
  if (with_memcpy) contestants.push_back(make_cached_memcpy(file_size, files));
  for (const auto& directory : options.directories) {
    contestants.push_back(make_cached_kernel(directory, file_size, files));
  }
  return contestants;
}

void short_read(const BenchOptions& options, unsigned threads, BenchReport& report) {
  std::vector<std::uint64_t> file_sizes{4096, kMiB};
  if (options.file_size != 0) file_sizes = {options.file_size};
  for (const std::uint64_t file_size : file_sizes) {
    const Contestants contestants = make_cached(options, file_size, threads, true);
    for (const std::size_t block_size : {1, 32, 256, 1024, 4096, 32768}) {
      if (block_size > file_size) continue;
      for (const bool different : {false, true}) {
        const Work work{.different_files = different, .block_size = block_size, .threads = threads};
        measure(options, contestants, {work}, {file_size, different ? "different" : "same", false}, report);
      }
    }
  }
}

void overwrite(const BenchOptions& options, unsigned threads, BenchReport& report) {
  const std::uint64_t file_size = options.file_size != 0 ? options.file_size : 64 * kMiB;
  const Contestants contestants = make_cached(options, file_size, threads, false);
  for (const bool different : {false, true}) {
    const Work work{.write = true, .different_files = different, .block_size = kPageSize, .threads = threads};
    measure(options, contestants, {work}, {file_size, different ? "different" : "same", false}, report);
  }
}

void mixed(const BenchOptions& options, unsigned, BenchReport& report) {
  const std::uint64_t file_size = options.file_size != 0 ? options.file_size : 64 * kMiB;
  const Contestants contestants = make_cached(options, file_size, 1, false);
  const Work read{.block_size = 256};
  const Work write{.write = true, .block_size = kPageSize};
  measure(options, contestants, {read}, {file_size, "alone", false}, report);
  measure(options, contestants, {write}, {file_size, "alone", false}, report);
  measure(options, contestants, {read, write}, {file_size, "mixed", false}, report);
}

// The rates are taken with reads that only read; which of them were torn is found out in turns of their own.
void range_mix(const BenchOptions& options, unsigned, BenchReport& report) {
  const std::uint64_t file_size = options.file_size != 0 ? options.file_size : 64 * kMiB;
  Contestants contestants;
  std::vector<Contestant*> field;
  std::vector<RangeMixContestant*> checkers;
  const auto add = [&](std::unique_ptr<RangeMixContestant> contestant) {
    checkers.push_back(contestant.get());
    field.push_back(contestant.get());
    contestants.push_back(std::move(contestant));
  };
  add(make_range_mix_quire(options.directories[0], file_size, roomy_memory(options, file_size)));
  for (const auto& directory : options.directories) add(make_range_mix_kernel(directory, file_size));
  const Work read{.block_size = 256};
  const Work change{.write = true, .block_size = kMixRange};
  measure(options, contestants, {read}, {file_size, "alone", false}, report);
  measure(options, contestants, {change}, {file_size, "alone", false}, report);
  for (RangeMixContestant* checker : checkers) checker->check_reads(true);
  (void)compete(field, {read, change}, options.seconds);
  std::vector<std::int64_t> torn;
  for (RangeMixContestant* checker : checkers) {
    checker->check_reads(false);
    torn.push_back(static_cast<std::int64_t>(checker->torn_reads()));
  }
  measure(options, contestants, {read, change}, {file_size, "mixed", false, torn}, report);
}

// The files of seq-read and rand-read, one per directory, or the user's own. quire and the kernel read the same ones.
struct DiskFiles {
  std::vector<ScratchFile> scratch;
  std::vector<DiskTarget> targets;
};

// The file's size in whole blocks; throws BenchError for what cannot be read in blocks of 4 KiB.
std::uint64_t usable_size(const std::string& file) {
  const Descriptor fd = open_or_throw(file, O_RDONLY);
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) throw BenchError(file + ": " + errno_text(errno));
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
    throw BenchError(file + " is neither a regular file nor a block device; --file needs one of these");
  }
  const off_t end = lseek(fd.get(), 0, SEEK_END);
  if (end < static_cast<off_t>(kPageSize)) throw BenchError(file + " is smaller than a block of 4 KiB");
  if (S_ISREG(st.st_mode) && st.st_blocks * 512 < end / 2) {
    print_note("%s is sparse: reads of its holes never reach the disk", file.c_str());
  }
  return round_down(static_cast<std::uint64_t>(end), kPageSize);
}

DiskFiles make_disk_files(const BenchOptions& options) {
  DiskFiles files;
  if (!options.file.empty()) {
    const std::size_t slash = options.file.rfind('/');
    const std::string directory =
        slash == std::string::npos ? "." : options.file.substr(0, std::max<std::size_t>(slash, 1));
    files.targets.push_back({.directory = directory, .file = options.file, .file_size = usable_size(options.file)});
    return files;
  }
  const std::uint64_t file_size = options.file_size != 0 ? options.file_size : 1024 * kMiB;
  for (const auto& directory : options.directories) {
    const ScratchFile& scratch = files.scratch.emplace_back(directory, file_size);
    files.targets.push_back({.directory = directory, .file = scratch.path(), .file_size = file_size});
  }
  return files;
}

std::uint64_t physical_memory() {
  return static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

// The memory for quire's warm rows; 0 with a note where the file does not fit.
std::uint64_t warm_memory(const BenchOptions& options, std::uint64_t file_size) {
  const std::uint64_t needed = file_size + file_size / 8 + 64 * kMiB;
  if (options.memory == 0 && needed <= physical_memory() / 2) return needed;
  if (options.memory > file_size + file_size / 16) return options.memory;
  print_note("no warm rows of quire: a file of %s does not fit into its memory", format_size(file_size).c_str());
  return 0;
}

void seq_read(const BenchOptions& options, unsigned threads, BenchReport& report) {
  DiskFiles files = make_disk_files(options);
  const std::uint64_t file_size = files.targets[0].file_size;
  const std::uint64_t cold_memory =
      options.memory != 0 ? options.memory : std::clamp(file_size / 4, kSmallestCache, 256 * kMiB);
  const std::uint64_t fitting_memory = warm_memory(options, file_size);
  for (const bool cold : {true, false}) {
    for (const std::size_t block_size : {std::size_t{128} << 10, kPageSize}) {
      const Work work{.block_size = block_size, .pattern = Pattern::kSequential, .threads = threads};
      const std::uint64_t memory = cold ? cold_memory : fitting_memory;
      Contestants contestants;
      for (DiskTarget& target : files.targets) {
        target.cold = cold;
        if (contestants.empty() && memory != 0) contestants.push_back(make_disk_quire(target, work, memory));
        contestants.push_back(make_disk_kernel(target, work));
      }
      measure(options, contestants, {work}, {file_size, "", cold}, report);
    }
  }
}

void rand_read(const BenchOptions& options, unsigned threads, BenchReport& report) {
  const DiskFiles files = make_disk_files(options);
  const std::uint64_t file_size = files.targets[0].file_size;
  const Work work{.block_size = kPageSize, .threads = threads, .depth = options.depth};
  const std::uint64_t memory =
      options.memory != 0 ? options.memory : std::clamp(file_size / 16, kSmallestCache, 64 * kMiB);
  if (memory > file_size / 4) {
    print_note("a cache of %s holds much of a file of %s: quire's cold reads will hit as well",
               format_size(memory).c_str(), format_size(file_size).c_str());
  }
  Contestants contestants;
  if (work.depth == 1 || quire_reads_asynchronously(files.targets[0], memory)) {
    contestants.push_back(make_disk_quire(files.targets[0], work, memory));
  } else {
    print_note("asynchronous reads (quire_submit_pread) are not built yet: no rows of quire at --depth %u", work.depth);
  }
  for (const DiskTarget& target : files.targets) contestants.push_back(make_disk_kernel(target, work));
  measure(options, contestants, {work}, {file_size, "", true}, report);
}

// Loads and stores in a mapping of a file that is in memory, and its first touch, page by page.
void view(const BenchOptions& options, unsigned threads, BenchReport& report) {
  const std::uint64_t file_size = options.file_size != 0 ? options.file_size : 64 * kMiB;
  Contestants contestants;
  std::vector<ViewContestant*> viewers;
  const auto add = [&](std::unique_ptr<ViewContestant> contestant) {
    viewers.push_back(contestant.get());
    contestants.push_back(std::move(contestant));
  };
  add(make_view_quire(options.directories[0], file_size, roomy_memory(options, file_size)));
  add(make_view_tmpfs(file_size));
  for (ViewContestant* viewer : viewers) viewer->map_anew(true);
  const Work touch{.block_size = kPageSize, .pattern = Pattern::kSequential};
  measure(options, contestants, {touch}, {file_size, "first", false}, report);
  for (ViewContestant* viewer : viewers) viewer->map_anew(false);
  for (const std::size_t block_size : {64, 4096}) {
    for (const bool write : {false, true}) {
      const Work work{.write = write, .block_size = block_size, .threads = threads};
      measure(options, contestants, {work}, {file_size, "resident", false}, report);
    }
  }
}

struct Scenario {
  const char* name;
  void (*run)(const BenchOptions& options, unsigned threads, BenchReport& report);
  unsigned default_threads;
};
constexpr Scenario kScenarios[] = {
    {"short-read", &short_read, 2}, {"overwrite", &overwrite, 2}, {"mixed", &mixed, 1}, {"range-mix", &range_mix, 1},
    {"seq-read", &seq_read, 1},     {"rand-read", &rand_read, 2}, {"view", &view, 1},   {"verity", &bench_verity, 1}};

}  // namespace

int run_bench(const BenchOptions& options) {
  if (options.scenario == "hit-ratio") return run_hit_ratio(options);
  BenchReport report(options.json);
  for (const Scenario& scenario : kScenarios) {
    if (options.scenario != scenario.name) continue;
    scenario.run(options, options.threads != 0 ? options.threads : scenario.default_threads, report);
    report.finish();
    return 0;
  }
  return report_error("there is no scenario '%s'", options.scenario.c_str());
}

}  // namespace quire
