// Matching of fault rules, and what each does to a request.
#include "device/faulty_device.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "sync/clock.h"

namespace quire {

LockClass FaultyDevice::lock_class_("device.faulty");

// A request on its way: allocated by the call that brings it, freed when it is done.
struct FaultyDevice::Pending {
  FaultyDevice* device = nullptr;
  Request* outer = nullptr;
  Request piece;  // at the inner device
  std::vector<iovec> piece_buffers;
  FaultKind kind = FaultKind::none;
  int errnum = 0;
  std::int64_t delay_ns = 0;
  std::uint64_t arrival = 0;
  std::uint64_t length = 0;
  std::uint64_t cut = 0;          // torn: bytes that reach the inner device; split: length of the first piece
  std::uint64_t piece_begin = 0;  // within the request
  std::uint64_t piece_length = 0;
  std::int64_t result = 0;
  Batch* batch = nullptr;  // only under reorder

  // Aims `piece` at [begin, end) of the request. False where that is empty.
  bool aim(std::uint64_t begin, std::uint64_t end);
  bool aim_first();
  // Takes the piece's result; true if `piece` now is the next one to be run.
  bool next_piece();
};

// Requests of one submit() that are reported together; all under the device's mutex.
struct FaultyDevice::Batch {
  std::vector<Pending*> finished;
  std::size_t expected = 0;
};

bool FaultyDevice::Pending::aim(std::uint64_t begin, std::uint64_t end) {
  piece_begin = begin;
  piece_length = end - begin;
  piece_buffers.clear();
  std::uint64_t at = 0;
  for (const iovec& buffer : outer->buffers) {
    const std::uint64_t from = std::max(begin, at);
    const std::uint64_t to = std::min(end, at + buffer.iov_len);
    if (from < to) piece_buffers.push_back({static_cast<char*>(buffer.iov_base) + (from - at), to - from});
    at += buffer.iov_len;
  }
  piece.op = outer->op;
  piece.path = outer->path;
  piece.offset = outer->offset + begin;
  piece.buffers = piece_buffers;
  piece.done = piece_done;
  piece.context = this;
  return piece_length > 0;
}

bool FaultyDevice::Pending::aim_first() {
  switch (kind) {
    case FaultKind::error:
      result = -errnum;
      return false;
    case FaultKind::lost:
      result = static_cast<std::int64_t>(length);
      return false;
    case FaultKind::torn:
      result = -errnum;
      return aim(0, cut);
    case FaultKind::split:
      return aim(0, cut);
    default:
      aim(0, length);
      return true;
  }
}

bool FaultyDevice::Pending::next_piece() {
  if (piece.result < 0) {
    result = piece.result;
    return false;
  }
  if (kind == FaultKind::torn) return false;  // its result is set
  result += piece.result;
  const bool whole = piece.result == static_cast<std::int64_t>(piece_length);
  if (kind != FaultKind::split || piece_begin > 0 || !whole) return false;
  return aim(cut, length);
}

FaultyDevice::FaultyDevice(Device& inner, std::uint64_t seed) : inner_(inner), random_(seed) {}

FaultyDevice::~FaultyDevice() {
  delay_.stop();
  MutexLock lock(mutex_);
  CHECK(in_flight_ == 0);
}

void FaultyDevice::set_plan(FaultPlan plan) {
  MutexLock lock(mutex_);
  CHECK(plan.sector_size > 0);
  plan_ = std::move(plan);
  rule_states_.assign(plan_.rules.size(), {});
  flushes_ = 0;
}

bool FaultyDevice::hits(std::size_t index, const Request& request, std::uint64_t length) {
  const FaultRule& rule = plan_.rules[index];
  RuleState& state = rule_states_[index];
  const bool write_only = rule.kind == FaultKind::torn || rule.kind == FaultKind::lost;
  if (request.op == IoOp::read ? !rule.reads || write_only : !rule.writes) return false;
  if (request.offset > rule.last || request.offset + length <= rule.first) return false;
  if (state.matched++ < rule.skip) return false;
  if (state.hits >= rule.times || !random_.one_in(rule.one_in)) return false;
  ++state.hits;
  return true;
}

// A sector boundary inside the request, as a length from its start. 0 if may_be_nothing chose so, or none is inside.
std::uint64_t FaultyDevice::cut(const Request& request, std::uint64_t length, bool may_be_nothing) {
  const std::uint64_t sector = plan_.sector_size;
  const std::uint64_t to_boundary = sector - request.offset % sector;
  const std::uint64_t boundaries = length > to_boundary ? (length - to_boundary - 1) / sector + 1 : 0;
  const std::uint64_t choices = boundaries + (may_be_nothing ? 1 : 0);
  if (choices == 0) return 0;
  const std::uint64_t choice = random_.below(choices);
  if (choice == boundaries) return 0;
  return to_boundary + choice * sector;
}

void FaultyDevice::decide(Pending& pending) {
  const Request& request = *pending.outer;
  pending.device = this;
  pending.arrival = arrivals_++;
  pending.length = request.length();
  ++in_flight_;
  for (std::size_t i = 0; i < plan_.rules.size(); ++i) {
    if (!hits(i, request, pending.length)) continue;
    const FaultRule& rule = plan_.rules[i];
    pending.kind = rule.kind;
    pending.errnum = rule.errnum;
    pending.delay_ns = rule.delay_ns;
    break;
  }
  if (pending.kind == FaultKind::torn) pending.cut = cut(request, pending.length, true);
  if (pending.kind == FaultKind::split) {
    pending.cut = cut(request, pending.length, false);
    if (pending.cut == 0) pending.kind = FaultKind::none;  // one sector cannot come in two
  }
}

void FaultyDevice::shuffle(std::vector<Pending*>& items) {
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random_.below(i)]);
}

