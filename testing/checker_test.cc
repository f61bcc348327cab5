// The checker on histories made by hand: it must accept what has an order and refuse, by name, what has none.
#include "testing/checker.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <deque>

#include "testing/model.h"
#include "testing/pattern.h"

namespace quire::judge {
namespace {

constexpr uint64_t kSize = 10000;

// A window over one file of kSize bytes that operation 1 wrote.
class HandMade : public ::testing::Test {
 protected:
  HandMade() : base_(kSize) {
    fill_pattern(base_.data(), kSize, make_tag(0, 1), 0);
    window_.files = {0, 0};
    window_.base[0] = &base_;
  }

  Op& change(OpKind kind, uint64_t operation, uint64_t offset, uint64_t length, uint64_t invoked, uint64_t returned) {
    Op op;
    op.kind = kind;
    op.tag = make_tag(0, operation);
    op.offset = offset;
    op.length = length;
    op.invoked = invoked;
    op.returned = returned;
    op.result = kind == OpKind::kWrite || kind == OpKind::kAppend ? static_cast<int64_t>(length) : 0;
    window_.mutators.push_back(op);
    return window_.mutators.back();
  }

  Op& read(uint64_t offset, uint64_t length, uint64_t invoked, uint64_t returned, Image data) {
    buffers_.push_back(std::move(data));
    Op op;
    op.offset = offset;
    op.length = length;
    op.invoked = invoked;
    op.returned = returned;
    op.result = static_cast<int64_t>(buffers_.back().size());
    op.data = buffers_.back().data();
    window_.reads.push_back(op);
    return window_.reads.back();
  }

  // What [offset, offset + length) holds after the window's mutators with these indices, in this order.
  Image after(const std::vector<size_t>& order, uint64_t offset, uint64_t length) {
    State state = first_state(window_);
    for (const size_t i : order) EXPECT_TRUE(apply(window_, i, &state));
    Image bytes(length);
    bytes.resize(render(window_, state.files[0], offset, length, bytes.data()));
    return bytes;
  }

  // The first `cut` bytes of a, then b's; both have the same length.
  static Image join(const Image& a, const Image& b, size_t cut) {
    Image result = a;
    std::copy(b.begin() + static_cast<ptrdiff_t>(cut), b.end(), result.begin() + static_cast<ptrdiff_t>(cut));
    return result;
  }

  Fault fault() {
    if (linearize(window_)) return Fault::kNone;
    const Diagnosis found = diagnose(window_, true);
    EXPECT_FALSE(linearize(found.witness));
    EXPECT_FALSE(explain(found.witness, found.fault).empty());
    EXPECT_EQ(found.torn + found.foreign + found.lost, 1U);
    witness_ = found.witness;
    return found.fault;
  }

