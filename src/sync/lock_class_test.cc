#include "sync/lock_class.h"

#include <gtest/gtest.h>

#ifdef QUIRE_LOCK_VALIDATOR

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "sync/mutex.h"
#include "sync/range_lock.h"
#include "sync/rw_lock.h"

namespace quire {
namespace {

constexpr std::uint8_t kShared = 0, kExclusive = 1;
constexpr RangeModes kTwoModes{{0b01, 0b00, 0, 0}};

std::vector<std::string> reports;  // by the one thread that each test lets break the order

class LockOrder : public ::testing::Test {
 protected:
  void SetUp() override {
    reports.clear();
    set_lock_report_handler([](const std::string& report) { reports.push_back(report); });
  }
  void TearDown() override { set_lock_report_handler(nullptr); }
};

bool mentions(const std::string& report, const std::string& what) { return report.find(what) != std::string::npos; }

// Named in the stacks of the reports.
[[gnu::noinline]] void take_first_then_second(Mutex& first, Mutex& second) {
  MutexLock outer(first);
  MutexLock inner(second);
}
[[gnu::noinline]] void take_backwards(Mutex& first, Mutex& second) {
  MutexLock outer(first);
  MutexLock inner(second);
}

// For what the compiler's own analysis would refuse, or cannot follow.
template <typename Lock>
void lock_unchecked(Lock& lock) NO_THREAD_SAFETY_ANALYSIS {
  lock.lock();
}
template <typename Lock>
void unlock_unchecked(Lock& lock) NO_THREAD_SAFETY_ANALYSIS {
  lock.unlock();
}
void share_twice(RwLock& lock) NO_THREAD_SAFETY_ANALYSIS {
  lock.lock_shared();
  lock.lock_shared();
  lock.unlock_shared();
  lock.unlock_shared();
}

TEST_F(LockOrder, InversionNamesBothClassesAndStacks) {
  static LockClass a_class("inversion A"), b_class("inversion B");
  Mutex a(a_class), b(b_class);
  take_first_then_second(a, b);
  take_first_then_second(a, b);
  EXPECT_TRUE(reports.empty());
  take_backwards(b, a);
  ASSERT_EQ(reports.size(), 1u);
  const std::string& report = reports[0];
  EXPECT_TRUE(mentions(report, "cycle inversion B -> inversion A -> inversion B")) << report;
  EXPECT_TRUE(mentions(report, "take_first_then_second")) << report;
  EXPECT_TRUE(mentions(report, "take_backwards")) << report;
  take_first_then_second(a, b);  // the right order stays right
  EXPECT_EQ(reports.size(), 1u);
}

TEST_F(LockOrder, CycleOverThreeClassesAndThreads) {
  static LockClass a_class("three A"), b_class("three B"), c_class("three C");
  Mutex a(a_class), b(b_class), c(c_class);
  std::thread([&] { take_first_then_second(a, b); }).join();
  std::thread([&] { take_first_then_second(b, c); }).join();
  std::thread([&] { take_first_then_second(a, c); }).join();
  EXPECT_TRUE(reports.empty());
  std::thread([&] { take_backwards(c, a); }).join();
  ASSERT_EQ(reports.size(), 1u);
  // The direct edge A -> C makes the shorter cycle; without it B is part.
  EXPECT_TRUE(mentions(reports[0], "cycle three C -> three A -> three C")) << reports[0];

  static LockClass d_class("four D"), e_class("four E"), f_class("four F");
  Mutex d(d_class), e(e_class), f(f_class);
  take_first_then_second(d, e);
  take_first_then_second(e, f);
  take_backwards(f, d);
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_TRUE(mentions(reports[1], "cycle four F -> four D -> four E -> four F")) << reports[1];
  EXPECT_TRUE(mentions(reports[1], "known order, four D -> four E")) << reports[1];
  EXPECT_TRUE(mentions(reports[1], "known order, four E -> four F")) << reports[1];
}

TEST_F(LockOrder, OneClassInKeyOrder) {
  static LockClass folio("keyed folio", LockClass::Nesting::ascending);
  Mutex low(folio, {1, 5}), high(folio, {1, 6}), other(folio, {2, 0});
  take_first_then_second(low, high);
  take_first_then_second(high, other);
  EXPECT_TRUE(reports.empty());
  take_backwards(other, low);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_TRUE(mentions(reports[0], "ascending key order")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "\"keyed folio\" (2, 0) is held")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "\"keyed folio\" (1, 5) is being taken")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "take_backwards")) << reports[0];
}

