// All operations of the ram backing at random on a few files of one store, beside a model that knows of each file its
// bytes, which blocks are written or allocated, and which were prepared and left. After every step the files read as
// the model says, blocks are shared exactly where several files refer to them, and the store counts exactly those that
// are referred to. What fails changes nothing, and fails with the errno that the rules give.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/random.h"
#include "ram/ram_backing.h"
#include "ram/ram_image_for_test.h"

namespace quire {
namespace {

using testing_support::extents_of;
using testing_support::image_of;
using Bytes = std::vector<unsigned char>;

constexpr std::uint64_t kBlocks = 40;  // of a file, at most

struct ModelFile {
  Bytes bytes;
  std::vector<ExtentKind> kinds = std::vector<ExtentKind>(kBlocks, ExtentKind::hole);
  std::set<std::uint64_t> pending;

  std::uint64_t size() const { return bytes.size(); }
  void grow(std::uint64_t size) {
    if (size > bytes.size()) bytes.resize(size, 0);
  }
  void forget(std::uint64_t first, std::uint64_t end) {
    pending.erase(pending.lower_bound(first), pending.lower_bound(end));
  }
};

class Torture {
 public:
  Torture(unsigned unit, std::uint64_t store_blocks, std::uint64_t seed)
      : unit_(unit), store_blocks_(store_blocks), random_(seed), store_(unit, store_blocks) {
    for (auto& file : files_) file = std::make_unique<RamBacking>(store_);
  }

  void run(int steps) {
    for (int step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
      const auto before = everything();
      trace_.clear();
      const int errnum = one();
      SCOPED_TRACE("step " + std::to_string(step) + ": " + trace_ + " -> " + std::to_string(errnum));
      counts_[{trace_.substr(0, trace_.find(' ')), errnum}]++;
      if (errnum != 0 && trace_[0] != 'w') {
        EXPECT_TRUE(before == everything()) << "failed, and has changed something";
      }
      check();
    }
    for (auto& file : files_) file.reset();
    EXPECT_EQ(store_.blocks_in_use(), 0U);
  }
  int count(const std::string& operation, int errnum) { return counts_[{operation, errnum}]; }

 private:
  static constexpr std::size_t kFiles = 3;
  struct Both {  // a file and its model
    RamBacking& real;
    ModelFile& model;
  };

  Both pick() {
    const std::size_t at = random_.below(kFiles);
    trace_ += " file " + std::to_string(at);
    return {*files_[at], models_[at]};
  }
  // Mostly blocks, sometimes bytes; [0, limit].
  std::uint64_t position(std::uint64_t limit) {
    const std::uint64_t at = random_.one_in(4) ? random_.below(limit + 1) : random_.below(limit / unit_ + 1) * unit_;
    trace_ += " " + std::to_string(at);
    return at;
  }
  struct Range {  // of a file
    RamBacking& real;
    ModelFile& model;
    std::uint64_t offset, end;
  };
  Range pick_range() {
    const Both f = pick();
    const std::uint64_t offset = position((kBlocks - 1) * unit_);
    const std::uint64_t length = std::max<std::uint64_t>(1, position(kBlocks * unit_ - offset));
    return {f.real, f.model, offset, offset + length};
  }
  bool aligned(std::uint64_t value) const { return value % unit_ == 0; }
  std::uint64_t up(std::uint64_t value) const { return (value + unit_ - 1) / unit_; }

  // Everything that can be seen but for the bytes, which check() looks at.
  std::vector<std::vector<std::uint64_t>> everything() {
    std::vector<std::vector<std::uint64_t>> all{{store_.blocks_in_use()}};
    for (auto& file : files_) {
      all.push_back({file->size()});
      for (const Extent& e : extents_of(*file, kBlocks * unit_)) {
        for (const std::uint64_t part :
             {e.offset, e.length, e.address, std::uint64_t(e.kind), std::uint64_t(e.shared)}) {
          all.back().push_back(part);
        }
      }
    }
    return all;
  }

