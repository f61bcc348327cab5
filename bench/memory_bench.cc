// What the cache keeps, fetches and holds back under pressure; one measurement a run, each on files of its own in DIR.
//
//   hot-set DIR        256 MiB cache, 64 MiB read at random; how much of it is there before, beside and after a stream
//   of
//                      2 GiB
//   write DIR          a file of four times the memory (256 MiB) in writes of 64 KiB: rate, latencies, dirty bytes;
//   then
//                      the host's own rate for such a file (O_DIRECT, 1 MiB, the best of 1, 2 and 4 at a time), in
//                      turns
//   fetch DIR          random 4 KiB reads of 1 GiB through 64 MiB: bytes that the device moved for each asked for
//   many-files DIR [N] N (10,000) open files, all read ahead at once through 256 MiB: the account beside the process's
//   PSS
//
// usage: memory_bench MEASUREMENT DIR [N]
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "quire/quire.h"

namespace quire {
namespace {

constexpr std::size_t kMiB = 1 << 20, kPage = 4096;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "memory_bench: %s\n", what.c_str());
  std::exit(1);
}

void check(bool ok) {
  if (!ok) give_up(quire_error_message());
}

// A file that is removed at the end, filled unless size is 0.
class Scratch {
 public:
  Scratch(const std::string& directory, const char* name, std::size_t size)
      : path_(directory + "/.memory-bench-" + std::to_string(getpid()) + "-" + name) {
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) give_up("cannot make " + path_ + ": " + std::strerror(errno));
    std::vector<std::uint64_t> block(kMiB / 8);
    Random random(7);
    for (std::size_t at = 0; at < size; at += kMiB) {
      for (auto& word : block) word = random.next();
      const std::size_t part = std::min(kMiB, size - at);
      if (write(fd, block.data(), part) != static_cast<ssize_t>(part)) give_up("cannot fill " + path_);
    }
    fsync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { unlink(path_.c_str()); }
  const char* path() const { return path_.c_str(); }

 private:
  std::string path_;
};

quire_cache* make_cache(std::size_t memory) {
  const quire_options options{sizeof(quire_options), memory, 0, 0};
  quire_cache* cache = quire_cache_create(&options);
  check(cache != nullptr);
  return cache;
}

quire_file* open_file(quire_cache* cache, const char* path, int flags) {
  quire_file* file = quire_open(cache, path, flags, 0600);
  check(file != nullptr);
  return file;
}

nlohmann::json stats_of(quire_cache* cache) {
  std::string text(static_cast<std::size_t>(quire_stats_json(cache, nullptr, 0)) + 4096, '\0');
  const ssize_t length = quire_stats_json(cache, text.data(), text.size());
  text.resize(static_cast<std::size_t>(length));
  return nlohmann::json::parse(text);
}

void end(quire_cache* cache, quire_file* file) {
  check(quire_close(file) == 0);
  check(quire_cache_destroy(cache, 0) == 0);
}

// --- hot-set ---------------------------------------------------------------------------------------------------------

// Of reads at random the part that hits is the part that is there.
double percent_resident(quire_file* file, std::size_t size) {
  std::vector<quire_residency_run> runs(size / kPage + 1);
  const ssize_t count = quire_residency(file, 0, runs.data(), runs.size());
  check(count >= 0);
  double bytes = 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    if (runs[i].state != QUIRE_RUN_GHOST && runs[i].state != QUIRE_RUN_FILLING)
      bytes += static_cast<double>(runs[i].length);
  }
  return 100 * bytes / static_cast<double>(size);
}

void read_at_random(quire_file* file, std::size_t size, std::uint64_t count, const std::atomic<bool>& stop) {
  Random random(count);
  char buffer[256];
  for (std::uint64_t i = 0; i < count && !stop; ++i) {
    const auto offset = static_cast<off_t>(random.below(size / sizeof buffer) * sizeof buffer);
    check(quire_pread(file, buffer, sizeof buffer, offset) == sizeof buffer);
  }
}

