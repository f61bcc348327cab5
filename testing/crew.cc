// The judge's threads: see crew.h.
#include "testing/crew.h"

#include <linux/falloc.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "testing/pattern.h"

namespace quire::judge {
namespace {

constexpr size_t kTailPromise = 1024;  // reads up to here leave the bytes past their count alone (R2)
constexpr unsigned char kTailMark = 0xA5;
constexpr size_t kPage = 4096;

int fallocate_mode(const Op& op) {
  const int keep = op.keep_size ? FALLOC_FL_KEEP_SIZE : 0;
  switch (op.kind) {
    case OpKind::kPunch:
      return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    case OpKind::kZero:
      return FALLOC_FL_ZERO_RANGE | keep;
    case OpKind::kCollapse:
      return FALLOC_FL_COLLAPSE_RANGE;
    case OpKind::kInsert:
      return FALLOC_FL_INSERT_RANGE;
    case OpKind::kUnshare:
      return FALLOC_FL_UNSHARE_RANGE | keep;
    default:
      return keep;
  }
}

int64_t access_view(System& system, int file, const Op& op, unsigned char* buffer) {
  uint64_t word;
  std::memcpy(&word, buffer, sizeof word);
  const int status =
      op.kind == OpKind::kRead ? system.view_load(file, op.offset, &word) : system.view_store(file, op.offset, word);
  std::memcpy(buffer, &word, sizeof word);
  return status == 0 ? static_cast<int64_t>(sizeof word) : status;
}

int submit_to(System& system, int file, const Op& op, unsigned char* buffer, System::Done done, void* argument) {
  const bool direct = op.via == Via::kDirectAsync;
  return op.kind == OpKind::kRead ? system.submit_read(file, buffer, op.length, op.offset, direct, done, argument)
                                  : system.submit_write(file, buffer, op.length, op.offset, direct, done, argument);
}

// Runs callbacks; what is in flight cannot be given up, so that an error ends the program.
void reap(System& system, unsigned min) {
  const int ran = system.reap(min, 64);
  if (ran < 0) {
    std::fprintf(stderr, "torture: reaping failed: %s (%s)\n", std::strerror(-ran), system.last_error().c_str());
    std::abort();
  }
  if (ran == 0) sched_yield();
}

// For quiet times: nobody else reaps.
int64_t submit_and_wait(System& system, int file, const Op& op, unsigned char* buffer) {
  struct Answer {
    bool done = false;
    ssize_t result = 0;
  } answer;
  const auto done = [](void* argument, ssize_t result) { *static_cast<Answer*>(argument) = {true, result}; };
  if (const int status = submit_to(system, file, op, buffer, done, &answer); status != 0) return status;
  while (!answer.done) reap(system, 1);
  return answer.result;
}

int64_t call(System& system, int file, int source, const Op& op, unsigned char* buffer) {
  if (op.via == Via::kView) return access_view(system, file, op, buffer);
  if (op.via == Via::kAsync || op.via == Via::kDirectAsync) return submit_and_wait(system, file, op, buffer);
  if (op.via == Via::kDirect) {
    return op.kind == OpKind::kRead ? system.read_direct(file, buffer, op.length, op.offset)
                                    : system.write_direct(file, buffer, op.length, op.offset);
  }
  switch (op.kind) {
    case OpKind::kRead:
      return system.read(file, buffer, op.length, op.offset);
    case OpKind::kWrite:
      return system.write(file, buffer, op.length, op.offset);
    case OpKind::kAppend:
      return system.append(file, buffer, op.length);
    case OpKind::kTruncate:
      return system.truncate(file, op.offset);
    case OpKind::kClone:
      return system.clone(source, op.source_offset, file, op.offset, op.length);
    case OpKind::kDedupe:
      return system.dedupe(source, op.source_offset, file, op.offset, op.length);
    case OpKind::kExchange:
      return system.exchange(source, op.source_offset, file, op.offset, op.length);
    case OpKind::kCopy:
      return system.copy(source, op.source_offset, file, op.offset, op.length);
    default:
      return system.fallocate(file, fallocate_mode(op), op.offset, op.length);
  }
}

// The memory of an operation: by kCall wherever it comes, else at its skew from a page boundary.
size_t place_for(const Op& op, size_t used) {
  return op.via == Via::kCall ? used : (used + kPage - 1) / kPage * kPage + op.skew;
}

bool marks_tail(const System& system, const Op& op) {
  return op.kind == OpKind::kRead && op.via != Via::kView && op.length <= kTailPromise && system.keeps_tail();
}

void before_call(const System& system, const Op& op, unsigned char* buffer) {
  if (marks_tail(system, op)) std::memset(buffer, kTailMark, op.length);
}

void after_call(const System& system, Op* op, unsigned char* buffer) {
  if (op->kind != OpKind::kRead) return;
  op->data = buffer;
  if (op->result > static_cast<int64_t>(op->length)) op->result = -EOVERFLOW;
  if (op->result < 0 || !marks_tail(system, *op)) return;
  op->spoiled = std::any_of(buffer + op->result, buffer + op->length, [](unsigned char b) { return b != kTailMark; });
}

bool writes_data(OpKind kind) { return kind == OpKind::kWrite || kind == OpKind::kAppend; }

void spin(uint64_t turns) {
  for (uint64_t i = 0; i < turns; ++i) __builtin_ia32_pause();
}

}  // namespace

void execute(System& system, const std::array<int, 2>& files, Op* op, unsigned char* buffer) {
  before_call(system, *op, buffer);
  op->result = call(system, files[op->slot], files[op->source_slot], *op, buffer);
  after_call(system, op, buffer);
}

Crew::Worker::Worker(int number_, bool mutates_, uint64_t seed)
    : number(number_),
      mutates(mutates_),
      random(seed * 64 + static_cast<uint64_t>(number_) + 1),
      buffer(static_cast<unsigned char*>(std::aligned_alloc(kPage, mutates_ ? kWriteBuffer : kReadBuffer)), std::free) {
  if (buffer == nullptr) std::abort();
  flights.reserve(2 * kMostReads);
}

Crew::Crew(System& system, const Workload& workload, int threads, uint64_t seed)
    : system_(system), workload_(workload) {
  CPU_ZERO(&cores_);
  sched_getaffinity(0, sizeof cores_, &cores_);
  for (int i = 0; i < threads; ++i) workers_.push_back(std::make_unique<Worker>(i, i % 2 == 1, seed));
  for (size_t i = 1; i < workers_.size(); ++i) {
    Worker* worker = workers_[i].get();
    worker->thread = std::thread([this, worker] { loop(worker); });
  }
  stay_on_core(*workers_[0]);
}

Crew::~Crew() {
  stopping_ = true;
  for (const auto& worker : workers_) worker->go.arrive();
  for (const auto& worker : workers_) {
    if (worker->thread.joinable()) worker->thread.join();
  }
  sched_setaffinity(0, sizeof cores_, &cores_);
}

// A changing and a reading thread beside each other on one core would never meet: spread them.
void Crew::stay_on_core(const Worker& worker) const {
  const int cores = CPU_COUNT(&cores_);
  if (cores < 2) return;
  // 0 reads, 1 changes, 2 reads, 3 changes: any one of a kind meets one of the other elsewhere.
  const bool enough = static_cast<int>(workers_.size()) <= cores;
  int wanted = enough ? worker.number : (worker.number + worker.number / 2) % cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &cores_) || wanted-- > 0) continue;
    cpu_set_t mine;
    CPU_ZERO(&mine);
    CPU_SET(core, &mine);
    sched_setaffinity(0, sizeof mine, &mine);
    return;
  }
}

