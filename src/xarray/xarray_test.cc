// Behaviour of the array case by case, at 64 and at 4 slots a node: entries, edges of the index space, growing and
// shrinking, marks, multi-index entries, places, memory.
#include "xarray/xarray.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <type_traits>
#include <vector>

#include "xarray/inspector_for_test.h"
#include "xarray/xarray_impl.h"

namespace quire {
namespace {

XEntry value(std::uint64_t number) { return XEntry::from_value(number & XEntry::kMaxValue); }

template <typename ShiftType>
class XArrayCases : public testing::Test {
 protected:
  using Array = BasicXArray<ShiftType::value>;
  static constexpr unsigned kShift = ShiftType::value;

  // Nothing is left once the entries are gone and a grace period has passed; then a node may be counted by the store.
  void TearDown() override {
    array_.clear();
    rcu_synchronize();
    EXPECT_EQ(store_.bytes(), 0);
  }
  std::int64_t bytes() {
    rcu_synchronize();
    return store_.bytes();
  }
  XEntry load(std::uint64_t index) {
    RcuReadLock read_section;
    return array_.load(index);
  }
  void store(std::uint64_t index, XEntry entry) { ASSERT_TRUE(array_.store(index, entry).ok()); }
  std::vector<std::uint64_t> found(std::uint64_t first, std::uint64_t last) {
    RcuReadLock read_section;
    std::vector<std::uint64_t> indices;
    array_.for_each(first, last, [&](std::uint64_t index, XEntry) {
      indices.push_back(index);
      return true;
    });
    return indices;
  }
  std::vector<std::uint64_t> found_marked(std::uint64_t first, std::uint64_t last, unsigned mark) {
    RcuReadLock read_section;
    std::vector<std::uint64_t> indices;
    array_.for_each_marked(first, last, mark, [&](std::uint64_t index, XEntry) {
      indices.push_back(index);
      return true;
    });
    return indices;
  }
  std::uint64_t gap(std::uint64_t first, std::uint64_t last) {
    RcuReadLock read_section;
    return array_.next_gap(first, last);
  }

