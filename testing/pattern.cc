// The words that name their writer: see pattern.h. No shared state, no locks.
#include "testing/pattern.h"

#include <algorithm>
#include <cstring>

namespace quire::judge {
namespace {

constexpr uint64_t kMagic = 0xB17;
constexpr int kMagicShift = 52;
constexpr int kFileShift = 46;
constexpr int kOperationShift = 16;
constexpr uint64_t kOperationMask = (uint64_t{1} << 30) - 1;
constexpr uint64_t kPositionMask = (uint64_t{1} << kOperationShift) - 1;

constexpr uint64_t kFirst = 0xD6E8FEB86659FD93;
constexpr uint64_t kSecond = 0x9E3779B97F4A7C15;

// The inverse of an odd number modulo 2^64: each step of Newton's iteration doubles the correct bits.
constexpr uint64_t inverse(uint64_t odd) {
  uint64_t result = odd;
  for (int i = 0; i < 6; ++i) result *= 2 - odd * result;
  return result;
}
static_assert(kFirst * inverse(kFirst) == 1);
static_assert(kSecond * inverse(kSecond) == 1);

uint64_t mix(uint64_t x) {
  x ^= x >> 32;
  x *= kFirst;
  x ^= x >> 32;
  x *= kSecond;
  x ^= x >> 32;
  return x;
}

uint64_t unmix(uint64_t x) {
  x ^= x >> 32;
  x *= inverse(kSecond);
  x ^= x >> 32;
  x *= inverse(kFirst);
  x ^= x >> 32;
  return x;
}

uint64_t load_word(const unsigned char* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

unsigned char pattern_byte(uint64_t tag, uint64_t index) {
  return static_cast<unsigned char>(mix(tag | (index / 8)) >> (8 * (index % 8)));
}

bool decode(uint64_t word, uint64_t* tag, uint64_t* position) {
  const uint64_t plain = unmix(word);
  if (plain >> kMagicShift != kMagic) return false;
  *tag = plain & ~kPositionMask;
  *position = plain & kPositionMask;
  return true;
}

void push_unnamed(const unsigned char* bytes, size_t from, size_t to, std::vector<NamedRun>* runs) {
  while (from < to) {
    size_t end = from;
    while (end < to && bytes[end] == 0) ++end;
    // A lone zero byte says nothing; a few together are a hole.
    const bool zero = end - from >= 4 || (end - from == to - from && (end - from) > 0);
    if (!zero) {
      end = from;
      while (end < to && !(end + 4 <= to && std::memcmp(bytes + end, "\0\0\0", 4) == 0)) ++end;
      if (end == from) end = to;
    }
    runs->push_back({zero ? NamedRun::Origin::kZero : NamedRun::Origin::kUnknown, 0, from, end - from});
    from = end;
  }
}

}  // namespace

uint64_t make_tag(unsigned file, uint64_t operation) {
  return kMagic << kMagicShift | uint64_t{file % kMaxFiles} << kFileShift |
         (operation & kOperationMask) << kOperationShift;
}

unsigned tag_file(uint64_t tag) { return static_cast<unsigned>(tag >> kFileShift) % kMaxFiles; }

uint64_t tag_operation(uint64_t tag) { return tag >> kOperationShift & kOperationMask; }

void fill_pattern(unsigned char* out, size_t count, uint64_t tag, uint64_t begin) {
  size_t done = 0;
  while (done < count && (begin + done) % 8 != 0) {
    out[done] = pattern_byte(tag, begin + done);
    ++done;
  }
  for (; done + 8 <= count; done += 8) {
    const uint64_t word = mix(tag | (begin + done) / 8);
    std::memcpy(out + done, &word, sizeof word);
  }
  for (; done < count; ++done) out[done] = pattern_byte(tag, begin + done);
}

size_t pattern_mismatch(const unsigned char* bytes, size_t count, uint64_t tag, uint64_t begin) {
  size_t done = 0;
  while (done < count && (begin + done) % 8 != 0) {
    if (bytes[done] != pattern_byte(tag, begin + done)) return done;
    ++done;
  }
  while (done + 8 <= count && load_word(bytes + done) == mix(tag | (begin + done) / 8)) done += 8;
  while (done < count && bytes[done] == pattern_byte(tag, begin + done)) ++done;
  return done;
}

std::vector<NamedRun> name_runs(const unsigned char* bytes, size_t count) {
  std::vector<NamedRun> runs;
  size_t settled = 0;  // everything before is in runs
  size_t at = 0;
  while (at + 8 <= count) {
    uint64_t tag;
    uint64_t position;
    if (!decode(load_word(bytes + at), &tag, &position)) {
      ++at;
      continue;
    }
    size_t start = at;
    uint64_t index = position * 8;
    while (start > settled && index > 0 && bytes[start - 1] == pattern_byte(tag, index - 1)) --start, --index;
    const size_t length = pattern_mismatch(bytes + start, count - start, tag, index);
    push_unnamed(bytes, settled, start, &runs);
    runs.push_back({NamedRun::Origin::kWriter, tag, start, length});
    settled = at = start + length;
  }
  push_unnamed(bytes, settled, count, &runs);
  return runs;
}

std::string origin_name(const NamedRun& run) {
  switch (run.origin) {
    case NamedRun::Origin::kZero:
      return "zero";
    case NamedRun::Origin::kUnknown:
      return "unnamed";
    case NamedRun::Origin::kWriter:
      break;
  }
  return "file " + std::to_string(tag_file(run.tag)) + " #" + std::to_string(tag_operation(run.tag));
}

}  // namespace quire::judge
