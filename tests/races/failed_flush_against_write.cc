// A flush fails while another thread writes a page back: the device forgets what reached it before, however far the
// writeback of it had come. Closed by making dirty again, when a flush fails, all that is unflushed or being written.
#include "races/two_syncs.h"

namespace quire::races {
namespace {

class FailedFlushAgainstWrite final : public TwoSyncs {
 public:
  FailedFlushAgainstWrite() : TwoSyncs({.fail_flushes = 1}) {}
};

RACE(failed_flush_against_write, FailedFlushAgainstWrite, {Defect::failed_flush_keeps_later_writes});

}  // namespace
}  // namespace quire::races
