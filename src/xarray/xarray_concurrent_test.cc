// Lookups and iteration without the lock while others change the array; meant for the thread and address sanitizers.
// Entries say whose they are: a value entry holds the first index it was stored at, and its order.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/random.h"
#include "xarray/inspector_for_test.h"
#include "xarray/xarray.h"
#include "xarray/xarray_impl.h"

namespace quire {
namespace {

constexpr auto kRunTime = std::chrono::milliseconds(700);

XEntry entry_for(std::uint64_t first, unsigned order) { return XEntry::from_value(((first << 7) >> 2) | order); }

// The entry may stand under index: index lies in the range that it names.
bool belongs(XEntry entry, std::uint64_t index) {
  const unsigned order = static_cast<unsigned>(entry.value() & 31);
  const std::uint64_t first = index >> order << order;
  return entry.is_value() && entry == entry_for(first, order);
}

template <typename ShiftType>
class XArrayConcurrent : public testing::Test {
 protected:
  using Array = BasicXArray<ShiftType::value>;

  void TearDown() override {
    XArrayInspector::check(array_);
    array_.clear();
    rcu_synchronize();
    EXPECT_EQ(store_.bytes(), 0);
  }
  template <typename Fn>
  void until_stopped(Fn fn) {
    while (!stop_.load(memory_order_relaxed)) fn();
  }
  // Runs the functions, each in a thread of its own and again and again, for a while.
  template <typename... Fn>
  void run(Fn... fn) {
    std::thread threads[] = {std::thread([this, fn] { until_stopped(fn); })...};
    std::this_thread::sleep_for(kRunTime);
    stop_.store(true, memory_order_relaxed);
    for (std::thread& thread : threads) thread.join();
  }
  // All that a reader may ask for about entries that stay.
  void read_stable(const std::vector<std::uint64_t>& stable) {
    RcuReadLock read_section;
    for (const std::uint64_t index : stable) {
      ASSERT_EQ(array_.load(index), entry_for(index, 0)) << index;
      ASSERT_TRUE(array_.get_mark(index, 1)) << index;
      std::uint64_t at = index;
      ASSERT_EQ(array_.find(&at, index), entry_for(index, 0)) << index;
      ASSERT_NE(array_.next_gap(index, index), index);
    }
    ASSERT_TRUE(array_.marked(1));
    ASSERT_FALSE(array_.empty());
    meet_all(stable, false);
    meet_all(stable, true);
    reads_.fetch_add(1, memory_order_relaxed);
  }
  void meet_all(const std::vector<std::uint64_t>& stable, bool marked) {
    auto next = stable.begin();
    const auto meet = [&](std::uint64_t index, XEntry entry) {
      EXPECT_TRUE(belongs(entry, index)) << index;
      if (next != stable.end() && index == *next) ++next;
      return true;
    };
    if (marked) {
      array_.for_each_marked(0, UINT64_MAX, 1, meet);
    } else {
      array_.for_each(0, UINT64_MAX, meet);
    }
    ASSERT_EQ(next, stable.end()) << "missed " << *next;
  }
  void store_stable(const std::vector<std::uint64_t>& stable) {
    for (const std::uint64_t index : stable) {
      ASSERT_TRUE(array_.store(index, entry_for(index, 0)).ok());
      ASSERT_TRUE(array_.set_mark(index, 1));
    }
  }

