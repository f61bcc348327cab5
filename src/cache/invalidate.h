// Taking folios out of a mapping and changing its end. Guarantees: R1, R2.
// The caller holds the range lock and the invalidate lock (remove) over what changes, and has changed the backing: only
// then is anything here dropped or zeroed. Locks: folio (one at a time) > gate > xarray.
#pragma once

#include <cstdint>

#include "cache/mapping.h"

namespace quire {

// The size becomes new_size at one instant. Shrinking zeroes the rest of the last folio under the closed gate; what
// lies past the size is removed afterwards, folio by folio: no reader gets there any more.
void truncate_cache(Mapping& mapping, std::uint64_t new_size);

// Removes the folios of [first_page, last_page]; what is dirty among them is lost.
void remove_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page);

}  // namespace quire
