// The hashes that two windows of a verified file share cannot be read, once: whoever had them to read says so, and the
// other goes on. Readahead that fails is read again by who wants it.
#include "cache/fill.h"
#include "races/verified.h"

namespace quire::races {
namespace {

class VerifiedWindowFails final : public Scenario {
 public:
  void setup() override { world_.fail_tree_once(); }
  std::vector<scheduling::NamedBody> threads() override {
    const auto look = [this](std::uint64_t page) {
      fill_ahead(world_.mapping(), page, page, 0, UINT64_MAX);
      const std::string got = world_.read(0, page * kPageSize + 10, 20);
      expect(got == world_.expected(page * kPageSize + 10, 20) || got == "error 5", "verified, or the device's error");
    };
    return {{"one", [=] { look(0); }}, {"two", [=] { look(1); }}};
  }
  void check() override {
    drain_ahead(world_.mapping());
    expect(world_.read(0, 10, 20) == world_.expected(10, 20), "the device works again");
    expect(world_.verity().failures() == 0, "no block was wrong");
  }

 private:
  VerifiedWorld world_;
};

RACE(verified_window_fails, VerifiedWindowFails, {Defect::verity_abandons_silently});

}  // namespace
}  // namespace quire::races