  Atomic<bool> stop_{false};
  Atomic<std::uint64_t> reads_{0};
  XNodeStore store_;
  Array array_{&store_};
};

using Widths = testing::Types<std::integral_constant<unsigned, 6>, std::integral_constant<unsigned, 2>>;
TYPED_TEST_SUITE(XArrayConcurrent, Widths);

// The root goes up and down above what stays.
TYPED_TEST(XArrayConcurrent, RootGrowsAndShrinks) {
  const std::vector<std::uint64_t> stable = {0, 2};
  this->store_stable(stable);
  Random random(1);
  this->run([&] { this->read_stable(stable); },
            [&, random]() mutable {
              const std::uint64_t far = std::uint64_t{4} << random.below(54);
              ASSERT_TRUE(this->array_.store(far, entry_for(far, 0)).ok());
              if (random.one_in(2)) this->array_.set_mark(far, 1);
              if (random.one_in(4)) {
                ASSERT_TRUE(this->array_.store_range(far, 2, entry_for(far, 2)).ok());
              }
              ASSERT_TRUE(this->array_.erase(far));
              if (random.one_in(16)) rcu_drain(0);
            });
  EXPECT_GT(this->reads_.load(memory_order_relaxed), 0u);
}

// Neighbours come and go: in the same leaf, in leaves that empty, as entries of any order beside what stays.
TYPED_TEST(XArrayConcurrent, NeighboursComeAndGo) {
  const std::vector<std::uint64_t> stable = {1, 64, 4095, 4096, 70000};
  this->store_stable(stable);
  const auto writer = [this](std::uint64_t seed) {
    return [this, random = Random(seed)]() mutable {
      const std::uint64_t index = random.below(std::uint64_t{1} << (4 + random.below(14)));
      const unsigned order = static_cast<unsigned>(random.below(10));
      const std::uint64_t first = index >> order << order;
      std::uint64_t at = first, last = first + (std::uint64_t{1} << order) - 1;
      MutexLock lock(this->array_.mutex());
      // Where one of those that stay lies inside, or a larger entry around, erase something instead.
      if (this->array_.find_marked(&at, last, 1)) return;
      const Result<XEntry> stored = this->array_.store_range_locked(first, order, entry_for(first, order));
      if (stored.ok() && random.one_in(2)) this->array_.set_mark_locked(index, 2);
      if (!stored.ok() || random.one_in(2)) this->array_.erase_locked(index);
    };
  };
  const auto reader = [&, random = Random(9)]() mutable {
    this->read_stable(stable);
    RcuReadLock read_section;
    for (int i = 0; i < 100; ++i) {
      const std::uint64_t index = random.below(20000);
      const XEntry entry = this->array_.load(index);
      if (entry) {
        ASSERT_TRUE(belongs(entry, index)) << index;
      }
      std::uint64_t at = index;
      const XEntry marked = this->array_.find_marked(&at, UINT64_MAX, 2);
      if (marked) {
        ASSERT_TRUE(belongs(marked, at)) << index << " " << at;
      }
      if (marked) {
        ASSERT_GE(at, index);
      }
    }
  };
  this->run(reader, writer(2), writer(3), [] {
    rcu_drain(0);
    std::this_thread::yield();
  });
  EXPECT_GT(this->reads_.load(memory_order_relaxed), 0u);
}

// A pointer that is replaced and freed after a grace period is never seen freed.
TYPED_TEST(XArrayConcurrent, WhatIsFoundIsAlive) {
  struct alignas(8) Object : RcuHead {
    std::uint64_t index;
  };
  constexpr std::uint64_t kSpan = 300;
  const auto free_object = [](RcuHead* head) { delete static_cast<Object*>(head); };
  const auto reader = [this, random = Random(4)]() mutable {
    const std::uint64_t index = random.below(kSpan) * random.below(kSpan);
    RcuReadLock read_section;
    const XEntry entry = this->array_.load(index);
    if (entry) {
      ASSERT_EQ(static_cast<Object*>(entry.pointer())->index, index);
    }
    this->array_.for_each(index, index + 40, [&](std::uint64_t at, XEntry there) {
      EXPECT_EQ(static_cast<Object*>(there.pointer())->index, at);
      return true;
    });
  };
  const auto writer = [&, random = Random(5)]() mutable {
    const std::uint64_t index = random.below(kSpan) * random.below(kSpan);
    XEntry old;
    if (random.one_in(2)) {
      Object* object = new Object;
      object->index = index;
      old = this->array_.store(index, XEntry::from_pointer(object)).take();
    } else {
      old = this->array_.erase(index);
    }
    if (old) rcu_retire(static_cast<Object*>(old.pointer()), free_object);
    if (random.one_in(64)) rcu_drain(0);
  };
  this->run(reader, reader, writer, writer);
  RcuReadLock read_section;
  this->array_.for_each(0, UINT64_MAX, [](std::uint64_t, XEntry entry) {
    delete static_cast<Object*>(entry.pointer());
    return true;
  });
}

}  // namespace
}  // namespace quire
