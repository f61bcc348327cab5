// The one place where a thread of quire sleeps on a word: mutexes, wait queues and folio locks all end here, so that a
// deterministic scheduler has one place to drive. (io_uring waits are the device's.)
#pragma once

#include <cstdint>

#include "sync/atomic.h"

namespace quire {

inline constexpr int kWakeAll = 0x7fffffff;

// Sleeps while word == expected; returns on a wake, a signal or spuriously: always called in a loop.
// timeout_ns < 0 waits for ever; otherwise false is returned once it has passed.
// The kernel fences in both calls before it looks (a wake for sleepers, a wait at the word), so a store of any order
// before futex_wake is seen by the wait, or its sleeper by the wake. Neither orders the caller's data: the word's own
// acquire and release do.
bool futex_wait(Atomic<std::uint32_t>& word, std::uint32_t expected, std::int64_t timeout_ns = -1) noexcept;

// Wakes up to count sleepers. The memory of word need not be valid any more: the address alone is used.
void futex_wake(Atomic<std::uint32_t>& word, int count) noexcept;

// Lets another thread run, in a loop that waits for one which is about to finish a step.
void thread_yield() noexcept;

}  // namespace quire
