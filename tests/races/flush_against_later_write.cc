// A flush runs while another thread writes a page and writes it back; then a flush fails. The first one cleans only
// what was written before it began: so what it did not cover is dirty again after the failure, and the sync that
// succeeds in the end writes it once more. Closed by the flush's epoch.
#include "races/two_syncs.h"

namespace quire::races {
namespace {

class FlushAgainstLaterWrite final : public TwoSyncs {
 public:
  FlushAgainstLaterWrite() : TwoSyncs({.skip_flushes = 1, .fail_flushes = 1}) {}
};

RACE(flush_against_later_write, FlushAgainstLaterWrite, {Defect::flush_cleans_later_writes});

}  // namespace
}  // namespace quire::races
