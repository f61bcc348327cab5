// The model file: content as runs that point into what is already stored somewhere (the content at the window's
// start, an operation's data, zeros), so that a state costs a few words and an operation makes the next one
// by cutting and joining. Used by one thread at a time; no locks.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "testing/history.h"

namespace quire::judge {

struct Run {
  // kZeroRun, base_run(slot), or the index of a mutator in its window.
  int source;
  uint64_t begin;  // offset in the base, or in the mutator's pattern; 0 for zeros
  uint64_t length;
  auto operator<=>(const Run&) const = default;
};
inline constexpr int kZeroRun = -1;
constexpr int base_run(int slot) { return -2 - slot; }

struct FileState {
  std::vector<Run> runs;
  uint64_t size = 0;
  auto operator<=>(const FileState&) const = default;
};

struct State {
  std::array<FileState, 2> files;
  auto operator<=>(const State&) const = default;
};

// The content when the window begins.
State first_state(const Window& window);

// Whether mutator `index` of the window could have returned what it did had it happened at this state; if so,
// *state becomes what it left behind.
bool apply(const Window& window, size_t index, State* state);

// Whether the read returned exactly what the file held at this state: count and bytes.
bool explains(const Window& window, const State& state, const Op& read);

// The bytes a read of [offset, offset + length) finds at this state; returns the count.
size_t render(const Window& window, const FileState& file, uint64_t offset, size_t length, unsigned char* out);

// Turns the files' images, which must be the window's bases, into this state's content.
void settle(const Window& window, const State& state, std::array<Image*, 2> images);

// Errors that an operation may return without anything being wrong (apply decides whether they fit).
bool expected_error(OpKind kind, int error);

}  // namespace quire::judge
