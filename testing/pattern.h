// Data that names its writer. Every 8-byte word an operation writes holds the operation's tag (file and number)
// and the word's position in the operation's data, mixed by an invertible function: two different words differ
// in nearly every byte, and any whole word found in a file can be traced back to who wrote it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace quire::judge {

// Bits of a word before mixing: 12 magic, 6 file, 30 operation, 16 position (so 512 KiB of data an operation).
inline constexpr int kMaxFiles = 64;
inline constexpr uint64_t kMaxDataBytes = (uint64_t{1} << 16) * 8;

// The tag of an operation: a word with position 0, unmixed.
uint64_t make_tag(unsigned file, uint64_t operation);
unsigned tag_file(uint64_t tag);
uint64_t tag_operation(uint64_t tag);

// Bytes [begin, begin + count) of the data of the operation with this tag.
void fill_pattern(unsigned char* out, size_t count, uint64_t tag, uint64_t begin);

// The index of the first byte that differs from fill_pattern's, or count.
size_t pattern_mismatch(const unsigned char* bytes, size_t count, uint64_t tag, uint64_t begin);

// A stretch of bytes with one origin, as far as the bytes themselves tell.
struct NamedRun {
  enum class Origin { kWriter, kZero, kUnknown };
  Origin origin;
  uint64_t tag;  // kWriter
  size_t offset;
  size_t length;
};

// Cuts bytes into runs. Stretches too short to hold a whole word stay kUnknown.
std::vector<NamedRun> name_runs(const unsigned char* bytes, size_t count);

// "file 1 operation 57", "zero" or "unnamed".
std::string origin_name(const NamedRun& run);

}  // namespace quire::judge
