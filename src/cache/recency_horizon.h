// How far back a cache ordered by recency would reach: the oldest last access among the pages that would fill it.
// Not thread-safe: its user holds a mutex.
//
// A page whose last access lies at or after the horizon has fewer than `capacity` frames of distinct pages accessed
// since, so an LRU cache of that capacity would still hold it: Mattson's stack distance (IBM Systems Journal 9(2),
// 1970), to the precision of a bucket, in O(1) amortised and 2 KiB. Last accesses are counted in buckets of 2^k ticks,
// of which a capacity spans 16 to 31; what is older than kBuckets of them is counted in the oldest.
//
//   oldest ...... horizon ...... newest        frames from the horizon on: at least the capacity,
//                 |<---- frames_within ---->|  and fewer without the horizon's own bucket
#pragma once

#include <cstdint>

namespace quire {

class RecencyHorizon {
 public:
  static constexpr std::uint64_t kBuckets = 256;

  // capacity > 0. Keeps what is counted; a horizon that has to move moves forward at once, back only as pages age.
  void set_capacity(std::uint64_t capacity);

  void add(std::uint64_t stamp, std::uint32_t frames);     // stamps of add never fall
  void remove(std::uint64_t stamp, std::uint32_t frames);  // accessed again, or gone

  bool reaches(std::uint64_t stamp) const { return bucket(stamp) >= horizon_; }
  bool full() const { return frames_within_ >= capacity_; }

 private:
  std::uint64_t bucket(std::uint64_t stamp) const {
    const std::uint64_t own = stamp >> shift_;
    return own < oldest_ ? oldest_ : own;
  }
  std::uint64_t& count(std::uint64_t at) { return counts_[at % kBuckets]; }
  void make_room(std::uint64_t newest);
  void advance(std::uint64_t newest);
  void recount(unsigned shift);

  std::uint64_t capacity_ = 1;
  unsigned shift_ = 0;
  std::uint64_t oldest_ = 0;
  std::uint64_t newest_ = 0;
  std::uint64_t horizon_ = 0;
  std::uint64_t frames_within_ = 0;
  std::uint64_t counts_[kBuckets] = {};
};

}  // namespace quire
