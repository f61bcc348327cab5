// Traces of block numbers: which block was requested, request after request.
//
// Two forms. Text: one decimal block number a line; blank lines and lines with an asterisk are skipped. Binary: 32-bit
// little-endian block numbers, nothing else. A file is binary where its first 4096 bytes hold a byte that is neither
// printable ASCII nor white space (small numbers have zero bytes). Both may be compressed, see decompress.h.
// Place: simulation, over decompress.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quire/result.h"
#include "simulation/block_lists.h"

namespace quire::simulation {

// Blocks are renumbered in the order of their first requests, so that policies can index arrays by them.
struct Trace {
  std::string name;             // the file's, without directories
  std::vector<Block> requests;  // each below `blocks`
  std::uint32_t blocks = 0;     // distinct ones
};

// Errors: that of open or read; EINVAL for what is no trace. The recorded cause names the line, or the offset in bytes
// (of the decompressed bytes in a binary trace, of the file where decompression fails), but not the file.
Result<Trace> read_trace(const std::string& path);

// The same of bytes that are in memory.
Result<Trace> parse_trace(std::string_view content);

}  // namespace quire::simulation
