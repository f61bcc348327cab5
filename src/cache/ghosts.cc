// The sweep. See ghosts.h.
#include "cache/ghosts.h"

#include "cache/mapping.h"

namespace quire {

LockClass ghosts_lock_class{"ghosts"};

namespace {

constexpr int kSlice = 128;  // entries looked at in one turn of the index's mutex

}  // namespace

GhostKeeper::GhostKeeper(PageCache& cache) : cache_(cache), mappings_(ghosts_lock_class, &Mapping::ghost_link) {}

void GhostKeeper::added(Mapping& mapping, std::uint64_t count) {
  count_.fetch_add(count, memory_order_relaxed);
  const std::uint64_t before = mapping.ghost_count.load(memory_order_relaxed);
  mapping.ghost_count.store(before + count, memory_order_relaxed);
  if (before == 0) mappings_.add(mapping);
}

void GhostKeeper::removed(Mapping& mapping, std::uint64_t count) {
  mapping.ghost_count.store(mapping.ghost_count.load(memory_order_relaxed) - count, memory_order_relaxed);
  count_.fetch_sub(count, memory_order_relaxed);
}

namespace {

// A sparse file's ghosts may hold a node of the index each.
bool index_passes(const PageCache& cache, std::uint64_t bytes) {
  return static_cast<std::uint64_t>(cache.nodes.bytes()) > bytes;
}

}  // namespace

bool GhostKeeper::room() const { return !index_passes(cache_, cache_.memory() / 8); }

// Ghosts count for two caches' worth of evictions: of what is past that many and a half, some is dead.
bool GhostKeeper::due() const {
  const std::uint64_t ghosts = count();
  const std::uint64_t frames = cache_.frames();
  return ghosts > 2 * frames + frames / 2 || (index_passes(cache_, cache_.memory() / 16) && ghosts > frames / 4);
}

void GhostKeeper::sweep(const Atomic<bool>& stop) {
  if (!due()) return;
  std::uint64_t left = mappings_.size();
  const bool large = index_passes(cache_, cache_.memory() / 16);
  const std::uint64_t within = large ? cache_.frames() / 8 : UINT64_MAX;
  while (left-- != 0 && !stop.load(memory_order_relaxed) && sweep_next(within)) {
  }
}

bool GhostKeeper::sweep_next(std::uint64_t within) {
  const auto decide = [](const Mapping& mapping) {
    return mapping.ghost_count.load(memory_order_relaxed) == 0 ? MappingList::Visit::drop : MappingList::Visit::enter;
  };
  Mapping* mapping;
  if (!mappings_.next(decide, &mapping)) return false;
  if (mapping == nullptr) return true;
  sweep_mapping(*mapping, cache_.eviction.ghost_age(), within);
  mappings_.leave(*mapping);
  return true;
}

void GhostKeeper::sweep_mapping(Mapping& mapping, const GhostAge& age, std::uint64_t within) {
  std::uint64_t page = 0;
  for (;;) {
    MutexLock lock(mapping.pages.mutex());
    for (int i = 0; i < kSlice; ++i) {
      std::uint64_t last = 0;
      const XEntry entry = mapping.pages.find(&page, UINT64_MAX, &last);
      if (entry.empty()) return;
      if (entry.is_value() && !age.is_live(entry.value(), within)) {
        mapping.pages.erase_locked(page);
        removed(mapping);
      }
      if (last == UINT64_MAX) return;
      page = last + 1;
    }
  }
}

}  // namespace quire
