// Long random runs of every operation beside a std::map that does the same, at 64 and at 4 slots a node. A failure
// prints the seed that replays it.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <map>
#include <tuple>
#include <vector>

#include "base/random.h"
#include "xarray/inspector_for_test.h"
#include "xarray/xarray.h"
#include "xarray/xarray_impl.h"

namespace quire {
namespace {

// What the array should be: entries by their first index.
class Model {
 public:
  struct Item {
    XEntry entry;
    std::uint64_t last;
    std::array<bool, kXMarks> marks;
  };
  using Items = std::map<std::uint64_t, Item>;

  Items::iterator covering(std::uint64_t index) {
    auto after = items.upper_bound(index);
    if (after == items.begin()) return items.end();
    const auto item = std::prev(after);
    return item->second.last >= index ? item : items.end();
  }
  XEntry load(std::uint64_t index) {
    const auto item = covering(index);
    return item == items.end() ? XEntry{} : item->second.entry;
  }
  XEntry store(std::uint64_t index, XEntry entry) {
    const auto item = covering(index);
    if (item == items.end()) {
      if (entry) items[index] = Item{entry, index, {}};
      return {};
    }
    const XEntry old = item->second.entry;
    if (entry) {
      item->second.entry = entry;
    } else {
      items.erase(item);
    }
    return old;
  }
  int store_range(std::uint64_t first, std::uint64_t last, XEntry entry, XEntry* old) {
    const auto around = covering(first);
    if (around != items.end() && around->second.last - around->first > last - first) return EEXIST;
    Item item{entry, last, {}};
    auto next = items.lower_bound(first);
    if (next != items.end() && next->first <= last) *old = next->second.entry;
    while (next != items.end() && next->first <= last) {
      for (unsigned mark = 0; mark < kXMarks; ++mark) item.marks[mark] |= next->second.marks[mark];
      next = items.erase(next);
    }
    items[first] = item;
    return 0;
  }
  Items::iterator find(std::uint64_t index, std::uint64_t last, int mark) {
    auto item = covering(index);
    if (item == items.end()) item = items.upper_bound(index);
    while (item != items.end() && mark >= 0 && !item->second.marks[static_cast<unsigned>(mark)]) ++item;
    return item == items.end() || item->first > last ? items.end() : item;
  }
  std::uint64_t next_gap(std::uint64_t index, std::uint64_t last) {
    for (;;) {
      const auto item = covering(index);
      if (item == items.end()) return index;
      if (item->second.last >= last) return last + 1;
      index = item->second.last + 1;
    }
  }
  bool marked(unsigned mark) const {
    return std::any_of(items.begin(), items.end(), [mark](const auto& item) { return item.second.marks[mark]; });
  }

