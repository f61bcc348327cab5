// A read and readahead of a verified file need the same hashes, and each may be the one that reads them: the other
// waits, or is set aside, and goes on when they were settled, between its look and its being set aside as well.
#include "cache/fill.h"
#include "races/verified.h"

namespace quire::races {
namespace {

class VerifiedWindowsShareHashes final : public Scenario {
 public:
  void setup() override {}
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      expect(world_.read(0, 10, 20) == world_.expected(10, 20), "the read is of verified bytes");
    };
    const auto ahead = [this] {
      fill_ahead(world_.mapping(), 1, 1, 0, UINT64_MAX);
      expect(world_.read(0, kPageSize + 10, 20) == world_.expected(kPageSize + 10, 20),
             "and so is what was read ahead");
    };
    return {{"reader", read}, {"ahead", ahead}};
  }
  void check() override { drain_ahead(world_.mapping()); }

 private:
  VerifiedWorld world_;
};

RACE(verified_windows_share_hashes, VerifiedWindowsShareHashes, {Defect::verity_set_aside_for_ever});

}  // namespace
}  // namespace quire::races
