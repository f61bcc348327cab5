// cat, cp and stat: the work behind the commands. Each returns an exit code and has reported what went wrong.
// memory: bytes given to the cache, 0 for the library's default.
#pragma once

#include <cstdint>
#include <string>

namespace quire {

int cat_file(const std::string& path, std::uint64_t memory);
int copy_file(const std::string& source, const std::string& destination, std::uint64_t memory);
int stat_file(const std::string& path, std::uint64_t memory);

}  // namespace quire