  void check() {
    std::map<std::uint64_t, int> uses;  // by address
    std::uint64_t pending = 0;
    for (std::size_t i = 0; i < kFiles; ++i) {
      const ModelFile& model = models_[i];
      ASSERT_EQ(files_[i]->size(), model.size()) << "file " << i;
      Bytes expected = model.bytes;
      expected.resize(up(model.size()) * unit_, 0);  // zeros also in the rest of the last block
      const Bytes found = image_of(store_, *files_[i], expected.size());
      if (found != expected) {
        const auto differ = std::mismatch(expected.begin(), expected.end(), found.begin());
        FAIL() << "file " << i << " at " << differ.first - expected.begin() << ": " << int{*differ.second} << ", not "
               << int{*differ.first};
      }
      for (const Extent& e : extents_of(*files_[i], kBlocks * unit_)) {
        for (std::uint64_t at = e.offset; at < e.offset + e.length; at += unit_) {
          ASSERT_EQ(int(e.kind), int(model.kinds[at / unit_])) << "file " << i << " at " << at;
          if (e.kind != ExtentKind::hole) ++uses[e.address + (at - e.offset)];
        }
      }
      pending += model.pending.size();
      check_seek(*files_[i], model);
    }
    for (auto& file : files_) {
      for (const Extent& e : extents_of(*file, kBlocks * unit_)) {
        for (std::uint64_t at = 0; at < e.length && e.kind != ExtentKind::hole; at += unit_) {
          ASSERT_EQ(e.shared, uses[e.address + at] > 1);
          if (e.shared) {
            ASSERT_EQ(int(e.kind), int(ExtentKind::written));
          }
        }
      }
    }
    ASSERT_EQ(store_.blocks_in_use(), uses.size() + pending);
  }

  void check_seek(RamBacking& file, const ModelFile& model) {
    const std::uint64_t offset = random_.below(model.size() + 2);
    std::uint64_t data = offset, hole = offset;
    while (data < model.size() && model.kinds[data / unit_] != ExtentKind::written) data = (data / unit_ + 1) * unit_;
    while (hole < model.size() && model.kinds[hole / unit_] == ExtentKind::written) hole = (hole / unit_ + 1) * unit_;
    const auto found_data = file.seek_data(offset), found_hole = file.seek_hole(offset);
    ASSERT_EQ(found_data.errnum(), data < model.size() ? 0 : ENXIO) << "from " << offset;
    ASSERT_EQ(found_hole.errnum(), offset < model.size() ? 0 : ENXIO) << "from " << offset;
    if (found_data.ok()) {
      ASSERT_EQ(found_data.value(), data);
    }
    if (found_hole.ok()) {
      ASSERT_EQ(found_hole.value(), std::min<std::uint64_t>(hole, model.size()));
    }
  }

  int one() {
    using Operation = int (Torture::*)();
    static constexpr Operation operations[] = {
        &Torture::write, &Torture::write, &Torture::write,   &Torture::truncate, &Torture::allocate,
        &Torture::punch, &Torture::zero,  &Torture::unshare, &Torture::collapse, &Torture::insert,
        &Torture::clone, &Torture::clone, &Torture::dedupe,  &Torture::dedupe,   &Torture::exchange};
    return (this->*operations[random_.below(std::size(operations))])();
  }

  // No room is an excuse only where there is less than this could take.
  int tolerated(const Status& status, std::uint64_t most) {
    if (status.errnum() == ENOSPC) {
      EXPECT_LT(store_blocks_ - store_.blocks_in_use(), most);
    }
    return status.errnum();
  }

