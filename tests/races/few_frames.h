// Memory that runs out: takes frames of a cache away, so that few are left to who runs beside each other.
#pragma once

#include "cache/fill.h"
#include "cache/page_cache.h"
#include "races/scenario.h"

namespace quire::races {

class FewFrames {
 public:
  // Until the end, `left` frames are free. The index has to fit beside them: the cache has 200 frames or more.
  FewFrames(PageCache& cache, std::uint32_t left) : taken_(cache.pool) {
    cache.pool.take(taken_, cache.pool.free_frames() - left);
  }

 private:
  FrameReservation taken_;
};

// As a read of the other file: takes what frame there is, or reclaim gives, and fills its first page. False: the fill
// failed.
inline bool fill_if_room(World& world, std::size_t number) {
  FrameReservation frames(world.cache().pool);
  if (!world.cache().try_reserve(frames, 1)) return true;
  const auto filled = fill_range(world.file(number).mapping(), 0, 0, frames, CacheContext{});
  if (!filled.ok() || filled.value().first == nullptr) return false;
  world.cache().put_folio(*filled.value().first);
  return true;
}

}  // namespace quire::races
