// Gives up clean folios before reclaim would: for POSIX_FADV_DONTNEED, and behind who reads or writes only once.
// It drops as reclaim does, folio lock by try and references frozen at zero: nothing that is dirty, in use, being
// filled or written can go, no lock of a range is needed, and nobody is waited for.
#pragma once

#include <cstdint>

#include "cache/mapping.h"

namespace quire {

// Drops folios that lie wholly in [first_page, last_page] and that the handle with these owner bits brought in. alone:
// no other handle can have used them, so a set reference bit is this handle's own; else folios that were referenced or
// written since they came stay. Returns how many pages went.
std::uint64_t drop_own_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, std::uint32_t owner,
                              bool alone);

// The same for folios that came in with kDropBehind, whoever brought them. False: some were not clean yet, or in use.
bool drop_finished(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, bool alone);

}  // namespace quire
