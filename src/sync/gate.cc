// The gate's lock class; the rest is inline.
#include "sync/gate.h"

namespace quire {

LockClass gate_lock_class{"gate", LockClass::Nesting::ascending};

}  // namespace quire
