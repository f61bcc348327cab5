// Contestants of range-mix: one cached file each, one thread that reads short blocks at random, one that by turns
// punches or zeroes a range at random and writes it anew. All throw BenchError.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cli/bench_harness.h"

namespace quire {

inline constexpr std::size_t kMixRange = 120'000;  // bytes that the changing thread punches, zeroes and writes

// worker() of a Work that writes is the changing thread, whose operations are the punches, the zeroings and the writes.
class RangeMixContestant : public Contestant {
 public:
  // From the next turn on reads are looked at, too: one that is part zeros, part data, and not because it lies across
  // the edge of a range, is torn. (Others may be; `quire torture` finds all.)
  virtual void check_reads(bool check) = 0;
  virtual std::uint64_t torn_reads() const = 0;
};

// Through quire's C API. memory must hold the file.
std::unique_ptr<RangeMixContestant> make_range_mix_quire(const std::string& directory, std::uint64_t file_size,
                                                         std::uint64_t memory);
// System calls on the kernel's page cache. Where the file system cannot zero ranges it is told once, and all are
// punched.
std::unique_ptr<RangeMixContestant> make_range_mix_kernel(const std::string& directory, std::uint64_t file_size);

}  // namespace quire
