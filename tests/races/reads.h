// How a scenario reads: the two fast paths by choice, where World::read takes them by turns. And what several reads may
// show of a file that changes from one state to the next.
#pragma once

#include <sys/uio.h>

#include <span>
#include <string>
#include <vector>

#include "races/scenario.h"

namespace quire::races {

// Every way but the short hit in line.
inline std::string read_plain(World& world, std::size_t number, std::uint64_t offset, std::size_t count) {
  std::string bytes(count, '?');
  const iovec v{bytes.data(), count};
  const auto n = file_read(world.file(number).handle(), std::span(&v, 1), offset, 0);
  if (!n.ok()) return "error " + std::to_string(n.errnum());
  bytes.resize(n.value());
  return bytes;
}

// The short hit in line alone: empty if it leaves the read to others.
inline std::string hit(World& world, std::size_t number, std::uint64_t offset, std::size_t count) {
  std::string bytes(count, '?');
  if (read_hit(world.file(number).mapping(), bytes.data(), count, offset) == kSlow) bytes.clear();
  return bytes;
}

// As the API reads up to 256 bytes: the short hit first.
inline std::string read_short(World& world, std::size_t number, std::uint64_t offset, std::size_t count) {
  const std::string bytes = hit(world, number, offset, count);
  return bytes.empty() ? read_plain(world, number, offset, count) : bytes;
}

// Which of the states, in the order that the file takes them, a read shows; the last of those that look alike.
// -1: none of them.
inline int state_of(const std::string& bytes, const std::vector<std::string>& states) {
  for (std::size_t i = states.size(); i-- > 0;) {
    if (bytes == states[i]) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace quire::races
