// Ghosts: what reclaim leaves in the index for a folio that it took, so that the policy knows one that comes back soon
// (eviction.h). A ghost is a value entry; it may go at any time.
//
// Who changes them: reclaim leaves them (detach_folio) and an insertion takes them up (insert_new), each under the
// index's mutex; removal of a range drops them. What nobody comes back for is swept by the flusher's thread: a ghost
// costs as much of the index as a folio does, and a file that was streamed once would leave one for each page.
// Locks: the list of mappings' own, a leaf; sweeping takes the index's mutex, a slice at a time.
#pragma once

#include <cstdint>

#include "cache/eviction.h"
#include "cache/mapping_list.h"
#include "sync/atomic.h"

namespace quire {

class PageCache;
extern LockClass ghosts_lock_class;

class GhostKeeper {
 public:
  explicit GhostKeeper(PageCache& cache);
  GhostKeeper(const GhostKeeper&) = delete;
  GhostKeeper& operator=(const GhostKeeper&) = delete;

  // Under the mapping's index mutex: a ghost more, or fewer.
  void added(Mapping& mapping, std::uint64_t count = 1);
  void removed(Mapping& mapping, std::uint64_t count = 1);
  void forget(Mapping& mapping) { mappings_.forget(mapping); }

  std::uint64_t count() const { return count_.load(memory_order_relaxed); }
  bool due() const;
  bool room() const;  // may reclaim leave another? Memory comes first
  // Drops what no longer counts, until enough is gone or every mapping was looked at. On the flusher's thread.
  void sweep(const Atomic<bool>& stop);

 private:
  bool sweep_next(std::uint64_t within);
  void sweep_mapping(Mapping& mapping, const GhostAge& age, std::uint64_t within);

  PageCache& cache_;
  MappingList mappings_;  // with ghosts
  Atomic<std::uint64_t> count_;
};

}  // namespace quire
