// Device for tests: passes requests to another and lets some of them fail, tear, get lost, be late or come back in
// another order, by rule and by seed. Any thread may call anything. Locks: its own mutex and the delay thread's, both
// leaves; callbacks run without them.
//
// Way of a submitted request: decide -> pieces at the inner device (none, one or two) -> conclude -> (held | delayed |
// waiting for its batch) -> done.
#pragma once

#include <cerrno>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/random.h"
#include "device/delay_thread.h"
#include "device/device.h"
#include "sync/mutex.h"
#include "sync/wait_queue.h"

namespace quire {

enum class FaultKind : std::uint8_t {
  none,
  error,  // nothing reaches the inner device; fails with errnum
  torn,   // writes: some first sectors reach it, perhaps none, never all; fails with errnum
  lost,   // writes: nothing reaches it; reports success
  split,  // a short transfer, continued: two pieces, one after the other
  delay,  // done at the inner device, reported delay_ns later
  hold,   // done at the inner device, reported after release_held()
};

// Hits requests that match: after `skip` of them, one in `one_in` at random, `times` at most. So the n-th write is
// {.kind = FaultKind::error, .reads = false, .skip = n - 1, .times = 1}.
struct FaultRule {
  FaultKind kind = FaultKind::error;
  bool reads = true;
  bool writes = true;
  std::uint64_t first = 0;  // bytes on the device: requests that touch [first, last]
  std::uint64_t last = UINT64_MAX;
  std::uint64_t skip = 0;
  std::uint64_t times = UINT64_MAX;
  std::uint64_t one_in = 1;
  int errnum = EIO;
  std::int64_t delay_ns = 0;
};

struct FaultPlan {
  std::vector<FaultRule> rules = {};  // the first that hits decides
  unsigned sector_size = 512;         // where transfers tear and split
  bool reorder = false;            // submit(): issues a batch in a random order, reports it in another once all is done
  std::uint64_t skip_flushes = 0;  // succeed first
  std::uint64_t fail_flushes = 0;  // then fail, without reaching the inner device
  int flush_errnum = EIO;
};

enum class FaultOp : std::uint8_t { read, write, flush };

// One finished operation, in order of completion.
struct FaultRecord {
  FaultOp op;
  FaultKind kind;
  std::uint64_t arrival;  // from 0 since the device was made
  std::uint64_t offset;
  std::uint64_t length;
  std::int64_t result;  // a flush: 0 or -errno
};

class FaultyDevice final : public Device {
 public:
  FaultyDevice(Device& inner, std::uint64_t seed);
  ~FaultyDevice() override;  // everything is done, nothing held

  void execute(std::span<Request* const> batch) override;
  void submit(std::span<Request* const> batch) override;
  int flush(bool data_only) override;

  void set_plan(FaultPlan plan);  // for requests that come later; counts of its rules begin at 0

  std::size_t held() const;
  bool wait_for_held(std::size_t count, std::int64_t timeout_ns);  // true once at least so many are held
  void release_held();  // those held now; callbacks run on a thread of the device

  std::vector<FaultRecord> records() const;
  void clear_records();

 private:
  struct Pending;
  struct Batch;
  struct RuleState {
    std::uint64_t matched = 0;
    std::uint64_t hits = 0;
  };

  void decide(Pending& pending) REQUIRES(mutex_);
  bool hits(std::size_t rule, const Request& request, std::uint64_t length) REQUIRES(mutex_);
  std::uint64_t cut(const Request& request, std::uint64_t length, bool may_be_nothing) REQUIRES(mutex_);
  void shuffle(std::vector<Pending*>& items) REQUIRES(mutex_);
  static void piece_done(Request& piece);
  void conclude(Pending& pending);
  void join_batch(Pending& pending);
  static void complete(Request& request, void* pending);
  void record(const Pending& pending) EXCLUDES(mutex_);
  void wait_for_release();

  static LockClass lock_class_;
  Device& inner_;
  mutable Mutex mutex_{lock_class_};
  Random random_ GUARDED_BY(mutex_);
  FaultPlan plan_ GUARDED_BY(mutex_);
  std::vector<RuleState> rule_states_ GUARDED_BY(mutex_);
  std::uint64_t flushes_ GUARDED_BY(mutex_) = 0;  // since set_plan
  std::uint64_t arrivals_ GUARDED_BY(mutex_) = 0;
  std::vector<FaultRecord> records_ GUARDED_BY(mutex_);
  std::vector<Pending*> held_ GUARDED_BY(mutex_);     // submitted ones
  std::size_t held_executes_ GUARDED_BY(mutex_) = 0;  // threads waiting inside execute()
  std::uint64_t release_epoch_ GUARDED_BY(mutex_) = 0;
  std::size_t in_flight_ GUARDED_BY(mutex_) = 0;
  WaitQueue held_changed_;
  DelayThread delay_{"quire-faulty"};
};

}  // namespace quire
