// The bounded map of block states: against a model, its bound, and the races of loads that its header names.
#include "host/written_map.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>
#include <vector>

#include "base/random.h"
#include "sync/atomic.h"

namespace quire {
namespace {

constexpr std::uint64_t kChunk = BlockStates::kCount;
constexpr std::uint64_t kAll = UINT64_MAX;

BlockStates all(BlockState state) {
  BlockStates states;
  states.set(0, kChunk, state);
  return states;
}

// As map_exact does it, with a host that says `states`.
BlockStates load(WrittenMap& map, WrittenMap::File& file, std::uint64_t chunk, BlockStates states) {
  const std::uint64_t generation = map.begin_load(file, chunk);
  if (generation != 0) map.end_load(file, chunk, generation, states);
  return states;
}
// The same, where `meanwhile` happens between the question and the answer.
template <typename Meanwhile>
BlockStates load_late(WrittenMap& map, WrittenMap::File& file, BlockStates states, Meanwhile meanwhile) {
  const std::uint64_t generation = map.begin_load(file, 0);
  meanwhile();
  map.end_load(file, 0, generation, states);
  return states;
}
BlockState state(WrittenMap& map, WrittenMap::File& file, std::uint64_t block) {
  return map.look(file, block, block + 1).state;
}

TEST(BlockStates, AgreeWithAModel) {
  Random random(3);
  BlockStates states;
  std::vector<BlockState> model(kChunk, BlockState::unknown);
  for (int round = 0; round < 2000; ++round) {
    const std::uint64_t first = random.below(kChunk), end = first + random.below(kChunk - first + 1);
    const auto value = static_cast<BlockState>(random.below(4));
    if (random.one_in(4)) {
      BlockStates other;
      other.set(first, end, value);
      states.fill_unknown(other);
      for (std::uint64_t i = first; i < end; ++i) {
        if (model[i] == BlockState::unknown) model[i] = value;
      }
    } else {
      states.set(first, end, value);
      std::fill(model.begin() + static_cast<long>(first), model.begin() + static_cast<long>(end), value);
    }
    const std::uint64_t at = random.below(kChunk), stop = at + 1 + random.below(kChunk - at);
    std::uint64_t run = at;
    while (run < stop && model[run] == model[at]) ++run;
    ASSERT_EQ(states.get(at), model[at]);
    ASSERT_EQ(states.end_of_run(at, stop), run) << at << " to " << stop;
  }
}

// A host that never lies: what the map knows is what the host has.
TEST(WrittenMap, AgreesWithTheHostThroughEveryChange) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{2'000}, std::size_t{1} << 20}) {
    WrittenMap map({.max_bytes = bytes});
    WrittenMap::File files[3];
    constexpr std::uint64_t kBlocks = 20 * kChunk;
    std::vector<std::vector<BlockState>> host(3, std::vector<BlockState>(kBlocks, BlockState::absent));
    Random random(bytes + 1);
    std::uint64_t known = 0;
    for (int round = 0; round < 20'000; ++round) {
      const std::size_t f = random.below(3);
      const std::uint64_t first = random.below(kBlocks);
      const std::uint64_t end = std::min(kBlocks, first + 1 + random.below(random.one_in(20) ? kBlocks : 3000));
      const auto change = [&](BlockState value) {
        std::fill(host[f].begin() + static_cast<long>(first), host[f].begin() + static_cast<long>(end), value);
      };
      switch (random.below(8)) {
        case 0:
          change(BlockState::written);
          map.set_written(files[f], first, end);
          break;
        case 1:
          change(random.one_in(2) ? BlockState::shared : BlockState::absent);
          map.forget(files[f], first, random.one_in(3) && end == kBlocks ? kAll : end);
          break;
        default: {
          const WrittenMap::Run run = map.look(files[f], first, end);
          ASSERT_GT(run.end, first);
          if (run.state != BlockState::unknown) {
            ++known;
            ASSERT_LE(run.end, end);
            for (std::uint64_t b = first; b < run.end; ++b) ASSERT_EQ(run.state, host[f][b]) << b;
            break;
          }
          const std::uint64_t chunk = first / kChunk;
          BlockStates told;
          for (std::uint64_t b = 0; b < kChunk; ++b) told.set(b, b + 1, host[f][chunk * kChunk + b]);
          const BlockStates merged = load(map, files[f], chunk, told);
          for (std::uint64_t b = 0; b < kChunk; ++b) ASSERT_EQ(merged.get(b), told.get(b));
        }
      }
    }
    EXPECT_EQ(known != 0, bytes != 0) << known;
    for (WrittenMap::File& file : files) map.forget(file, 0, kAll);
  }
}

TEST(WrittenMap, KeepsWhatWasLookedAtLastAndNoMoreThanItMay) {
  std::size_t charged = 0;
  WrittenMap map({.max_bytes = 4096,
                  .charge = [](void* sum, std::size_t bytes) { *static_cast<std::size_t*>(sum) += bytes; },
                  .owner = &charged});
  EXPECT_EQ(charged, 0u) << "nothing before it is of use";
  WrittenMap::File file;
  for (std::uint64_t chunk = 0; chunk < 100; ++chunk) {
    load(map, file, chunk, all(BlockState::written));
    EXPECT_EQ(state(map, file, 0), BlockState::written) << "looked at each time";
  }
  EXPECT_GT(charged, 2048u);
  EXPECT_LE(charged, 4096u);
  std::size_t kept = 0;
  for (std::uint64_t chunk = 0; chunk < 100; ++chunk) kept += state(map, file, chunk * kChunk) != BlockState::unknown;
  EXPECT_GE(kept, 8u);
  EXPECT_LE(kept * sizeof(BlockStates), 4096u);
  EXPECT_EQ(state(map, file, 99 * kChunk), BlockState::written);
  EXPECT_EQ(state(map, file, 1 * kChunk), BlockState::unknown);
  map.forget(file, 0, kAll);
}

// L1: the host was asked before the write reached it.
TEST(WrittenMap, AnOlderAnswerDoesNotHideACommit) {
  WrittenMap map({.max_bytes = 4096});
  WrittenMap::File file;
  const BlockStates told = load_late(map, file, all(BlockState::absent), [&] { map.set_written(file, 10, 12); });
  EXPECT_EQ(state(map, file, 9), BlockState::absent);
  EXPECT_EQ(state(map, file, 10), BlockState::written);
  EXPECT_EQ(told.get(11), BlockState::written) << "the load's own answer, too";
  EXPECT_EQ(told.get(12), BlockState::absent);
  map.forget(file, 0, kAll);
}

// L2: the host was asked before the punch.
TEST(WrittenMap, AnOlderAnswerDoesNotBringBackWhatWasForgotten) {
  WrittenMap map({.max_bytes = 4096});
  WrittenMap::File file;
  const BlockStates told = load_late(map, file, all(BlockState::written), [&] { map.forget(file, 10, 12); });
  EXPECT_EQ(state(map, file, 10), BlockState::unknown);
  EXPECT_EQ(told.get(100), BlockState::written) << "good for who has locked it";
  map.forget(file, 0, kAll);
}

// L3: the chunk was dropped and made again meanwhile, and with it the mark of a commit.
TEST(WrittenMap, AnOlderAnswerDoesNotFillAChunkMadeAgain) {
  for (const bool forgotten : {false, true}) {
    WrittenMap map({.max_bytes = 4096});
    WrittenMap::File file;
    const std::uint64_t generation = map.begin_load(file, 0);
    map.set_written(file, 10, 12);
    if (forgotten) {
      map.forget(file, 0, kAll);
    } else {
      for (std::uint64_t chunk = 1; chunk < 50; ++chunk) load(map, file, chunk, all(BlockState::written));
    }
    ASSERT_EQ(state(map, file, 10), BlockState::unknown);
    EXPECT_NE(map.begin_load(file, 0), generation);
    BlockStates told = all(BlockState::absent);
    map.end_load(file, 0, generation, told);
    EXPECT_EQ(state(map, file, 10), BlockState::unknown);
    map.forget(file, 0, kAll);
  }
}

// Threads that write blocks once each, and look, over a host of atomics: nothing that was committed is called absent
// to whoever asks afterwards, and nothing that was punched is called written.
TEST(WrittenMap, ManyThreads) {
  constexpr std::uint64_t kThreads = 4, kBlocks = 6 * kChunk, kRounds = 3000;
  WrittenMap map({.max_bytes = 2'000});  // fewer chunks than there are
  WrittenMap::File file;
  std::vector<Atomic<std::uint8_t>> host(kBlocks);
  Atomic<int> wrong;
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Random random(t);
      for (std::uint64_t round = 0; round < kRounds; ++round) {
        // A block of its own in somebody else's neighbourhood: as if it had locked it.
        const std::uint64_t block = random.below(kBlocks / kThreads) * kThreads + t;
        const bool write = random.one_in(2);
        host[block].store(write ? 1 : 0, memory_order_release);
        if (write) {
          map.set_written(file, block, block + 1);
        } else {
          map.forget(file, block, block + 1);
        }
        BlockState told = map.look(file, block, block + 1).state;
        if (told == BlockState::unknown) {
          const std::uint64_t chunk = block / kChunk;
          const std::uint64_t generation = map.begin_load(file, chunk);
          BlockStates states;
          for (std::uint64_t b = 0; b < kChunk; ++b) {
            const bool there = host[chunk * kChunk + b].load(memory_order_acquire) != 0;
            states.set(b, b + 1, there ? BlockState::written : BlockState::absent);
          }
          if (generation != 0) map.end_load(file, chunk, generation, states);
          told = states.get(block % kChunk);
        }
        if (told != (write ? BlockState::written : BlockState::absent)) wrong.fetch_add(1, memory_order_relaxed);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(memory_order_relaxed), 0);
  for (std::uint64_t block = 0; block < kBlocks; ++block) {
    const BlockState told = state(map, file, block);
    if (told == BlockState::unknown) continue;
    ASSERT_EQ(told == BlockState::written, host[block].load(memory_order_relaxed) != 0) << block;
  }
  map.forget(file, 0, kAll);
}

}  // namespace
}  // namespace quire
