// Which operations a window holds: choices from a seed, gathered around one spot of a file, so that reads and
// changes meet. Used by one thread at a time (a Random is a reader's own); no locks.
//
// Loads and stores in views: one aligned word of one file a window, chosen once all changes are planned (choose_word).
// quire promises of a view that each word is coherent, and no more, so the word is one of which that is all that is
// asked:
// - one a window, since a write puts its words there one after the other;
// - no truncation or collapse of the window reaches it, whatever their order: past the end of the file an access is
//   SIGBUS, or dropped;
// - what changes it neither changes a part of it only, nor copies it out of step (from an offset that is not a multiple
//   of 8: a word may then come in two parts), nor may extend the file, whose new size comes after the bytes;
// - no copy reads it: stores in views are not kept apart from a copy's two sides;
// - where it is stored to, reads that cover it read it alone: a longer one may mix the store with what else is changed.
#pragma once

#include <cstdint>
#include <optional>
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
  std::optional<uint64_t> word;  // the window's word of `file` for loads and stores in views
  bool stores = false;           // and there are stores
};

class Workload {
 public:
  // kinds: the operations that may be used; without a mutator among them windows hold reads only. Direct ones are both.
  Workload(uint64_t seed, WorkloadLimits limits, std::vector<OpKind> kinds);

  Random& random() { return random_; }
  bool reads() const { return !readers_.empty(); }
  bool mutates() const { return !mutators_.empty(); }
  bool uses(OpKind kind) const;

  // sizes: of all files, now.
  Spot choose_spot(const std::vector<uint64_t>& sizes);

  // `count` operations for one mutator thread; slot 0 is spot.file, slot 1 spot.other. Tags, threads and times
  // are the caller's.
  std::vector<Op> plan_mutator(const Spot& spot, const std::vector<uint64_t>& sizes, int count);

  // Sets spot->word, if loads or stores in views are used and there is a fitting one; without one, stores in views
  // leave the plans.
  void choose_word(const std::vector<uint64_t>& sizes, std::vector<std::vector<Op>>* plans, Spot* spot);

  // One read near the spot, random being the reader's own. A plain one, where the window has no word to load.
  Op plan_read(const Spot& spot, Random& random) const;

  // An operation that any file system having it would accept, for finding out which has; needs files of at
  // least 1 MiB.
  Op probe(OpKind kind) const;

 private:
  Op plan_op(OpKind kind, const Spot& spot, const std::vector<uint64_t>& sizes);
  static void go_direct(OpKind kind, uint64_t most, Random& random, Op* op);
  void plan_source(const Spot& spot, const std::vector<uint64_t>& sizes, Op* op);
  uint64_t choose_length();

  Random random_;
  const WorkloadLimits limits_;
  std::vector<OpKind> mutators_;
  std::vector<OpKind> readers_;
};

}  // namespace quire::judge
