// Turns, threads and medians; see bench_harness.h.
#include "cli/bench_harness.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/random.h"
#include "cli/bench.h"

namespace quire {

namespace {

constexpr unsigned kTurns = 5;

// Runs the workers to their end, all beginning at once.
std::vector<WorkerResult> run_workers(const std::vector<Worker>& workers, std::int64_t duration_ns) {
  pthread_barrier_t start;
  if (pthread_barrier_init(&start, nullptr, static_cast<unsigned>(workers.size())) != 0) {
    throw BenchError("cannot make a barrier for the threads");
  }
  const Turn turn{&start, duration_ns};
  std::vector<WorkerResult> results(workers.size());
  std::vector<std::thread> threads;
  threads.reserve(workers.size());
  for (std::size_t i = 0; i < workers.size(); ++i) {
    // A thread that cannot be made ends the program (std::system_error): those made already wait at the barrier.
    threads.emplace_back([&, i] { results[i] = workers[i](turn); });
  }
  for (std::thread& thread : threads) thread.join();
  (void)pthread_barrier_destroy(&start);
  return results;
}

// One turn of one contestant: operations per second of each work.
std::vector<double> run_turn(Contestant& contestant, const std::vector<Work>& works, std::int64_t duration_ns) {
  contestant.begin_turn();
  std::vector<Worker> workers;
  for (const Work& work : works) {
    for (unsigned thread = 0; thread < work.threads; ++thread) workers.push_back(contestant.worker(work, thread));
  }
  const std::vector<WorkerResult> results = run_workers(workers, duration_ns);
  contestant.end_turn();
  contestant.take_buffers_back();

  std::vector<double> rates;
  std::size_t next = 0;
  for (const Work& work : works) {
    double rate = 0;
    for (unsigned thread = 0; thread < work.threads; ++thread) {
      const WorkerResult& result = results[next++];
      if (!result.error.empty()) throw BenchError(result.error);
      rate += static_cast<double>(result.ops) * 1e9 / static_cast<double>(std::max<std::int64_t>(result.ns, 1));
    }
    rates.push_back(rate);
  }
  return rates;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

char* Contestant::lend_buffer(std::size_t size) {
  AlignedBuffer& buffer = buffers_.emplace_back(make_buffer(size));
  Random random(buffers_.size());
  for (std::size_t i = 0; i < size; ++i) buffer.get()[i] = static_cast<char>(random.next());
  return buffer.get();
}

std::int64_t monotonic_ns() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

std::vector<std::vector<double>> compete(const std::vector<Contestant*>& contestants, const std::vector<Work>& works,
                                         double seconds) {
  static_assert(kTurns % 2 == 1);  // median() takes the middle one
  const std::int64_t duration_ns = std::max<std::int64_t>(1'000'000, static_cast<std::int64_t>(seconds * 1e9 / kTurns));
  const std::size_t count = contestants.size();
  std::vector<std::vector<std::vector<double>>> samples(count, std::vector<std::vector<double>>(works.size()));
  for (unsigned turn = 0; turn < kTurns; ++turn) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t which = (i + turn) % count;
      const std::vector<double> rates = run_turn(*contestants[which], works, duration_ns);
      for (std::size_t w = 0; w < works.size(); ++w) samples[which][w].push_back(rates[w]);
    }
  }
  std::vector<std::vector<double>> medians(count);
  for (std::size_t i = 0; i < count; ++i) {
    for (const auto& values : samples[i]) medians[i].push_back(median(values));
  }
  return medians;
}

}  // namespace quire
