// Decides whether a window's history is linearizable: whether some order of its operations agrees with real time
// and gives every read and every result what it got (Wing and Gong's search, with Lowe's memory of the pairs
// (operations done, content) already tried). Exact: no sampling, no bound on the orders.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "testing/history.h"
#include "testing/model.h"

namespace quire::judge {

// The content after one order that explains everything; none if there is no such order.
std::optional<State> linearize(const Window& window);

// What is wrong with a window that cannot be linearized.
enum class Fault {
  kNone,
  kTorn,     // each byte has an explanation, no one instant has them all; or a change seen, then not seen
  kForeign,  // a byte that this file never held there, or not yet
  kLost,     // a read misses an operation that had completed
};
std::string_view fault_name(Fault fault);

struct Diagnosis {
  // Reads that by themselves do not fit; where all do, but not together, the window counts once.
  uint64_t torn = 0;
  uint64_t foreign = 0;
  uint64_t lost = 0;
  Fault fault = Fault::kNone;  // of the witness
  Window witness;              // the fewest operations found that still cannot be ordered
};

// For a window that linearize() refused. minimize: also look for the smallest witness (slower).
Diagnosis diagnose(const Window& window, bool minimize);

// What is wrong with one read (of window.reads, which has it alone).
Fault classify(const Window& window, const Op& read);

// Every content that some of the operations in some order may leave, real time among them respected, whether
// or not the others happened: visit(state, bits of the mutators that happened). Stops after `limit` states.
void for_each_content(const Window& window, size_t limit, const std::function<void(const State&, uint32_t)>& visit);

// The witness for people: operations with their times, reads as runs that name the writers, and why no order fits.
std::string explain(const Window& window, Fault fault);

}  // namespace quire::judge
