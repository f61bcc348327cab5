// The calling thread's own ring: made at its first batch, torn down when it exits. What a thread waits for itself costs
// no wake-up of another thread. Locks: the fork guard's, when the ring is made or torn down.
#pragma once

#include "device/device.h"
#include "device/io_stats.h"

namespace quire {

inline constexpr unsigned kThreadRingEntries = 64;

// Runs begun requests (linked through next) to their end and returns true; false where this thread has no ring
// (refused, or the thread is exiting): then nothing was touched.
bool thread_ring_run(Request* requests, IoStats& stats);

}  // namespace quire