  XNodeStore store_;
  Array array_{&store_};
};

using Widths = testing::Types<std::integral_constant<unsigned, 6>, std::integral_constant<unsigned, 2>>;
TYPED_TEST_SUITE(XArrayCases, Widths);

using Indices = std::vector<std::uint64_t>;

TEST(XEntry, KindsDoNotMix) {
  alignas(8) int target = 0;
  EXPECT_TRUE(XEntry{}.empty());
  EXPECT_FALSE(XEntry{}.is_pointer());
  const XEntry pointer = XEntry::from_pointer(&target);
  EXPECT_TRUE(pointer.is_pointer());
  EXPECT_FALSE(pointer.is_value());
  EXPECT_EQ(pointer.pointer(), &target);
  for (const std::uint64_t number : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{2}, XEntry::kMaxValue}) {
    EXPECT_TRUE(value(number).is_value());
    EXPECT_FALSE(value(number).is_pointer());
    EXPECT_FALSE(value(number).empty());
    EXPECT_EQ(value(number).value(), number);
  }
}

TYPED_TEST(XArrayCases, EdgesOfTheIndexSpace) {
  const Indices indices = {0, 1, 63, 64, std::uint64_t{1} << 32, UINT64_MAX / 2, UINT64_MAX - 1, UINT64_MAX};
  for (const std::uint64_t index : indices) EXPECT_FALSE(this->load(index));
  for (const std::uint64_t index : indices) this->store(index, value(index / 2));
  for (const std::uint64_t index : indices) EXPECT_EQ(this->load(index), value(index / 2));
  EXPECT_EQ(this->found(0, UINT64_MAX), indices);
  EXPECT_EQ(this->found(UINT64_MAX, UINT64_MAX), Indices{UINT64_MAX});
  EXPECT_EQ(this->gap(UINT64_MAX - 1, UINT64_MAX), 0u);  // none: last + 1
  EXPECT_EQ(this->gap(UINT64_MAX - 2, UINT64_MAX), UINT64_MAX - 2);
  EXPECT_EQ(this->gap(0, UINT64_MAX), 2u);
  EXPECT_EQ(this->gap(0, 1), 2u);
  EXPECT_EQ(this->gap(63, 64), 65u);
  EXPECT_FALSE(this->load(2));
  EXPECT_FALSE(this->load(UINT64_MAX - 2));
  for (const std::uint64_t index : indices) EXPECT_EQ(this->array_.erase(index), value(index / 2));
  EXPECT_TRUE(this->array_.empty());
  EXPECT_EQ(this->bytes(), 0);
}

TYPED_TEST(XArrayCases, PointersComeBack) {
  alignas(8) static int targets[64][2];
  for (unsigned i = 0; i < 64; ++i) this->store(i * 1000, XEntry::from_pointer(&targets[i]));
  for (unsigned i = 0; i < 64; ++i) EXPECT_EQ(this->load(i * 1000).pointer(), &targets[i]);
}

TYPED_TEST(XArrayCases, InsertAndExchange) {
  EXPECT_EQ(*this->array_.insert(7, value(1)), XEntry{});
  EXPECT_EQ(*this->array_.insert(7, value(2)), value(1));
  EXPECT_EQ(this->load(7), value(1));
  EXPECT_EQ(*this->array_.cmpxchg(7, value(9), value(3)), value(1));
  EXPECT_EQ(this->load(7), value(1));
  EXPECT_EQ(*this->array_.cmpxchg(7, value(1), value(3)), value(1));
  EXPECT_EQ(this->load(7), value(3));
  EXPECT_EQ(*this->array_.cmpxchg(7, value(3), XEntry{}), value(3));
  EXPECT_TRUE(this->array_.empty());
  EXPECT_EQ(*this->array_.cmpxchg(7, value(3), value(4)), XEntry{});
  EXPECT_TRUE(this->array_.empty());
}

TYPED_TEST(XArrayCases, GrowsAndShrinksAtTheRoot) {
  const auto node_bytes = static_cast<std::int64_t>(TestFixture::Array::kNodeBytes);
  this->store(0, value(1));
  EXPECT_EQ(this->bytes(), node_bytes);
  for (unsigned level = 1; level < kXLevels<TestFixture::kShift>; ++level) {
    const std::uint64_t far = std::uint64_t{1} << (level * TestFixture::kShift);
    this->store(far, value(2));
    EXPECT_EQ(this->load(0), value(1));
    // One chain down to each: the root, and `level` nodes below it for both.
    EXPECT_EQ(this->bytes(), node_bytes * (1 + 2 * static_cast<std::int64_t>(level)));
    EXPECT_EQ(this->array_.erase(far), value(2));
    EXPECT_EQ(this->load(0), value(1));
    EXPECT_EQ(this->bytes(), node_bytes);
  }
}

TYPED_TEST(XArrayCases, MarksFollowTheEntry) {
  EXPECT_FALSE(this->array_.set_mark(5, 0));  // absent
  EXPECT_FALSE(this->array_.marked(0));
  for (const std::uint64_t index : {5u, 6u, 5000u}) this->store(index, value(index));
  EXPECT_TRUE(this->array_.set_mark(5, 0));
  EXPECT_FALSE(this->array_.set_mark(5, 0));
  EXPECT_TRUE(this->array_.set_mark(5000, 0));
  EXPECT_TRUE(this->array_.set_mark(6, 2));
  EXPECT_TRUE(this->array_.get_mark(5, 0));
  EXPECT_FALSE(this->array_.get_mark(5, 2));
  EXPECT_EQ(this->found_marked(0, UINT64_MAX, 0), (Indices{5, 5000}));
  EXPECT_EQ(this->found_marked(6, 4999, 0), Indices{});
  EXPECT_EQ(this->found_marked(0, UINT64_MAX, 1), Indices{});
  this->store(5, value(50));  // over an entry: stays
  EXPECT_TRUE(this->array_.get_mark(5, 0));
  this->store(std::uint64_t{1} << 50, value(1));  // a new root knows
  EXPECT_EQ(this->found_marked(0, UINT64_MAX, 0), (Indices{5, 5000}));
  this->array_.erase(5);
  this->store(5, value(5));
  EXPECT_FALSE(this->array_.get_mark(5, 0));
  EXPECT_TRUE(this->array_.clear_mark(5000, 0));
  EXPECT_FALSE(this->array_.clear_mark(5000, 0));
  EXPECT_FALSE(this->array_.marked(0));
  EXPECT_TRUE(this->array_.marked(2));
  XArrayInspector::check(this->array_);
}

TYPED_TEST(XArrayCases, MultiIndexEntriesOfEachOrder) {
  for (unsigned order = 0; order <= 9; ++order) {
    const std::uint64_t size = std::uint64_t{1} << order;
    for (const std::uint64_t start : {std::uint64_t{0}, size, 5 * size, std::uint64_t{0} - size}) {
      SCOPED_TRACE(testing::Message() << "order " << order << " start " << start);
      const std::uint64_t end = start + (size - 1), middle = start + size / 2;
      EXPECT_EQ(*this->array_.store_range(start, order, value(order)), XEntry{});
      for (std::uint64_t i = 0; i < size; ++i) ASSERT_EQ(this->load(start + i), value(order));
      EXPECT_EQ(this->found(0, UINT64_MAX), Indices{start});  // once
      EXPECT_EQ(this->found(middle, UINT64_MAX), Indices{middle});
      EXPECT_EQ(this->found(end, end), Indices{end});
      if (end != UINT64_MAX) {
        EXPECT_EQ(this->found(end + 1, UINT64_MAX), Indices{});
      }
      EXPECT_EQ(this->gap(start, end), end + 1);
      // Any index stands for the whole.
      EXPECT_TRUE(this->array_.set_mark(end, 1));
      EXPECT_FALSE(this->array_.set_mark(middle, 1));
      EXPECT_TRUE(this->array_.get_mark(start, 1));
      EXPECT_EQ(this->found_marked(0, UINT64_MAX, 1), Indices{start});
      EXPECT_EQ(this->found_marked(end, UINT64_MAX, 1), Indices{end});
      EXPECT_EQ(*this->array_.store(middle, value(77)), value(order));
      for (std::uint64_t i = 0; i < size; ++i) ASSERT_EQ(this->load(start + i), value(77));
      EXPECT_TRUE(this->array_.get_mark(end, 1));
      XArrayInspector::check(this->array_);
      EXPECT_EQ(this->array_.erase(middle), value(77));
      EXPECT_TRUE(this->array_.empty());
    }
  }
}

TYPED_TEST(XArrayCases, MultiIndexReplacesSmallerAndJoinsMarks) {
  for (std::uint64_t i = 0; i < 2048; i += 3) this->store(i, value(i));
  EXPECT_EQ(*this->array_.store_range(1032, 3, value(1)), value(1032));
  this->array_.set_mark(1026, 0);
  this->array_.set_mark(1035, 1);
  this->array_.set_mark(1023, 2);                                        // outside
  EXPECT_EQ(*this->array_.store_range(1024, 9, value(2)), value(1026));  // the first that was replaced
  for (std::uint64_t i = 1024; i < 1536; ++i) ASSERT_EQ(this->load(i), value(2));
  EXPECT_EQ(this->load(1023), value(1023));
  EXPECT_EQ(this->load(1536), value(1536));
  EXPECT_TRUE(this->array_.get_mark(1500, 0));
  EXPECT_TRUE(this->array_.get_mark(1500, 1));
  EXPECT_FALSE(this->array_.get_mark(1500, 2));
  // Part of it cannot become an entry of its own; the whole can.
  EXPECT_EQ(this->array_.store_range(1024, 8, value(3)).errnum(), EEXIST);
  EXPECT_EQ(this->array_.store_range(1500, 0, value(3)).errnum(), EEXIST);
  EXPECT_EQ(*this->array_.store_range(1024, 9, value(4)), value(2));
  EXPECT_TRUE(this->array_.get_mark(1030, 0));
  XArrayInspector::check(this->array_);
}

TYPED_TEST(XArrayCases, AdvancedApiInOneSection) {
  typename TestFixture::Array::State at(9000);
  {
    MutexLock lock(this->array_.mutex());
    EXPECT_FALSE(this->array_.load_locked(at));
    EXPECT_EQ(*this->array_.store_locked(at, value(1)), XEntry{});
    EXPECT_TRUE(this->array_.set_mark_locked(at, 0));
    EXPECT_TRUE(this->array_.get_mark_locked(at, 0));
    EXPECT_EQ(*this->array_.store_locked(at, value(2)), value(1));
    EXPECT_TRUE(this->array_.clear_mark_locked(at, 0));
    EXPECT_TRUE(this->array_.set_mark_locked(9000, 1));
    EXPECT_EQ(this->array_.load_locked(9000), value(2));
  }
  // A place outlives what others do to the tree: nodes go, come back, and come to stand below where it pointed.
  this->array_.erase(9000);
  rcu_synchronize();
  {
    MutexLock lock(this->array_.mutex());
    EXPECT_FALSE(this->array_.load_locked(at));
    EXPECT_FALSE(this->array_.set_mark_locked(at, 0));
    EXPECT_EQ(*this->array_.store_locked(at, value(3)), XEntry{});
  }
  ASSERT_TRUE(this->array_.store_range(8704, 9, value(4)).ok());
  {
    MutexLock lock(this->array_.mutex());
    EXPECT_EQ(this->array_.load_locked(at), value(4));
  }
  this->array_.erase(8704);
  this->store(9000, value(5));
  {
    MutexLock lock(this->array_.mutex());
    EXPECT_EQ(this->array_.erase_locked(at), value(5));
    EXPECT_FALSE(this->array_.erase_locked(at));
    at.set_index(1);
    EXPECT_EQ(*this->array_.store_locked(at, value(6)), XEntry{});
  }
  EXPECT_EQ(this->found(0, UINT64_MAX), Indices{1});
}

// Every allocation that a store makes fails in turn: nothing has changed, nothing is lost.
TYPED_TEST(XArrayCases, NoMemoryChangesNothing) {
  struct Request {
    std::uint64_t index;
    unsigned order;
  };
  this->store(3, value(3));
  this->store(5000, value(5));
  this->array_.set_mark(5000, 1);
  for (const Request& request : {Request{UINT64_MAX, 0}, Request{std::uint64_t{1} << 40, 9}, Request{4096 * 3, 9},
                                 Request{4999, 0}, Request{1 << 20, 0}}) {
    const std::int64_t before = this->bytes();
    unsigned failures = 0;
    for (;; ++failures) {
      this->array_.fail_allocation_after(failures);
      const Result<XEntry> result = this->array_.store_range(request.index, request.order, value(8));
      if (result.ok()) break;
      ASSERT_EQ(result.errnum(), ENOMEM);
      EXPECT_EQ(this->bytes(), before);
      EXPECT_EQ(this->found(0, UINT64_MAX), (Indices{3, 5000}));
      EXPECT_EQ(this->found_marked(0, UINT64_MAX, 1), Indices{5000});
      XArrayInspector::check(this->array_);
      ASSERT_LT(failures, 100u);
    }
    this->array_.fail_allocation_after(UINT32_MAX - 1);
    if (request.index > 5000) {
      EXPECT_GT(failures, 0u);
    }
    EXPECT_EQ(this->load(request.index), value(8));
    this->array_.erase(request.index);
    EXPECT_EQ(this->bytes(), before);
  }
  this->array_.clear();
  this->array_.fail_allocation_after(0);
  EXPECT_EQ(this->array_.insert(12345, value(1)).errnum(), ENOMEM);
  EXPECT_TRUE(this->array_.empty());
}

TYPED_TEST(XArrayCases, SplitWithoutMemoryChangesNothing) {
  ASSERT_TRUE(this->array_.store_range(512, 9, value(8)).ok());
  this->array_.set_mark(512, 1);
  const std::int64_t before = this->bytes();
  for (unsigned failures = 0;; ++failures) {
    Status split;
    this->array_.fail_allocation_after(failures);
    {
      MutexLock lock(this->array_.mutex());
      split = this->array_.split_locked(700, 0, 4);
    }
    if (split.ok()) {
      EXPECT_GT(failures, 0u);
      break;
    }
    ASSERT_EQ(split.errnum(), ENOMEM);
    EXPECT_EQ(this->bytes(), before);
    EXPECT_EQ(this->found(0, UINT64_MAX), Indices{512});
    XArrayInspector::check(this->array_);
  }
  EXPECT_EQ(this->found(0, UINT64_MAX), (Indices{512, 640, 672, 688, 696, 700, 701, 702, 704, 768}));
  EXPECT_EQ(this->found_marked(0, UINT64_MAX, 1), this->found(0, UINT64_MAX));
  EXPECT_EQ(this->load(700), value(8 + 188));
  EXPECT_EQ(this->load(703), value(8 + 190));
  XArrayInspector::check(this->array_);
}

TEST(XArraySize, DenseFile) {
  XNodeStore nodes;
  {
    XArray array(&nodes);
    constexpr std::uint64_t kPages = 1 << 16;  // 256 MiB
    for (std::uint64_t i = 0; i < kPages; ++i) ASSERT_TRUE(array.store(i, value(i)).ok());
    const double per_page = static_cast<double>(nodes.bytes()) / kPages;
    EXPECT_GE(per_page, 9.0);
    EXPECT_LE(per_page, 9.5);
    rcu_synchronize();
    EXPECT_EQ(nodes.bytes(), XArrayInspector::check(array) * std::int64_t{XArray::kNodeBytes});
  }
  EXPECT_GT(nodes.bytes(), 0);  // retired by the destructor, not freed before a grace period
  rcu_synchronize();
  EXPECT_EQ(nodes.bytes(), 0);
}

TEST(XNodeStore, KeepsWhatItIsTold) {
#if defined(QUIRE_ASAN)
  GTEST_SKIP() << "AddressSanitizer watches nodes instead";
#endif
  constexpr std::int64_t kNode = XArray::kNodeBytes;
  XNodeStore nodes;
  nodes.keep(2);
  void* made[3];
  for (void*& node : made) ASSERT_NE(node = nodes.take(kNode), nullptr);
  EXPECT_EQ(nodes.bytes(), 3 * kNode);
  for (void* node : made) nodes.give(node, kNode);
  EXPECT_EQ(nodes.bytes(), 0);
  EXPECT_EQ(nodes.kept_bytes(), 2 * kNode);
  void* again = nodes.take(kNode);
  EXPECT_EQ(again, made[1]) << "the one given back last of those kept";
  EXPECT_EQ(nodes.bytes(), kNode);
  EXPECT_EQ(nodes.kept_bytes(), kNode);
  nodes.give(again, kNode);
  nodes.keep(0);
  EXPECT_EQ(nodes.kept_bytes(), 0);
}

}  // namespace
}  // namespace quire
