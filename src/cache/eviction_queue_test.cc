// Folios and the policy: whom isolate() passes over, and what stays listed.
#include "cache/eviction_queue.h"

#include <gtest/gtest.h>

#include <vector>

#include "cache/cache_for_test.h"

namespace quire {
namespace {

class EvictionQueueTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(pool.create(200).ok());
    ASSERT_TRUE(queue.create(200).ok());
    pool.take(frames, 200);
  }
  Folio& add() {
    Folio* folio = frames.take();
    folio->refs.store(1, memory_order_relaxed);
    queue.add(*folio, 0, false);
    return *folio;
  }
  std::vector<Folio*> isolate(std::size_t most) {
    std::vector<Victim> victims(most);
    victims.resize(queue.isolate(victims, UINT32_MAX, &scanned));
    std::vector<Folio*> out;
    for (const Victim& victim : victims) out.push_back(victim.folio);
    return out;
  }
  // Ends what isolate() began, so that frames can go back.
  void unlock(const std::vector<Folio*>& folios) {
    for (Folio* folio : folios) unlock_folio(*folio);
  }

  FolioPool pool;
  FrameReservation frames{pool};
  EvictionQueue queue{pool};
  std::uint32_t scanned = 0;
};

TEST_F(EvictionQueueTest, ColdestFirst) {
  Folio& a = add();
  Folio& b = add();
  Folio& c = add();
  EXPECT_EQ(queue.size(), 3U);
  const auto first = isolate(2);
  EXPECT_EQ(first, (std::vector<Folio*>{&a, &b}));
  EXPECT_TRUE(a.has(kLocked));
  EXPECT_FALSE(a.has(kEvictable));
  EXPECT_EQ(queue.size(), 1U);
  EXPECT_EQ(scanned, 2U);
  unlock(first);
  const auto second = isolate(2);
  EXPECT_EQ(second, (std::vector<Folio*>{&c}));
  unlock(second);
  EXPECT_TRUE(isolate(2).empty());
  EXPECT_EQ(scanned, 0U);
}

TEST_F(EvictionQueueTest, SecondChance) {
  Folio& a = add();
  Folio& b = add();
  set_referenced(a);
  auto got = isolate(1);
  EXPECT_EQ(got, (std::vector<Folio*>{&b})) << "a was read since";
  EXPECT_FALSE(referenced(a));
  EXPECT_EQ(scanned, 2U);
  unlock(got);
  EXPECT_TRUE(isolate(1).empty()) << "it was used, and is hot: hot's tail spares it, once";
  got = isolate(1);
  EXPECT_EQ(got, (std::vector<Folio*>{&a}));
  unlock(got);
}

TEST_F(EvictionQueueTest, PassesOverWhatIsInUse) {
  Folio& locked = add();
  Folio& referenced = add();
  Folio& dirty = add();
  Folio& writeback = add();
  Folio& unflushed = add();
  Folio& idle = add();
  ASSERT_TRUE(try_lock_folio(locked));
  referenced.refs.store(2, memory_order_relaxed);
  dirty.flags.fetch_or(kDirty, memory_order_relaxed);
  writeback.flags.fetch_or(kWriteback, memory_order_relaxed);
  unflushed.flags.fetch_or(kUnflushed, memory_order_relaxed);
  const auto got = isolate(10);
  EXPECT_EQ(got, (std::vector<Folio*>{&idle}));
  EXPECT_EQ(queue.size(), 5U);
  EXPECT_EQ(scanned, 6U);
  unlock(got);
  EXPECT_TRUE(isolate(10).empty());
  EXPECT_EQ(scanned, 5U) << "each is looked at once";
  unlock_folio(locked);
  const auto later = isolate(10);
  EXPECT_EQ(later, (std::vector<Folio*>{&locked}));
  unlock(later);
}

TEST_F(EvictionQueueTest, RemovesAnywhereAndAddsOnce) {
  std::vector<Folio*> folios;
  for (int i = 0; i < 5; ++i) folios.push_back(&add());
  for (const int i : {2, 0, 4}) queue.remove(*folios[static_cast<std::size_t>(i)]);
  queue.remove(*folios[2]);         // no effect
  queue.add(*folios[3], 0, false);  // is there already
  EXPECT_EQ(queue.size(), 2U);
  queue.add(*folios[0], 0, false);
  const auto got = isolate(10);
  EXPECT_EQ(got, (std::vector<Folio*>{folios[1], folios[3], folios[0]}));
  unlock(got);
}

TEST_F(EvictionQueueTest, LooksAtABatchAtATime) {
  for (int i = 0; i < 150; ++i) set_referenced(add());
  std::uint32_t looked = 0;
  for (int i = 0; i < 3; ++i) {
    const auto got = isolate(200);
    EXPECT_LE(scanned, EvictionQueue::kScanBatch);
    looked += scanned;
    unlock(got);
  }
  EXPECT_EQ(looked, 3 * EvictionQueue::kScanBatch);
}

}  // namespace
}  // namespace quire
