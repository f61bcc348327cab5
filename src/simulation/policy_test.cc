// The policies: short sequences worked out by hand from each paper's definition, what must hold of any policy on any
// sequence, and slow references that are plainly right.
#include "simulation/policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <set>
#include <string>

#include "base/random.h"
#include "simulation/frequency_sketch.h"
#include "simulation/hit_ratio.h"

namespace quire::simulation {
namespace {

constexpr std::uint32_t kLetters = 26;

// What a sequence of letters does: a letter for each request, h (hit) or m (miss), then the blocks left.
std::string play(std::string_view name, std::uint32_t frames, std::string_view requests) {
  const auto policy = make_policy(name, frames, kLetters);
  std::string result;
  for (const char c : requests) result += policy->access(static_cast<Block>(c - 'a')) ? 'h' : 'm';
  result += ' ';
  for (Block block = 0; block < kLetters; ++block) {
    if (policy->is_resident(block)) result += static_cast<char>('a' + block);
  }
  return result;
}

TEST(SimulationLru, ByHand) { EXPECT_EQ(play("lru", 3, "abcadbac"), "mmmhmmhm abc"); }

// The hand passes a, which was hit, and takes b; later c without a second look, then d.
TEST(SimulationClock, ByHand) { EXPECT_EQ(play("clock", 3, "abcadaefa"), "mmmhmhmmh aef"); }

// Kin 1, Kout 2. e, f, ... leave by the FIFO although e is hit there; a, b, e return into Am, whence a leaves.
TEST(SimulationTwoQueue, ByHand) { EXPECT_EQ(play("2q", 4, "abcdeabfegehabe"), "mmmmmmmmhmmmmhh abeh"); }

// After "bac": B1 gave T1 a target of 1, so a left T2; its return takes the target back to 0.
TEST(SimulationArc, ByHand) { EXPECT_EQ(play("arc", 2, "abacbcadefad"), "mmhmmhmmmmhm ad"); }

// Two LIR frames, two HIR. d is hit on S and changes places with a; c returns while S remembers it and does with b.
TEST(SimulationLirs, ByHand) { EXPECT_EQ(play("lirs", 4, "abcdedcafbdcfe"), "mmmmmhmhmmhhhm cdef"); }

// A window of one, three in the main part, two of them protected. d loses twice against blocks that were requested as
// often or more, and wins with its third request.
TEST(SimulationWTinyLfu, ByHand) { EXPECT_EQ(play("wtinylfu", 4, "abcdaebcfddga"), "mmmmhmhhmmhmm abcd"); }

// One small frame, three main, three ghosts. a was requested twice more and moves; b and c return from the ghosts.
TEST(SimulationS3Fifo, ByHand) { EXPECT_EQ(play("s3fifo", 4, "abcdaabebcafghdhia"), "mmmmhhhmmmhmmmmmmh achi"); }

TEST(SimulationPolicies, Names) {
  EXPECT_GE(policy_names().size(), 7U);
  for (const auto name : policy_names()) EXPECT_NE(make_policy(name, 1, 1), nullptr) << name;
  EXPECT_EQ(make_policy("fifo", 1, 1), nullptr);
  EXPECT_EQ(make_policy("", 1, 1), nullptr);
}

// Requests of several kinds in turn: skewed, in a loop, over everything once.
Trace mixed_trace(std::uint32_t blocks, std::size_t requests, std::uint64_t seed) {
  Random random(seed);
  Trace trace{"mixed", {}, blocks};
  while (trace.requests.size() < requests) {
    const std::uint64_t kind = random.below(3);
    const auto loop = static_cast<std::uint32_t>(1 + random.below(blocks));
    for (std::uint32_t i = 0; i < blocks; ++i) {
      std::uint64_t block = i;
      if (kind == 0) block = random.below(1 + random.below(blocks));
      if (kind == 1) block = i % loop;
      trace.requests.push_back(static_cast<Block>(block));
    }
  }
  return trace;
}

class EveryPolicy : public ::testing::TestWithParam<std::string_view> {};
std::vector<std::string_view> all_names() { return policy_names(); }
INSTANTIATE_TEST_SUITE_P(Simulation, EveryPolicy, ::testing::ValuesIn(all_names()),
                         [](const auto& named) { return "policy_" + std::string(named.param); });

TEST_P(EveryPolicy, HitsWhatIsResidentAndHoldsNoMoreThanItsFrames) {
  constexpr std::uint32_t kBlocks = 150;
  const Trace trace = mixed_trace(kBlocks, 12'000, 1);
  for (const std::uint32_t frames : {1U, 2U, 3U, 4U, 7U, 10U, 40U, 100U, 149U, 150U, 400U}) {
    const auto policy = make_policy(GetParam(), frames, kBlocks);
    std::set<Block> seen;
    for (const Block block : trace.requests) {
      const bool resident = policy->is_resident(block);
      ASSERT_FALSE(seen.insert(block).second && resident);
      ASSERT_EQ(policy->access(block), resident);
      ASSERT_TRUE(policy->is_resident(block));
      std::uint32_t held = 0;
      for (Block other = 0; other < kBlocks; ++other) held += policy->is_resident(other) ? 1 : 0;
      ASSERT_LE(held, frames);
      // No frame stays free while blocks leave, but that S3-FIFO's two queues may both lose one for a single request.
      if (GetParam() != "s3fifo") {
        ASSERT_EQ(held, std::min<std::size_t>(frames, seen.size()));
      }
    }
  }
}

TEST_P(EveryPolicy, MissesEachBlockOnceWhereAllFit) {
  const Trace trace = mixed_trace(300, 5'000, 2);
  const std::set<Block> distinct(trace.requests.begin(), trace.requests.end());
  for (const std::uint32_t frames : {300U, 301U, 1000U}) {
    EXPECT_EQ(count_misses(GetParam(), trace, frames), distinct.size()) << frames;
  }
}

TEST_P(EveryPolicy, OneBlock) {
  const Trace trace{"one", std::vector<Block>(10, 0), 1};
  EXPECT_EQ(count_misses(GetParam(), trace, 1), 1U);
}

// A request hits under LRU exactly where fewer than `frames` others were requested since the last one for it.
TEST(SimulationLru, StackDistance) {
  const Trace trace = mixed_trace(60, 3'000, 3);
  for (const std::uint32_t frames : {1U, 2U, 5U, 17U, 59U, 60U}) {
    std::uint64_t misses = 0;
    for (std::size_t i = 0; i < trace.requests.size(); ++i) {
      std::set<Block> since;
      std::size_t j = i;
      while (j > 0 && trace.requests[j - 1] != trace.requests[i]) since.insert(trace.requests[--j]);
      misses += j == 0 || since.size() >= frames ? 1 : 0;
    }
    EXPECT_EQ(count_misses("lru", trace, frames), misses) << frames;
  }
}

// CLOCK is a FIFO in which blocks that were hit go round once more.
TEST(SimulationClock, SecondChance) {
  const Trace trace = mixed_trace(60, 10'000, 4);
  for (const std::uint32_t frames : {1U, 2U, 5U, 17U, 59U, 60U}) {
    std::deque<std::pair<Block, bool>> fifo;
    std::uint64_t misses = 0;
    for (const Block block : trace.requests) {
      const auto held = std::find_if(fifo.begin(), fifo.end(), [&](const auto& entry) { return entry.first == block; });
      if (held != fifo.end()) {
        held->second = true;
        continue;
      }
      ++misses;
      while (fifo.size() == frames) {
        const auto [first, referenced] = fifo.front();
        fifo.pop_front();
        if (referenced) fifo.emplace_back(first, false);
      }
      fifo.emplace_back(block, false);
    }
    EXPECT_EQ(count_misses("clock", trace, frames), misses) << frames;
  }
}

TEST(FrequencySketch, CountsUpToFifteen) {
  FrequencySketch sketch(1000);
  EXPECT_EQ(sketch.count(5), 0U);
  for (unsigned i = 1; i <= 20; ++i) {
    sketch.add(5);
    EXPECT_EQ(sketch.count(5), std::min(i, 15U));
  }
  for (Block block = 100; block < 110; ++block) sketch.add(block);
  for (Block block = 100; block < 110; ++block) EXPECT_EQ(sketch.count(block), 1U);
  EXPECT_EQ(sketch.count(5), 15U);
}

TEST(FrequencySketch, HalvesAfterTenRequestsAFrame) {
  FrequencySketch sketch(4);
  for (unsigned i = 0; i < 13; ++i) sketch.add(1);
  for (unsigned i = 0; i < 13; ++i) sketch.add(2);
  for (unsigned i = 0; i < 13; ++i) sketch.add(3);
  EXPECT_EQ(sketch.count(1), 13U);
  sketch.add(4);
  EXPECT_EQ(sketch.count(1), 6U);
  EXPECT_EQ(sketch.count(4), 0U);
}

TEST(HitRatio, FramesAreRoundedAndAtLeastOne) {
  EXPECT_EQ(frames_for(0.01, 1000), 10U);
  EXPECT_EQ(frames_for(0.01, 10), 1U);
  EXPECT_EQ(frames_for(0.5, 5), 3U);
  EXPECT_EQ(frames_for(0.1, 1409), 141U);
  EXPECT_EQ(frames_for(1, 7), 7U);
}

}  // namespace
}  // namespace quire::simulation
