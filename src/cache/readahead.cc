// Window arithmetic of the plain readahead.
#include "cache/readahead.h"

#include <algorithm>
#include <bit>

#include "cache/fill.h"

namespace quire {
namespace {

constexpr std::uint32_t kFirstWindow = 8;

std::uint32_t max_window(const Mapping& mapping) {
  return std::min<std::uint32_t>(FillBatch::kMaxPages, std::max<std::uint32_t>(1, mapping.cache.frames() / 16));
}

// Folios grow with the window: a quarter of it at most.
unsigned order_of(const Mapping& mapping, std::uint64_t window) {
  const auto width = static_cast<unsigned>(std::bit_width(window));
  return std::min(mapping.cache.max_order(), width > 3 ? width - 3 : 0);
}

}  // namespace

ReadaheadPlan plan_miss(const Mapping& mapping, ReadaheadState* state, std::uint64_t page, std::uint64_t last_wanted,
                        std::uint64_t file_pages) {
  const std::uint64_t wanted = last_wanted - page + 1;
  if (state == nullptr) return {last_wanted, UINT64_MAX};
  const std::uint32_t limit = max_window(mapping);
  if (page != state->next.load(memory_order_relaxed)) {  // the first miss, or a random one
    state->next.store(last_wanted + 1, memory_order_relaxed);
    state->pages.store(0, memory_order_relaxed);
    return {last_wanted, UINT64_MAX};
  }
  const std::uint32_t previous = state->pages.load(memory_order_relaxed);
  std::uint64_t window =
      std::max<std::uint64_t>(previous == 0 ? kFirstWindow : std::uint64_t{previous} * 2, wanted * 2);
  window = std::min<std::uint64_t>(window, limit);
  const std::uint64_t last = std::min(page + std::max(window, wanted) - 1, file_pages - 1);
  state->next.store(last + 1, memory_order_relaxed);
  state->pages.store(static_cast<std::uint32_t>(window), memory_order_relaxed);
  // What is read ahead of the wanted pages begins with the mark.
  return {last, last > last_wanted ? last_wanted + 1 : UINT64_MAX, order_of(mapping, window)};
}

void start_next_window(Mapping& mapping, ReadaheadState* state, std::uint64_t file_pages) {
  if (state == nullptr) return;
  const std::uint64_t start = state->next.load(memory_order_relaxed);
  if (start >= file_pages) return;
  const std::uint32_t limit = max_window(mapping);
  const std::uint32_t window = std::min(limit, std::max(kFirstWindow, state->pages.load(memory_order_relaxed) * 2));
  const std::uint64_t last = std::min<std::uint64_t>(start + window - 1, file_pages - 1);
  state->next.store(last + 1, memory_order_relaxed);
  state->pages.store(window, memory_order_relaxed);
  // Skipped where locks or frames are not to be had: then the reader's next miss is sequential and starts it again.
  fill_ahead(mapping, start, last, order_of(mapping, window), start);
}

}  // namespace quire
