// The time, in nanoseconds. In the sim build the scheduler's, which moves with its steps.
#pragma once

#include <cstdint>
#include <ctime>

#include "sync/sim.h"

namespace quire {

// Of CLOCK_MONOTONIC, CLOCK_REALTIME and their coarse variants.
inline std::int64_t clock_ns(clockid_t clock) noexcept {
#ifdef QUIRE_SIM
  if (sim::scheduler != nullptr) return sim::scheduler->now_ns();
#endif
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

}  // namespace quire
