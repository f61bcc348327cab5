// What the index costs: nanoseconds of a lookup in a three-level tree (a dense file of 1 GiB), of iteration and of
// changes, and bytes of nodes a page. One thread; each figure is processor time, the median of several turns.
//
//   xarray_bench [TURNS]
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/random.h"
#include "sync/rcu.h"
#include "xarray/xarray.h"

namespace quire {
namespace {

constexpr std::uint64_t kPages = 1 << 18;     // 1 GiB of 4 KiB pages: three full levels of 64
constexpr std::uint64_t kLookups = 1 << 22;   // a turn
constexpr std::uint64_t kHotPages = 1 << 10;  // 16 leaves
constexpr unsigned kRounds = 16;              // over the random pages, in a turn of changes
static_assert(kPages == XArray::Node::kSlots * XArray::Node::kSlots * XArray::Node::kSlots);

int turns = 7;

// Processor time: what else the machine does stays out of it (but for shared caches).
double thread_ns() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

template <typename Fn>
void report(const char* name, std::uint64_t operations, Fn fn) {
  std::vector<double> ns;
  for (int turn = 0; turn < turns; ++turn) {
    const double start = thread_ns();
    fn();
    ns.push_back((thread_ns() - start) / static_cast<double>(operations));
  }
  std::sort(ns.begin(), ns.end());
  std::printf("%-58s %8.2f ns\n", name, ns[ns.size() / 2]);
}

void keep(std::uint64_t value) { asm volatile("" : : "r"(value) : "memory"); }

std::vector<std::uint32_t> random_pages(std::uint64_t below) {
  Random random(below);
  std::vector<std::uint32_t> pages(1 << 14);
  for (std::uint32_t& page : pages) page = static_cast<std::uint32_t>(random.below(below));
  return pages;
}

void bench_load(const XArray& array, const char* what, std::uint64_t below) {
  const std::vector<std::uint32_t> pages = random_pages(below);
  char name[80];
  std::snprintf(name, sizeof name, "load, random, %s, one section", what);
  report(name, kLookups, [&] {
    RcuReadLock read_section;
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < kLookups; ++i) sum += array.load(pages[i % pages.size()]).bits;
    keep(sum);
  });
  std::snprintf(name, sizeof name, "load, random, %s, a section each", what);
  report(name, kLookups, [&] {
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < kLookups; ++i) {
      RcuReadLock read_section;
      sum += array.load(pages[i % pages.size()]).bits;
    }
    keep(sum);
  });
  // Each index depends on the entry before it: nothing overlaps, the full latency shows.
  std::snprintf(name, sizeof name, "load, random, %s, each waits for the last", what);
  report(name, kLookups, [&] {
    RcuReadLock read_section;
    std::uint64_t zero = 0;
    for (std::uint64_t i = 0; i < kLookups; ++i) zero = array.load(pages[i % pages.size()] + zero).bits & 2;
    keep(zero);
  });
}

void bench_iteration(XArray& array) {
  report("find, each page in turn", kPages, [&] {
    RcuReadLock read_section;
    std::uint64_t sum = 0;
    array.for_each(0, UINT64_MAX, [&](std::uint64_t, XEntry entry) {
      sum += entry.bits;
      return true;
    });
    keep(sum);
  });
  for (std::uint64_t page = 0; page < kPages; page += 1000) array.set_mark(page, 0);
  report("find_marked, each of 1 page in 1000", kPages / 1000, [&] {
    RcuReadLock read_section;
    std::uint64_t sum = 0;
    array.for_each_marked(0, UINT64_MAX, 0, [&](std::uint64_t, XEntry entry) {
      sum += entry.bits;
      return true;
    });
    keep(sum);
  });
  report("next_gap over 1 GiB, a page", kPages, [&] {
    RcuReadLock read_section;
    keep(array.next_gap(0, UINT64_MAX));
  });
}

void bench_changes(XArray& array) {
  const std::vector<std::uint32_t> pages = random_pages(kPages);
  report("store over an entry, random", kRounds * pages.size(), [&] {
    for (std::uint64_t i = 0; i < kRounds * pages.size(); ++i) {
      const std::uint32_t page = pages[i % pages.size()];
      keep(array.store(page, XEntry::from_value(page)).value().bits);
    }
  });
  report("set_mark and clear_mark, random", kRounds * pages.size(), [&] {
    for (std::uint64_t i = 0; i < kRounds * pages.size(); ++i) {
      const std::uint32_t page = pages[i % pages.size()];
      array.set_mark(page, 1);
      array.clear_mark(page, 1);
    }
  });
  report("entry and mark in one section, one walk", kRounds * pages.size(), [&] {
    for (std::uint64_t i = 0; i < kRounds * pages.size(); ++i) {
      const std::uint32_t page = pages[i % pages.size()];
      XaState at(page);
      MutexLock lock(array.mutex());
      keep(array.store_locked(at, XEntry::from_value(page)).ok());
      array.set_mark_locked(at, 1);
      array.clear_mark_locked(at, 1);
    }
  });
  report("insert and erase of a page, file built and emptied", 2 * kPages, [] {
    XArray other;
    for (std::uint64_t page = 0; page < kPages; ++page) keep(other.insert(page, XEntry::from_value(page)).ok());
    for (std::uint64_t page = 0; page < kPages; ++page) keep(other.erase(page).bits);
    rcu_synchronize();
  });
}

void run() {
  XNodeStore nodes;
  {
    XArray array(&nodes);
    for (std::uint64_t page = 0; page < kPages; ++page) {
      if (!array.store(page, XEntry::from_value(page)).ok()) std::abort();
    }
    std::printf("node %zu bytes, %.2f bytes of nodes a page in a dense file\n", XArray::kNodeBytes,
                static_cast<double>(nodes.bytes()) / static_cast<double>(kPages));
    bench_load(array, "4 MiB of 1 GiB", kHotPages);
    bench_load(array, "all of 1 GiB", kPages);
    bench_iteration(array);
    bench_changes(array);
  }
  rcu_synchronize();
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  if (argc > 1) quire::turns = std::max(1, std::atoi(argv[1]));
  quire::run();
  return 0;
}