  // Writes whole blocks as a cache would, or prepares them and leaves it at that.
  int write() {
    trace_ = "write";
    const Both f = pick();
    const std::uint64_t offset = position((kBlocks - 1) * unit_);
    const std::uint64_t end = offset + 1 + random_.below(std::min(4 * unit_, kBlocks * unit_ - offset));
    const std::uint64_t first = offset / unit_, last = up(end), start = first * unit_;
    std::set<std::uint64_t> taken;
    for (std::uint64_t at = first; at < last; ++at) {
      const auto extent = f.real.map(at * unit_, unit_);
      if (extent.value().kind == ExtentKind::hole || extent.value().shared) taken.insert(at);
    }
    const auto extents = testing_support::prepare_all(f.real, start, last * unit_ - start);
    if (!extents.ok()) {  // those up to the first that found no room
      EXPECT_EQ(extents.errnum(), ENOSPC);
      EXPECT_EQ(store_.blocks_in_use(), store_blocks_);
      std::uint64_t left = store_blocks_ - in_use_by_model();
      for (const std::uint64_t at : taken) {
        if (f.model.pending.contains(at)) continue;
        if (left-- == 0) break;
        f.model.pending.insert(at);
      }
      return ENOSPC;
    }
    const bool fails = random_.one_in(8);
    if (fails) {
      f.model.pending.insert(taken.begin(), taken.end());
      trace_ += " fails";
    }
    Bytes bytes(last * unit_ - start, 0);
    if (first * unit_ < f.model.size()) {
      std::copy_n(&f.model.bytes[start], std::min<std::uint64_t>(bytes.size(), f.model.size() - start), bytes.begin());
    }
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(offset - start),
              bytes.begin() + static_cast<std::ptrdiff_t>(end - start), 'a' + static_cast<char>(random_.below(3)));
    for (const Extent& e : extents.value()) {
      for (std::uint64_t at = 0; at < e.length; at += unit_) {
        const std::uint64_t block = (e.offset + at) / unit_;
        if (fails && !f.model.pending.contains(block)) continue;  // in place: that would show
        store_.memory().poke(e.address + at, &bytes[block * unit_ - start], unit_);
      }
    }
    if (fails) return 0;
    f.model.grow(end);
    std::copy_n(bytes.begin(), std::min<std::uint64_t>(bytes.size(), f.model.size() - start), &f.model.bytes[start]);
    EXPECT_TRUE(f.real.commit(start, bytes.size(), f.model.size()).ok());
    f.model.forget(first, last);
    std::fill(&f.model.kinds[first], &f.model.kinds[0] + last, ExtentKind::written);
    return 0;
  }

  // What files map, and what the model knows to be prepared: the store's count before a prepare that ran out of room.
  std::uint64_t in_use_by_model() {
    std::set<std::uint64_t> mapped;
    std::uint64_t pending = 0;
    for (std::size_t i = 0; i < kFiles; ++i) {
      for (const Extent& e : extents_of(*files_[i], kBlocks * unit_)) {
        for (std::uint64_t at = 0; at < e.length && e.kind != ExtentKind::hole; at += unit_) {
          mapped.insert(e.address + at);
        }
      }
      pending += models_[i].pending.size();
    }
    return mapped.size() + pending;
  }

  int truncate() {
    trace_ = "truncate";
    const Both f = pick();
    const std::uint64_t size = position(kBlocks * unit_);
    const Status status = f.real.set_size(size);
    if (!status.ok()) return tolerated(status, 1);
    if (size <= f.model.size()) {
      std::fill(f.model.kinds.begin() + static_cast<std::ptrdiff_t>(up(size)), f.model.kinds.end(), ExtentKind::hole);
    }
    f.model.bytes.resize(size, 0);
    f.model.forget(up(size), kBlocks);
    return 0;
  }

  void zero_bytes(ModelFile& model, std::uint64_t offset, std::uint64_t end) {
    for (std::uint64_t at = offset; at < std::min<std::uint64_t>(end, model.size()); ++at) model.bytes[at] = 0;
  }

  int allocate() {
    trace_ = "allocate";
    const auto [real, model, offset, end] = pick_range();
    const bool keep_size = random_.one_in(2);
    const Status status = real.allocate(offset, end - offset, keep_size);
    if (!status.ok()) return tolerated(status, up(end) - offset / unit_);
    if (!keep_size) model.grow(end);
    model.forget(offset / unit_, up(end));
    for (std::uint64_t at = offset / unit_; at < up(end); ++at) {
      if (model.kinds[at] == ExtentKind::hole) model.kinds[at] = ExtentKind::unwritten;
    }
    return 0;
  }

  int punch() {
    trace_ = "punch";
    const auto [real, model, offset, end] = pick_range();
    const Status status = real.punch(offset, end - offset);
    if (!status.ok()) return tolerated(status, 2);
    zero_bytes(model, offset, end);
    model.forget(offset / unit_, up(end));
    for (std::uint64_t at = up(offset); at < end / unit_; ++at) model.kinds[at] = ExtentKind::hole;
    return 0;
  }

  int zero() {
    trace_ = "zero";
    const auto [real, model, offset, end] = pick_range();
    const bool keep_size = random_.one_in(2);
    const Status status = real.zero(offset, end - offset, keep_size);
    if (!status.ok()) return tolerated(status, up(end) - offset / unit_);
    if (!keep_size) model.grow(end);
    zero_bytes(model, offset, end);
    model.forget(offset / unit_, up(end));
    for (std::uint64_t at = offset / unit_; at < up(end); ++at) {
      const bool whole = at >= up(offset) && at < end / unit_;
      if (whole || model.kinds[at] == ExtentKind::hole) model.kinds[at] = ExtentKind::unwritten;
    }
    return 0;
  }