TEST_F(LockOrder, UnorderedClassOnlyOnce) {
  static LockClass leaf("unordered leaf");
  Mutex a(leaf), b(leaf);
  take_backwards(a, b);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_TRUE(mentions(reports[0], "unordered")) << reports[0];
}

TEST_F(LockOrder, TryLockIsRecordedButNotChecked) {
  static LockClass a_class("try A"), b_class("try B");
  Mutex a(a_class), b(b_class);
  take_first_then_second(a, b);
  {
    MutexLock outer(b);
    if (!a.try_lock()) FAIL();
    EXPECT_TRUE(lock_held_by_me(&a));
    a.unlock();
  }
  EXPECT_TRUE(reports.empty());
  if (!b.try_lock()) FAIL();
  a.lock();  // waits while a try-lock is held: an inversion
  a.unlock();
  b.unlock();
  EXPECT_EQ(reports.size(), 1u);
}

TEST_F(LockOrder, RecursiveSharedHold) {
  static LockClass rw_class("recursive rw");
  RwLock lock(rw_class);
  share_twice(lock);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_TRUE(mentions(reports[0], "recursive")) << reports[0];
}

[[gnu::noinline]] void hold_outer_range(RangeLock& lock, RangeRequest& request) {
  lock.lock(request, 0, 9, kShared);
  asm volatile("");  // no tail call: its frame is looked for
}

TEST_F(LockOrder, RecursiveRange) {
  static LockClass range_class("recursive range", LockClass::Nesting::ascending);
  RangeLock lock(range_class, kTwoModes, 7), sibling(range_class, kTwoModes, 8);
  RangeRequest outer, inner, disjoint, other;
  hold_outer_range(lock, outer);
  lock.lock(disjoint, 20, 29, kExclusive);
  sibling.lock(other, 0, 9, kExclusive);  // same range of another file
  EXPECT_TRUE(reports.empty());
  sibling.unlock(other);
  lock.unlock(disjoint);
  lock.lock(inner, 5, 14, kShared);  // granted, since nobody waits; a waiting writer would make it a deadlock
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_TRUE(mentions(reports[0], "recursive")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "\"recursive range\" (7, 0) is held")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "hold_outer_range")) << reports[0];
  lock.unlock(inner);
  lock.unlock(outer);
}

[[gnu::noinline]] void submit_write(RangeLock& lock, RangeRequest& request) {
  lock.lock(request, 0, 9, kExclusive);
  lock.detach(request);
  asm volatile("");
}

// A completion holds the range and takes a folio under it; somebody who holds the folio then waits for the range.
TEST_F(LockOrder, AsynchronousHolderPrintsWhereItWasSubmitted) {
  static LockClass range_class("async range", LockClass::Nesting::ascending), folio_class("async folio");
  RangeLock lock(range_class, kTwoModes, 7);
  Mutex folio(folio_class);
  RangeRequest written;
  submit_write(lock, written);
  EXPECT_FALSE(lock_held_by_me(&written));
  std::thread([&] {
    lock_adopt(&written);
    EXPECT_TRUE(lock_held_by_me(&written));
    { MutexLock guard(folio); }
    lock_detach(&written);
  }).join();
  EXPECT_TRUE(reports.empty());
  Atomic<bool> waits;
  std::thread waiter([&] {
    MutexLock guard(folio);
    RangeGuard range(lock);
    waits.store(true, memory_order_release);
    range.acquire(5, 5, kShared);
  });
  while (!waits.load(memory_order_acquire)) std::this_thread::yield();
  std::thread([&] { lock.unlock(written); }).join();
  waiter.join();
  // The report is of the moment that it began to wait; if that came after the unlock the holder is gone from it.
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_TRUE(mentions(reports[0], "cycle async folio -> async range -> async folio")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "its asynchronous holder was submitted at")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "submit_write")) << reports[0];
}

