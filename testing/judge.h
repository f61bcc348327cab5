// The judge of R1: threads read and change a few files of a System at once, in short windows; every operation is
// recorded, and every window's history is checked for linearizability against the model file (checker.h).
//
// Threads: the caller leads (it plans, is one of the readers, and checks); the others wait for the window, meet
// spinning, run, and report done. Between windows nothing runs, and the content is known exactly.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "testing/checker.h"
#include "testing/history.h"
#include "testing/system.h"

namespace quire::judge {

struct JudgeOptions {
  double seconds = 5;
  uint64_t windows = 0;  // stop after so many; 0: time alone decides
  uint64_t seed = 1;
  std::vector<OpKind> ops{OpKind::kRead, OpKind::kWrite, OpKind::kAppend, OpKind::kTruncate};
  int threads = 4;                   // the leader included; at least 2
  int files = 4;                     // 1 to kMaxFiles
  uint64_t file_size = 2 << 20;      // about which sizes move; at least 1 MiB
  uint64_t max_operation = 1 << 20;  // longest read; writes stop at 256 KiB
  bool stop_at_first = false;
};

struct JudgeReport {
  std::array<uint64_t, kOpKinds> ops{};  // done, by what they were chosen as; reads are those of readers
  std::vector<OpKind> skipped;           // not supported here
  std::vector<std::string> reasons;      // why, of those that the system itself refused
  uint64_t windows = 0;
  uint64_t torn = 0;
  uint64_t foreign = 0;
  uint64_t lost = 0;
  double first_fault_seconds = 0;   // when the first was found
  std::string witness;              // the smallest, in words; empty if there is none
  std::vector<std::string> errors;  // operations that failed as they should not have (the first few)
  uint64_t error_count = 0;

  bool linearizable() const { return torn == 0 && foreign == 0 && lost == 0; }
  bool ok() const { return linearizable() && error_count == 0; }
};

// Runs to the end of the time or the windows; then all is synced (a failure of that is an error, too), the system
// finished (closed) afterwards and its files compared with the model once more. A system that cannot be set up gives
// errors and no windows.
JudgeReport judge(System& system, const JudgeOptions& options);

}  // namespace quire::judge
