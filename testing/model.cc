// The model file: see model.h. Every operation is a few cuts and joins of run lists.
#include "testing/model.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "testing/pattern.h"

namespace quire::judge {
namespace {

constexpr std::string_view kNames[kOpKinds] = {
    "read",    "write", "append", "truncate", "falloc", "punch",  "zero",         "collapse",  "insert",
    "unshare", "clone", "dedupe", "exchange", "copy",   "direct", "direct-async", "view-load", "view-store"};

void push(FileState* file, Run run) {
  if (run.length == 0) return;
  file->size += run.length;
  if (!file->runs.empty()) {
    Run& last = file->runs.back();
    const bool follows = run.source == kZeroRun || last.begin + last.length == run.begin;
    if (last.source == run.source && follows) {
      last.length += run.length;
      return;
    }
  }
  file->runs.push_back(run);
}

void push_zeros(FileState* file, uint64_t length) { push(file, {kZeroRun, 0, length}); }

// Calls visit(run) for the parts of the runs inside [from, to).
template <typename Visit>
void for_each_part(const FileState& file, uint64_t from, uint64_t to, Visit visit) {
  uint64_t at = 0;
  for (const Run& run : file.runs) {
    if (at >= to) return;
    const uint64_t low = std::max(at, from);
    const uint64_t high = std::min(at + run.length, to);
    if (low < high) visit(Run{run.source, run.source == kZeroRun ? 0 : run.begin + (low - at), high - low}, low);
    at += run.length;
  }
}

void push_slice(const FileState& from, uint64_t low, uint64_t high, FileState* to) {
  for_each_part(from, low, high, [to](Run part, uint64_t) { push(to, part); });
}

// The file with [offset, offset + middle.size) replaced; a gap before it reads as zero.
FileState replaced(const FileState& file, uint64_t offset, const FileState& middle) {
  if (middle.size == 0) return file;
  FileState result;
  push_slice(file, 0, offset, &result);
  if (result.size < offset) push_zeros(&result, offset - result.size);
  for (const Run& run : middle.runs) push(&result, run);
  push_slice(file, offset + middle.size, file.size, &result);
  return result;
}

FileState resized(const FileState& file, uint64_t size) {
  FileState result;
  push_slice(file, 0, size, &result);
  if (result.size < size) push_zeros(&result, size - result.size);
  return result;
}

FileState zeros(uint64_t length) {
  FileState result;
  push_zeros(&result, length);
  return result;
}

FileState slice(const FileState& file, uint64_t low, uint64_t high) {
  FileState result;
  push_slice(file, low, high, &result);
  return result;
}

uint64_t pattern_begin(const Op& op) { return op.kind == OpKind::kWrite ? op.offset % 8 : 0; }

// Data that op wrote, as much of it as it returned.
FileState written(const Op& op, size_t index) {
  FileState result;
  push(&result, {static_cast<int>(index), pattern_begin(op), static_cast<uint64_t>(op.result)});
  return result;
}

bool apply_collapse(const Op& op, FileState* file) {
  const bool fits = op.offset + op.length < file->size;
  if (op.result < 0) return op.result != -EINVAL || !fits;
  if (!fits) return false;
  FileState result = slice(*file, 0, op.offset);
  push_slice(*file, op.offset + op.length, file->size, &result);
  *file = std::move(result);
  return true;
}

bool apply_insert(const Op& op, FileState* file) {
  const bool fits = op.offset < file->size;
  if (op.result < 0) return op.result != -EINVAL || !fits;
  if (!fits) return false;
  FileState result = slice(*file, 0, op.offset);
  push_zeros(&result, op.length);
  push_slice(*file, op.offset, file->size, &result);
  *file = std::move(result);
  return true;
}

// Zeros [offset, offset + length); the part past the end counts only if the size may change.
void apply_zero(const Op& op, bool keep_size, FileState* file) {
  uint64_t end = op.offset + op.length;
  if (keep_size) end = std::min(end, file->size);
  if (op.offset < end) *file = replaced(*file, op.offset, zeros(end - op.offset));
}

bool ranges_equal(const Window& window, const FileState& a, uint64_t a_offset, const FileState& b, uint64_t b_offset,
                  uint64_t length) {
  std::vector<unsigned char> left(length);
  std::vector<unsigned char> right(length);
  render(window, a, a_offset, length, left.data());
  render(window, b, b_offset, length, right.data());
  return left == right;
}

bool apply_clone(const Op& op, State* state) {
  const FileState& source = state->files[op.source_slot];
  const bool fits = op.source_offset + op.length <= source.size;
  if (op.result < 0) return op.result != -EINVAL || !fits;
  if (!fits) return false;
  const FileState middle = slice(source, op.source_offset, op.source_offset + op.length);
  state->files[op.slot] = replaced(state->files[op.slot], op.offset, middle);
  return true;
}

bool apply_dedupe(const Window& window, const Op& op, const State& state) {
  const FileState& source = state.files[op.source_slot];
  const FileState& target = state.files[op.slot];
  const bool fits = op.source_offset + op.length <= source.size && op.offset + op.length <= target.size;
  if (op.result == -EINVAL) return !fits;
  if (op.result < 0 && op.result != -EBADE) return true;
  if (!fits) return false;
  if (op.result < 0) return !ranges_equal(window, source, op.source_offset, target, op.offset, op.length);
  const auto count = static_cast<uint64_t>(op.result);
  return count <= op.length && ranges_equal(window, source, op.source_offset, target, op.offset, count);
}

bool apply_exchange(const Op& op, State* state) {
  const FileState a = state->files[op.slot];
  const FileState b = state->files[op.source_slot];
  const bool fits = op.offset + op.length <= a.size && op.source_offset + op.length <= b.size;
  if (op.result < 0) return op.result != -EINVAL || !fits;
  if (!fits) return false;
  const FileState from_a = slice(a, op.offset, op.offset + op.length);
  const FileState from_b = slice(b, op.source_offset, op.source_offset + op.length);
  state->files[op.slot] = replaced(a, op.offset, from_b);
  state->files[op.source_slot] = replaced(state->files[op.source_slot], op.source_offset, from_a);
  return true;
}

bool apply_copy(const Op& op, State* state) {
  if (op.result < 0) return true;
  const FileState& source = state->files[op.source_slot];
  const uint64_t there = source.size > op.source_offset ? source.size - op.source_offset : 0;
  const auto count = static_cast<uint64_t>(op.result);
  if (count > std::min(there, op.length)) return false;
  if (count == 0) return there == 0 || op.length == 0;
  const FileState middle = slice(source, op.source_offset, op.source_offset + count);
  state->files[op.slot] = replaced(state->files[op.slot], op.offset, middle);
  return true;
}

// Whether bytes equal the part of the file that the run stands for.
bool run_equals(const Window& window, const Run& run, const unsigned char* bytes) {
  if (run.source >= 0) {
    return pattern_mismatch(bytes, run.length, window.mutators[static_cast<size_t>(run.source)].tag, run.begin) ==
           run.length;
  }
  if (run.source == kZeroRun) return std::all_of(bytes, bytes + run.length, [](unsigned char b) { return b == 0; });
  return std::memcmp(bytes, window.base[static_cast<size_t>(-2 - run.source)]->data() + run.begin, run.length) == 0;
}

void write_run(const Window& window, const Run& run, unsigned char* out) {
  if (run.source >= 0) {
    fill_pattern(out, run.length, window.mutators[static_cast<size_t>(run.source)].tag, run.begin);
  } else if (run.source == kZeroRun) {
    std::memset(out, 0, run.length);
  } else {
    std::memcpy(out, window.base[static_cast<size_t>(-2 - run.source)]->data() + run.begin, run.length);
  }
}

// Whether what is left of the file's own base lies where it lay, so that the image can be changed in place.
bool in_place(const FileState& file, int slot) {
  uint64_t at = 0;
  for (const Run& run : file.runs) {
    if (run.source < kZeroRun && (run.source != base_run(slot) || run.begin != at)) return false;
    at += run.length;
  }
  return true;
}

}  // namespace

std::string_view op_name(OpKind kind) { return kNames[static_cast<size_t>(kind)]; }

std::optional<OpKind> op_from_name(std::string_view name) {
  const auto* found = std::find(std::begin(kNames), std::end(kNames), name);
  if (found == std::end(kNames)) return std::nullopt;
  return static_cast<OpKind>(found - std::begin(kNames));
}

bool op_has_source(OpKind kind) {
  return kind == OpKind::kClone || kind == OpKind::kDedupe || kind == OpKind::kExchange || kind == OpKind::kCopy;
}

bool expected_error(OpKind kind, int error) {
  if (error == ENOSPC || error == EDQUOT) return kind != OpKind::kRead;
  if (error == EBADE) return kind == OpKind::kDedupe;
  if (error != EINVAL) return false;
  return kind == OpKind::kCollapse || kind == OpKind::kInsert || kind == OpKind::kClone || kind == OpKind::kDedupe ||
         kind == OpKind::kExchange;
}

State first_state(const Window& window) {
  State state;
  for (int slot = 0; slot < 2; ++slot) {
    const Image* base = window.base[static_cast<size_t>(slot)];
    if (base != nullptr) push(&state.files[static_cast<size_t>(slot)], {base_run(slot), 0, base->size()});
  }
  return state;
}

bool apply(const Window& window, size_t index, State* state) {
  const Op& op = window.mutators[index];
  FileState& file = state->files[op.slot];
  switch (op.kind) {
    case OpKind::kRead:
      return true;
    case OpKind::kWrite:
    case OpKind::kAppend:
      if (op.result < 0) return true;
      if (static_cast<uint64_t>(op.result) > op.length) return false;
      file = replaced(file, op.kind == OpKind::kWrite ? op.offset : file.size, written(op, index));
      return true;
    case OpKind::kTruncate:
      if (op.result == 0) file = resized(file, op.offset);
      return true;
    case OpKind::kFalloc:
    case OpKind::kUnshare:
      if (op.result == 0 && !op.keep_size) file = resized(file, std::max(file.size, op.offset + op.length));
      return true;
    case OpKind::kPunch:
    case OpKind::kZero:
      if (op.result == 0) apply_zero(op, op.kind == OpKind::kPunch || op.keep_size, &file);
      return true;
    case OpKind::kCollapse:
      return apply_collapse(op, &file);
    case OpKind::kInsert:
      return apply_insert(op, &file);
    case OpKind::kClone:
      return apply_clone(op, state);
    case OpKind::kDedupe:
      return apply_dedupe(window, op, *state);
    case OpKind::kExchange:
      return apply_exchange(op, state);
    case OpKind::kCopy:
      return apply_copy(op, state);
    case OpKind::kDirect:
    case OpKind::kDirectAsync:
    case OpKind::kViewLoad:
    case OpKind::kViewStore:
      return false;  // recorded as reads and writes
  }
  return false;
}

bool explains(const Window& window, const State& state, const Op& read) {
  const FileState& file = state.files[read.slot];
  const uint64_t there = file.size > read.offset ? std::min(read.length, file.size - read.offset) : 0;
  if (read.spoiled || read.result < 0 || static_cast<uint64_t>(read.result) != there) return false;
  bool equal = true;
  // What changed in this window first: there the mismatches are.
  for (const bool base : {false, true}) {
    for_each_part(file, read.offset, read.offset + there, [&](const Run& part, uint64_t at) {
      if (equal && (part.source < kZeroRun) == base) equal = run_equals(window, part, read.data + (at - read.offset));
    });
    if (!equal) return false;
  }
  return true;
}

size_t render(const Window& window, const FileState& file, uint64_t offset, size_t length, unsigned char* out) {
  if (offset >= file.size) return 0;
  for_each_part(file, offset, offset + length,
                [&](const Run& part, uint64_t at) { write_run(window, part, out + (at - offset)); });
  return std::min<uint64_t>(length, file.size - offset);
}

void settle(const Window& window, const State& state, std::array<Image*, 2> images) {
  std::array<Image, 2> rebuilt;
  std::array<bool, 2> rebuild{};
  for (size_t slot = 0; slot < 2; ++slot) {
    if (images[slot] == nullptr) continue;
    const FileState& file = state.files[slot];
    rebuild[slot] = !in_place(file, static_cast<int>(slot));
    if (!rebuild[slot]) continue;
    rebuilt[slot].resize(file.size);
    render(window, file, 0, file.size, rebuilt[slot].data());
  }
  for (size_t slot = 0; slot < 2; ++slot) {
    if (images[slot] == nullptr) continue;
    const FileState& file = state.files[slot];
    if (rebuild[slot]) {
      images[slot]->swap(rebuilt[slot]);
      continue;
    }
    images[slot]->resize(file.size);
    for_each_part(file, 0, file.size, [&](const Run& part, uint64_t at) {
      if (part.source >= kZeroRun) write_run(window, part, images[slot]->data() + at);
    });
  }
}

}  // namespace quire::judge
