// Two handles sync while the device fails one write. Each is told once, whoever did the writing; the bytes stay dirty
// and a later sync writes them. Closed by an error sequence that each handle compares with what it has seen.
#include "races/scenario.h"

namespace quire::races {
namespace {

class SyncAgainstWriteError final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 1000));
    world_.file(0).open(other_);
    expect(world_.write(0, 0, letters('b', 1000)) == 0, "the write succeeds");
    world_.disk().device.set_plan({.rules = {{.kind = FaultKind::error, .reads = false, .times = 1}}});
  }
  std::vector<scheduling::NamedBody> threads() override {
    return {{"first", [this] { sync(world_.file(0).handle(), &told_first_); }},
            {"second", [this] { sync(other_, &told_other_); }}};
  }
  void check() override {
    sync(world_.file(0).handle(), &told_first_);
    sync(other_, &told_other_);
    expect(told_first_ == 1 && told_other_ == 1, "each handle is told of the error, and once");
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, 1000) == letters('b', 1000), "what could not be written at first was written later");
  }

 private:
  void sync(OpenFile& handle, int* told) {
    const int errnum = file_sync(handle, false).errnum();
    expect(errnum == 0 || errnum == EIO, "a sync succeeds, or tells the device's errno");
    *told += errnum != 0;
  }

  World world_;
  OpenFile other_;
  int told_first_ = 0, told_other_ = 0;
};

RACE(sync_against_write_error, SyncAgainstWriteError, {Defect::error_told_to_one_handle});

}  // namespace
}  // namespace quire::races
