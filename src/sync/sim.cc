// The scheduler in charge, if any. See sim.h.
#include "sync/sim.h"

#ifdef QUIRE_SIM

namespace quire::sim {

constinit thread_local Scheduler* scheduler = nullptr;

}  // namespace quire::sim

#endif