TEST_F(LockOrder, WaitingForAsynchronousHolderOfTheSameLock) {
  static LockClass early_class("before range"), range_class("pending range", LockClass::Nesting::ascending);
  Mutex early(early_class);
  RangeLock lock(range_class, kTwoModes, 7);
  RangeRequest written, mine;
  lock.lock(mine, 20, 29, kExclusive);
  { MutexLock guard(early); }  // range before early
  lock.unlock(mine);
  submit_write(lock, written);
  MutexLock guard(early);
  lock_will_acquire(range_class, &mine, {7, 5}, {&lock, 5, 5});  // what lock() does before it waits
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_TRUE(mentions(reports[0], "which waits for an asynchronous holder")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "submit_write")) << reports[0];
  lock.unlock(written);
}

TEST_F(LockOrder, ReleasesAndAssertions) {
  static LockClass a_class("released A");
  Mutex a(a_class);
  lock_assert_none_held("a throttled write");
  EXPECT_TRUE(reports.empty());
  lock_unchecked(a);
  lock_assert_none_held("a throttled write");
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_TRUE(mentions(reports[0], "a throttled write")) << reports[0];
  EXPECT_TRUE(mentions(reports[0], "released A")) << reports[0];
  lock_assert_none_held("a copy out", &a_class);
  ASSERT_EQ(reports.size(), 1u) << "of this class it may be";
  std::thread([&] { lock_released(&a); }).join();
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_TRUE(mentions(reports[1], "does not hold it")) << reports[1];
  unlock_unchecked(a);
  lock_released_async(&a);
  EXPECT_EQ(reports.size(), 3u);
}

// Many threads learn the same edges at once, over as many locks as a large write holds.
TEST_F(LockOrder, ConcurrentAndDeep) {
  static LockClass outer_class("deep outer"), folio("deep folio", LockClass::Nesting::ascending), leaf("deep leaf");
  Mutex outer(outer_class), inner(leaf);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      std::vector<std::unique_ptr<Mutex>> folios;
      for (std::uint64_t i = 0; i < 64; ++i) folios.push_back(std::make_unique<Mutex>(folio, LockKey{1, i}));
      for (int turn = 0; turn < 50; ++turn) {
        MutexLock guard(outer);
        for (auto& each : folios) lock_unchecked(*each);
        { MutexLock last(inner); }
        for (auto& each : folios) unlock_unchecked(*each);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(reports.empty());
}

TEST(LockOrderDeathTest, AbortsWithoutHandler) {
  static LockClass leaf("fatal leaf");
  Mutex a(leaf), b(leaf);
  EXPECT_DEATH(take_backwards(a, b), "two locks of an unordered class.*");
}

}  // namespace
}  // namespace quire

#else

namespace quire {
namespace {

// Without the validator the hooks are there and do nothing.
TEST(LockOrder, HooksAreEmpty) {
  LockClass lock_class("unused");
  int lock = 0;
  lock_will_acquire(lock_class, &lock);
  lock_acquired(lock_class, &lock);
  lock_acquired(lock_class, &lock);
  lock_released(&lock);
  lock_assert_none_held("nothing is recorded");
  EXPECT_TRUE(lock_held_by_me(&lock));
}

}  // namespace
}  // namespace quire

#endif
