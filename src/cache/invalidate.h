// Taking folios out of a mapping and changing its end. Guarantees: R1, R2.
// The caller holds the range lock and the invalidate lock (remove) over what changes and around it, to multiples of
// PageCache::folio_alignment(), and has changed the backing: only then is anything here dropped or zeroed. A large
// folio on the edge of a range is split there: since the locks reach around it, nobody can have it in use for long.
// Locks: folio (one at a time, two edges ascending) > gate > xarray.
#pragma once

#include <cstdint>

#include "cache/mapping.h"

namespace quire {

// The size becomes new_size at one instant. Shrinking zeroes the rest of the last folio under the closed gate; what
// lies past the size is removed afterwards, folio by folio: no reader gets there any more.
void truncate_cache(Mapping& mapping, std::uint64_t new_size);

// [offset, end) reads as zeros and, if grow_to is not 0, the size is max(size, grow_to), at one instant for every
// reader. Folios that lie inside are removed first, one by one: a read that misses one waits for the range lock, so
// nobody sees anything new before the edges, at most two folios, are zeroed together with the change of size, under the
// gate.
void zero_cache(Mapping& mapping, std::uint64_t offset, std::uint64_t end, std::uint64_t grow_to);

// The folios of [first_page, last_page] are gone and the size becomes new_size: for what moves or replaces content and
// changes the size, which the caller's range lock holds still. What is to outlive the folios is on the backing. Nobody
// sees anything new before the last is removed, and nobody anything old after the size has changed.
void replace_cache(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, std::uint64_t new_size);

// Is the page in a folio of more than one page that is unstable?
bool unstable_large_folio_at(Mapping& mapping, std::uint64_t page);

// Removes the folios of [first_page, last_page] that are neither dirty nor unflushed.
void remove_clean_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page);

// Removes the folios of [first_page, last_page]; what is dirty among them is lost. A folio that also holds other pages,
// and cannot be split for lack of memory, is removed if it is stable, else left.
void remove_folios(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page);

}  // namespace quire
