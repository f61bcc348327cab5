// The lookaside: a direct-mapped table from pages of files to frames, which short hits ask before the index.
// Thread safety: any thread, no locks.
//
// A short hit spends most of its time and instructions on the way to its folio: in RCU, down the index (two or three
// loads, each waiting for the one before). This is one load, and needs no RCU: an entry is only a guess, descriptors
// are type-stable and the arena stays mapped, so whatever the guess, looking at it is safe; and the folio itself says,
// under a sequence that is even and stays the same until its bytes are in registers, whose page it is (read_hit.h).
// Whoever reads a page the longer way notes it. Pages that share an entry push each other out; nothing else is ever
// taken out, because a stale guess is refused by the folio.
#pragma once

#include <cstdint>

#include "quire/result.h"
#include "sync/atomic.h"

namespace quire {

class Lookaside {
 public:
  Lookaside() = default;
  ~Lookaside();
  Lookaside(const Lookaside&) = delete;
  Lookaside& operator=(const Lookaside&) = delete;

  // Entries for a cache of `frames` frames: the next power of two. Memory is used as entries are first noted.
  Status create(std::uint32_t frames);
  static constexpr std::size_t kBytesPerFrame = 8;  // at most, from 512 frames on

  // An entry is a frame's number + 1, or 0: nobody has noted it.
  void note(std::uint64_t place, std::uint32_t frame) {
    Atomic<std::uint32_t>& entry = entries_[place & mask_];
    if (entry.load(memory_order_relaxed) == frame + 1) return;
    if (entry.load(memory_order_relaxed) == 0) count_page(place & mask_);
    entry.store(frame + 1, memory_order_release);  // who is led to a descriptor (acquire) finds it constructed
  }
  // Neighbouring pages of a file have neighbouring entries; files begin anywhere.
  static std::uint64_t first_place(std::uint64_t file_id) { return (file_id * 0x9e3779b97f4a7c15u) >> 20; }

  std::int64_t memory_bytes() const { return memory_bytes_.load(memory_order_relaxed); }

  const Atomic<std::uint32_t>* entries() const { return entries_; }
  std::uint64_t mask() const { return mask_; }

 private:
  void count_page(std::uint64_t at);

  Atomic<std::uint32_t>* entries_ = nullptr;
  Atomic<std::uint8_t>* page_used_ = nullptr;  // by page of the table
  std::uint64_t mask_ = 0;
  Atomic<std::int64_t> memory_bytes_;
};

}  // namespace quire
