// Numbers in the formats' byte order, at any address.
#pragma once

#include <bit>
#include <cstring>
#include <type_traits>

namespace quire::verity {

static_assert(std::endian::native == std::endian::little);

template <typename Number>
Number load_le(const void* from) {
  static_assert(std::is_unsigned_v<Number>);
  Number value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <typename Number>
void store_le(void* to, Number value) {
  static_assert(std::is_unsigned_v<Number>);
  std::memcpy(to, &value, sizeof value);
}

}  // namespace quire::verity
