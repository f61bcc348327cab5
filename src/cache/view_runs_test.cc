// Notes of what a view shows: cut by what is noted later, whatever the shapes.
#include "cache/view_runs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "base/random.h"

namespace quire {
namespace {

TEST(ViewRuns, AgainstAnArray) {
  constexpr std::uint64_t kPages = 64;
  constexpr std::uint32_t kBlank = UINT32_MAX;
  Random random(1);
  ViewRuns runs;
  std::array<std::uint32_t, kPages> frames;
  frames.fill(kBlank);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t first = random.below(kPages);
    const std::uint64_t pages = random.below(std::min<std::uint64_t>(kPages - first, 12)) + 1;
    if (random.below(3) == 0) {
      runs.clear(first, first + pages);
      std::fill_n(frames.begin() + static_cast<long>(first), pages, kBlank);
    } else {
      const auto frame = static_cast<std::uint32_t>(random.below(1000));
      runs.set(first, {pages, frame, ViewRuns::Kind::frames});
      for (std::uint64_t page = 0; page < pages; ++page)
        frames[first + page] = frame + static_cast<std::uint32_t>(page);
    }
    std::uint64_t covered = 0, end = 0;
    for (const auto& [at, run] : runs.map()) {
      ASSERT_GE(at, end);
      end = at + run.pages;
      for (std::uint64_t page = at; page < end; ++page) {
        ASSERT_EQ(frames[page], run.frame + (page - at));
        ASSERT_TRUE(runs.shows(page, frames[page]));
        ASSERT_FALSE(runs.shows(page, frames[page] + 1));
      }
      covered += run.pages;
    }
    ASSERT_EQ(covered, kPages - static_cast<std::uint64_t>(std::count(frames.begin(), frames.end(), kBlank)));
  }
}

}  // namespace
}  // namespace quire
