// Streams, and the arithmetic of their windows. See readahead.h.
#include "cache/readahead.h"

#include <algorithm>
#include <bit>

#include "cache/fill.h"

namespace quire {
namespace {

using Stream = ReadaheadState::Stream;

constexpr std::uint32_t kFirstWindow = 4;    // pages after what was asked for: an accidental pair costs no more
constexpr std::uint32_t kToldWindow = 32;    // where the program has told that it reads in sequence
constexpr std::uint64_t kReadWithMiss = 32;  // pages of a window that a miss reads itself: its caller waits
constexpr std::uint32_t kStaleAfter = 64;    // other misses of the handle
constexpr std::uint32_t kMaxWindow = FillBatch::kMaxPages;
constexpr unsigned kLargestOrder = std::bit_width(kAheadPages) - 1;

// How many windows are on their way while one is read. Between a verified file's data and its reader stands the
// hashing: with one, the disk would be idle from when it has read that to when the reader meets the mark of the one
// before, which takes its time. In a small cache they are smaller then, and no more pages are on their way.
std::uint32_t windows_ahead(const Mapping& mapping) { return mapping.verifier != nullptr ? 2 : 1; }

std::uint32_t max_window(const Mapping& mapping, const ReadaheadState& state) {
  const bool told = state.mode.load(memory_order_relaxed) == ReadaheadMode::sequential;
  const std::uint32_t most = told ? 2 * kMaxWindow : kMaxWindow;
  return std::clamp<std::uint32_t>(mapping.cache.frames() / 16 / windows_ahead(mapping), 1, most);
}

// Folios grow with the window: a quarter of it at most.
unsigned order_of(const Mapping& mapping, std::uint64_t window) {
  const auto width = static_cast<unsigned>(std::bit_width(window));
  return std::min({mapping.cache.max_order(), kLargestOrder, width > 3 ? width - 3 : 0});
}

Stream* stream_at(ReadaheadState& state, std::uint64_t page) {
  for (Stream& stream : state.streams) {
    if (stream.next.load(memory_order_relaxed) == page) return page == 0 ? nullptr : &stream;
  }
  return nullptr;
}

// The stream that read `page` ahead lately: it was evicted before it was used.
Stream* stream_over(ReadaheadState& state, std::uint64_t page) {
  for (Stream& stream : state.streams) {
    const std::uint64_t before = stream.next.load(memory_order_relaxed) - page;  // wraps where page lies after
    if (before - 1 < 2 * std::uint64_t{stream.pages.load(memory_order_relaxed)}) return &stream;
  }
  return nullptr;
}

Stream* stream_of_mark(ReadaheadState& state, const Folio& marked) {
  const std::uint64_t first = marked.index.load(memory_order_relaxed);
  for (Stream& stream : state.streams) {
    if (first < stream.next.load(memory_order_relaxed) &&
        stream.mark.load(memory_order_relaxed) < first + marked.pages()) {
      return &stream;
    }
  }
  return nullptr;
}

bool take_candidate(ReadaheadState& state, std::uint64_t page) {
  for (Atomic<std::uint64_t>& candidate : state.candidates) {
    if (page == 0 || candidate.load(memory_order_relaxed) != page) continue;
    candidate.store(0, memory_order_relaxed);
    return true;
  }
  return false;
}

void add_candidate(ReadaheadState& state, std::uint64_t next, std::uint32_t now) {
  for (const Atomic<std::uint64_t>& candidate : state.candidates) {
    if (candidate.load(memory_order_relaxed) == next) return;
  }
  state.candidates[now % ReadaheadState::kCandidates].store(next, memory_order_relaxed);
}

Stream& longest_unused(ReadaheadState& state, std::uint32_t now) {
  return *std::max_element(state.streams.begin(), state.streams.end(), [now](const Stream& a, const Stream& b) {
    return now - a.used.load(memory_order_relaxed) < now - b.used.load(memory_order_relaxed);
  });
}

// The stream that a miss at `page` belongs to. Null: to none, so far.
Stream* find_stream(ReadaheadState& state, std::uint64_t page, std::uint64_t last_wanted, std::uint32_t now) {
  Stream* stream = stream_at(state, page);
  if (stream != nullptr) {
    if (now - stream->used.load(memory_order_relaxed) > kStaleAfter) stream->pages.store(0, memory_order_relaxed);
    return stream;
  }
  stream = stream_over(state, page);
  if (stream != nullptr) {
    const std::uint32_t pages = stream->pages.load(memory_order_relaxed);
    stream->pages.store(std::max(kFirstWindow, pages / 2), memory_order_relaxed);
    stream->mark.store(UINT64_MAX, memory_order_relaxed);
    stream->next.store(last_wanted + 1, memory_order_relaxed);
    stream->used.store(now, memory_order_relaxed);
    return nullptr;  // it may have been a random miss: only one more makes it go on
  }
  const bool told = state.mode.load(memory_order_relaxed) == ReadaheadMode::sequential;
  if (!take_candidate(state, page) && !told) {
    add_candidate(state, last_wanted + 1, now);
    return nullptr;
  }
  stream = &longest_unused(state, now);
  stream->pages.store(0, memory_order_relaxed);
  return stream;
}

// The window of a new stream: as much again as was asked for, 16 KiB at least.
std::uint32_t first_window(const ReadaheadState& state, std::uint64_t wanted) {
  const bool told = state.mode.load(memory_order_relaxed) == ReadaheadMode::sequential;
  const std::uint64_t asked = std::bit_ceil(std::min<std::uint64_t>(wanted, kMaxWindow));
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(told ? kToldWindow : kFirstWindow, asked));
}

}  // namespace

