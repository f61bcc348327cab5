// Contestants of view: loads and stores in memory that shows a cached file, once it is there and as it is first
// touched. All throw BenchError.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cli/bench_harness.h"

namespace quire {

// A Work that is sequential touches each page of a mapping that is made anew before each turn, once; a random one loads
// (or stores) blocks of a mapping that stays. The file is in memory throughout.
class ViewContestant : public Contestant {
 public:
  virtual void map_anew(bool each_turn) = 0;  // from the next turn on
};

// quire's view of a file; memory must hold it.
std::unique_ptr<ViewContestant> make_view_quire(const std::string& directory, std::uint64_t file_size,
                                                std::uint64_t memory);
// The kernel's mapping of a file that lives in memory alone (tmpfs's, without a name).
std::unique_ptr<ViewContestant> make_view_tmpfs(std::uint64_t file_size);

}  // namespace quire