void FaultyDevice::record(const Pending& pending) {
  MutexLock lock(mutex_);
  --in_flight_;
  const FaultOp op = pending.outer->op == IoOp::read ? FaultOp::read : FaultOp::write;
  records_.push_back({op, pending.kind, pending.arrival, pending.outer->offset, pending.length, pending.result});
}

void FaultyDevice::execute(std::span<Request* const> batch) {
  std::vector<Pending> all(batch.size());
  std::vector<Request*> pieces;
  std::int64_t delay_ns = 0;
  bool hold = false;
  {
    MutexLock lock(mutex_);
    for (std::size_t i = 0; i < batch.size(); ++i) {
      all[i].outer = batch[i];
      decide(all[i]);
    }
  }
  for (Pending& pending : all) {
    if (pending.kind == FaultKind::delay) delay_ns = std::max(delay_ns, pending.delay_ns);
    if (pending.kind == FaultKind::hold) hold = true;
    if (pending.aim_first()) pieces.push_back(&pending.piece);
  }
  while (!pieces.empty()) {
    inner_.execute(pieces);
    std::erase_if(pieces, [](Request* piece) { return !static_cast<Pending*>(piece->context)->next_piece(); });
  }
  if (delay_ns > 0) {
    timespec left{delay_ns / 1'000'000'000, delay_ns % 1'000'000'000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
  }
  if (hold) wait_for_release();
  for (Pending& pending : all) {
    record(pending);
    pending.outer->result = pending.result;
  }
}

void FaultyDevice::submit(std::span<Request* const> batch) {
  std::vector<Pending*> all;
  {
    MutexLock lock(mutex_);
    auto together = plan_.reorder ? std::make_unique<Batch>() : nullptr;
    for (Request* request : batch) {
      auto* pending = new Pending;
      pending->outer = request;
      decide(*pending);
      const bool apart = pending->kind == FaultKind::delay || pending->kind == FaultKind::hold;
      if (together != nullptr && !apart) {
        pending->batch = together.get();
        ++together->expected;
      }
      all.push_back(pending);
    }
    if (together != nullptr && together->expected > 0) together.release();  // freed by the last that finishes
    if (plan_.reorder) shuffle(all);
  }
  // A Pending may be done and gone as soon as it is handed on.
  std::vector<Request*> pieces;
  std::vector<Pending*> without;
  for (Pending* pending : all) {
    if (pending->aim_first()) {
      pieces.push_back(&pending->piece);
    } else {
      without.push_back(pending);
    }
  }
  if (!pieces.empty()) inner_.submit(pieces);
  for (Pending* pending : without) {
    // From the delay thread: no callback runs in its submitter.
    delay_.post(
        pending->piece, 0,
        [](Request&, void* item) {
          auto* reported = static_cast<Pending*>(item);
          reported->device->conclude(*reported);
        },
        pending);
  }
}

void FaultyDevice::piece_done(Request& piece) {
  auto* pending = static_cast<Pending*>(piece.context);
  FaultyDevice& device = *pending->device;
  if (!pending->next_piece()) return device.conclude(*pending);
  Request* const next[] = {&pending->piece};
  device.inner_.submit(next);
}

void FaultyDevice::conclude(Pending& pending) {
  switch (pending.kind) {
    case FaultKind::delay:
      delay_.post(*pending.outer, pending.delay_ns, complete, &pending);
      return;
    case FaultKind::hold: {
      MutexLock lock(mutex_);
      held_.push_back(&pending);
      held_changed_.wake_all();  // under the mutex: whoever waits may release, finish and destroy the device
      return;
    }
    default:
      if (pending.batch != nullptr) return join_batch(pending);
      complete(*pending.outer, &pending);
  }
}

void FaultyDevice::join_batch(Pending& pending) {
  std::vector<Pending*> all;
  {
    MutexLock lock(mutex_);
    Batch* const batch = pending.batch;
    batch->finished.push_back(&pending);
    if (batch->finished.size() < batch->expected) return;
    all.swap(batch->finished);
    delete batch;
    shuffle(all);
  }
  for (Pending* each : all) complete(*each->outer, each);
}

void FaultyDevice::complete(Request& request, void* item) {
  const std::unique_ptr<Pending> pending(static_cast<Pending*>(item));
  pending->device->record(*pending);
  request.result = pending->result;
  request.done(request);  // may free the request
}

int FaultyDevice::flush(bool data_only) {
  std::uint64_t arrival;
  int errnum = 0;
  bool injected;
  {
    MutexLock lock(mutex_);
    arrival = arrivals_++;
    const std::uint64_t index = flushes_++;
    injected = index >= plan_.skip_flushes && index - plan_.skip_flushes < plan_.fail_flushes;
    if (injected) errnum = plan_.flush_errnum;
  }
  if (!injected) errnum = inner_.flush(data_only);
  MutexLock lock(mutex_);
  records_.push_back({FaultOp::flush, injected ? FaultKind::error : FaultKind::none, arrival, 0, 0, -errnum});
  return errnum;
}

std::size_t FaultyDevice::held() const {
  MutexLock lock(mutex_);
  return held_.size() + held_executes_;
}

bool FaultyDevice::wait_for_held(std::size_t count, std::int64_t timeout_ns) {
  const std::int64_t deadline = clock_ns(CLOCK_MONOTONIC) + timeout_ns;
  for (;;) {
    const std::uint32_t ticket = held_changed_.prepare();
    const std::int64_t left_ns = deadline - clock_ns(CLOCK_MONOTONIC);
    if (held() >= count || left_ns <= 0) {
      held_changed_.cancel();
      return held() >= count;
    }
    held_changed_.wait(ticket, left_ns);
  }
}

void FaultyDevice::release_held() {
  MutexLock lock(mutex_);
  ++release_epoch_;
  held_executes_ = 0;
  for (Pending* pending : held_) delay_.post(*pending->outer, 0, complete, pending);
  held_.clear();
  held_changed_.wake_all();
}

void FaultyDevice::wait_for_release() {
  std::uint64_t epoch;
  {
    MutexLock lock(mutex_);
    epoch = release_epoch_;
    ++held_executes_;
    held_changed_.wake_all();
  }
  for (;;) {
    const std::uint32_t ticket = held_changed_.prepare();
    bool released;
    {
      MutexLock lock(mutex_);
      released = release_epoch_ != epoch;
    }
    if (released) return held_changed_.cancel();
    held_changed_.wait(ticket);
  }
}

std::vector<FaultRecord> FaultyDevice::records() const {
  MutexLock lock(mutex_);
  return records_;
}

void FaultyDevice::clear_records() {
  MutexLock lock(mutex_);
  records_.clear();
}

}  // namespace quire
