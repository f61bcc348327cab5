// A plain readahead window for each handle: starts on the second sequential miss, doubles, and carries a mark so that
// its reader starts the next window early. Thread safety: any number of threads may share a handle; a race between them
// can only start a window too many or too few.
#pragma once

#include <cstdint>

#include "cache/mapping.h"

namespace quire {

struct ReadaheadState {
  Atomic<std::uint64_t> next{UINT64_MAX};  // the page after the last window: a miss there is sequential
  Atomic<std::uint32_t> pages;             // of the last window; 0: none yet
};

struct ReadaheadPlan {
  std::uint64_t last;  // fill [page, last] now
  std::uint64_t mark;  // with the readahead mark here; UINT64_MAX: none
  unsigned order = 0;  // of the folios, at most
};

// A miss at `page`, wanted up to last_wanted; file_pages bounds the window.
ReadaheadPlan plan_miss(const Mapping& mapping, ReadaheadState* state, std::uint64_t page, std::uint64_t last_wanted,
                        std::uint64_t file_pages);

// What was really filled after plan_miss: the next miss is sequential if it comes right after it.
inline void note_filled(ReadaheadState* state, std::uint64_t end) {
  if (state != nullptr) state->next.store(end, memory_order_relaxed);
}

// The reader met the mark (and cleared it): starts the next window.
void start_next_window(Mapping& mapping, ReadaheadState* state, std::uint64_t file_pages);

}  // namespace quire
