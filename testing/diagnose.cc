// What is wrong with a window that has no order: which reads, of which kind, and the fewest operations that
// still show it. Runs only after a conviction, so it may be slow. See checker.h.
#include <algorithm>
#include <vector>

#include "testing/checker.h"

namespace quire::judge {
namespace {

constexpr size_t kContentLimit = 5000;
constexpr size_t kCandidates = 4;

Window with_reads(const Window& window, std::vector<Op> reads) {
  Window result = window;
  result.reads = std::move(reads);
  return result;
}

struct Explanation {
  Fault fault = Fault::kNone;
  uint64_t unexplained = 0;  // bytes
};

bool returned_before(const Op& a, const Op& b) { return a.returned < b.invoked; }

// A read that is a whole content of the file, only at a time when it could not be: stale or early.
Fault misplaced(const Window& window, const Op& read, uint32_t done) {
  for (size_t i = 0; i < window.mutators.size(); ++i) {
    const bool happened = (done >> i & 1) != 0;
    if (happened && returned_before(read, window.mutators[i])) return Fault::kForeign;
    if (!happened && returned_before(window.mutators[i], read)) return Fault::kLost;
  }
  return Fault::kTorn;  // an order that real time allows, yet a result of another operation forbids
}

Explanation look_at(const Window& window, const Op& read) {
  if (read.spoiled || read.result < 0) return {Fault::kForeign, 1};
  const auto count = static_cast<size_t>(read.result);
  std::vector<bool> explained(count, false);
  size_t unexplained = count;
  std::vector<unsigned char> content(count);
  uint64_t least = read.length;
  uint64_t most = 0;
  Fault whole = Fault::kNone;
  for_each_content(window, kContentLimit, [&](const State& state, uint32_t done) {
    if (explains(window, state, read)) {
      const Fault fault = misplaced(window, read, done);
      if (whole == Fault::kNone || fault != Fault::kForeign) whole = fault;
    }
    for (size_t i = 0; i < window.mutators.size(); ++i) {
      if ((done >> i & 1) != 0 && returned_before(read, window.mutators[i])) return;
    }
    const FileState& file = state.files[read.slot];
    const uint64_t there = file.size > read.offset ? std::min(read.length, file.size - read.offset) : 0;
    least = std::min(least, there);
    most = std::max(most, there);
    if (unexplained == 0) return;
    // Past this content's end a zero is one that a truncate left on its way.
    std::fill(content.begin(), content.end(), static_cast<unsigned char>(0));
    render(window, file, read.offset, count, content.data());
    for (size_t i = 0; i < count; ++i) {
      if (explained[i] || content[i] != read.data[i]) continue;
      explained[i] = true;
      --unexplained;
    }
  });
  if (whole != Fault::kNone) return {whole, 0};
  if (count > most) return {Fault::kForeign, unexplained + count - most};
  if (unexplained > 0) return {Fault::kForeign, unexplained};
  if (count < least) return {Fault::kLost, 0};
  return {Fault::kTorn, 0};
}

bool each_read_fits(const Window& window) {
  return std::all_of(window.reads.begin(), window.reads.end(),
                     [&](const Op& read) { return linearize(with_reads(window, {read})).has_value(); });
}

// Drops reads that are not needed for the contradiction, in blocks of falling size.
void drop_reads(Window* window) {
  for (size_t block = std::max<size_t>(1, window->reads.size() / 2);; block /= 2) {
    for (size_t at = 0; at < window->reads.size();) {
      std::vector<Op> fewer = window->reads;
      const size_t end = std::min(at + block, fewer.size());
      fewer.erase(fewer.begin() + static_cast<ptrdiff_t>(at), fewer.begin() + static_cast<ptrdiff_t>(end));
      Window smaller = with_reads(*window, std::move(fewer));
      if (linearize(smaller)) {
        at += block;
      } else {
        *window = std::move(smaller);
      }
    }
    if (block == 1) return;
  }
}

// Drops mutators as long as the same thing stays wrong: leaving out one whose bytes a read holds would make
// a torn read look foreign, so the kind of fault and the number of unexplained bytes must not change.
void drop_mutators(Window* window) {
  const bool alone = window->reads.size() == 1;
  const Explanation before = alone ? look_at(*window, window->reads[0]) : Explanation{};
  for (size_t i = 0; i < window->mutators.size();) {
    Window smaller = *window;
    smaller.mutators.erase(smaller.mutators.begin() + static_cast<ptrdiff_t>(i));
    bool same = !linearize(smaller).has_value();
    if (same && alone) {
      const Explanation after = look_at(smaller, smaller.reads[0]);
      same = after.fault == before.fault && after.unexplained == before.unexplained;
    } else if (same) {
      same = each_read_fits(smaller);
    }
    if (same) {
      *window = std::move(smaller);
    } else {
      ++i;
    }
  }
}

size_t weight(const Window& window) { return window.mutators.size() + window.reads.size(); }

}  // namespace

std::string_view fault_name(Fault fault) {
  switch (fault) {
    case Fault::kNone:
      return "none";
    case Fault::kTorn:
      return "torn";
    case Fault::kForeign:
      return "foreign";
    case Fault::kLost:
      return "lost";
  }
  return "none";
}

Fault classify(const Window& window, const Op& read) { return look_at(window, read).fault; }

Diagnosis diagnose(const Window& window, bool minimize) {
  Diagnosis result;
  if (!linearize(with_reads(window, {}))) {  // the results contradict each other, whatever was read
    result.lost = 1;
    result.fault = Fault::kLost;
    result.witness = with_reads(window, {});
    if (minimize) drop_mutators(&result.witness);
    return result;
  }
  std::vector<std::pair<Fault, const Op*>> wrong;
  for (const Op& read : window.reads) {
    if (linearize(with_reads(window, {read}))) continue;
    const Fault fault = classify(window, read);
    if (fault == Fault::kTorn) ++result.torn;
    if (fault == Fault::kForeign) ++result.foreign;
    if (fault == Fault::kLost) ++result.lost;
    wrong.emplace_back(fault, &read);
  }
  if (wrong.empty()) {
    // Reads that fit one by one: a change seen, then not seen, before it had returned. Only if the judge's own
    // reads contradict each other is something gone for good.
    std::vector<Op> quiet = window.reads;
    std::erase_if(quiet, [](const Op& op) { return !op.quiescent; });
    result.fault = linearize(with_reads(window, std::move(quiet))) ? Fault::kTorn : Fault::kLost;
    ++(result.fault == Fault::kLost ? result.lost : result.torn);
    result.witness = window;
    if (!minimize) return result;
    drop_reads(&result.witness);
    drop_mutators(&result.witness);
    return result;
  }
  std::sort(wrong.begin(), wrong.end(),
            [](const auto& a, const auto& b) { return a.second->length < b.second->length; });
  for (size_t i = 0; i < wrong.size() && (i == 0 || (minimize && i < kCandidates)); ++i) {
    Window candidate = with_reads(window, {*wrong[i].second});
    if (minimize) drop_mutators(&candidate);
    if (i > 0 && weight(candidate) >= weight(result.witness)) continue;
    result.witness = std::move(candidate);
    result.fault = wrong[i].first;
  }
  return result;
}

}  // namespace quire::judge
