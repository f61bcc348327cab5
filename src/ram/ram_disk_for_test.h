// For tests: a ram store behind a faulty device, and a backing that can be told to misbehave in ways no device shows
// (a failing set_size or range operation, unwritten extents, a size that is not what the device holds). Locks: none of
// its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "device/faulty_device.h"
#include "ram/ram_backing.h"
#include "sync/atomic.h"

namespace quire::testing_support {

struct RamDisk {
  explicit RamDisk(unsigned block_size, std::uint64_t max_blocks = std::uint64_t{1} << 17, std::uint64_t seed = 1,
                   const RamOptions& options = {})
      : store(block_size, max_blocks, options), device(store.memory(), seed) {
    store.use_device(device);
  }

  std::unique_ptr<RamBacking> make_file() { return std::make_unique<RamBacking>(store); }

  // One rule that hits every request of its kind, until heal().
  void fail_reads(int errnum = EIO) {
    device.set_plan({.rules = {{.kind = FaultKind::error, .writes = false, .errnum = errnum}}});
  }
  void fail_writes(int errnum = EIO) {
    device.set_plan({.rules = {{.kind = FaultKind::error, .reads = false, .errnum = errnum}}});
  }
  void fail_flushes(std::uint64_t times = UINT64_MAX, int errnum = EIO) {
    device.set_plan({.fail_flushes = times, .flush_errnum = errnum});
  }
  void heal() { device.set_plan({}); }

  // Straight to the blocks of a file, past every cache: whole blocks, of which the file takes up to end_of_file.
  void put(Backing& file, std::uint64_t offset, const std::vector<char>& bytes, std::uint64_t end_of_file) {
    for (std::size_t done = 0; done < bytes.size();) {
      const auto extent = file.prepare(offset + done, bytes.size() - done);
      CHECK(extent.ok());
      CHECK(store.memory().poke(extent.value().address, bytes.data() + done, extent.value().length) == 0);
      CHECK(file.commit(offset + done, extent.value().length, end_of_file).ok());
      done += extent.value().length;
    }
  }

  std::size_t operations(FaultOp op) const {
    std::size_t count = 0;
    for (const FaultRecord& record : device.records()) count += record.op == op;
    return count;
  }
  std::size_t reads() const { return operations(FaultOp::read); }

  RamStore store;
  FaultyDevice device;
};

// Passes everything on but for what it was told.
class OddBacking final : public Backing {
 public:
  explicit OddBacking(std::unique_ptr<RamBacking> inner) : inner_(std::move(inner)) {}

  Atomic<int> set_size_errnum;  // 0: passes on
  Atomic<int> map_errnum;
  Atomic<int> commit_errnum;
  Atomic<int> range_errnum;  // of every range operation that would change something, of which this is the target
  Atomic<int>
      half_way_errnum;  // of a punch or clone, after it was done: the backing has changed, and says that it failed
  Atomic<std::uint64_t> unwritten_first{UINT64_MAX};  // bytes [first, last] that are allocated but never written
  Atomic<std::uint64_t> unwritten_last;
  Atomic<std::uint64_t> believed_size{UINT64_MAX};  // what size() says instead
  Atomic<std::uint64_t> phantom_first{UINT64_MAX};  // bytes from here on lie past the end of the device
  Atomic<std::uint64_t> limit{kMaxFileSize};
  Atomic<bool> is_fixed;
  std::function<void()> during_sync;  // set before there are threads

  Device& device() override { return inner_->device(); }
  std::uint64_t size() const override {
    const std::uint64_t believed = believed_size.load(memory_order_acquire);
    return believed != UINT64_MAX ? believed : inner_->size();
  }
  std::uint64_t max_size() const override { return limit.load(memory_order_acquire); }
  bool fixed_size() const override { return is_fixed.load(memory_order_acquire); }
  unsigned block_size() const override { return inner_->block_size(); }
  unsigned write_alignment() const override { return inner_->write_alignment(); }
  void cut_back(std::uint64_t size) override { inner_->cut_back(size); }
  unsigned direct_alignment() const override { return inner_->direct_alignment(); }

