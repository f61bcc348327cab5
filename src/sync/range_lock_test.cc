#include "sync/range_lock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/random.h"

namespace quire {
namespace {

constexpr std::uint8_t kShared = 0, kExclusive = 1;
constexpr RangeModes kTwoModes{{0b01, 0b00, 0, 0}};
// As the invalidate lock: instantiate and direct go with themselves, remove with nothing; a fourth with all but remove.
constexpr RangeModes kFourModes{{0b1001, 0b1010, 0b0000, 0b1011}};

LockClass test_class("range_lock_test", LockClass::Nesting::ascending);

struct Hold {
  std::uint64_t first, last;
  std::uint8_t mode;
};

// The definition, apart from the lock: do two holds exclude each other?
bool conflict(const RangeModes& modes, const Hold& a, const Hold& b) {
  return std::max(a.first, b.first) <= std::min(a.last, b.last) && ((modes.compatible[a.mode] >> b.mode) & 1) == 0;
}

Hold random_hold(Random& random, std::uint64_t span, unsigned modes) {
  std::uint64_t first = random.below(span), last = random.below(span);
  if (first > last) std::swap(first, last);
  if (random.one_in(16)) last = kRangeEnd;
  return {first, last, static_cast<std::uint8_t>(random.below(modes))};
}

// Until somebody waits for the point in a mode that excludes `probe_mode`.
void await_waiter(RangeLock& lock, std::uint64_t point, std::uint8_t probe_mode) {
  std::thread([&] {  // holds nothing itself
    RangeRequest probe;
    while (lock.try_lock(probe, point, point, probe_mode)) {
      lock.unlock(probe);
      std::this_thread::yield();
    }
  })
      .join();
}

// Without waiters a try succeeds exactly when the model says so.
TEST(RangeLock, TryLockAgreesWithModel) {
  Random random(11);
  RangeLock lock(test_class, kFourModes, 1);
  struct Entry {
    Hold hold;
    RangeRequest request;
  };
  std::list<Entry> held;
  int granted = 0, refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    if (!held.empty() && (held.size() > 12 || random.one_in(2))) {
      auto it = std::next(held.begin(), static_cast<std::ptrdiff_t>(random.below(held.size())));
      lock.unlock(it->request);
      held.erase(it);
      continue;
    }
    const Hold wanted = random_hold(random, 64, 4);
    const bool allowed = std::none_of(held.begin(), held.end(),
                                      [&](const Entry& entry) { return conflict(kFourModes, entry.hold, wanted); });
    Entry& entry = held.emplace_back();
    entry.hold = wanted;
    ASSERT_EQ(lock.try_lock(entry.request, wanted.first, wanted.last, wanted.mode), allowed);
    ASSERT_EQ(entry.request.held(), allowed);
    ++(allowed ? granted : refused);
    if (!allowed) held.pop_back();
  }
  for (Entry& entry : held) lock.unlock(entry.request);
  EXPECT_GT(granted, 1000);
  EXPECT_GT(refused, 1000);
}

// Who holds what, kept by the test: entering beside a conflicting hold is a failure of the lock.
class Ledger {
 public:
  explicit Ledger(const RangeModes& modes) : modes_(modes) {}
  std::list<Hold>::iterator enter(const Hold& hold) {
    const std::scoped_lock guard(mutex_);
    for (const Hold& other : held_) {
      EXPECT_FALSE(conflict(modes_, other, hold)) << "[" << hold.first << ", " << hold.last << "] mode " << +hold.mode;
    }
    if (!held_.empty()) ++together_;
    return held_.insert(held_.end(), hold);
  }
  void leave(std::list<Hold>::iterator it) {
    const std::scoped_lock guard(mutex_);
    held_.erase(it);
  }
  int together() const { return together_; }

 private:
  const RangeModes& modes_;
  std::mutex mutex_;
  std::list<Hold> held_;
  int together_ = 0;
};

void run_model(const RangeModes& modes, unsigned mode_count) {
  constexpr int kThreads = 4, kTurns = 3'000;
  RangeLock lock(test_class, modes, 1);
  Ledger ledger(modes);
  std::atomic<int> started{0};  // each is done in a millisecond: they would come one after the other
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Random random(100 + t);
      for (++started; started.load() < kThreads;) std::this_thread::yield();
      for (int i = 0; i < kTurns; ++i) {
        const Hold hold = random_hold(random, 32, mode_count);
        RangeGuard guard(lock);
        if (random.one_in(4)) {
          if (!guard.try_acquire(hold.first, hold.last, hold.mode)) continue;
        } else {
          guard.acquire(hold.first, hold.last, hold.mode);
        }
        const auto entry = ledger.enter(hold);
        if (random.one_in(8)) std::this_thread::yield();
        ledger.leave(entry);
      }
    });
  }
  for (auto& thread : threads) thread.join();  // a grant that gets lost hangs here
  EXPECT_GT(ledger.together(), 0);
  RangeRequest all;
  ASSERT_TRUE(lock.try_lock(all, 0, kRangeEnd, 1));
  lock.unlock(all);
}

TEST(RangeLock, ModelTwoModes) { run_model(kTwoModes, 2); }
TEST(RangeLock, ModelFourModes) { run_model(kFourModes, 4); }

