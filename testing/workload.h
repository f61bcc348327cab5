// Which operations a window holds: choices from a seed, gathered around one spot of a file, so that reads and
// changes meet. Used by one thread at a time (a Random is a reader's own); no locks.
#pragma once

#include <cstdint>
#include <vector>

#include "testing/history.h"

namespace quire::judge {

// splitmix64: small, good enough for choices, any seed will do.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
  }
  // In [0, bound); 0 for bound 0.
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  // In [low, high].
  uint64_t between(uint64_t low, uint64_t high) { return low + below(high - low + 1); }
  bool chance(unsigned percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

struct WorkloadLimits {
  uint64_t file_size = 2 << 20;     // sizes stay between half of it and one and a half
  uint64_t max_change = 256 << 10;  // longest range of a mutator
  uint64_t max_read = 1 << 20;
  int files = 4;
};

// Where a few windows in a row happen.
struct Spot {
  int file = 0;
  int other = 0;  // another file for the operations that take two; `file` itself where there is one only
  uint64_t offset = 0;
  uint64_t length = 1;
  bool two_files = false;
  OpKind kind = OpKind::kWrite;  // what most mutators do here
};

class Workload {
 public:
  // kinds: the operations that may be used; without a mutator among them windows hold reads only.
  Workload(uint64_t seed, WorkloadLimits limits, std::vector<OpKind> kinds);

  Random& random() { return random_; }
  bool reads() const { return reads_; }
  bool mutates() const { return !mutators_.empty(); }
  bool uses(OpKind kind) const;

  // sizes: of all files, now.
  Spot choose_spot(const std::vector<uint64_t>& sizes);

  // `count` operations for one mutator thread; slot 0 is spot.file, slot 1 spot.other. Tags, threads and times
  // are the caller's.
  std::vector<Op> plan_mutator(const Spot& spot, const std::vector<uint64_t>& sizes, int count);

  // One read near the spot, random being the reader's own.
  Op plan_read(const Spot& spot, Random& random) const;

  // An operation that any file system having it would accept, for finding out which has; needs files of at
  // least 1 MiB.
  Op probe(OpKind kind) const;

 private:
  Op plan_op(OpKind kind, const Spot& spot, const std::vector<uint64_t>& sizes);
  void plan_source(const Spot& spot, const std::vector<uint64_t>& sizes, Op* op);
  uint64_t choose_length();

  Random random_;
  const WorkloadLimits limits_;
  std::vector<OpKind> mutators_;
  bool reads_ = false;
};

}  // namespace quire::judge