  Items items;
};

// Where the indices of one run lie.
enum class Spread { dense, file, ends, anywhere };

std::uint64_t pick_index(Random& random, Spread spread) {
  switch (spread) {
    case Spread::dense:
      return random.below(300);
    case Spread::file:
      return random.below(200'000);
    case Spread::ends:
      return random.one_in(2) ? random.below(100) : UINT64_MAX - random.below(100);
    default:
      return random.next() >> random.below(64);
  }
}

template <unsigned Shift>
class ModelRun {
 public:
  ModelRun(std::uint64_t seed, Spread spread) : random_(seed), spread_(spread) {}

  void run(unsigned steps) {
    const bool mostly_erase_turns = random_.one_in(2);
    for (unsigned step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
      erase_bias_ = mostly_erase_turns && (step / 500) % 2 == 1 ? 3 : 0;
      change(pick_index(random_, spread_));
      look(pick_index(random_, spread_));
      if (step % 250 == 249) check_all();
    }
    check_all();
    array_.clear();
    model_.items.clear();
    check_all();
  }

 private:
  XEntry new_entry() {
    ++made_;
    return random_.one_in(2) ? XEntry::from_value(random_.next() & XEntry::kMaxValue)
                             : XEntry::from_pointer(reinterpret_cast<void*>(made_ * 8));
  }

  void change(std::uint64_t index) {
    const unsigned mark = static_cast<unsigned>(random_.below(kXMarks));
    switch (random_.below(10 + erase_bias_)) {
      case 0:
      case 1: {
        const XEntry entry = random_.one_in(10) ? XEntry{} : new_entry();
        const Result<XEntry> old = array_.store(index, entry);
        ASSERT_TRUE(old.ok());
        ASSERT_EQ(old.value(), model_.store(index, entry));
        break;
      }
      case 2: {
        const XEntry entry = new_entry(), there = model_.load(index);
        ASSERT_EQ(*array_.insert(index, entry), there);
        if (!there) model_.store(index, entry);
        break;
      }
      case 3: {
        const XEntry there = model_.load(index), expected = random_.one_in(3) ? new_entry() : there;
        const XEntry entry = random_.one_in(3) ? XEntry{} : new_entry();
        ASSERT_EQ(*array_.cmpxchg(index, expected, entry), there);
        if (expected == there) model_.store(index, entry);
        break;
      }
      case 4:
        change_range(index);
        break;
      case 5:
      case 6: {
        const auto item = model_.covering(index);
        const bool changes = item != model_.items.end() && !item->second.marks[mark];
        ASSERT_EQ(array_.set_mark(index, mark), changes);
        if (changes) item->second.marks[mark] = true;
        break;
      }
      case 7: {
        const auto item = model_.covering(index);
        const bool changes = item != model_.items.end() && item->second.marks[mark];
        ASSERT_EQ(array_.clear_mark(index, mark), changes);
        if (changes) item->second.marks[mark] = false;
        break;
      }
      case 8:
        split(index);
        break;
      default: {
        // An entry that is there, more often than not.
        const auto next = model_.find(index, UINT64_MAX, -1);
        const std::uint64_t victim = next == model_.items.end() ? index : next->first;
        ASSERT_EQ(array_.erase(victim), model_.store(victim, {}));
      }
    }
  }

  void change_range(std::uint64_t index) {
    const unsigned order = static_cast<unsigned>(random_.below(10));
    const std::uint64_t size = std::uint64_t{1} << order, first = index & ~(size - 1);
    const XEntry entry = new_entry();
    const Result<XEntry> result = array_.store_range(first, order, entry);
    XEntry old;
    const int errnum = model_.store_range(first, first + (size - 1), entry, &old);
    ASSERT_EQ(result.errnum(), errnum);
    if (errnum == 0) {
      ASSERT_EQ(result.value(), old);
    }
  }

  void split(std::uint64_t index) {
    constexpr std::uintptr_t kStep = 64;
    auto item = model_.covering(index);
    if (item == model_.items.end() || item->first == item->second.last) return;
    const unsigned whole = static_cast<unsigned>(std::countr_one(item->second.last - item->first));
    const unsigned order = static_cast<unsigned>(random_.below(whole));
    Status done;
    {
      MutexLock lock(array_.mutex());
      EXPECT_EQ(array_.order_locked(index), whole);
      done = array_.split_locked(index, order, kStep);
    }
    ASSERT_TRUE(done.ok());
    const std::uint64_t begin = item->first;
    const Model::Item old = item->second;
    model_.items.erase(item);
    for (std::uint64_t first = begin, last = old.last; first <= last;) {
      // The largest aligned part from here that does not hold the part around index, or is it.
      unsigned size = whole;
      while (size > order && (((first >> size) << size) != first || last - first < (std::uint64_t{1} << size) - 1 ||
                              size == whole || (index >> size) == (first >> size))) {
        --size;
      }
      Model::Item part = old;
      part.entry = XEntry{old.entry.bits + (first - begin) * kStep};
      part.last = first + ((std::uint64_t{1} << size) - 1);
      model_.items[first] = part;
      if (part.last == last) break;
      first = part.last + 1;
    }
  }

  void look(std::uint64_t index) {
    RcuReadLock read_section;
    ASSERT_EQ(array_.load(index), model_.load(index));
    const std::uint64_t distance = random_.next() >> random_.below(64);
    const std::uint64_t last = distance > UINT64_MAX - index ? UINT64_MAX : index + distance;
    for (int mark = -1; mark < static_cast<int>(kXMarks); ++mark) {
      std::uint64_t at = index, entry_last = 0;
      const XEntry entry = mark < 0 ? array_.find(&at, last, &entry_last)
                                    : array_.find_marked(&at, last, static_cast<unsigned>(mark), &entry_last);
      const auto item = model_.find(index, last, mark);
      ASSERT_EQ(!entry, item == model_.items.end()) << "index " << index << " last " << last << " mark " << mark;
      if (!entry) {
        ASSERT_EQ(at, index);
        continue;
      }
      ASSERT_EQ(entry, item->second.entry);
      ASSERT_EQ(at, std::max(index, item->first));
      ASSERT_EQ(entry_last, item->second.last);
    }
    ASSERT_EQ(array_.next_gap(index, last), model_.next_gap(index, last)) << "index " << index << " last " << last;
  }

  void check_all() {
    const std::int64_t nodes = XArrayInspector::check(array_);
    rcu_synchronize();
    ASSERT_EQ(store_.bytes(), nodes * static_cast<std::int64_t>(sizeof(XNode<Shift>)));
    ASSERT_EQ(array_.empty(), model_.items.empty());
    RcuReadLock read_section;
    auto item = model_.items.begin();
    array_.for_each(0, UINT64_MAX, [&](std::uint64_t index, XEntry entry) {
      const bool same = item != model_.items.end() && index == item->first && entry == item->second.entry;
      EXPECT_TRUE(same) << "at index " << index;
      if (same) ++item;
      return same;
    });
    ASSERT_EQ(item, model_.items.end());
    for (unsigned mark = 0; mark < kXMarks; ++mark) {
      ASSERT_EQ(array_.marked(mark), model_.marked(mark));
      std::vector<std::uint64_t> expected, found;
      for (const auto& [first, there] : model_.items) {
        ASSERT_EQ(array_.get_mark(there.last, mark), there.marks[mark]);
        if (there.marks[mark]) expected.push_back(first);
      }
      array_.for_each_marked(0, UINT64_MAX, mark, [&](std::uint64_t index, XEntry) {
        found.push_back(index);
        return true;
      });
      ASSERT_EQ(found, expected);
    }
  }

  Random random_;
  const Spread spread_;
  unsigned erase_bias_ = 0;  // further cases that erase
  std::uint64_t made_ = 0;
  XNodeStore store_;
  BasicXArray<Shift> array_{&store_};
  Model model_;
};

class XArrayModel : public testing::TestWithParam<std::tuple<Spread, std::uint64_t>> {};

TEST_P(XArrayModel, SixtyFourWay) {
  const auto [spread, seed] = GetParam();
  ModelRun<6>(seed, spread).run(4000);
}

TEST_P(XArrayModel, FourWay) {
  const auto [spread, seed] = GetParam();
  ModelRun<2>(seed, spread).run(4000);
}

INSTANTIATE_TEST_SUITE_P(Seeds, XArrayModel,
                         testing::Combine(testing::Values(Spread::dense, Spread::file, Spread::ends, Spread::anywhere),
                                          testing::Range(std::uint64_t{1}, std::uint64_t{7})));

}  // namespace
}  // namespace quire