int hot_set(const std::string& directory) {
  constexpr std::size_t kHot = 64 * kMiB, kStream = 2048 * kMiB;
  const Scratch hot(directory, "hot", kHot), stream(directory, "stream", kStream);
  quire_cache* cache = make_cache(256 * kMiB);
  quire_file* file = open_file(cache, hot.path(), O_RDONLY);
  quire_file* long_file = open_file(cache, stream.path(), O_RDONLY);
  std::atomic<bool> stop{false};
  read_at_random(file, kHot, 2'000'000, stop);
  const double before = percent_resident(file, kHot);
  std::thread reader([&] { read_at_random(file, kHot, UINT64_MAX, stop); });
  std::vector<char> buffer(64 * 1024);
  double least = 100;
  const double begin = now();
  for (std::size_t at = 0; at < kStream; at += buffer.size()) {
    check(quire_pread(long_file, buffer.data(), buffer.size(), static_cast<off_t>(at)) ==
          static_cast<ssize_t>(buffer.size()));
    if (at % (16 * kMiB) == 0) least = std::min(least, percent_resident(file, kHot));
  }
  const double seconds = now() - begin;
  stop = true;
  reader.join();
  std::printf(
      "hot set of 64 MiB in 256 MiB: %.3f %% there before, %.3f %% at least beside a stream of 2 GiB (%.0f MiB/s), "
      "%.3f %% after\n",
      before, least, kStream / kMiB / seconds, percent_resident(file, kHot));
  check(quire_close(long_file) == 0);
  end(cache, file);
  return 0;
}

// --- write -----------------------------------------------------------------------------------------------------------

constexpr std::size_t kMemory = 256 * kMiB, kWritten = 4 * kMemory, kWrite = 64 * 1024;

double write_quire(const std::string& directory, const std::vector<char>& bytes) {
  const Scratch scratch(directory, "write", 0);
  quire_cache* cache = make_cache(kMemory);
  quire_file* file = open_file(cache, scratch.path(), O_RDWR);
  std::atomic<bool> stop{false};
  std::uint64_t most = 0, limit = 0;
  std::thread watcher([&] {
    while (!stop) {
      const nlohmann::json stats = stats_of(cache);
      most = std::max(most, stats["unstable_folios"].get<std::uint64_t>());
      limit = stats["dirty_limit_folios"].get<std::uint64_t>();
      usleep(2000);
    }
  });
  std::vector<double> took;
  const double begin = now();
  for (std::size_t at = 0; at < kWritten; at += kWrite) {
    const double from = now();
    check(quire_pwrite(file, bytes.data() + at % kMiB, kWrite, static_cast<off_t>(at)) == kWrite);
    took.push_back(now() - from);
  }
  check(quire_fsync(file) == 0);
  const double rate = kWritten / kMiB / (now() - begin);
  stop = true;
  watcher.join();
  end(cache, file);
  std::sort(took.begin(), took.end());
  std::printf(
      "quire: %.0f MiB/s with sync; a write of 64 KiB took %.3f ms (median), %.2f (99 %%), %.2f (99.9 %%), %.1f at "
      "most; dirty at most %llu of %llu pages\n",
      rate, took[took.size() / 2] * 1e3, took[took.size() * 99 / 100] * 1e3, took[took.size() * 999 / 1000] * 1e3,
      took.back() * 1e3, static_cast<unsigned long long>(most), static_cast<unsigned long long>(limit));
  return rate;
}

