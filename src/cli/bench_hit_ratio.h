// `quire bench hit-ratio`: miss ratios of replacement policies on traces, in simulation.
#pragma once

#include "cli/bench.h"

namespace quire {

// Prints a table, a line for each trace and size; returns an exit code. Throws BenchError.
int run_hit_ratio(const BenchOptions& options);

}  // namespace quire
