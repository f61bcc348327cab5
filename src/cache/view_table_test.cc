// Views by address: found where they lie, nowhere else, and kept while they are held.
#include "cache/view_table.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>

namespace quire {
namespace {

struct TestSpan : ViewSpan {
  explicit TestSpan(std::uint64_t wanted_pages, std::uint64_t first = 0) {
    pages = wanted_pages;
    first_page = first;
    owner = this;
    base = take_view_addresses(bytes()).take();
    EXPECT_TRUE(list_view(*this).ok());
  }
  ~TestSpan() {
    if (listed) unlist_view(*this);
    give_view_addresses(base, bytes());
  }
  bool listed = true;
};

TEST(ViewTable, FindsByAddress) {
  int local = 0;
  EXPECT_FALSE(hold_view(&local));
  EXPECT_FALSE(hold_view(nullptr));
  TestSpan a(3, 5), b(1), c(600);
  for (TestSpan* span : {&a, &b, &c}) {
    EXPECT_TRUE(in_views(span->base));
    const ViewHold first = hold_view(span->base), last = hold_view(span->base + span->bytes() - 1);
    ASSERT_TRUE(first);
    ASSERT_TRUE(last);
    EXPECT_EQ(first.owner(), span);
    EXPECT_EQ(last.owner(), span);
    EXPECT_EQ(first.left(), span->bytes());
    EXPECT_EQ(last.left(), 1U);
    EXPECT_FALSE(hold_view(span->base + span->bytes()));  // a guard page
    EXPECT_FALSE(hold_view(span->base - 1));
  }
  EXPECT_EQ(hold_view(a.base + 10).offset(), 5 * kPageSize + 10);
  EXPECT_TRUE(touches_views(a.base - 5, 6));
  EXPECT_FALSE(touches_views(&local, sizeof local));
  unlist_view(b);
  b.listed = false;
  EXPECT_FALSE(hold_view(b.base));
  EXPECT_TRUE(hold_view(c.base));
}

TEST(ViewTable, AddressesGoRoundAndMerge) {
  const std::uint64_t bytes = std::uint64_t{1} << 30;
  std::array<char*, 3> base;
  for (char*& one : base) one = take_view_addresses(bytes).take();
  for (std::size_t i = 1; i < base.size(); ++i) EXPECT_GE(base[i], base[i - 1] + bytes + kPageSize);
  give_view_addresses(base[1], bytes);
  char* const next = take_view_addresses(bytes).take();
  EXPECT_NE(next, base[1]);  // the one just given back comes last
  give_view_addresses(next, bytes);
  give_view_addresses(base[0], bytes);
  give_view_addresses(base[2], bytes);
  const std::uint64_t all = view_region.size.load(std::memory_order_relaxed) - (std::uint64_t{8} << 20);
  const auto whole = take_view_addresses(all);  // only if all of it is one range again
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(take_view_addresses(bytes).errnum(), ENOMEM);
  give_view_addresses(whole.value(), all);
  EXPECT_EQ(take_view_addresses(2 * view_region.size.load(std::memory_order_relaxed)).errnum(), ENOMEM);
}

TEST(ViewTable, UnlistingWaitsForHolds) {
  TestSpan span(1);
  ViewHold hold = hold_view(span.base);
  std::atomic<bool> gone{false};
  span.listed = false;
  std::thread unlister([&] {
    unlist_view(span);
    gone = true;
  });
  while (hold_view(span.base)) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(gone);
  hold.release();
  unlister.join();
  EXPECT_TRUE(gone);
}

TEST(ViewTable, LookupsBesideChanges) {
  TestSpan stays(1);
  std::atomic<bool> stop{false};
  std::thread looker([&] {
    while (!stop) {
      const ViewHold hold = hold_view(stays.base);
      ASSERT_TRUE(hold);
      ASSERT_EQ(hold.owner(), &stays);
    }
  });
  for (int i = 0; i < 200; ++i) {
    TestSpan passing(1);
    ViewHold hold = hold_view(passing.base);
    EXPECT_EQ(hold.owner(), &passing);
  }
  stop = true;
  looker.join();
}

}  // namespace
}  // namespace quire
