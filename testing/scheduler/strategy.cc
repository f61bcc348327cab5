// The strategies. See strategy.h.
#include "testing/scheduler/strategy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <random>

namespace quire::scheduling {
namespace {

int nth_thread(std::uint32_t runnable, unsigned n) {
  for (; n != 0; --n) runnable &= runnable - 1;
  return std::countr_zero(runnable);
}

class RandomStrategy final : public Strategy {
 public:
  explicit RandomStrategy(std::uint64_t seed) : seed_(seed), random_(seed) {}
  int pick(const Choice& choice) override {
    const bool stays = choice.current >= 0 && (!choice.interesting || random_() % 8 != 0);
    if (stays) return choice.current;
    return nth_thread(choice.runnable,
                      static_cast<unsigned>(random_() % static_cast<unsigned>(std::popcount(choice.runnable))));
  }
  std::string token() const override { return "random:" + std::to_string(seed_); }

 private:
  const std::uint64_t seed_;
  std::mt19937_64 random_;
};

class PctStrategy final : public Strategy {
 public:
  PctStrategy(std::uint64_t seed, unsigned depth, std::uint64_t length)
      : seed_(seed), depth_(depth), length_(std::max<std::uint64_t>(1, length)) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < kMaxThreads; ++i) priorities_[static_cast<std::size_t>(i)] = depth + i;
    std::shuffle(priorities_.begin(), priorities_.end(), random);
    for (unsigned i = 1; i < depth; ++i) changes_.push_back(random() % length_);
  }
  int pick(const Choice& choice) override {
    if (choice.interesting && choice.current >= 0) {
      for (std::size_t i = 0; i < changes_.size(); ++i) {
        if (changes_[i] == place_) priorities_[static_cast<std::size_t>(choice.current)] = static_cast<int>(i);
      }
      ++place_;
    }
    int best = -1;
    for (std::uint32_t left = choice.runnable; left != 0; left &= left - 1) {
      const int thread = std::countr_zero(left);
      // Who stands aside waits for somebody else: it is asked last.
      if (best < 0 || priority(thread) > priority(best)) best = thread;
    }
    return best;
  }
  std::string token() const override {
    return "pct:" + std::to_string(seed_) + ":" + std::to_string(depth_) + ":" + std::to_string(length_);
  }

 private:
  int priority(int thread) const { return priorities_[static_cast<std::size_t>(thread)]; }

  const std::uint64_t seed_;
  const unsigned depth_;
  const std::uint64_t length_;
  std::array<int, kMaxThreads> priorities_{};
  std::vector<std::uint64_t> changes_;
  std::uint64_t place_ = 0;
};

}  // namespace

std::unique_ptr<Strategy> random_strategy(std::uint64_t seed) { return std::make_unique<RandomStrategy>(seed); }

std::unique_ptr<Strategy> pct_strategy(std::uint64_t seed, unsigned depth, std::uint64_t length) {
  return std::make_unique<PctStrategy>(seed, depth, length);
}

GivenChoices::GivenChoices(std::vector<Given> given, unsigned preemptions) : given_(std::move(given)) {
  const auto used = std::count_if(given_.begin(), given_.end(), [](const Given& g) { return g.preempts; });
  may_preempt_ = static_cast<unsigned>(used) < preemptions;
}

int GivenChoices::pick(const Choice& choice) {
  if (next_ < given_.size()) {
    if (given_[next_].number != choice.number) return choice.fallback;
    const int thread = given_[next_++].thread;
    if ((choice.runnable >> thread & 1) != 0) return thread;
    strayed_ = true;
    return choice.fallback;
  }
  const bool preempts = choice.current >= 0;
  if (!preempts || (may_preempt_ && choice.interesting)) {
    for (std::uint32_t left = choice.runnable & ~(1u << choice.fallback); left != 0; left &= left - 1) {
      alternatives_.push_back(Given{choice.number, std::countr_zero(left), preempts});
    }
  }
  return choice.fallback;
}

std::string GivenChoices::token() const {
  std::string text = "choices:";
  for (const Given& g : given_) {
    if (text.back() != ':') text += ',';
    text += std::to_string(g.number) + ">" + std::to_string(g.thread);
  }
  return text;
}

std::unique_ptr<Strategy> strategy_from_token(const std::string& token) {
  unsigned long long seed = 0, length = 0;
  unsigned depth = 0;
  int read = 0;
  const char* text = token.c_str();
  if (std::sscanf(text, "random:%llu%n", &seed, &read) == 1 && text[read] == 0) return random_strategy(seed);
  if (std::sscanf(text, "pct:%llu:%u:%llu%n", &seed, &depth, &length, &read) == 3 && text[read] == 0) {
    return pct_strategy(seed, depth, length);
  }
  if (token.starts_with("choices:")) {
    std::vector<GivenChoices::Given> given;
    text += 8;
    while (*text != 0) {
      unsigned long long number;
      int thread;
      if (std::sscanf(text, "%llu>%d%n", &number, &thread, &read) != 2 || thread < 0 || thread >= kMaxThreads) break;
      given.push_back({number, thread, false});
      text += read;
      if (*text == ',') ++text;
    }
    if (*text == 0) return std::make_unique<GivenChoices>(std::move(given), 0);
  }
  std::fprintf(stderr, "'%s' names no schedule: random:SEED, pct:SEED:DEPTH:LENGTH or choices:NUMBER>THREAD,...\n",
               token.c_str());
  return nullptr;
}

}  // namespace quire::scheduling
