// The judge's threads. run() lets the planned mutators and some readers loose on a window together and returns
// when all have finished; the caller is one of the readers. Every operation is stamped before its call and after
// its return from one sequentially consistent counter, so a < b is real time.
//
// What is shared: the plan, written by the leader before a worker's `go` and read by workers after it; a worker's
// operations and buffers, written by it and read by the leader after `done_`.
#pragma once

#include <sched.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "testing/history.h"
#include "testing/meeting.h"
#include "testing/system.h"
#include "testing/workload.h"

namespace quire::judge {

// Calls the system, and waits until what it submits is done; op.offset and so on must be set. buffer: a read's
// destination, a write's data.
void execute(System& system, const std::array<int, 2>& files, Op* op, unsigned char* buffer);

class Crew {
 public:
  // Thread 0 (the caller) and the even ones read, the odd ones change.
  Crew(System& system, const Workload& workload, int threads, uint64_t seed);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  int mutators() const { return static_cast<int>(workers_.size()) / 2; }
  int readers() const { return static_cast<int>(workers_.size()) - mutators(); }

  // plans: one a mutator thread, at most mutators(). The operations done are added to window->mutators and
  // window->reads; the reads' data stay valid until the next call.
  void run(const Spot& spot, std::vector<std::vector<Op>> plans, int readers, Window* window);

  // The next instant, for the leader's own quiescent operations.
  uint64_t tick() { return clock_.fetch_add(1); }

 private:
  struct Worker;
  // A submitted operation: its worker's until it is submitted and again once `flying` has been lowered; between, of
  // whoever runs the callback.
  struct Flight {
    Crew* crew;
    Worker* worker;
    Op* op;
    unsigned char* buffer;
  };

  struct Worker {
    Worker(int number, bool mutates, uint64_t seed);
    const int number;
    const bool mutates;
    Random random;
    Meeting go;
    std::vector<Op> ops;
    std::unique_ptr<unsigned char[], void (*)(void*)> buffer;  // begins a page
    std::vector<Flight> flights;                               // submitted in this window; never moved while any is up
    std::atomic<uint32_t> flying{0};  // submitted and not called back; whoever reaps them lowers it
    std::thread thread;
  };

  static constexpr size_t kReadBuffer = 16 << 20;
  static constexpr size_t kWriteBuffer = 4 << 20;
  static constexpr size_t kMostReads = 128;
  static constexpr size_t kReadsAlone = 8;
  static constexpr uint32_t kMostFlying = 8;  // reads of one thread

  void loop(Worker* worker);
  void prepare(Worker* worker);
  void meet();
  void stay_on_core(const Worker& worker) const;
  void work(Worker* worker);
  void change(Worker* worker);
  void read(Worker* worker);
  void submit(Worker* worker, Op* op);
  static void landed(void* flight, ssize_t result);
  void land(Worker* worker, uint32_t most);

  System& system_;
  const Workload& workload_;
  std::atomic<uint64_t> clock_{1};
  std::atomic<uint32_t> changing_{0};  // mutators that have not finished their window
  Meeting ready_;
  Meeting start_;
  Meeting done_;
  uint32_t active_ = 0;  // the plan: leader writes, workers read between go and done_
  bool alone_ = false;
  bool stopping_ = false;
  Spot spot_;
  std::array<int, 2> files_{};
  cpu_set_t cores_;  // the caller's own choice, restored at the end
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace quire::judge
