// Contestants whose files stay cached: short-read, overwrite, mixed. Each makes its own scratch files and reads them
// whole before the first turn. All throw BenchError.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cli/bench_harness.h"

namespace quire {

// Through quire's C API. memory must hold the files.
std::unique_ptr<Contestant> make_cached_quire(const std::string& directory, std::uint64_t file_size, unsigned files,
                                              std::uint64_t memory);
// pread and pwrite on the kernel's page cache.
std::unique_ptr<Contestant> make_cached_kernel(const std::string& directory, std::uint64_t file_size, unsigned files);
// The bare copy out of private memory: what no cache can beat. Reads only.
std::unique_ptr<Contestant> make_cached_memcpy(std::uint64_t file_size, unsigned files);

}  // namespace quire