  Image base_;
  Window window_;
  Window witness_;
  std::deque<Image> buffers_;
};

TEST_F(HandMade, QuietReadsFit) {
  read(0, kSize, 1, 2, base_);
  read(9999, 100, 3, 4, {base_[9999]});
  read(kSize, 100, 5, 6, {});
  EXPECT_EQ(fault(), Fault::kNone);
}

TEST_F(HandMade, OverlappingReadMaySeeBeforeOrAfter) {
  change(OpKind::kWrite, 2, 101, 3900, 1, 10);
  read(101, 3900, 2, 3, after({}, 101, 3900));
  read(101, 3900, 4, 5, after({0}, 101, 3900));
  read(99, 4001, 6, 7, after({0}, 99, 4001));
  EXPECT_EQ(fault(), Fault::kNone);
}

TEST_F(HandMade, TornInsideAPage) {
  change(OpKind::kWrite, 2, 101, 3900, 1, 10);
  read(101, 3900, 2, 3, join(after({0}, 101, 3900), after({}, 101, 3900), 1234));
  EXPECT_EQ(fault(), Fault::kTorn);
  EXPECT_EQ(witness_.mutators.size(), 1U);
  EXPECT_EQ(witness_.reads.size(), 1U);
}

TEST_F(HandMade, TornByOneByte) {
  change(OpKind::kWrite, 2, 101, 3900, 1, 10);
  const Image before = after({}, 101, 3900);
  Image bytes = after({0}, 101, 3900);
  size_t odd = 1000;
  while (bytes[odd] == before[odd]) ++odd;
  bytes[odd] = before[odd];
  read(101, 3900, 2, 3, bytes);
  EXPECT_EQ(fault(), Fault::kTorn);
}

TEST_F(HandMade, WitnessDropsWhatDoesNotMatter) {
  change(OpKind::kWrite, 2, 5000, 100, 1, 2);
  change(OpKind::kWrite, 3, 101, 3900, 3, 10);
  change(OpKind::kAppend, 4, 0, 500, 4, 9);
  read(0, 50, 5, 6, after({}, 0, 50));
  read(101, 3900, 5, 7, join(after({1}, 101, 3900), after({}, 101, 3900), 2000));
  read(5000, 100, 7, 8, after({0}, 5000, 100));
  EXPECT_EQ(fault(), Fault::kTorn);
  ASSERT_EQ(witness_.mutators.size(), 1U);
  EXPECT_EQ(tag_operation(witness_.mutators[0].tag), 3U);
}

TEST_F(HandMade, NewThenOldIsTornAcrossTwoReads) {
  change(OpKind::kWrite, 2, 0, 8000, 1, 10);
  read(0, 100, 2, 3, after({0}, 0, 100));
  read(7000, 100, 4, 5, after({}, 7000, 100));
  EXPECT_EQ(fault(), Fault::kTorn);
  EXPECT_EQ(witness_.reads.size(), 2U);
}

TEST_F(HandMade, OldAndNewMayCrossWhileBothReadsRun) {
  change(OpKind::kWrite, 2, 0, 8000, 1, 10);
  read(0, 100, 2, 5, after({0}, 0, 100));
  read(7000, 100, 3, 6, after({}, 7000, 100));
  EXPECT_EQ(fault(), Fault::kNone);
}

TEST_F(HandMade, StaleReadMissesACompletedWrite) {
  change(OpKind::kWrite, 2, 0, 100, 1, 2);
  read(0, 100, 3, 4, after({}, 0, 100));
  EXPECT_EQ(fault(), Fault::kLost);
}

TEST_F(HandMade, FutureReadIsForeign) {
  change(OpKind::kWrite, 2, 0, 100, 5, 6);
  read(0, 100, 1, 2, after({0}, 0, 100));
  EXPECT_EQ(fault(), Fault::kForeign);
}

TEST_F(HandMade, ForeignWord) {
  change(OpKind::kWrite, 2, 0, 1000, 1, 9);
  Image bytes = after({0}, 0, 1000);
  fill_pattern(bytes.data() + 496, 8, make_tag(3, 77), 0);
  read(0, 1000, 2, 3, bytes);
  EXPECT_EQ(fault(), Fault::kForeign);
  EXPECT_NE(explain(witness_, Fault::kForeign).find("file 3 #77"), std::string::npos);
}

TEST_F(HandMade, ZerosWhereNothingZeroedAreForeign) {
  read(0, 1000, 2, 3, Image(1000, 0));
  EXPECT_EQ(fault(), Fault::kForeign);
}

TEST_F(HandMade, ChangedBytesPastTheCount) {
  read(kSize - 10, 100, 1, 2, after({}, kSize - 10, 100)).spoiled = true;
  EXPECT_EQ(fault(), Fault::kForeign);
}

TEST_F(HandMade, AppendsInEitherOrder) {
  change(OpKind::kAppend, 2, 0, 100, 1, 8);
  change(OpKind::kAppend, 3, 0, 200, 2, 9);
  read(kSize, 1000, 10, 11, after({1, 0}, kSize, 1000));
  EXPECT_EQ(fault(), Fault::kNone);
}

TEST_F(HandMade, LostAppend) {
  change(OpKind::kAppend, 2, 0, 100, 1, 8);
  change(OpKind::kAppend, 3, 0, 200, 2, 9);
  read(kSize, 1000, 10, 11, after({1}, kSize, 1000)).quiescent = true;
  EXPECT_EQ(fault(), Fault::kLost);
}

TEST_F(HandMade, AppendOverAppend) {
  change(OpKind::kAppend, 2, 0, 200, 1, 8);
  change(OpKind::kAppend, 3, 0, 100, 2, 9);
  Image bytes = after({0}, kSize, 1000);
  fill_pattern(bytes.data(), 100, make_tag(0, 3), 0);
  read(kSize, 1000, 10, 11, bytes);
  EXPECT_NE(fault(), Fault::kNone);
}

TEST_F(HandMade, CountOfNoInstant) {
  change(OpKind::kAppend, 2, 0, 3898, 1, 8);
  Image bytes = after({0}, 9000, 10000);
  bytes.resize(2000);
  read(9000, 10000, 2, 3, bytes);
  EXPECT_EQ(fault(), Fault::kTorn);
}

TEST_F(HandMade, TruncateThenZerosAtTheOldSize) {
  change(OpKind::kTruncate, 2, 4000, 0, 1, 8);
  Image bytes = base_;
  bytes.resize(4000);
  bytes.resize(kSize);
  read(0, 20000, 2, 3, bytes);
  EXPECT_EQ(fault(), Fault::kTorn);
}

TEST_F(HandMade, TruncateDownAndUpZeroes) {
  change(OpKind::kTruncate, 2, 4000, 0, 1, 2);
  change(OpKind::kTruncate, 3, kSize, 0, 3, 8);
  Image bytes = base_;
  bytes.resize(4000);
  bytes.resize(kSize);
  read(0, 20000, 4, 5, bytes);
  EXPECT_EQ(fault(), Fault::kNone);
}

TEST_F(HandMade, OldBytesBehindATruncateDownAndUp) {
  change(OpKind::kTruncate, 2, 4000, 0, 1, 2);
  change(OpKind::kTruncate, 3, kSize, 0, 3, 4);
  read(0, 20000, 5, 6, base_).quiescent = true;
  EXPECT_EQ(fault(), Fault::kLost);
}

TEST_F(HandMade, ShortWriteTookEffectForItsCount) {
  change(OpKind::kWrite, 2, 0, 1000, 1, 2).result = 600;
  Image expected(base_.begin(), base_.begin() + 1000);
  fill_pattern(expected.data(), 600, make_tag(0, 2), 0);
  read(0, 1000, 3, 4, expected);
  EXPECT_EQ(fault(), Fault::kNone);
  window_.mutators[0].result = 500;
  EXPECT_NE(fault(), Fault::kNone);
}

TEST_F(HandMade, TwoOrdersSeenByTwoReads) {
  change(OpKind::kWrite, 2, 0, 100, 1, 10);
  change(OpKind::kWrite, 3, 50, 100, 2, 11);
  read(0, 200, 3, 12, after({0, 1}, 0, 200));
  read(0, 200, 4, 13, after({1, 0}, 0, 200));
  EXPECT_NE(fault(), Fault::kNone);
}

TEST_F(HandMade, RefusedCollapseNeedsAReason) {
  change(OpKind::kCollapse, 2, 4096, 4096, 1, 2).result = -EINVAL;  // ends at 8192, well inside
  EXPECT_EQ(fault(), Fault::kLost);
  change(OpKind::kTruncate, 3, 8192, 0, 1, 3);
  EXPECT_EQ(fault(), Fault::kNone);
}

TEST_F(HandMade, CollapseMovesTheTail) {
  change(OpKind::kCollapse, 2, 4096, 4096, 1, 5);
  Image bytes(base_.begin(), base_.begin() + 4096);
  bytes.insert(bytes.end(), base_.begin() + 8192, base_.end());
  read(0, 20000, 2, 3, bytes);
  EXPECT_EQ(fault(), Fault::kNone);
  buffers_.back()[4097] ^= 1;
  EXPECT_EQ(fault(), Fault::kForeign);
}

TEST_F(HandMade, CloneInsertAndPunchOnTheModel) {
  change(OpKind::kClone, 2, 4096, 4096, 1, 2).source_offset = 0;
  change(OpKind::kInsert, 3, 4096, 4096, 3, 4);
  change(OpKind::kPunch, 4, 10, 20, 5, 6);
  Image expected(base_.begin(), base_.begin() + 4096);
  std::fill(expected.begin() + 10, expected.begin() + 30, static_cast<unsigned char>(0));
  expected.resize(8192);
  expected.insert(expected.end(), base_.begin(), base_.begin() + 4096);
  expected.insert(expected.end(), base_.begin() + 8192, base_.end());
  read(0, 20000, 7, 8, expected);
  const std::optional<State> state = linearize(window_);
  ASSERT_TRUE(state);
  Image settled = base_;
  settle(window_, *state, {&settled, nullptr});
  EXPECT_EQ(settled, expected);
}

TEST_F(HandMade, ExchangeIsSeenOnBothSidesAtOnce) {
  Image other(kSize);
  fill_pattern(other.data(), kSize, make_tag(1, 9), 0);
  window_.files = {0, 1};
  window_.base[1] = &other;
  Op& op = change(OpKind::kExchange, 2, 0, 4096, 1, 10);
  op.source_slot = 1;
  read(0, 4096, 2, 3, Image(other.begin(), other.begin() + 4096));
  read(0, 4096, 4, 5, Image(base_.begin(), base_.begin() + 4096)).slot = 1;
  EXPECT_EQ(fault(), Fault::kNone);
  read(0, 4096, 6, 7, Image(other.begin(), other.begin() + 4096)).slot = 1;  // after it was seen to be gone
  EXPECT_EQ(fault(), Fault::kTorn);
}

TEST_F(HandMade, CopyIsOneOperationForExactlyItsCount) {
  Op& op = change(OpKind::kCopy, 2, 0, 4000, 1, 10);
  op.source_offset = 5000;
  op.result = 1500;  // less than there was: so be it, and all at once
  Image copied = base_;
  std::copy(base_.begin() + 5000, base_.begin() + 6500, copied.begin());
  read(0, 5000, 2, 3, Image(base_.begin(), base_.begin() + 5000));
  read(0, 5000, 4, 5, Image(copied.begin(), copied.begin() + 5000));
  EXPECT_EQ(fault(), Fault::kNone);
  std::copy(base_.begin() + 6500, base_.begin() + 6600, buffers_.back().begin() + 1500);  // more than it says
  EXPECT_NE(fault(), Fault::kNone);
  std::copy(base_.begin() + 1400, base_.begin() + 1600, buffers_.back().begin() + 1400);  // less
  EXPECT_NE(fault(), Fault::kNone);
}

TEST_F(HandMade, CopyCountsOnlyWhatWasThere) {
  Op& op = change(OpKind::kCopy, 2, 0, 4000, 1, 2);
  op.source_offset = kSize - 10;
  op.result = 11;
  EXPECT_EQ(fault(), Fault::kLost);
  window_.mutators[0].result = 10;
  EXPECT_EQ(fault(), Fault::kNone);
  window_.mutators[0].result = 0;  // something was there
  EXPECT_EQ(fault(), Fault::kLost);
  window_.mutators[0].source_offset = kSize;
  EXPECT_EQ(fault(), Fault::kNone);
}

TEST_F(HandMade, DedupeTellsTheTruth) {
  Op& op = change(OpKind::kDedupe, 2, 0, 4096, 1, 2);
  op.source_offset = 4096;
  op.result = -EBADE;
  EXPECT_EQ(fault(), Fault::kNone);
  window_.mutators[0].result = 4096;  // these ranges differ
  EXPECT_EQ(fault(), Fault::kLost);
}

TEST(Pattern, NamesItsWriters) {
  Image bytes(1000);
  fill_pattern(bytes.data(), 333, make_tag(2, 17), 5);
  fill_pattern(bytes.data() + 700, 300, make_tag(5, 123456789), 1000);
  const std::vector<NamedRun> runs = name_runs(bytes.data(), bytes.size());
  ASSERT_EQ(runs.size(), 3U);
  EXPECT_EQ(origin_name(runs[0]), "file 2 #17");
  EXPECT_EQ(runs[0].length, 333U);
  EXPECT_EQ(origin_name(runs[1]), "zero");
  EXPECT_EQ(origin_name(runs[2]), "file 5 #123456789");
  EXPECT_EQ(runs[2].offset, 700U);
}

TEST(Pattern, MismatchIsTheFirstOne) {
  Image bytes(100);
  fill_pattern(bytes.data(), 100, make_tag(0, 3), 13);
  EXPECT_EQ(pattern_mismatch(bytes.data(), 100, make_tag(0, 3), 13), 100U);
  for (size_t at = 0; at < 100; ++at) {
    bytes[at] ^= 0x40;
    EXPECT_EQ(pattern_mismatch(bytes.data(), 100, make_tag(0, 3), 13), at);
    bytes[at] ^= 0x40;
  }
}

}  // namespace
}  // namespace quire::judge