  int unshare() {
    trace_ = "unshare";
    const auto [real, model, offset, end] = pick_range();
    const Status status = real.unshare(offset, end - offset);
    if (!status.ok()) return tolerated(status, up(end) - offset / unit_);
    model.forget(offset / unit_, up(end));
    for (std::uint64_t at = offset / unit_; at < up(end); ++at) {
      EXPECT_FALSE(real.map(at * unit_, unit_).value().shared);
    }
    return 0;
  }

  int collapse() {
    trace_ = "collapse";
    const auto [real, model, offset, end] = pick_range();
    const int errnum = real.collapse(offset, end - offset).errnum();
    const bool valid = aligned(offset) && aligned(end) && end < model.size();
    EXPECT_EQ(errnum, valid ? 0 : EINVAL);
    if (errnum != 0) return errnum;
    auto& kinds = model.kinds;
    model.bytes.erase(model.bytes.begin() + static_cast<std::ptrdiff_t>(offset),
                      model.bytes.begin() + static_cast<std::ptrdiff_t>(end));
    kinds.erase(kinds.begin() + static_cast<std::ptrdiff_t>(offset / unit_),
                kinds.begin() + static_cast<std::ptrdiff_t>(end / unit_));
    kinds.resize(kBlocks, ExtentKind::hole);
    model.forget(offset / unit_, kBlocks);
    return 0;
  }

  int insert() {
    trace_ = "insert";
    const Both f = pick();
    const std::uint64_t offset = position((kBlocks - 1) * unit_);
    const std::uint64_t n = 1 + position(8 * unit_ - 1);
    auto& kinds = f.model.kinds;
    const auto used = static_cast<std::uint64_t>(
        kinds.rend() - std::find_if(kinds.rbegin(), kinds.rend(), [](ExtentKind k) { return k != ExtentKind::hole; }));
    if (std::max(used, up(f.model.size())) + up(n) > kBlocks) return 0;  // more than this test looks at
    const std::uint64_t whole = random_.one_in(4) ? n : up(n) * unit_;
    const int errnum = f.real.insert(offset, whole).errnum();
    EXPECT_EQ(errnum, aligned(offset) && aligned(whole) && offset < f.model.size() ? 0 : EINVAL);
    if (errnum != 0) return errnum;
    f.model.bytes.insert(f.model.bytes.begin() + static_cast<std::ptrdiff_t>(offset), whole, 0);
    kinds.insert(kinds.begin() + static_cast<std::ptrdiff_t>(offset / unit_), whole / unit_, ExtentKind::hole);
    kinds.resize(kBlocks);
    f.model.forget(offset / unit_, kBlocks);
    return 0;
  }

  // A length that is often all that there is.
  std::uint64_t share_length(const ModelFile& source, std::uint64_t from, std::uint64_t offset) {
    const std::uint64_t left = source.size() > from ? source.size() - from : 0;
    const std::uint64_t most = (kBlocks * unit_ - std::max(from, offset));
    const std::uint64_t n = left != 0 && random_.one_in(2) ? left : unit_ * (1 + random_.below(4));
    trace_ += " length " + std::to_string(std::min(n, most));
    return std::max<std::uint64_t>(1, std::min(n, most));
  }
  bool overlaps(const Both& a, const Both& b, std::uint64_t from, std::uint64_t offset, std::uint64_t n) const {
    return &a.real == &b.real && from < offset + up(n) * unit_ && offset < from + up(n) * unit_;
  }
  void share_kinds(ModelFile& source, ModelFile& target, std::uint64_t from, std::uint64_t offset, std::uint64_t n) {
    for (std::uint64_t i = 0; i < up(n); ++i) {
      const bool written = source.kinds[from / unit_ + i] == ExtentKind::written;
      target.kinds[offset / unit_ + i] = written ? ExtentKind::written : ExtentKind::hole;
    }
    target.forget(offset / unit_, offset / unit_ + up(n));
  }

