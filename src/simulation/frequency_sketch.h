// How often each block was requested lately, roughly and in little memory: a count-min sketch (Cormode and
// Muthukrishnan 2005) of 4 rows of 4-bit counters, all halved after every 10 requests a frame. A request raises only
// the least of a block's counters (minimal increment; Einziger, Friedman and Manes, TinyLFU, ACM Transactions on
// Storage 2017, section 3), so that blocks which share a counter spoil each other's count less.
// Place: simulation, under W-TinyLFU.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "base/random.h"

namespace quire::simulation {

class FrequencySketch {
 public:
  explicit FrequencySketch(std::uint32_t frames)
      : sample_(kSamplePerFrame * std::uint64_t{frames}),
        shift_(64 -
               std::bit_width(std::max<std::uint64_t>(kCountersPerFrame * std::uint64_t{frames}, kLeastWidth) - 1)),
        rows_(kRows, std::vector<std::uint8_t>(std::size_t{1} << (64 - shift_))) {
    Random random(kSeed);
    for (std::uint64_t& multiplier : multipliers_) multiplier = random.next() | 1;
  }

  void add(std::uint64_t block) {
    const unsigned least = count(block);
    if (least == kMaxCount) return;
    for (unsigned row = 0; row < kRows; ++row) {
      std::uint8_t& counter = rows_[row][slot(row, block)];
      if (counter == least) ++counter;
    }
    if (++additions_ == sample_) halve();
  }

  // 0 .. 15
  unsigned count(std::uint64_t block) const {
    unsigned least = kMaxCount;
    for (unsigned row = 0; row < kRows; ++row) least = std::min<unsigned>(least, rows_[row][slot(row, block)]);
    return least;
  }

 private:
  static constexpr unsigned kRows = 4;
  static constexpr unsigned kMaxCount = 15;
  static constexpr unsigned kSamplePerFrame = 10;
  static constexpr unsigned kCountersPerFrame = 1;  // in a row
  static constexpr std::uint64_t kLeastWidth = 16;
  // Of the hashes. Another moves the mean miss ratio over the traces of docs/PERFORMANCE.md by up to 0.008.
  static constexpr std::uint64_t kSeed = 106;

  // Multiply-shift hashing (Dietzfelbinger et al. 1997): a row's high bits of the product.
  std::size_t slot(unsigned row, std::uint64_t block) const { return ((block + 1) * multipliers_[row]) >> shift_; }

  void halve() {
    for (auto& row : rows_) {
      for (std::uint8_t& counter : row) counter >>= 1;
    }
    additions_ /= 2;
  }

  const std::uint64_t sample_;
  const int shift_;
  std::uint64_t multipliers_[kRows];
  std::vector<std::vector<std::uint8_t>> rows_;  // a byte for each counter of 4 bits
  std::uint64_t additions_ = 0;
};

}  // namespace quire::simulation
