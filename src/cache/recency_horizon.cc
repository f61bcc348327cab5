// Buckets of last accesses and the pointer into them.
#include "cache/recency_horizon.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace quire {

namespace {

constexpr unsigned kBucketsPerCapacityShift = 4;  // at least 16: a sixteenth of the cache is precise enough

}  // namespace

void RecencyHorizon::set_capacity(std::uint64_t capacity) {
  CHECK(capacity > 0);
  capacity_ = capacity;
  const unsigned width = static_cast<unsigned>(std::bit_width(capacity)) - 1;
  const unsigned shift = width > kBucketsPerCapacityShift ? width - kBucketsPerCapacityShift : 0;
  if (shift != shift_) recount(shift);
  advance(newest_);
}

// The buckets at another width. Pages of a bucket that is split count as its oldest.
void RecencyHorizon::recount(unsigned shift) {
  std::uint64_t old_counts[kBuckets];
  std::copy(counts_, counts_ + kBuckets, old_counts);
  const std::uint64_t first = oldest_;
  const std::uint64_t last = newest_;
  const unsigned old_shift = shift_;
  std::fill(counts_, counts_ + kBuckets, 0);
  shift_ = shift;
  newest_ = (last << old_shift) >> shift;
  oldest_ = newest_ < kBuckets ? 0 : newest_ - kBuckets + 1;
  horizon_ = oldest_;
  frames_within_ = 0;
  for (std::uint64_t at = first; at <= last; ++at) {
    count(bucket(at << old_shift)) += old_counts[at % kBuckets];
    frames_within_ += old_counts[at % kBuckets];
  }
}

void RecencyHorizon::make_room(std::uint64_t newest) {
  while (oldest_ + kBuckets <= newest) {
    const std::uint64_t merged = count(oldest_);
    count(oldest_) = 0;
    count(++oldest_) += merged;
    if (horizon_ > oldest_) continue;
    if (horizon_ == oldest_) frames_within_ += merged;  // they were short of the horizon; its bucket now has them
    horizon_ = oldest_;
  }
}

void RecencyHorizon::advance(std::uint64_t newest) {
  while (horizon_ < newest && frames_within_ - count(horizon_) >= capacity_) frames_within_ -= count(horizon_++);
}

void RecencyHorizon::add(std::uint64_t stamp, std::uint32_t frames) {
  newest_ = std::max(newest_, stamp >> shift_);
  make_room(newest_);
  count(newest_) += frames;
  frames_within_ += frames;
  advance(newest_);
}

// A bucket never goes below zero: a page whose ghost was lost is counted again when it comes back, and one whose stamp
// was too old to be kept exactly may be looked for in a bucket that is not its own.
void RecencyHorizon::remove(std::uint64_t stamp, std::uint32_t frames) {
  const std::uint64_t at = bucket(stamp);
  const std::uint64_t gone = std::min<std::uint64_t>(frames, count(at));
  count(at) -= gone;
  if (at >= horizon_) frames_within_ -= gone;
}

}  // namespace quire