  int clone() {
    trace_ = "clone";
    const Both source = pick(), target = pick();
    const std::uint64_t from = position(source.model.size()), offset = position((kBlocks - 1) * unit_);
    const std::uint64_t n = share_length(source.model, from, offset);
    const int errnum = target.real.clone(source.real, from, offset, n).errnum();
    const bool ends = from + n == source.model.size() && offset + n >= target.model.size();
    const bool valid = aligned(from) && aligned(offset) && from + n <= source.model.size() && (aligned(n) || ends) &&
                       !overlaps(source, target, from, offset, n);
    EXPECT_EQ(errnum, valid ? 0 : EINVAL);
    if (errnum != 0) return errnum;
    target.model.grow(offset + n);
    std::copy_n(&source.model.bytes[from], n, &target.model.bytes[offset]);
    share_kinds(source.model, target.model, from, offset, n);
    return 0;
  }

  int dedupe() {
    trace_ = "dedupe";
    const Both source = pick(), target = pick();
    const std::uint64_t from = position(source.model.size());
    const std::uint64_t offset = random_.one_in(2) ? from : position(target.model.size());
    std::uint64_t n = share_length(source.model, from, offset);
    const auto shared = target.real.dedupe(source.real, from, offset, n);
    int expected = 0;
    if (from + n > source.model.size() || offset + n > target.model.size()) expected = EINVAL;
    if (from + n != source.model.size() || offset + n != target.model.size()) n = n / unit_ * unit_;
    if (n == 0 || !aligned(from) || !aligned(offset) || overlaps(source, target, from, offset, n)) expected = EINVAL;
    if (expected == 0 &&
        !std::equal(&source.model.bytes[from], &source.model.bytes[0] + from + n, &target.model.bytes[offset])) {
      expected = EBADE;
    }
    EXPECT_EQ(shared.errnum(), expected);
    if (!shared.ok()) return shared.errnum();
    EXPECT_EQ(shared.value(), n);
    share_kinds(source.model, target.model, from, offset, n);
    return 0;
  }

  int exchange() {
    trace_ = "exchange";
    const Both a = pick(), b = pick();
    const std::uint64_t at = position(a.model.size()), offset = position(b.model.size());
    const std::uint64_t n = share_length(a.model, at, offset);
    const int errnum = a.real.exchange(b.real, offset, at, n).errnum();
    const bool ends = at + n == a.model.size() && offset + n == b.model.size();
    const bool valid = at + n <= a.model.size() && offset + n <= b.model.size() && aligned(at) && aligned(offset) &&
                       (aligned(n) || ends) && !overlaps(a, b, at, offset, n);
    EXPECT_EQ(errnum, valid ? 0 : EINVAL);
    if (errnum != 0) return errnum;
    std::swap_ranges(&a.model.bytes[at], &a.model.bytes[0] + at + n, &b.model.bytes[offset]);
    std::swap_ranges(&a.model.kinds[at / unit_], &a.model.kinds[0] + up(at + n), &b.model.kinds[offset / unit_]);
    a.model.forget(at / unit_, up(at + n));
    b.model.forget(offset / unit_, up(offset + n));
    return 0;
  }

  const std::uint64_t unit_, store_blocks_;
  Random random_;
  RamStore store_;
  std::unique_ptr<RamBacking> files_[kFiles];
  ModelFile models_[kFiles];
  std::string trace_;
  std::map<std::pair<std::string, int>, int> counts_;
};

class RamRangesModel : public ::testing::TestWithParam<unsigned> {};

TEST_P(RamRangesModel, AmpleStore) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Torture torture(GetParam(), 1000, seed);
    torture.run(600);
    if (HasFailure()) return;
    for (const char* operation : {"write", "truncate", "allocate", "punch", "zero", "unshare", "collapse", "insert",
                                  "clone", "dedupe", "exchange"}) {
      EXPECT_GE(torture.count(operation, 0), 5) << operation << " hardly ever succeeded";
      EXPECT_EQ(torture.count(operation, ENOSPC), 0) << operation;
    }
    EXPECT_GE(torture.count("dedupe", EBADE), 1);
  }
}

TEST_P(RamRangesModel, R2_FullStore) {
  int full[5] = {};
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Torture torture(GetParam(), 24, seed);
    torture.run(700);
    if (HasFailure()) return;
    int at = 0;
    for (const char* operation : {"write", "allocate", "punch", "zero", "unshare"}) {
      full[at++] += torture.count(operation, ENOSPC);
    }
  }
  for (const int times : full) EXPECT_GE(times, 1);
}

INSTANTIATE_TEST_SUITE_P(BlockSizes, RamRangesModel, ::testing::Values(512U, 1024U, 4096U));

}  // namespace
}  // namespace quire
