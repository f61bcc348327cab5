// Counters of one cache's I/O: bumped by the device layer, read by statistics. Relaxed: each is a sum of its own and
// orders nothing.
#pragma once

#include <cstdint>

#include "sync/atomic.h"

namespace quire {

struct IoStats {
  Atomic<std::uint64_t> read_requests;
  Atomic<std::uint64_t> write_requests;
  Atomic<std::uint64_t> read_bytes;  // moved by successful requests
  Atomic<std::uint64_t> write_bytes;
  Atomic<std::uint64_t> flushes;
  Atomic<std::uint64_t> direct_fallbacks;  // requests the host refused under O_DIRECT, done through its cache instead
  Atomic<std::uint64_t> engine_fallbacks;  // batches run by plain system calls because io_uring was refused
  Atomic<std::uint64_t> ring_setups;
  Atomic<std::uint64_t> fixed_requests;    // of the I/O thread's ring, through registered buffers
  Atomic<std::uint64_t> buffer_fallbacks;  // of the same that lay in the arena, but could not
  Atomic<std::uint64_t> aio_requests;      // that the kernel took from their submitters themselves (aio_queue.h)
  Atomic<std::uint64_t> registered_bytes;  // now; pinned memory
  Atomic<std::uint64_t> errors;            // requests and flushes that failed

  static void add(Atomic<std::uint64_t>& counter, std::uint64_t amount = 1) noexcept {
    counter.fetch_add(amount, memory_order_relaxed);
  }
  static std::uint64_t get(const Atomic<std::uint64_t>& counter) noexcept { return counter.load(memory_order_relaxed); }
};

}  // namespace quire
