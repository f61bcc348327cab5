// `quire top`: rates between snapshots, as a line, a JSON object or a screen for each interval.
#include "cli/top.h"

#include <fmt/core.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/support.h"
#include "cli/top_screen.h"
#include "cli/watch.h"

namespace quire {

namespace {

using Clock = std::chrono::steady_clock;

constexpr unsigned kLinesPerHeading = 20;

// `before`: an earlier snapshot; null: since the cache was made, when all counts were 0.
CacheRates rates_between(const quire_published* before, const quire_published& after) {
  const quire_published zero{};
  const quire_published& from = before != nullptr ? *before : zero;
  const std::uint64_t from_ns = before != nullptr ? before->updated_ns : after.made_ns;
  CacheRates rates;
  rates.seconds = static_cast<double>(after.updated_ns - from_ns) / 1e9;
  const double hits = static_cast<double>(after.hits - from.hits);
  const double reads = hits + static_cast<double>(after.slow_reads - from.slow_reads);
  if (reads > 0) rates.hit_ratio = hits / reads;
  if (rates.seconds <= 0) return rates;  // not a new snapshot: its thread did not come to run
  const auto rate = [&rates](std::uint64_t old, std::uint64_t now) {
    return static_cast<double>(now - old) / rates.seconds;
  };
  rates.hits = hits / rates.seconds;
  rates.reads = reads / rates.seconds;
  rates.fills = rate(from.fills, after.fills);
  rates.evictions = rate(from.evictions, after.evictions);
  rates.refaults = rate(from.refaults, after.refaults);
  rates.writeback_bytes = rate(from.writeback_bytes, after.writeback_bytes);
  return rates;
}

// The snapshots of the last look, by the cache's number.
class Samples {
 public:
  std::vector<CacheSample> next(const std::vector<quire_published>& caches) {
    std::vector<CacheSample> samples;
    std::map<std::uint64_t, quire_published> seen;
    for (const quire_published& cache : caches) {
      const auto before = last_.find(cache.cache);
      samples.push_back({cache, rates_between(before != last_.end() ? &before->second : nullptr, cache)});
      seen[cache.cache] = cache;
    }
    last_ = std::move(seen);
    return samples;
  }

