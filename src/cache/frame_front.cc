// How many fronts there are, and what they hold. See frame_front.h.
#include "cache/frame_front.h"

#include <algorithm>
#include <cerrno>
#include <new>

#include "base/error.h"

namespace quire {

LockClass frame_front_lock_class{"frame front"};

Status FrameFronts::create(std::uint32_t frames) {
  const std::uint32_t wanted = std::min(kMost, frames / kShare / FrameFront::kFrames);
  if (wanted == 0) return {};
  fronts_.reset(new (std::nothrow) FrameFront[wanted]);
  if (fronts_ == nullptr) return fail(ENOMEM);
  size_ = wanted;
  return {};
}

std::uint32_t FrameFronts::count() const {
  std::uint32_t total = 0;
  for (std::uint32_t i = 0; i < size_; ++i) total += fronts_[i].count.load(memory_order_relaxed);
  return total;
}

}  // namespace quire