  Result<Extent> map(std::uint64_t offset, std::uint64_t length) override {
    if (const int errnum = map_errnum.load(memory_order_acquire); errnum != 0) return fail(errnum);
    if (const std::uint64_t phantom = phantom_first.load(memory_order_acquire); offset >= phantom) {
      return Extent{.offset = offset, .length = length, .address = std::uint64_t{1} << 50, .kind = ExtentKind::written};
    } else if (length > phantom - offset) {
      length = phantom - offset;
    }
    const std::uint64_t first = unwritten_first.load(memory_order_acquire);
    const std::uint64_t last = unwritten_last.load(memory_order_acquire);
    if (offset < first || offset > last) {
      if (offset < first && offset + length > first) length = first - offset;
      return inner_->map(offset, length);
    }
    auto extent = inner_->map(offset, std::min(length, last - offset + 1));
    if (extent.ok()) extent.value().kind = ExtentKind::unwritten;
    return extent;
  }
  Result<Extent> prepare(std::uint64_t offset, std::uint64_t length) override {
    return inner_->prepare(offset, length);
  }
  Status commit(std::uint64_t offset, std::uint64_t length, std::uint64_t end_of_file) override {
    if (const int errnum = commit_errnum.load(memory_order_acquire); errnum != 0) return fail(errnum);
    return inner_->commit(offset, length, end_of_file);
  }
  bool unwritten_extents() const override { return inner_->unwritten_extents(); }
  bool begin_direct(DirectHold& hold, bool wait) override { return inner_->begin_direct(hold, wait); }
  void end_direct(DirectHold& hold) override { inner_->end_direct(hold); }
  Status write_through(std::uint64_t offset, std::span<const iovec> buffers) override {
    return inner_->write_through(offset, buffers);
  }
  Status set_size(std::uint64_t size) override {
    if (const int errnum = set_size_errnum.load(memory_order_acquire); errnum != 0) return fail(errnum);
    return inner_->set_size(size);
  }
  Status allocate(std::uint64_t offset, std::uint64_t length, bool keep_size) override {
    QUIRE_TRY(range_status());
    return inner_->allocate(offset, length, keep_size);
  }
  Status punch(std::uint64_t offset, std::uint64_t length) override {
    QUIRE_TRY(range_status());
    return half_way(inner_->punch(offset, length));
  }
  Status zero(std::uint64_t offset, std::uint64_t length, bool keep_size) override {
    QUIRE_TRY(range_status());
    return inner_->zero(offset, length, keep_size);
  }
  Status unshare(std::uint64_t offset, std::uint64_t length) override {
    QUIRE_TRY(range_status());
    return inner_->unshare(offset, length);
  }
  Status collapse(std::uint64_t offset, std::uint64_t length) override {
    QUIRE_TRY(range_status());
    return inner_->collapse(offset, length);
  }
  Status insert(std::uint64_t offset, std::uint64_t length) override {
    QUIRE_TRY(range_status());
    return inner_->insert(offset, length);
  }
  Status clone(Backing& source, std::uint64_t from, std::uint64_t offset, std::uint64_t length) override {
    QUIRE_TRY(range_status());
    return half_way(inner_->clone(unwrapped(source), from, offset, length));
  }
  Result<std::uint64_t> dedupe(Backing& source, std::uint64_t from, std::uint64_t offset,
                               std::uint64_t length) override {
    QUIRE_TRY(range_status());
    return inner_->dedupe(unwrapped(source), from, offset, length);
  }
  Status exchange(Backing& with, std::uint64_t at, std::uint64_t offset, std::uint64_t length) override {
    QUIRE_TRY(range_status());
    return inner_->exchange(unwrapped(with), at, offset, length);
  }
  Result<std::uint64_t> seek_data(std::uint64_t offset) override { return inner_->seek_data(offset); }
  Result<std::uint64_t> seek_hole(std::uint64_t offset) override { return inner_->seek_hole(offset); }
  Status sync(bool data_only) override {
    const Status status = inner_->sync(data_only);
    if (during_sync) during_sync();
    return status;
  }
  Status stat(struct stat* out) override { return inner_->stat(out); }

 private:
  Status range_status() const {
    const int errnum = range_errnum.load(memory_order_acquire);
    return errnum == 0 ? Status{} : fail(errnum);
  }
  Status half_way(Status done) const {
    const int errnum = half_way_errnum.load(memory_order_acquire);
    return errnum == 0 ? done : Status{fail(errnum)};
  }
  static Backing& unwrapped(Backing& backing) {
    auto* odd = dynamic_cast<OddBacking*>(&backing);
    return odd != nullptr ? *odd->inner_ : backing;
  }

  const std::unique_ptr<RamBacking> inner_;
};

}  // namespace quire::testing_support
