// cat, cp and stat: the work behind the commands. Each returns an exit code and has reported what went wrong.
// memory: bytes given to the cache, 0 for the library's default.
#pragma once

#include <cstdint>
#include <string>

namespace quire {

// The file that a command reads, and what it must be (fs-verity); empty: whatever it is.
struct ReadFile {
  std::string path;
  std::string digest;
  std::string certificates;  // a file of them
};

int cat_file(const ReadFile& file, std::uint64_t memory);
int copy_file(const ReadFile& source, const std::string& destination, std::uint64_t memory);
int stat_file(const ReadFile& file, std::uint64_t memory);

}  // namespace quire
