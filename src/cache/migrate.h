// Migration: folios leave a nearly empty block of frames for frames elsewhere, so that the block merges and serves a
// large folio again. Guarantees: R1, R2, D1.
//
// No folio changes its frame; it is replaced. States of the two descriptors:
//   old:   uptodate (even, locked) --frozen--> changing (odd) --index shows the new one--> removed (odd, no mapping)
//          --unlocked, grace period--> free
//   frame: free (odd, no mapping) --same index, bytes and state--> locked, in the index, odd --make even, refs 1,
//          unlock--> uptodate
// The old one's lock is only tried, and its one reference, the mapping's, frozen at 0 from before it is odd: so who has
// a reference never sees its folio replaced, and nobody waits but for lookups, which look again while it is frozen.
//
// What is handed over, and under which lock it cannot change meanwhile:
//   bytes, index, order, kUptodate        the old folio's lock; copied while it is even, so that hits go on
//   dirty, unflushed and its epoch        the xarray lock, in one section with the index: a flush or a failed one that
//                                         looks folios up by mark finds the old one before, or the new one after. The
//                                         marks stay: the entry is stored over. In writeback: not migrated
//   readahead's charge (kAhead)           taken off the old one by one atomic step, as by whoever settles it: so it is
//                                         settled once, whatever comes first. kReadahead: only who has a reference
//   position and age in the queue         the eviction mutex; the old one is out of the queue before it is unlocked
//   reference bit, owner                  copied; a bit set too late is lost, which is allowed
// Counts (resident, unstable, the budget) do not change.
//
// Who meets it, and what closes the race:
//   a fast reader that found the old one      its sequence is odd before any write can reach the new one
//   one led to it by the lookaside, later     odd until its next life; then the identity
//   a writer that found it without a          it tries the lock and checks the identity: no mapping. It is inside RCU,
//   reference (write_fast)                    so the lock of a next life is not there yet
//   slow readers, writers, writeback,         have a reference: no migration. Once it is frozen they get none, and look
//   removal, who waits for the lock           the page up again
//   reclaim                                   has the lock, and the folio is off the queue: no migration. Or we have
//                                             the lock: it passes the folio over
//   the budget's hand, going by descriptors   has a reference, or gets none of a frozen one
//   split                                     has the lock
// A folio that was in a view is not migrated: its frame must not be used again before it was punched (FolioPool).
// Locks: folio (*try*, old; the new one is born locked) > xarray, eviction; the pool's apart from these.
#pragma once

#include <cstdint>

#include "cache/page_cache.h"

namespace quire {

// Makes `frame` (free, a block of the caller's) the folio in the place of `folio`. True: `folio` is removed and the
// caller's, to be freed after a grace period. False: it is free, of another size, in use, locked or in writeback;
// nothing has changed, and the frame still is the caller's.
bool migrate_folio(PageCache& cache, Folio& folio, Folio& frame);

// Rebuilds a few free blocks of 2^order frames at most, those that cost the least: looks at a bounded number of
// descriptors, going on where the last call ended, and moves no more than half a block for each. No lock held; one
// thread at a time (the flusher's). Returns how many it rebuilt.
std::uint32_t migrate_to_rebuild(PageCache& cache, unsigned order, const Atomic<bool>& stop);

}  // namespace quire
