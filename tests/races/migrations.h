// How a scenario migrates: one folio to whatever frame is free, as a rebuild of its block does.
#pragma once

#include "cache/migrate.h"
#include "races/scenario.h"
#include "sync/rcu.h"

namespace quire::races {

// The folio of `page`, of one page itself, moves; its old frame is free afterwards. Returns whether it did.
// meanwhile(): as soon as it has, and what another thread might do before the grace period ends.
inline bool migrate_page(World& world, std::size_t number, std::uint64_t page,
                         const std::function<void()>& meanwhile = {}) {
  PageCache& cache = world.cache();
  FrameReservation frames(cache.pool);
  cache.pool.take(frames, 1);
  Folio* frame = frames.take();
  if (frame == nullptr) return false;
  Folio* folio;
  {
    RcuReadLock rcu;  // only for the index: migration asks for no more than a descriptor
    folio = folio_of(world.file(number).mapping().pages.load(page));
  }
  const bool moved = folio != nullptr && migrate_folio(cache, *folio, *frame);
  if (moved) {
    if (meanwhile) meanwhile();
    rcu_synchronize();
    frame = folio;
  }
  frames.put(*frame);
  return moved;
}

}  // namespace quire::races
