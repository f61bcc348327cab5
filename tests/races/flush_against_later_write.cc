// A flush runs while another thread writes a page and writes it back; then a flush fails, and the device forgets what
// it had not made durable. A flush cleans only what was written before it began: so what it did not cover is dirty
// again after the failure, and the sync that succeeds in the end writes it once more. Closed by the flush's epoch.
#include <algorithm>

#include "races/scenario.h"

namespace quire::races {
namespace {

class FlushAgainstLaterWrite final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage + 200));
    world_.warm(0, 0, kPage + 200);
    expect(world_.write(0, 0, letters('b', 100)) == 0, "the write succeeds");
    expect(world_.write(0, kPage, letters('c', 100)) == 0, "the write succeeds");
    const auto at = world_.backing(0).map(kPage, 1);
    address_ = at.value().address;
    world_.disk().device.clear_records();
    world_.disk().device.set_plan({.skip_flushes = 1, .fail_flushes = 1});
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"first", [this] { sync_page(0); }}, {"second", [this] { sync_page(1); }}};
  }
  void check() override {
    while (world_.file(0).sync() != 0) {
    }
    expect(durable(), "a sync has succeeded, and its page was lost by a flush that failed after it was written");
  }

 private:
  void sync_page(std::uint64_t page) {
    const int errnum = sync_range(world_.file(0).mapping(), page, page, false).errnum();
    expect(errnum == 0 || errnum == EIO, "a sync succeeds, or tells the device's errno");
  }
  // Whether the second page's bytes are on a device that keeps them until a flush and forgets them if that fails.
  bool durable() {
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

  World world_;
  std::uint64_t address_ = 0;
};

RACE(flush_against_later_write, FlushAgainstLaterWrite, {Defect::flush_cleans_later_writes});

}  // namespace
}  // namespace quire::races
