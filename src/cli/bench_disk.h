// Contestants on a file that lies on disk: seq-read and rand-read, which only read it. All throw BenchError.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cli/bench_harness.h"

namespace quire {

struct DiskTarget {
  std::string directory;  // for the report
  std::string file;
  std::uint64_t file_size = 0;
  bool cold = true;          // else everything is read once before the first turn
  unsigned cache_flags = 0;  // of quire's caches, besides those that all commands have
  std::string other = {};    // a file with which a fresh cache is filled; empty: its memory is new
};

// Through quire; cold: a fresh cache of `memory` bytes each turn. With work.depth > 1 each thread has a cache of its
// own with a share of the memory, since quire_reap collects completions for whoever calls it.
std::unique_ptr<Contestant> make_disk_quire(const DiskTarget& target, const Work& work, std::uint64_t memory);

// Through system calls; cold: out of the kernel's cache before each turn. Random cold reads are O_DIRECT (buffered
// where that is refused, which is said on stderr): pread, or io_uring where work.depth > 1.
std::unique_ptr<Contestant> make_disk_kernel(const DiskTarget& target, const Work& work);

// Whether quire_submit_pread is there (not ENOSYS).
bool quire_reads_asynchronously(const DiskTarget& target, std::uint64_t memory);

}  // namespace quire