ReadaheadPlan plan_miss(const Mapping& mapping, ReadaheadState* state, std::uint64_t page, std::uint64_t last_wanted,
                        std::uint64_t file_pages) {
  if (state == nullptr || state->mode.load(memory_order_relaxed) == ReadaheadMode::random) {
    return {last_wanted, UINT64_MAX};
  }
  const std::uint32_t now = state->clock.fetch_add(1, memory_order_relaxed) + 1;
  Stream* stream = find_stream(*state, page, last_wanted, now);
  if (stream == nullptr) return {last_wanted, UINT64_MAX};

  const std::uint64_t wanted = last_wanted - page + 1;
  const std::uint32_t before = stream->pages.load(memory_order_relaxed);
  const std::uint32_t limit = max_window(mapping, *state);
  const std::uint32_t window = std::min(limit, before == 0 ? first_window(*state, wanted) : before);
  // The rest of a large window is read from the mark on, without anybody who waits for it.
  const std::uint32_t with_miss = static_cast<std::uint32_t>(std::min<std::uint64_t>(window, kReadWithMiss));
  const std::uint64_t ahead = mapping.cache.ahead.room_for(with_miss);
  const std::uint64_t most = std::max<std::uint64_t>(wanted, limit);  // of a small cache, the asked for included
  const std::uint64_t last = std::min(page + std::min(wanted + ahead, most) - 1, file_pages - 1);
  const std::uint64_t mark = last > last_wanted ? last_wanted + 1 : UINT64_MAX;
  stream->pages.store(window, memory_order_relaxed);
  stream->mark.store(mark, memory_order_relaxed);
  stream->next.store(last + 1, memory_order_relaxed);
  stream->used.store(now, memory_order_relaxed);
  return {last, mark, order_of(mapping, window + wanted), stream};
}

void start_next_window(Mapping& mapping, ReadaheadState* state, const Folio& marked, std::uint64_t file_pages,
                       std::uint32_t owner) {
  if (state == nullptr || state->mode.load(memory_order_relaxed) == ReadaheadMode::random) return;
  Stream* stream = stream_of_mark(*state, marked);
  if (stream == nullptr) return;  // of another handle, or of a stream long given up
  stream->used.store(state->clock.fetch_add(1, memory_order_relaxed) + 1, memory_order_relaxed);
  const std::uint32_t before = stream->pages.load(memory_order_relaxed);
  const std::uint32_t window =
      static_cast<std::uint32_t>(std::clamp<std::uint64_t>(std::uint64_t{before} * 2, kFirstWindow, 2 * kMaxWindow));
  const std::uint32_t pages = std::min(window, max_window(mapping, *state));
  const std::uint64_t here = marked.index.load(memory_order_relaxed);
  const std::uint64_t enough = here + std::uint64_t{pages} * (1 + windows_ahead(mapping));
  stream->mark.store(here + marked.pages(), memory_order_relaxed);
  constexpr int kMostWindows = 8;  // those that are there already, and so carry no mark, are passed over
  bool inserted = true;
  for (int i = 0; i < kMostWindows; ++i) {
    const std::uint64_t first = stream->next.load(memory_order_relaxed);
    if (first >= file_pages || (inserted && first + pages > enough)) return;
    const std::uint64_t last = std::min<std::uint64_t>(first + pages - 1, file_pages - 1);
    const AheadFilled filled = fill_ahead(mapping, first, last, order_of(mapping, pages), first, owner);
    // Skipped where locks or frames are not to be had: then the reader's next miss is right there and goes on from it.
    const std::uint64_t got = filled.end - first;
    stream->pages.store(got == 0 ? std::max(kFirstWindow, before / 2) : static_cast<std::uint32_t>(got),
                        memory_order_relaxed);
    stream->next.store(filled.end, memory_order_relaxed);
    if (got == 0) return;
    inserted = filled.inserted;
  }
}

void read_ahead(Mapping& mapping, std::uint64_t first, std::uint64_t last, std::uint32_t owner) {
  const std::uint64_t most = mapping.cache.frames();  // no more is kept anyway, nor looked at
  last = std::min(last, first + most - 1);
  while (first <= last) {
    const AheadFilled filled = fill_ahead(mapping, first, last, order_of(mapping, last - first + 1), UINT64_MAX, owner);
    if (filled.end == first) return;
    first = filled.end;
  }
}

}  // namespace quire
