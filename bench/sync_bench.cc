// What the locks cost alone and beside a second thread: google-benchmark, release build.
//   sync_bench [--benchmark_filter=REGEX]
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "sync/mutex.h"
#include "sync/range_lock.h"
#include "sync/rcu.h"
#include "sync/rw_lock.h"
#include "sync/sequence.h"
#include "sync/wait_queue.h"

namespace quire {
namespace {

constexpr std::uint8_t kShared = 0, kExclusive = 1;
constexpr RangeModes kTwoModes{{1, 0, 0, 0}};

constinit LockClass bench_class{"bench", LockClass::Nesting::ascending};

void MutexPair(benchmark::State& state) {
  static Mutex mutex(bench_class);
  for (auto _ : state) {
    mutex.lock();
    benchmark::ClobberMemory();
    mutex.unlock();
  }
}
BENCHMARK(MutexPair)->Threads(1)->Threads(2)->UseRealTime();

void RwLockSharedPair(benchmark::State& state) {
  static RwLock lock(bench_class);
  for (auto _ : state) {
    lock.lock_shared();
    benchmark::ClobberMemory();
    lock.unlock_shared();
  }
}
BENCHMARK(RwLockSharedPair)->Threads(1)->Threads(2)->UseRealTime();

void RwLockExclusivePair(benchmark::State& state) {
  static RwLock lock(bench_class);
  for (auto _ : state) {
    lock.lock();
    benchmark::ClobberMemory();
    lock.unlock();
  }
}
BENCHMARK(RwLockExclusivePair)->Threads(1)->Threads(2)->UseRealTime();

// Each thread takes its own range: with two threads the ranges are disjoint.
void RangeLockPair(benchmark::State& state) {
  static RangeLock lock(bench_class, kTwoModes, 1);
  const std::uint64_t base = static_cast<std::uint64_t>(state.thread_index()) << 32;
  std::uint64_t i = 0;
  for (auto _ : state) {
    RangeRequest request;
    lock.lock(request, base + i, base + i + 4095, kExclusive);
    benchmark::ClobberMemory();
    lock.unlock(request);
    i = (i + 4096) & 0xffffff;
  }
}
BENCHMARK(RangeLockPair)->Threads(1)->Threads(2)->UseRealTime();

void RangeLockSharedSameRange(benchmark::State& state) {
  static RangeLock lock(bench_class, kTwoModes, 1);
  for (auto _ : state) {
    RangeRequest request;
    lock.lock(request, 0, 4095, kShared);
    benchmark::ClobberMemory();
    lock.unlock(request);
  }
}
BENCHMARK(RangeLockSharedSameRange)->Threads(1)->Threads(2)->UseRealTime();

// Beside as many disjoint requests that stay held.
void RangeLockBesideHolders(benchmark::State& state) {
  RangeLock lock(bench_class, kTwoModes, 1);
  const auto count = static_cast<std::uint64_t>(state.range(0));
  std::vector<RangeRequest> holders(count);
  for (std::uint64_t i = 0; i < count; ++i) lock.lock(holders[i], i * 8, i * 8 + 7, kExclusive);
  for (auto _ : state) {
    RangeRequest request;
    lock.lock(request, count * 8, kRangeEnd, kExclusive);
    benchmark::ClobberMemory();
    lock.unlock(request);
  }
  for (RangeRequest& holder : holders) lock.unlock(holder);
}
BENCHMARK(RangeLockBesideHolders)->Arg(1)->Arg(8)->Arg(64);

void RcuReadPair(benchmark::State& state) {
  for (auto _ : state) {
    rcu_read_lock();
    benchmark::ClobberMemory();
    rcu_read_unlock();
  }
}
BENCHMARK(RcuReadPair)->Threads(1)->Threads(2)->UseRealTime();

void RcuGracePeriod(benchmark::State& state) {
  for (auto _ : state) rcu_synchronize();
}
BENCHMARK(RcuGracePeriod);

void WakeNobody(benchmark::State& state) {
  WaitQueue queue;
  for (auto _ : state) queue.wake_all();
}
BENCHMARK(WakeNobody);

// Sequence read of one folio's bytes, nobody writing, to a buffer that many bytes past a page's start.
void SequencedCopy(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const auto offset = static_cast<std::size_t>(state.range(1));
  alignas(4096) static char folio[65536];
  alignas(4096) static char to[65536];
  std::memset(folio, 'f', sizeof folio);
  Sequence sequence;
  for (auto _ : state) {
    const std::uint64_t begin = sequence.read_begin();
    racy_copy_from_folio(to + offset, folio, size);
    bool valid = sequence.validate(begin);
    benchmark::DoNotOptimize(valid);
  }
}
BENCHMARK(SequencedCopy)->ArgsProduct({{256, 1024, 4096, 32768}, {0, 16, 2048}});

}  // namespace
}  // namespace quire

BENCHMARK_MAIN();
