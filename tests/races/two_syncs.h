// Two threads, each syncing a page of its own, on a device that keeps what was written in a cache until a flush, and
// forgets it when a flush fails. A sync that succeeds must have made its page durable, whatever the other one met.
#pragma once

#include <algorithm>

#include "races/scenario.h"

namespace quire::races {

class TwoSyncs : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage + 200));
    world_.warm(0, 0, kPage + 200);
    expect(world_.write(0, 0, letters('b', 100)) == 0, "the write succeeds");
    expect(world_.write(0, kPage, letters('c', 100)) == 0, "the write succeeds");
    address_ = world_.backing(0).map(kPage, 1).value().address;
    world_.disk().device.clear_records();
    world_.disk().device.set_plan(plan_);
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"first", [this] { sync_page(0); }}, {"second", [this] { sync_page(1); }}};
  }
  void check() override {
    while (world_.file(0).sync() != 0) {
    }
    expect(durable(), "a sync has succeeded, and its page was lost by a flush that failed after it was written");
  }

 protected:
  explicit TwoSyncs(FaultPlan plan) : plan_(std::move(plan)) {}

 private:
  void sync_page(std::uint64_t page) {
    const int errnum = sync_range(world_.file(0).mapping(), page, page, false).errnum();
    expect(errnum == 0 || errnum == EIO, "a sync succeeds, or tells the device's errno");
  }
  bool durable() {  // the second page
    std::vector<FaultRecord> records = world_.disk().device.records();
    std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.arrival < b.arrival; });
    bool cached = false, kept = false;
    for (const FaultRecord& record : records) {
      if (record.op == FaultOp::write && record.offset <= address_ && address_ < record.offset + record.length) {
        cached = true;
        kept = false;
      } else if (record.op == FaultOp::flush && cached) {
        kept = kept || record.result == 0;
        cached = false;
      }
    }
    return kept;
  }

  const FaultPlan plan_;
  World world_;
  std::uint64_t address_ = 0;
};

}  // namespace quire::races
