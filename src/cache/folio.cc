// The folio lock's slow side. Spins briefly: most holders only copy a page.
#include "cache/folio.h"

#include "sync/clock.h"

#ifdef QUIRE_LOCK_VALIDATOR
#include "cache/mapping.h"
#endif

namespace quire {

LockClass folio_lock_class{"folio", LockClass::Nesting::ascending};

namespace {

constexpr int kSpins = spins(100);

bool wait_while_locked(Folio& folio, std::int64_t timeout_ns = -1) {
  for (int i = 0; i < kSpins; ++i) {
    if (!folio.has(kLocked)) return true;
    cpu_relax();
  }
  const std::int64_t until = timeout_ns < 0 ? 0 : clock_ns(CLOCK_MONOTONIC) + timeout_ns;
  std::int64_t left = timeout_ns;
  std::uint32_t flags = folio.flags.load(memory_order_acquire);
  while ((flags & kLocked) != 0) {
    // Other bits of the word change under us: then the futex does not sleep, and we look again.
    if ((flags & kWaiters) == 0) {
      if (!folio.flags.compare_exchange(flags, flags | kWaiters, memory_order_acquire, memory_order_acquire)) continue;
      flags |= kWaiters;
    }
    futex_wait(folio.flags, flags, left);
    flags = folio.flags.load(memory_order_acquire);
    if (timeout_ns < 0) continue;
    left = until - clock_ns(CLOCK_MONOTONIC);
    if (left <= 0) break;
  }
  return (flags & kLocked) == 0;
}

}  // namespace

void lock_folio(Folio& folio) {
#ifdef QUIRE_LOCK_VALIDATOR
  // The caller's reference keeps the identity stable, but for a removal: then the key orders nothing any more.
  const Mapping* mapping = folio.mapping.load(memory_order_relaxed);
  const LockKey key{mapping != nullptr ? mapping->id : 0, folio.index.load(memory_order_relaxed)};
  lock_will_acquire(folio_lock_class, &folio, key);
#endif
  while ((folio.flags.fetch_or(kLocked, memory_order_acquire) & kLocked) != 0) wait_while_locked(folio);
#ifdef QUIRE_LOCK_VALIDATOR
  lock_acquired(folio_lock_class, &folio, key);
#endif
}

bool wait_folio_unlocked(Folio& folio, std::int64_t timeout_ns) { return wait_while_locked(folio, timeout_ns); }

}  // namespace quire
