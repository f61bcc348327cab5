// For tests: a view of a test file, by words.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cache/views.h"
#include "fs/file_for_test.h"

namespace quire::testing_support {

struct FileView {
  FileView(TestFile& file, std::uint64_t pages, std::uint64_t first = 0, bool writable = false)
      : engine(*file.mapping().cache.view_engine().take()),
        view(*engine.add(file.mapping(), first, pages, writable, &file).take()) {}
  ~FileView() { engine.remove(view); }
  std::uint64_t word(std::uint64_t offset) const {
    return *reinterpret_cast<const volatile std::uint64_t*>(view.base + offset);
  }
  void store(std::uint64_t offset, std::uint64_t word) const {
    *reinterpret_cast<volatile std::uint64_t*>(view.base + offset) = word;
  }
  std::vector<char> all(std::uint64_t count) const {
    std::vector<char> bytes(count);
    std::memcpy(bytes.data(), view.base, count);
    return bytes;
  }
  ViewEngine& engine;
  View& view;
};

}  // namespace quire::testing_support