// Everyone starts together: after a meeting that may give the core away, one that does not.
void Crew::meet() {
  ready_.arrive();
  ready_.spin_until(active_);
  if (static_cast<int>(active_) > CPU_COUNT(&cores_)) return;
  start_.arrive();
  start_.spin_shortly(active_);
}

void Crew::run(const Spot& spot, std::vector<std::vector<Op>> plans, int readers, Window* window) {
  std::vector<Worker*> crew;
  for (size_t i = 0; i < plans.size(); ++i) {
    Worker* worker = workers_[2 * i + 1].get();
    worker->ops = std::move(plans[i]);
    crew.push_back(worker);
  }
  for (int i = 1; i < readers; ++i) crew.push_back(workers_[2 * static_cast<size_t>(i)].get());
  spot_ = spot;
  files_ = window->files;
  alone_ = plans.empty();
  active_ = static_cast<uint32_t>(crew.size()) + 1;
  changing_.store(static_cast<uint32_t>(plans.size()));
  ready_.reset();
  start_.reset();
  done_.reset();
  for (Worker* worker : crew) worker->go.arrive();

  Worker* leader = workers_[0].get();
  meet();
  work(leader);
  done_.arrive();
  done_.wait_until(active_);

  crew.push_back(leader);
  for (Worker* worker : crew) {
    std::vector<Op>& into = worker->mutates ? window->mutators : window->reads;
    into.insert(into.end(), worker->ops.begin(), worker->ops.end());
  }
}

