// What a range operation writes back and reads while it holds the invalidate lock (remove), beside a sync that wants
// the same lock: nested work is told what is held (CacheContext) and does not wait for it again, which would be for
// itself.
#include "cache/buffered_read.h"
#include "races/scenario.h"

namespace quire::races {
namespace {

class NestedFillUnderRemove final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', kPage) + letters('b', kPage));
    expect(world_.write(0, kPage, letters('c', kPage)) == 0, "the second page is written");
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto collapse_and_read = [this] {
      expect(world_.file(0).allocate(FALLOC_FL_COLLAPSE_RANGE, 0, kPage) == 0, "the collapse succeeds");
      read_under_remove();
    };
    return {{"shifter", collapse_and_read},
            {"syncer", [this] { expect(world_.file(0).sync() == 0, "the sync succeeds"); }}};
  }
  void check() override {
    world_.file(0).drop_cached();
    expect(world_.read(0, 0, 2 * kPage) == letters('c', kPage), "the first page is gone");
  }

 private:
  // As a range operation would that has to look at bytes in the middle of its change.
  void read_under_remove() {
    Inode& inode = world_.file(0).inode();
    RangeGuard range(inode.range);
    range.acquire(0, kPage - 1, kExclusive);
    RangeGuard remove(inode.mapping.invalidate);
    remove.acquire(0, 0, kRemove);
    FrameReservation frames(world_.cache().pool);
    std::string bytes(100, '?');
    const iovec out{bytes.data(), bytes.size()};
    UserBuffer to(std::span(&out, 1));
    const auto got = read_locked(inode.mapping, to, 0, bytes.size(), frames, nullptr, CacheContext{&remove.request()});
    expect(got.ok() && bytes == letters('c', 100), "the nested read sees the second page");
  }

  World world_;
};

RACE(nested_fill_under_remove, NestedFillUnderRemove, {Defect::flush_without_context, Defect::nested_fill_locks_again});

}  // namespace
}  // namespace quire::races