double write_direct(const std::string& directory, const char* bytes, unsigned at_a_time) {
  const Scratch scratch(directory, "direct", 0);
  const int fd = open(scratch.path(), O_WRONLY | O_DIRECT);
  if (fd < 0) give_up("no O_DIRECT in this directory");
  std::atomic<std::size_t> next{0};
  const double begin = now();
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < at_a_time; ++i) {
    threads.emplace_back([&] {
      for (std::size_t at = next.fetch_add(kMiB); at < kWritten; at = next.fetch_add(kMiB)) {
        if (pwrite(fd, bytes, kMiB, static_cast<off_t>(at)) != kMiB) give_up("a direct write failed");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  fsync(fd);
  const double rate = kWritten / kMiB / (now() - begin);
  close(fd);
  return rate;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int write_past(const std::string& directory) {
  std::vector<char> bytes(2 * kMiB + kPage);
  Random random(3);
  for (char& byte : bytes) byte = static_cast<char>(random.next());
  char* aligned = reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(bytes.data()) + kPage - 1) / kPage * kPage);
  std::vector<double> ours, direct[3];
  for (int turn = 0; turn < 5; ++turn) {
    ours.push_back(write_quire(directory, bytes));
    for (unsigned i = 0; i < 3; ++i) direct[i].push_back(write_direct(directory, aligned, 1u << i));
  }
  const double best = std::max({median(direct[0]), median(direct[1]), median(direct[2])});
  std::printf("medians of 5: quire %.0f MiB/s, the host %.0f, %.0f and %.0f (1, 2 and 4 at a time): %.2f of the best\n",
              median(ours), median(direct[0]), median(direct[1]), median(direct[2]), median(ours) / best);
  return 0;
}

// --- fetch -----------------------------------------------------------------------------------------------------------

int fetch(const std::string& directory) {
  constexpr std::size_t kSize = 1024 * kMiB, kReads = 30'000;
  const Scratch scratch(directory, "fetch", kSize);
  quire_cache* cache = make_cache(64 * kMiB);
  quire_file* file = open_file(cache, scratch.path(), O_RDONLY);
  std::vector<std::uint64_t> pages(kSize / kPage);
  for (std::size_t i = 0; i < pages.size(); ++i) pages[i] = i;
  Random random(5);
  for (std::size_t i = 0; i < kReads; ++i) std::swap(pages[i], pages[i + random.below(pages.size() - i)]);
  char buffer[kPage];
  for (std::size_t i = 0; i < kReads; ++i) {
    check(quire_pread(file, buffer, kPage, static_cast<off_t>(pages[i] * kPage)) == kPage);
  }
  const double moved = stats_of(cache)["device_read_bytes"].get<double>();
  std::printf("%zu random reads of 4 KiB, each of another page: %.3f bytes moved for each asked for\n", kReads,
              moved / (kReads * kPage));
  end(cache, file);
  return 0;
}

// --- many-files ------------------------------------------------------------------------------------------------------

std::uint64_t own_pss() {
  std::ifstream rollup("/proc/self/smaps_rollup");
  for (std::string word; rollup >> word;) {
    if (word != "Pss:") continue;
    std::uint64_t kib = 0;
    rollup >> kib;
    return kib * 1024;
  }
  give_up("no Pss in smaps_rollup");
}

constexpr std::size_t kSmallFile = 256 * 1024, kManyMemory = 256 * kMiB;

// A folder of files, removed at the end.
class ScratchFolder {
 public:
  ScratchFolder(const std::string& directory, std::size_t count)
      : path_(directory + "/.memory-bench-many-" + std::to_string(getpid())), count_(count) {
    if (mkdir(path_.c_str(), 0700) != 0) give_up("cannot make " + path_);
    const std::vector<char> bytes(kSmallFile, 'q');
    for (std::size_t i = 0; i < count; ++i) {
      const int fd = open(file(i).c_str(), O_WRONLY | O_CREAT, 0600);
      if (fd < 0 || write(fd, bytes.data(), kSmallFile) != kSmallFile) give_up("cannot fill " + path_);
      close(fd);
    }
    sync();
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  ~ScratchFolder() {
    for (std::size_t i = 0; i < count_; ++i) unlink(file(i).c_str());
    rmdir(path_.c_str());
  }
  std::string file(std::size_t i) const { return path_ + "/" + std::to_string(i); }

 private:
  const std::string path_;
  const std::size_t count_;
};

void allow_descriptors(rlim_t needed) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max = std::max(limit.rlim_max, needed);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    give_up("the limit of open files is not ours to raise to " + std::to_string(needed) + ": each takes two");
  }
}

// The account beside the PSS that the process has more than at first, while it grows.
struct Looks {
  std::uint64_t base, most_pss = 0, most_used = 0;
  double worst = 0;  // difference over the PSS
  int count = 0;

  void look(quire_cache* cache) {
    const std::uint64_t used = stats_of(cache)["memory_used"].get<std::uint64_t>();
    const std::uint64_t pss = own_pss() - base;
    most_pss = std::max(most_pss, pss);
    most_used = std::max(most_used, used);
    if (used <= kManyMemory / 2) return;
    worst = std::max(worst, std::abs(static_cast<double>(used) - static_cast<double>(pss)) / static_cast<double>(pss));
    ++count;
  }
};

// Every file a step further, round by round, by two threads.
void read_all_at_once(const std::vector<quire_file*>& files) {
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      std::vector<char> buffer(16 * 1024);
      for (std::size_t at = 0; at < kSmallFile; at += buffer.size()) {
        for (std::size_t i = t; i < files.size(); i += 2) {
          check(quire_pread(files[i], buffer.data(), buffer.size(), static_cast<off_t>(at)) ==
                static_cast<ssize_t>(buffer.size()));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

int many_files(const std::string& directory, std::size_t count) {
  allow_descriptors(2 * count + 50);
  const ScratchFolder folder(directory, count);
  Looks looks{.base = own_pss()};
  quire_cache* cache = make_cache(kManyMemory);
  std::vector<quire_file*> files;
  for (std::size_t i = 0; i < count; ++i) files.push_back(open_file(cache, folder.file(i).c_str(), O_RDONLY));
  std::atomic<bool> stop{false};
  std::thread watcher([&] {
    for (; !stop; usleep(20'000)) looks.look(cache);
  });
  read_all_at_once(files);
  stop = true;
  watcher.join();
  const nlohmann::json stats = stats_of(cache);
  const auto mib = [&](const char* key) { return stats[key].get<double>() / kMiB; };
  std::printf(
      "%zu open files read ahead at once in 256 MiB: at the end %.1f MiB accounted, %.1f MiB PSS above what the "
      "process had before; most %.1f and %.1f MiB; they differed by %.2f %% at most in %d looks\n",
      count, mib("memory_used"), static_cast<double>(own_pss() - looks.base) / kMiB,
      static_cast<double>(looks.most_used) / kMiB, static_cast<double>(looks.most_pss) / kMiB, 100 * looks.worst,
      looks.count);
  std::printf("parts: arena %.1f, descriptors %.1f, index %.1f, files %.1f, prefetch %.1f, counters %.1f MiB\n",
              mib("arena_bytes"), mib("descriptor_bytes"), mib("index_bytes"), mib("file_bytes"), mib("prefetch_bytes"),
              mib("counter_bytes"));
  for (quire_file* file : files) check(quire_close(file) == 0);
  check(quire_cache_destroy(cache, 0) == 0);
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const bool many = what == "many-files";
  if (argc < 3 || argc > (many ? 4 : 3)) {
    std::fprintf(stderr, "usage: memory_bench hot-set|write|fetch|many-files DIR [N]\n");
    return 2;
  }
  if (what == "hot-set") return quire::hot_set(argv[2]);
  if (what == "write") return quire::write_past(argv[2]);
  if (what == "fetch") return quire::fetch(argv[2]);
  if (many) return quire::many_files(argv[2], argc == 4 ? std::strtoull(argv[3], nullptr, 10) : 10'000);
  std::fprintf(stderr, "memory_bench: there is no measurement '%s'\n", what.c_str());
  return 2;
}
