// For tests: what a file of a ram store reads as, extent by extent, and writes without a cache. Locks: none of its own.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "ram/ram_backing.h"

namespace quire::testing_support {

// The extents of [0, end), checked to be one behind the other.
inline std::vector<Extent> extents_of(RamBacking& file, std::uint64_t end) {
  std::vector<Extent> extents;
  for (std::uint64_t at = 0; at < end;) {
    const auto extent = file.map(at, end - at);
    EXPECT_TRUE(extent.ok());
    if (!extent.ok()) break;
    EXPECT_EQ(extent.value().offset, at);
    EXPECT_GT(extent.value().length, 0U);
    if (extent.value().length == 0) break;
    extents.push_back(extent.value());
    at += extent.value().length;
  }
  return extents;
}

// What [0, end) reads as: holes and unwritten blocks as zeros.
inline std::vector<unsigned char> image_of(RamStore& store, RamBacking& file, std::uint64_t end) {
  std::vector<unsigned char> bytes(end);
  for (const Extent& extent : extents_of(file, end)) {
    if (extent.kind == ExtentKind::written) store.memory().peek(extent.address, &bytes[extent.offset], extent.length);
  }
  return bytes;
}
inline std::vector<unsigned char> image_of(RamStore& store, RamBacking& file) {
  return image_of(store, file, file.size());
}

// Prepares [offset, offset + length), whole blocks. ENOSPC: those before are prepared.
inline Result<std::vector<Extent>> prepare_all(RamBacking& file, std::uint64_t offset, std::uint64_t length) {
  std::vector<Extent> extents;
  for (std::uint64_t at = offset; at < offset + length;) {
    const auto extent = file.prepare(at, offset + length - at);
    if (!extent.ok()) return fail(extent.errnum());
    EXPECT_EQ(extent.value().offset, at);
    extents.push_back(extent.value());
    at += extent.value().length;
  }
  return extents;
}

// Whole blocks, of which the file takes up to end_of_file.
inline Status write_blocks(RamStore& store, RamBacking& file, std::uint64_t offset,
                           const std::vector<unsigned char>& bytes, std::uint64_t end_of_file) {
  const auto extents = prepare_all(file, offset, bytes.size());
  if (!extents.ok()) return fail(extents.errnum());
  for (const Extent& extent : extents.value()) {
    EXPECT_EQ(store.memory().poke(extent.address, &bytes[extent.offset - offset], extent.length), 0);
  }
  return file.commit(offset, bytes.size(), end_of_file);
}

}  // namespace quire::testing_support
