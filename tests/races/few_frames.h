// Memory that runs out: takes frames of a cache away, so that few are left to who runs beside each other.
#pragma once

#include "cache/page_cache.h"

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

}  // namespace quire::races
