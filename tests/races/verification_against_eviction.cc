// A verified file is read while the block of hashes that the read needs is evicted, and its frame becomes another's;
// data and sidecar have been changed since it was verified. Closed by the reader's reference, while it uses a block;
// and one that is read again is verified again. So the read fails, whoever comes first.
#include "races/verified.h"

namespace quire::races {
namespace {

class VerificationAgainstEviction final : public Scenario {
 public:
  void setup() override {
    expect(world_.read(0, 0, 100) == letters('a', 100), "the first page is verified, and the hashes stay");
    world_.file(0).drop_cached();
    world_.attack();
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] { expect(world_.read(0, kPage, 100) == "error 5", "what was put in is not returned"); };
    const auto evict = [this] {
      world_.verity().drop_hashes();
      FrameReservation frames(world_.cache().pool);
      if (!world_.cache().try_reserve(frames, 1)) return;
      Folio* const folio = frames.take();
      std::memset(folio->bytes(), '?', kPage);
      frames.put(*folio);
    };
    return {{"reader", read}, {"evictor", evict}};
  }

 private:
  VerifiedWorld world_;
};

RACE(verification_against_eviction, VerificationAgainstEviction, {Defect::hashes_read_again_trusted});

}  // namespace
}  // namespace quire::races
