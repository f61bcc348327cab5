// `quire bench verity`: reading a verified file, the same file unverified, and a verified one whose hashes are read
// only when the data has come; and turning fs-verity on.
#pragma once

#include "cli/bench.h"
#include "cli/bench_report.h"

namespace quire {

// Rows: verity-seq (cold, 64 KiB), verity-rand (cold, 4 KiB, 32 in flight), both of a cache that is full of another
// file; verity-new (as verity-seq, with memory that nothing has used yet), verity-warm (4 KiB); each in the modes
// verity, plain and completion; verity-enable. Throws BenchError.
void bench_verity(const BenchOptions& options, unsigned threads, BenchReport& report);

}  // namespace quire
