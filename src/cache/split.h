// Splitting a large folio in place: its frames become folios of their own, their bytes stay where they are.
// Guarantees: R1, R2.
//
// Who may split: the holder of the folio's lock, with the only references besides the mapping's, which are frozen
// meanwhile: whoever copies from a folio under a reference alone (a slow reader) relies on its frames staying its own.
// What readers meet, and what closes it:
//   a fast reader that found the folio before       its sequence is odd during the split, and another one after it
//   one that found it in the index, and looks at
//   the sequence only after the split                the identity: the page is not in what is left of the folio
//   a part, in the index or by a guess               its descriptor was complete and locked before the index showed it,
//                                                    and its sequence is odd until the index shows every part: who
//                                                    tries a lock without a reference looks at that first
//   an order that is smaller by the time it is used  whoever copies under the sequence alone loads the order once, and
//                                                    checks the place in the folio against it
//   somebody who waits for the folio's lock          had a reference: then there is no split
//   a view                                           shows the same frames as before; its one reference to the whole
//                                                    becomes one to each part
// Locks: folio > xarray; nothing waits.
#pragma once

#include <span>

#include "cache/mapping.h"

namespace quire {

// A further reference of the caller's, to the folio of one page: it follows the page.
struct HeldPage {
  std::uint64_t page;
  Folio** folio;
};

// Cuts the folio (locked, referenced by the caller, of this mapping) until the part that holds `page` has 2^order pages
// or fewer. held: the caller's further references to the folio. Every part is as uptodate, dirty and unflushed as the
// whole was. `folio` becomes the first part; the caller keeps its lock and reference and looks the others up. EBUSY: it
// is being written back, filled or used by somebody else; ENOMEM: no memory for the index. Then nothing has changed.
Status split_folio(Mapping& mapping, Folio& folio, std::uint64_t page, unsigned order,
                   std::span<const HeldPage> held = {});

// The order of the largest folio that may begin at `page` and holds no page past `last_page`.
inline unsigned order_within(std::uint64_t page, std::uint64_t last_page, unsigned max_order) {
  while (max_order != 0 && ((page & ((std::uint64_t{1} << max_order) - 1)) != 0 ||
                            last_page - page < (std::uint64_t{1} << max_order) - 1)) {
    --max_order;
  }
  return max_order;
}

}  // namespace quire
