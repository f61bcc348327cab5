// Progress lines; see progress.h.
#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace quire {

namespace {

constexpr std::int64_t kSecond_ns = 1'000'000'000;
constexpr std::int64_t kInterval_ns = kSecond_ns / 5;

std::int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

}  // namespace

Progress::Progress(const char* label, std::uint64_t total, bool quiet)
    : label_(label),
      total_(total),
      enabled_(!quiet && isatty(STDERR_FILENO) == 1),
      start_ns_(now_ns()),
      next_ns_(start_ns_ + kSecond_ns) {}

Progress::~Progress() { clear(); }

void Progress::clear() {
  if (printed_) std::fputs("\r\033[K", stderr);
  printed_ = false;
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  total_ = total;
  update(done);
}

void Progress::update(std::uint64_t done) {
  if (!enabled_) return;
  const std::int64_t now = now_ns();
  if (now < next_ns_) return;
  next_ns_ = now + kInterval_ns;
  printed_ = true;
  const double mib = static_cast<double>(done) / (1 << 20);
  const double rate = mib * kSecond_ns / static_cast<double>(now - start_ns_);
  if (total_ > 0) {
    const std::uint64_t percent = std::min<std::uint64_t>(
        100, static_cast<std::uint64_t>(100.0 * static_cast<double>(done) / static_cast<double>(total_)));
    std::fprintf(stderr, "\r\033[K%s: %3d%%, %.0f MiB, %.0f MiB/s", label_, static_cast<int>(percent), mib, rate);
  } else {
    std::fprintf(stderr, "\r\033[K%s: %.0f MiB, %.0f MiB/s", label_, mib, rate);
  }
}

}  // namespace quire
