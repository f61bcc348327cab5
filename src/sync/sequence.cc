// The racy copies as relaxed atomic words, for ThreadSanitizer only: bytes up to the first 8-aligned address on the
// folio's side, words, bytes. Elsewhere sequence.h copies inline and this file is empty. Locks: none.
#include "sync/sequence.h"

#ifdef QUIRE_TSAN

namespace quire::detail {

namespace {

using Byte = unsigned char;
using Word [[gnu::may_alias]] = std::uint64_t;

bool is_word(const Byte* shared, std::size_t left) {
  return left >= sizeof(Word) && reinterpret_cast<std::uintptr_t>(shared) % sizeof(Word) == 0;
}

}  // namespace

void atomic_load_bytes(void* to, const void* from, std::size_t size) noexcept {
  auto* out = static_cast<Byte*>(to);
  const auto* shared = static_cast<const Byte*>(from);
  while (size > 0) {
    std::size_t step = 1;
    if (is_word(shared, size)) {
      const std::uint64_t word = __atomic_load_n(reinterpret_cast<const Word*>(shared), __ATOMIC_RELAXED);
      std::memcpy(out, &word, sizeof word);
      step = sizeof word;
    } else {
      *out = __atomic_load_n(shared, __ATOMIC_RELAXED);
    }
    out += step;
    shared += step;
    size -= step;
  }
}

void atomic_store_bytes(void* to, const void* from, std::size_t size) noexcept {
  auto* shared = static_cast<Byte*>(to);
  const auto* in = static_cast<const Byte*>(from);
  while (size > 0) {
    std::size_t step = 1;
    if (is_word(shared, size)) {
      std::uint64_t word;
      std::memcpy(&word, in, sizeof word);
      __atomic_store_n(reinterpret_cast<Word*>(shared), word, __ATOMIC_RELAXED);
      step = sizeof word;
    } else {
      __atomic_store_n(shared, *in, __ATOMIC_RELAXED);
    }
    in += step;
    shared += step;
    size -= step;
  }
}

void atomic_zero_bytes(void* to, std::size_t size) noexcept {
  auto* shared = static_cast<Byte*>(to);
  while (size > 0) {
    std::size_t step = 1;
    if (is_word(shared, size)) {
      __atomic_store_n(reinterpret_cast<Word*>(shared), 0, __ATOMIC_RELAXED);
      step = sizeof(Word);
    } else {
      __atomic_store_n(shared, Byte{0}, __ATOMIC_RELAXED);
    }
    shared += step;
    size -= step;
  }
}

}  // namespace quire::detail

#endif  // QUIRE_TSAN
