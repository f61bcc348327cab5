// Readahead windows. A handle follows a few sequential streams at once; each has a window, which starts small on the
// second sequential miss, doubles each time its reader meets the mark that it carries, and is read by quire's own
// thread: the mark lies on the window's first page, so the next window is on its way while this one is still unread (of
// a verified file the next two).
//
//   miss anywhere --> candidate (a page number) --miss right there--> stream --its mark is read--> next window, twice
//
// Random misses pass through the candidates and never touch a stream. A window shrinks to what the cache-wide budget
// (ahead_budget.h) and free frames give, and to half where its pages were evicted before they were used; it starts
// again small where its stream comes back after many other misses.
// Thread safety: any number of threads may share a handle; a race between them can only start a window too many or too
// few.  Locks: those of fill_ahead.
#pragma once

#include <array>
#include <cstdint>

#include "cache/mapping.h"

namespace quire {

enum class ReadaheadMode : std::uint8_t { normal, sequential, random };

struct ReadaheadState {
  struct Stream {
    Atomic<std::uint64_t> next;   // the page after all that was read or read ahead; 0: no stream
    Atomic<std::uint64_t> mark;   // marks in [mark, next) are those of windows not yet begun
    Atomic<std::uint32_t> pages;  // of the newest window, as planned; 0: none yet
    Atomic<std::uint32_t> used;   // `clock` when it last went on
  };
  static constexpr std::size_t kStreams = 4, kCandidates = 4;

  std::array<Stream, kStreams> streams;
  std::array<Atomic<std::uint64_t>, kCandidates> candidates;  // where a second miss makes a stream; 0: none
  Atomic<std::uint32_t> clock;                                // misses and marks
  Atomic<ReadaheadMode> mode;
};

struct ReadaheadPlan {
  std::uint64_t last;  // fill [page, last] now
  std::uint64_t mark;  // with the readahead mark here; UINT64_MAX: none
  unsigned order = 0;  // of the folios, at most
  ReadaheadState::Stream* stream = nullptr;
};

// A miss at `page`, wanted up to last_wanted; file_pages bounds the window. No state: nothing is read ahead.
ReadaheadPlan plan_miss(const Mapping& mapping, ReadaheadState* state, std::uint64_t page, std::uint64_t last_wanted,
                        std::uint64_t file_pages);

// What was really filled after plan_miss: the next miss is sequential if it comes right after it.
inline void note_filled(const ReadaheadPlan& plan, std::uint64_t end) {
  if (plan.stream != nullptr && end <= plan.last) plan.stream->next.store(end, memory_order_relaxed);
}

// The reader met the mark on this folio (referenced) and cleared it: starts the next window of its stream.
void start_next_window(Mapping& mapping, ReadaheadState* state, const Folio& marked, std::uint64_t file_pages,
                       std::uint32_t owner);

// Of [first, last], as much as the budget allows; waits for nothing.
void read_ahead(Mapping& mapping, std::uint64_t first, std::uint64_t last, std::uint32_t owner);

}  // namespace quire