 private:
  std::map<std::uint64_t, quire_published> last_;
};

double rounded(double value) { return std::round(value * 10) / 10; }

nlohmann::ordered_json to_json(pid_t pid, const CacheSample& sample) {
  const quire_published& now = sample.now;
  const CacheRates& rates = sample.rates;
  nlohmann::ordered_json json = {{"pid", pid},
                                 {"cache", now.cache},
                                 {"seconds", std::round(rates.seconds * 1000) / 1000},
                                 {"hit_ratio", nullptr},
                                 {"reads_per_second", rounded(rates.reads)},
                                 {"hits_per_second", rounded(rates.hits)},
                                 {"fills_per_second", rounded(rates.fills)},
                                 {"evictions_per_second", rounded(rates.evictions)},
                                 {"refaults_per_second", rounded(rates.refaults)},
                                 {"dirty_bytes", now.dirty_bytes},
                                 {"dirty_limit_bytes", now.dirty_limit_bytes},
                                 {"writeback_bytes_per_second", rounded(rates.writeback_bytes)},
                                 {"used_bytes", now.used_bytes},
                                 {"memory_bytes", now.memory_bytes}};
  if (rates.hit_ratio) json["hit_ratio"] = *rates.hit_ratio;
  json["total"] = {{"hits", now.hits},
                   {"slow_reads", now.slow_reads},
                   {"fills", now.fills},
                   {"zero_fills", now.zero_fills},
                   {"evictions", now.evictions},
                   {"refaults", now.refaults},
                   {"writeback_folios", now.writeback_folios},
                   {"writeback_bytes", now.writeback_bytes},
                   {"writeback_errors", now.writeback_errors},
                   {"throttled", now.throttled},
                   {"device_read_bytes", now.device_read_bytes},
                   {"device_write_bytes", now.device_write_bytes}};
  return json;
}

void print_heading() {
  fmt::print("{:>5} {:>7} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>12} {:>10} {:>10}\n", "cache", "hit %", "hits/s",
             "fills/s", "evict/s", "refault/s", "dirty", "limit", "writeback/s", "used", "memory");
}

void print_line(const CacheSample& sample) {
  const quire_published& now = sample.now;
  const CacheRates& rates = sample.rates;
  const auto bytes = [](std::uint64_t n) { return human_bytes(static_cast<double>(n)); };
  fmt::print("{:>5} {:>7} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>12} {:>10} {:>10}\n", now.cache,
             rates.hit_ratio ? fmt::format("{:.2f}", *rates.hit_ratio * 100) : "-", human_count(rates.hits),
             human_count(rates.fills), human_count(rates.evictions), human_count(rates.refaults),
             bytes(now.dirty_bytes), bytes(now.dirty_limit_bytes), human_bytes(rates.writeback_bytes),
             bytes(now.used_bytes), bytes(now.memory_bytes));
}

enum class Pause { over, process_ended, quit };

// Until `until`; keys are looked at if there is a screen.
Pause pause_until(Clock::time_point until, const WatchedProcess& process, TopScreen* screen) {
  for (;;) {
    if (screen != nullptr && screen->quit_pressed()) return Pause::quit;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) return Pause::over;
    const bool keys = screen != nullptr && isatty(STDIN_FILENO) == 1;
    pollfd watched[2] = {{process.end_fd(), POLLIN, 0}, {keys ? STDIN_FILENO : -1, POLLIN, 0}};
    (void)poll(watched, 2, static_cast<int>(left));  // a signal: a resized terminal has become a key
    if (watched[0].revents != 0) return Pause::process_ended;
    if ((watched[1].revents & (POLLHUP | POLLERR)) != 0) return Pause::quit;  // the terminal is gone
  }
}

// Prints each cache; false if nobody takes it any more.
bool print_samples(const TopOptions& options, const std::vector<CacheSample>& samples, unsigned* lines) {
  for (const CacheSample& sample : samples) {
    if (options.json) {
      fmt::print("{}\n", to_json(options.pid, sample).dump());
      continue;
    }
    if (*lines % kLinesPerHeading == 0) print_heading();
    ++*lines;
    print_line(sample);
  }
  return std::fflush(stdout) == 0;
}

// Why it ends: empty, because it was to. The terminal is the shell's again when that is said.
std::string watch(const TopOptions& options, const WatchedProcess& process, TopScreen* screen, Samples& samples) {
  const auto interval =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.interval_seconds));
  const std::string title =
      fmt::format("quire top: process {}, every {:g} s; q ends", options.pid, options.interval_seconds);
  auto until = Clock::now();
  unsigned lines = 0;
  for (std::uint64_t done = 0; options.count == 0 || done < options.count; ++done) {
    until += interval;
    const Pause pause = pause_until(until, process, screen);
    if (pause == Pause::quit) break;
    if (pause == Pause::process_ended) return process.end_message();
    const WatchedProcess::Look look = process.look();
    if (!look.error.empty()) return look.error;
    const auto now = samples.next(look.caches);
    if (screen != nullptr) {
      screen->draw(title, now);
    } else if (!print_samples(options, now, &lines)) {
      return fmt::format("cannot write to standard output: {}", errno_text(errno));
    }
  }
  return {};
}

}  // namespace

int top(const TopOptions& options) {
  WatchedProcess process;
  std::vector<quire_published> caches;
  if (!process.open(options.pid) || !process.look_for_cache(&caches)) return 1;
  Samples samples;
  const std::vector<CacheSample> first = samples.next(caches);
  std::string end;
  {
    TopScreen screen;
    const bool wants_lines = options.json || options.count != 0 || isatty(STDOUT_FILENO) != 1;
    const bool drawn = !wants_lines && screen.open();
    if (drawn) screen.draw("quire top: averages since each cache was made", first);
    end = watch(options, process, drawn ? &screen : nullptr, samples);
  }
  return end.empty() ? 0 : report_error("%s", end.c_str());
}

}  // namespace quire
