// The search: see checker.h. A read changes nothing, so one that may come next and fits is taken at once;
// only the choice of the next mutator branches.
#include "testing/checker.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <tuple>
#include <vector>

namespace quire::judge {
namespace {

class Search {
 public:
  explicit Search(const Window& window) : window_(window) {}

  std::optional<State> run() {
    const uint32_t first = intern(first_state(window_));
    std::vector<uint64_t> reads_done((window_.reads.size() + 63) / 64, 0);
    if (!visit(0, std::move(reads_done), first)) return std::nullopt;
    return *contents_[final_];
  }

 private:
  // Extends the order that did `done` and reads_done and left this content.
  bool visit(uint32_t done, std::vector<uint64_t> reads_done, uint32_t content) {
    uint64_t horizon = take_reads(done, &reads_done, content);
    if (horizon == kNever) {
      final_ = content;
      return true;
    }
    if (!tried_.emplace(done, content, reads_done).second) return false;
    for (size_t i = 0; i < window_.mutators.size(); ++i) {
      if ((done >> i & 1) != 0 || window_.mutators[i].invoked > horizon) continue;
      State next = *contents_[content];
      if (!apply(window_, i, &next)) continue;
      if (visit(done | uint32_t{1} << i, reads_done, intern(std::move(next)))) return true;
    }
    return false;
  }

  // Takes every read that may come next and fits. Returns the first return among what is left: nothing that
  // was called after it may come next.
  uint64_t take_reads(uint32_t done, std::vector<uint64_t>* reads_done, uint32_t content) {
    for (;;) {
      uint64_t horizon = kNever;
      for (size_t i = 0; i < window_.mutators.size(); ++i) {
        if ((done >> i & 1) == 0) horizon = std::min(horizon, window_.mutators[i].returned);
      }
      for (size_t i = 0; i < window_.reads.size(); ++i) {
        if (!has(*reads_done, i)) horizon = std::min(horizon, window_.reads[i].returned);
      }
      bool taken = false;
      for (size_t i = 0; i < window_.reads.size(); ++i) {
        if (has(*reads_done, i) || window_.reads[i].invoked > horizon || !fits(i, content)) continue;
        (*reads_done)[i / 64] |= uint64_t{1} << (i % 64);
        taken = true;
      }
      if (!taken) return horizon;
    }
  }

  bool fits(size_t read, uint32_t content) {
    signed char& known = fits_[content][read];
    if (known < 0) known = explains(window_, *contents_[content], window_.reads[read]) ? 1 : 0;
    return known == 1;
  }

  uint32_t intern(State state) {
    const auto [place, fresh] = numbers_.try_emplace(std::move(state), static_cast<uint32_t>(contents_.size()));
    if (fresh) {
      contents_.push_back(&place->first);
      fits_.emplace_back(window_.reads.size(), static_cast<signed char>(-1));
    }
    return place->second;
  }

  static bool has(const std::vector<uint64_t>& bits, size_t i) { return (bits[i / 64] >> (i % 64) & 1) != 0; }

  static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

  const Window& window_;
  std::map<State, uint32_t> numbers_;  // every content met, by number
  std::vector<const State*> contents_;
  std::vector<std::vector<signed char>> fits_;  // by content and read: yes, no, -1 not yet asked
  std::set<std::tuple<uint32_t, uint32_t, std::vector<uint64_t>>> tried_;
  uint32_t final_ = 0;
};

void visit_contents(const Window& window, const State& state, uint32_t done, size_t* left,
                    const std::function<void(const State&, uint32_t)>& visit) {
  if (*left == 0) return;
  --*left;
  visit(state, done);
  for (size_t i = 0; i < window.mutators.size(); ++i) {
    if ((done >> i & 1) != 0) continue;
    bool late = false;  // something already done was called after this one had returned
    for (size_t j = 0; j < window.mutators.size(); ++j) {
      late = late || ((done >> j & 1) != 0 && window.mutators[i].returned < window.mutators[j].invoked);
    }
    State next = state;
    if (late || !apply(window, i, &next)) continue;
    visit_contents(window, next, done | uint32_t{1} << i, left, visit);
  }
}

}  // namespace

std::optional<State> linearize(const Window& window) { return Search(window).run(); }

void for_each_content(const Window& window, size_t limit, const std::function<void(const State&, uint32_t)>& visit) {
  visit_contents(window, first_state(window), 0, &limit, visit);
}

}  // namespace quire::judge