void Crew::loop(Worker* worker) {
  stay_on_core(*worker);
  for (uint32_t window = 1;; ++window) {
    worker->go.wait_until(window);
    if (stopping_) return;
    if (worker->mutates) prepare(worker);
    meet();
    work(worker);
    done_.arrive();
  }
}

// Makes the data to be written, so that nothing but the calls remains for the window.
void Crew::prepare(Worker* worker) {
  size_t used = 0;
  for (Op& op : worker->ops) {
    op.thread = static_cast<uint16_t>(worker->number);
    if (!writes_data(op.kind)) continue;
    op.place = static_cast<uint32_t>(place_for(op, used));
    op.length = std::min<uint64_t>(op.length, kWriteBuffer - op.place);
    fill_pattern(worker->buffer.get() + op.place, op.length, op.tag, op.kind == OpKind::kWrite ? op.offset % 8 : 0);
    used = op.place + op.length;
  }
}

void Crew::work(Worker* worker) { worker->mutates ? change(worker) : read(worker); }

void Crew::submit(Worker* worker, Op* op) {
  unsigned char* const buffer = worker->buffer.get() + op->place;
  before_call(system_, *op, buffer);
  Flight* const flight = &worker->flights.emplace_back(Flight{this, worker, op, buffer});
  worker->flying.fetch_add(1);
  op->invoked = clock_.fetch_add(1);
  const int status = submit_to(system_, files_[op->slot], *op, buffer, landed, flight);
  if (status != 0) landed(flight, status);
}

void Crew::landed(void* argument, ssize_t result) {
  const auto* const flight = static_cast<Flight*>(argument);
  flight->op->returned = flight->crew->clock_.fetch_add(1);
  flight->op->result = result;
  after_call(flight->crew->system_, flight->op, flight->buffer);
  flight->worker->flying.fetch_sub(1);
}

// Reaps until at most so many of the worker's are in flight.
void Crew::land(Worker* worker, uint32_t most) {
  while (worker->flying.load() > most) reap(system_, 1);
}

void Crew::change(Worker* worker) {
  worker->flights.clear();
  for (Op& op : worker->ops) {
    spin(worker->random.below(worker->random.chance(80) ? 40 : 400));
    if (op.via == Via::kAsync || op.via == Via::kDirectAsync) {
      submit(worker, &op);
      continue;
    }
    op.invoked = clock_.fetch_add(1);
    execute(system_, files_, &op, worker->buffer.get() + op.place);
    op.returned = clock_.fetch_add(1);
  }
  land(worker, 0);
  changing_.fetch_sub(1);
}

void Crew::read(Worker* worker) {
  worker->ops.clear();
  if (!workload_.reads()) return;
  worker->ops.reserve(kMostReads);  // what is in flight points into it
  worker->flights.clear();
  const size_t most = alone_ ? kReadsAlone : kMostReads;
  size_t used = 0;
  do {
    Op op = workload_.plan_read(spot_, worker->random);
    op.thread = static_cast<uint16_t>(worker->number);
    op.place = static_cast<uint32_t>(place_for(op, used));
    used = op.place + op.length;
    if (used > kReadBuffer) break;
    worker->ops.push_back(op);
    Op* const mine = &worker->ops.back();
    if (op.via == Via::kAsync || op.via == Via::kDirectAsync) {
      submit(worker, mine);
      land(worker, worker->random.chance(30) ? 1 : kMostFlying);
      continue;
    }
    mine->invoked = clock_.fetch_add(1);
    execute(system_, files_, mine, worker->buffer.get() + mine->place);
    mine->returned = clock_.fetch_add(1);
  } while (worker->ops.size() < most && (alone_ || changing_.load() > 0));
  land(worker, 0);
}

}  // namespace quire::judge
