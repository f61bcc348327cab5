// The rows of verity; see bench_verity.h. All modes read files of the same bytes through the same code with the same
// memory; what differs is the sidecar and the flag of the cache.
#include "cli/bench_verity.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "cli/bench_disk.h"
#include "cli/bench_files.h"
#include "cli/support.h"
#include "quire/quire.h"

namespace quire {

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::size_t kSequentialBlock = 64 << 10;
constexpr unsigned kDepth = 32;
constexpr unsigned kEnableTurns = 3;

struct Mode {
  const char* name;
  bool verified;
  unsigned cache_flags;
};
constexpr Mode kModes[] = {{"verity", true, 0}, {"plain", false, 0}, {"completion", true, QUIRE_HASHES_AT_COMPLETION}};

void copy_file(const std::string& from, const std::string& to, std::uint64_t size) {
  const Descriptor in = open_or_throw(from, O_RDONLY), out = open_or_throw(to, O_WRONLY);
  for (off_t read_at = 0, write_at = 0; static_cast<std::uint64_t>(read_at) < size;) {
    if (copy_file_range(in.get(), &read_at, out.get(), &write_at, size, 0) > 0) continue;
    throw BenchError("cannot copy " + from + " to " + to + ": " + errno_text(errno));
  }
  if (fsync(out.get()) != 0) throw BenchError("cannot sync " + to + ": " + errno_text(errno));
}

class VerityBench {
 public:
  VerityBench(const BenchOptions& options, unsigned threads, BenchReport& report)
      : options_(options),
        threads_(threads),
        size_(options.file_size != 0 ? options.file_size : 1024 * kMiB),
        report_(report),
        plain_(options.directories[0], size_),
        verified_(options.directories[0], size_),
        other_(options.directories[0], cold_memory()),
        sidecar_(ScratchFile::named(verified_.path() + ".verity")) {
    copy_file(plain_.path(), verified_.path(), size_);
  }

  // Cold each time. The file stays verified after the last.
  void enable() {
    std::vector<double> rates;
    for (unsigned turn = 0; turn < kEnableTurns; ++turn) {
      if (turn != 0 && unlink(sidecar_.path().c_str()) != 0) throw BenchError(sidecar_.path() + ": cannot be removed");
      const Descriptor fd = open_or_throw(verified_.path(), O_RDONLY);
      drop_from_kernel_cache(fd.get(), verified_.path());
      CachePtr cache = make_cache(cold_memory());
      if (!cache) throw BenchError(quire_error_message());
      const std::int64_t begin = monotonic_ns();
      if (quire_verity_enable(cache.get(), verified_.path().c_str(), nullptr) != 0) {
        throw BenchError(quire_error_message());
      }
      const std::int64_t ns = monotonic_ns() - begin;
      rates.push_back(static_cast<double>(size_ / kSequentialBlock) * 1e9 / static_cast<double>(ns));
    }
    std::sort(rates.begin(), rates.end());
    BenchRow row = row_of("verity-enable", "verity", kSequentialBlock, 1, true);
    row.ops_per_s = rates[rates.size() / 2];
    report_.add({row});
  }

  enum class Cache { warm, full, fresh };  // of the file; of another, and this one cold; of nothing

  void read(const char* scenario, const Work& work, Cache cache) {
    const bool cold = cache != Cache::warm;
    const std::uint64_t memory = cold ? cold_memory() : options_.memory != 0 ? options_.memory : size_ + size_ / 4;
    std::vector<std::unique_ptr<Contestant>> contestants;
    std::vector<Contestant*> field;
    for (const Mode& mode : kModes) {
      const DiskTarget target{.directory = options_.directories[0],
                              .file = mode.verified ? verified_.path() : plain_.path(),
                              .file_size = size_,
                              .cold = cold,
                              .cache_flags = mode.cache_flags,
                              .other = cache == Cache::full ? other_.path() : std::string()};
      contestants.push_back(make_disk_quire(target, work, memory));
      field.push_back(contestants.back().get());
    }
    const auto rates = compete(field, {work}, options_.seconds);
    std::vector<BenchRow> rows;
    for (std::size_t i = 0; i < field.size(); ++i) {
      rows.push_back(row_of(scenario, kModes[i].name, work.block_size, work.depth, cold));
      rows.back().ops_per_s = rates[i][0];
    }
    report_.add(rows);
  }

 private:
  std::uint64_t cold_memory() const {
    if (options_.memory != 0) return std::min(options_.memory, size_);  // what more there were would stay empty
    return std::clamp(size_ / 8, 4 * kMiB, 256 * kMiB);
  }
  BenchRow row_of(const char* scenario, const char* mode, std::size_t block_size, unsigned depth, bool cold) const {
    return {.scenario = scenario,
            .op = "read",
            .system = "quire",
            .path = options_.directories[0],
            .threads = threads_,
            .depth = depth,
            .file_size = size_,
            .block_size = block_size,
            .mode = mode,
            .cold = cold};
  }

  const BenchOptions& options_;
  const unsigned threads_;
  const std::uint64_t size_;
  BenchReport& report_;
  ScratchFile plain_, verified_, other_, sidecar_;
};

}  // namespace

void bench_verity(const BenchOptions& options, unsigned threads, BenchReport& report) {
  VerityBench bench(options, threads, report);
  bench.enable();
  using Cache = VerityBench::Cache;
  const Work sequential{.block_size = kSequentialBlock, .pattern = Pattern::kSequential, .threads = threads};
  bench.read("verity-seq", sequential, Cache::full);
  bench.read("verity-new", sequential, Cache::fresh);
  bench.read("verity-rand", Work{.block_size = 4096, .threads = threads, .depth = kDepth}, Cache::full);
  bench.read("verity-warm", Work{.block_size = 4096, .threads = threads}, Cache::warm);
}

}  // namespace quire
