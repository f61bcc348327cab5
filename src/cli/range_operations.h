// fallocate, clone, dedupe and exchange: the work behind the commands. Each returns an exit code and has reported what
// went wrong. Offsets and lengths in bytes; memory: bytes given to the cache, 0 for the library's default.
#pragma once

#include <cstdint>
#include <string>

namespace quire {

// mode: FALLOC_FL_*. With mode 0 a missing file is made.
int allocate_in_file(const std::string& path, int mode, std::uint64_t offset, std::uint64_t length,
                     std::uint64_t memory);

struct RangePair {
  std::string source;
  std::string destination;
  std::uint64_t from = 0;    // in the source
  std::uint64_t offset = 0;  // in the destination
  std::uint64_t length = 0;  // 0: to the end of the source
  std::uint64_t memory = 0;
};
int clone_files(const RangePair& ranges);  // makes a destination that is missing
int dedupe_files(const RangePair& ranges);
int exchange_files(const RangePair& ranges);

}  // namespace quire
