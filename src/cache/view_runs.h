// What a view shows where: runs of pages, each of adjacent frames of the arena, or a trap; the rest is blank. A note of
// what was mapped, so that neither an address nor the kernel has to be asked; whether a page is present just then it
// does not say. Thread safety: none, its user's mutex.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace quire {

class ViewRuns {
 public:
  enum class Kind : std::uint8_t { frames, past_end, error };
  struct Run {
    std::uint64_t pages;
    std::uint32_t frame;  // the first
    Kind kind;
    std::uint64_t stamp = 0;  // when it was placed, in the user's count
  };
  using Map = std::map<std::uint64_t, Run>;  // by the first page

  // [page, page + run.pages) shows that; what was noted there before is cut.
  void set(std::uint64_t page, const Run& run) {
    clear(page, page + run.pages);
    runs_.emplace(page, run);
  }
  // [page, end) is blank.
  void clear(std::uint64_t page, std::uint64_t end) {
    auto at = runs_.upper_bound(page);
    if (at != runs_.begin() && std::prev(at)->first + std::prev(at)->second.pages > page) --at;
    while (at != runs_.end() && at->first < end) {
      const auto [first, run] = *at;
      at = runs_.erase(at);
      if (first < page) runs_.emplace(first, Run{page - first, run.frame, run.kind, run.stamp});
      if (first + run.pages > end) {
        const std::uint64_t cut = end - first;
        runs_.emplace(end,
                      Run{run.pages - cut, run.kind == Kind::frames ? run.frame + static_cast<std::uint32_t>(cut) : 0,
                          run.kind, run.stamp});
      }
    }
  }
  // Does `page` show this frame?
  bool shows(std::uint64_t page, std::uint32_t frame) const {
    auto at = runs_.upper_bound(page);
    if (at == runs_.begin()) return false;
    --at;
    return page - at->first < at->second.pages && at->second.kind == Kind::frames &&
           at->second.frame + (page - at->first) == frame;
  }
  // each(first, end, run, frame at first) of the runs in [page, end).
  template <typename Each>
  void for_each(std::uint64_t page, std::uint64_t end, Each each) const {
    auto at = runs_.upper_bound(page);
    if (at != runs_.begin()) --at;
    for (; at != runs_.end() && at->first < end; ++at) {
      const std::uint64_t first = at->first < page ? page : at->first;
      const std::uint64_t run_end = at->first + at->second.pages, last = run_end < end ? run_end : end;
      if (first < last) each(first, last, at->second, at->second.frame + static_cast<std::uint32_t>(first - at->first));
    }
  }
  const Map& map() const { return runs_; }
  std::size_t size() const { return runs_.size(); }

 private:
  Map runs_;
};

}  // namespace quire
