// How often a policy misses on a trace, at a cache size given as a fraction of the trace's distinct blocks.
// Place: simulation, on top; used by `quire bench hit-ratio`.
#pragma once

#include <cstdint>
#include <string_view>

#include "simulation/trace.h"

namespace quire::simulation {

// Fraction of the distinct blocks, rounded to the nearest whole frame (halves up), at least one.
std::uint32_t frames_for(double fraction, std::uint32_t blocks);

// Runs the whole trace through a policy that begins empty; returns the misses. The policy's name is a known one.
std::uint64_t count_misses(std::string_view policy, const Trace& trace, std::uint32_t frames);

}  // namespace quire::simulation