TEST(RangeLock, DisjointRangesDoNotWait) {
  RangeLock lock(test_class, kTwoModes, 1);
  RangeRequest low;
  lock.lock(low, 0, 99, kExclusive);
  std::thread waiter([&] {
    RangeGuard guard(lock);
    guard.acquire(50, 150, kExclusive);
  });
  await_waiter(lock, 120, kExclusive);
  std::thread([&] {  // beside the holder and the waiter
    RangeGuard guard(lock);
    guard.acquire(151, kRangeEnd, kExclusive);
    EXPECT_TRUE(guard.request().covers(200, 300));
    EXPECT_FALSE(guard.request().covers(150, 300));
  })
      .join();
  EXPECT_TRUE(low.held());
  lock.unlock(low);
  waiter.join();
}

// Shared holder, exclusive waiter, shared newcomer: the newcomer goes behind the waiter where it overlaps it, and
// beside it where it does not.
TEST(RangeLock, NewcomersQueueBehindWaiters) {
  RangeLock lock(test_class, kTwoModes, 1);
  Atomic<int> order;
  RangeRequest holder;
  lock.lock(holder, 0, 9, kShared);
  std::thread exclusive([&] {
    RangeGuard guard(lock);
    guard.acquire(5, 14, kExclusive);
    EXPECT_EQ(order.fetch_add(1, memory_order_relaxed), 0);
  });
  await_waiter(lock, 14, kShared);
  std::thread shared([&] {
    RangeGuard guard(lock);
    guard.acquire(8, 20, kShared);
    EXPECT_EQ(order.fetch_add(1, memory_order_relaxed), 1);
  });
  await_waiter(lock, 20, kExclusive);
  std::thread([&] {
    RangeGuard guard(lock);
    guard.acquire(0, 4, kShared);
    EXPECT_EQ(order.load(memory_order_relaxed), 0);
  }).join();
  lock.unlock(holder);
  exclusive.join();
  shared.join();
}

// Waiters are granted past an earlier one only where they do not conflict with it.
TEST(RangeLock, UnlockGrantsAllThatMayGo) {
  RangeLock lock(test_class, kTwoModes, 1);
  RangeRequest left, right;
  lock.lock(left, 0, 9, kExclusive);
  lock.lock(right, 10, 19, kExclusive);
  Atomic<int> granted;
  Atomic<bool> release;
  const auto take = [&](std::uint64_t first, std::uint64_t last, int bit) {
    RangeGuard guard(lock);
    guard.acquire(first, last, kShared);
    granted.fetch_or(bit, memory_order_relaxed);
    while (!release.load(memory_order_relaxed)) std::this_thread::yield();
  };
  std::thread a(take, 5, 14, 1);  // waits for both
  std::thread b(take, 0, 3, 2);   // for the left one
  std::thread c(take, 1, 3, 4);   // so too, together with b
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(granted.load(memory_order_relaxed), 0);
  lock.unlock(left);
  while (granted.load(memory_order_relaxed) != 6) std::this_thread::yield();
  lock.unlock(right);
  while (granted.load(memory_order_relaxed) != 7) std::this_thread::yield();
  release.store(true, memory_order_relaxed);
  a.join();
  b.join();
  c.join();
}

// Shared holders that overlap each other without a gap do not starve an exclusive request.
TEST(RangeLock, ExclusiveIsNotStarved) {
  RangeLock lock(test_class, kTwoModes, 1);
  Atomic<bool> stop;
  Atomic<int> reads;
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t) {
    readers.emplace_back([&] {
      while (!stop.load(memory_order_relaxed)) {
        RangeGuard guard(lock);
        guard.acquire(0, 100, kShared);
        reads.fetch_add(1, memory_order_relaxed);
        std::this_thread::yield();
      }
    });
  }
  for (int i = 0; i < 300 || reads.load(memory_order_relaxed) < 300; ++i) {
    RangeGuard guard(lock);
    guard.acquire(50, 50, kExclusive);
  }
  stop.store(true, memory_order_relaxed);
  for (auto& reader : readers) reader.join();
}

// Each request is submitted here and unlocked, and its memory freed, by a completion thread.
TEST(RangeLock, DetachedRequestIsUnlockedElsewhere) {
  constexpr int kRequests = 2'000;
  RangeLock lock(test_class, kTwoModes, 1);
  std::mutex mutex;
  std::vector<std::unique_ptr<RangeRequest>> submitted;
  std::uint64_t guarded = 0;  // by the exclusive range
  Atomic<int> completed;
  std::thread completer([&] {
    while (completed.load(memory_order_relaxed) < kRequests) {
      std::vector<std::unique_ptr<RangeRequest>> batch;
      {
        const std::scoped_lock guard(mutex);
        batch.swap(submitted);
      }
      for (auto& request : batch) {
        ++guarded;
        lock.unlock(*request);
        request.reset();
        completed.fetch_add(1, memory_order_relaxed);
      }
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < kRequests; ++i) {
    auto request = std::make_unique<RangeRequest>();
    lock.lock(*request, 10, 20, kExclusive);
    ++guarded;
    lock.detach(*request);
    const std::scoped_lock guard(mutex);
    submitted.push_back(std::move(request));
  }
  completer.join();
  EXPECT_EQ(guarded, 2u * kRequests);
}

TEST(RangeLock, GuardReleasesOnce) {
  RangeLock lock(test_class, kTwoModes, 1);
  RangeGuard guard(lock);
  guard.release();
  guard.acquire(3, 3, kExclusive);
  guard.release();
  EXPECT_FALSE(guard.request().held());
  EXPECT_TRUE(guard.try_acquire(0, kRangeEnd, kExclusive));
}

}  // namespace
}  // namespace quire
