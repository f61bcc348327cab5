// The world of a scenario, and the list of scenarios.
#include "races/scenario.h"

namespace quire::races {

TestFile& World::add_file(const std::string& bytes) {
  auto backing = std::make_unique<OddBacking>(disk_.make_file());
  backings_.push_back(backing.get());
  if (!bytes.empty()) {
    std::vector<char> blocks(bytes.begin(), bytes.end());
    blocks.resize(round_up(blocks.size(), backing->block_size()));
    disk_.put(*backing, 0, blocks, bytes.size());
  }
  files_.push_back(std::make_unique<TestFile>(cache_.cache, std::move(backing), files_.size() + 1));
  return *files_.back();
}

std::string World::read(std::size_t number, std::uint64_t offset, std::size_t count, unsigned flags) {
  // What goes to the device itself depends on alignment, and a schedule must not depend on addresses.
  const AlignedBytes bytes(round_up(count, kPage));
  std::memset(bytes.data(), '?', count);
  const ssize_t n = file(number).read(bytes.data(), count, offset, flags);
  if (n < 0) return "error " + std::to_string(-n);
  return std::string(bytes.data(), static_cast<std::size_t>(n));
}

int World::write(std::size_t number, std::uint64_t offset, const std::string& bytes, unsigned flags) {
  const AlignedBytes aligned(round_up(bytes.size(), kPage));
  std::memcpy(aligned.data(), bytes.data(), bytes.size());
  const ssize_t n = file(number).write(aligned.data(), bytes.size(), offset, flags);
  if (n < 0) return static_cast<int>(-n);
  return static_cast<std::size_t>(n) == bytes.size() ? 0 : EIO;
}

void World::warm(std::size_t number, std::uint64_t offset, std::size_t count) {
  for (int i = 0; i < 3; ++i) {
    for (std::uint64_t at = offset; at < offset + count; at += kPage) static_cast<void>(read(number, at, 1));
  }
}

void World::warm_large(std::size_t number, std::uint64_t page, unsigned order) {
  FrameReservation frames(cache().pool);
  cache().reserve(frames, 1u << order, order);
  const auto filled = fill_range(file(number).mapping(), page, page + (1u << order) - 1, frames, CacheContext{}, order);
  Folio& folio = *filled.value().first;
  CHECK(folio.order.load(memory_order_relaxed) == order);
  cache().put_folio(folio);
}

std::uint32_t World::reclaim(std::uint32_t want) {
  FrameReservation frames(cache().pool);
  const std::uint32_t before = cache().pool.free_frames();
  cache().try_reserve(frames, std::min(before + want, cache().frames()));
  const std::uint32_t got = frames.count();
  return got > before ? got - before : 0;
}

bool is_all_of_one(const std::string& bytes, const std::string& allowed) {
  if (bytes.empty() || allowed.find(bytes[0]) == std::string::npos) return false;
  return bytes.find_first_not_of(bytes[0]) == std::string::npos;
}

std::vector<RegisteredRace>& registered_races() {
  static std::vector<RegisteredRace> races;
  return races;
}

bool register_race(RegisteredRace race) {
  registered_races().push_back(std::move(race));
  return true;
}

}  // namespace quire::races
