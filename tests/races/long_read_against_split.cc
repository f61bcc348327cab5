// A long read that finds a page in a large folio, which is split before the read asks how far it reaches: the page lies
// past what is left. Nothing of the frames behind may get into the caller's buffer, not even in a read that will be
// thrown away. Closed by asking for the order once, and for the page's place in it.
#include "cache/split.h"
#include "races/reads.h"

namespace quire::races {
namespace {

class LongReadAgainstSplit final : public Scenario {
 public:
  void setup() override {
    world_.add_file(letters('a', 8 * kPage));
    world_.add_file(letters('z', 4 * kPage));
    world_.warm_large(0, 0, 2);
    world_.warm_large(1, 0, 2);  // in the frames behind
    world_.warm_large(0, 4, 2);
  }
  std::vector<scheduling::NamedBody> threads() override {
    const auto read = [this] {
      std::string bytes(4 * kPage, 'a');
      static_cast<void>(read_fast(world_.file(0).mapping(), bytes.data(), bytes.size(), 2 * kPage));
      expect(is_all_of_one(bytes, "a"), "nothing but the file's bytes gets into the buffer");
    };
    const auto split = [this] {
      Mapping& mapping = world_.file(0).mapping();
      Folio* folio = get_folio(mapping, 0);
      lock_folio(*folio);
      expect(split_folio(mapping, *folio, 0, 0).ok(), "the split succeeds");
      unlock_folio(*folio);
      world_.cache().put_folio(*folio);
    };
    return {{"reader", read}, {"splitter", split}};
  }

 private:
  World world_;
};

RACE(long_read_against_split, LongReadAgainstSplit, {Defect::long_read_trusts_the_order});

}  // namespace
}  // namespace quire::races
