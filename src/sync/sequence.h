// Sequence counts, the per-file gate, and the one racy copy of quire. Guarantees: R1, R2.
//
// A reader loads a sequence (even), copies bytes that a writer may be changing, and asks afterwards whether the
// sequence still is the same; if not, what it copied is thrown away. Writers are already excluded from each other (a
// folio's by the folio lock, a gate's by its mutex).
//
// Orderings, and why they suffice:
//   S1 write_begin  store odd (relaxed), then a release fence: whoever sees one of the bytes stored after it (through
//                   the acquire fence of validate) also sees the odd value. The load inside is relaxed: writers exclude
//                   each other, so it reads the last value.
//   S2 write_end    store even with release: whoever loads it with acquire sees the bytes, index, mapping and flags.
//   S3 read_begin   load with acquire, pairs with write_end.
//   S4 validate     acquire fence, then a relaxed load: if a copied byte came from a later writer, the load sees that
//                   writer's odd value or a newer one. Sequences are 64 bits and never repeat in a frame's life.
//   S5 read_again, unchanged: relaxed, after one fence for all. A variable is never read older than at read_begin, so a
//                   sum of two sequences is the same only if both are.
//   S6 the copy into a folio begins with a release fence, because another thread than the one that made the folio odd
//                   may store the bytes (a device's, handed the request with release and acquire): S1 needs a fence in
//                   the thread that stores. Bytes that the kernel stores come after a system call.
// The copy itself: under ThreadSanitizer relaxed atomic words; otherwise memcpy behind a barrier that the optimiser
// cannot see through. The latter relies on what GCC and Clang guarantee (an opaque call that may read and write any
// memory is neither split, duplicated nor moved across a fence); the machine may return any mix of old and new bytes,
// which validate throws away.
#pragma once

#include <emmintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "sync/atomic.h"

namespace quire {

class Sequence {
 public:
  static constexpr bool is_odd(std::uint64_t value) { return (value & 1) != 0; }

  std::uint64_t read_begin() const noexcept { return value_.load(memory_order_acquire); }  // S3
  bool validate(std::uint64_t begin) const noexcept {
    std::atomic_thread_fence(memory_order_acquire);
    return value_.load(memory_order_relaxed) == begin;
  }
  // The value again, after validate_fence().
  std::uint64_t read_again() const noexcept { return value_.load(memory_order_relaxed); }
  // Without a fence of its own: for the second and later sequences of one recheck, after validate_fence().
  bool unchanged(std::uint64_t begin) const noexcept { return value_.load(memory_order_relaxed) == begin; }

  void write_begin() noexcept {
    value_.store(value_.load(memory_order_relaxed) + 1, memory_order_relaxed);
    std::atomic_thread_fence(memory_order_release);
  }
  void write_end() noexcept { value_.store(value_.load(memory_order_relaxed) + 1, memory_order_release); }
  // Odd already, made so by another thread, which comes before us by the pool's mutexes: this passes that on to whoever
  // sees our stores of index, mapping and flags.
  void begin_life() noexcept { std::atomic_thread_fence(memory_order_release); }
  // Relaxed: exact for who may write (lock held, or frame owned); a hint to everybody else.
  bool odd() const noexcept { return is_odd(value_.load(memory_order_relaxed)); }

 private:
  Atomic<std::uint64_t> value_;
};

// Orders the racy copies before the sequence loads that follow (Sequence::unchanged).
inline void validate_fence() noexcept { std::atomic_thread_fence(memory_order_acquire); }

namespace detail {
#ifdef QUIRE_TSAN
void atomic_load_bytes(void* to, const void* from, std::size_t size) noexcept;   // relaxed loads from `from`
void atomic_store_bytes(void* to, const void* from, std::size_t size) noexcept;  // relaxed stores to `to`
void atomic_zero_bytes(void* to, std::size_t size) noexcept;
#endif
}  // namespace detail

#ifdef QUIRE_SIM
namespace detail {
// As many steps as the copy has pieces, two at least: others run between them.
template <typename Copy>
void copy_by_steps(const void* watched, std::size_t size, const sim::Where& where, Copy copy) {
  const std::size_t piece = std::max<std::size_t>(1, std::min<std::size_t>(1024, (size + 1) / 2));
  for (std::size_t done = 0; done < size; done += piece) {
    QUIRE_STEP(copy, watched);
    copy(done, std::min(piece, size - done));
  }
}
}  // namespace detail
#endif

#ifndef QUIRE_TSAN
namespace detail {
// memcpy in pieces below the size from which glibc 2.36 copies with `rep movsb`: that is 28 times slower on Zen 3
// (1,350 ns for 4 KiB, not 49) where the target lies 1 to 31 bytes past the source modulo 4,096, as a large block of
// malloc's does beside a folio. The piece's length is hidden from the compiler, which would inline `rep movsq`.
inline void copy_in_pieces(void* to, const void* from, std::size_t size) noexcept {
  std::size_t piece = 1024;
  asm("" : "+r"(piece));
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  for (; size > piece; size -= piece, out += piece, in += piece) std::memcpy(out, in, piece);
  std::memcpy(out, in, size);
}
}  // namespace detail
#endif

// --- the short copy: registers between the folio and the caller's buffer ---

inline constexpr std::size_t kRegisterBytes = 256;  // what the 16 vector registers of x86-64 hold

#ifndef QUIRE_TSAN
namespace detail {
// One AVX register, or two of SSE where the function that copies is not compiled for AVX2.
typedef long long Bytes32 __attribute__((vector_size(32), aligned(1)));

// size in [sizeof(Word) * kWords, 2 * sizeof(Word) * kWords]: as many words from the front as from the back.
template <typename Word, int kWords, typename Valid>
[[gnu::always_inline]] inline bool copy_through_registers(char* to, const char* from, std::size_t size, Valid valid) {
  Word front[kWords], back[kWords];
  const std::size_t at_back = size - sizeof(Word) * kWords;
#pragma GCC unroll 8
  for (int i = 0; i < kWords; ++i) __builtin_memcpy(&front[i], from + sizeof(Word) * i, sizeof(Word));
#pragma GCC unroll 8
  for (int i = 0; i < kWords; ++i) __builtin_memcpy(&back[i], from + at_back + sizeof(Word) * i, sizeof(Word));
  if (!valid()) return false;  // begins with a compiler barrier: nothing above is loaded after it
#pragma GCC unroll 8
  for (int i = 0; i < kWords; ++i) __builtin_memcpy(to + sizeof(Word) * i, &front[i], sizeof(Word));
#pragma GCC unroll 8
  for (int i = 0; i < kWords; ++i) __builtin_memcpy(to + at_back + sizeof(Word) * i, &back[i], sizeof(Word));
  return true;
}
}  // namespace detail
#endif

// Copies 1 to kRegisterBytes bytes out of a folio that may be changing, if `valid` says, once all are loaded, that they
// are; otherwise `to` is as it was. valid() begins with validate_fence().
template <typename Valid>
[[gnu::always_inline]] inline bool copy_short_if_valid(void* to, const void* folio_bytes, std::size_t size,
                                                       Valid valid QUIRE_WHERE) {
#if defined(QUIRE_SIM)
  char bounce[kRegisterBytes];
  detail::copy_by_steps(folio_bytes, size, where, [&](std::size_t at, std::size_t n) {
    std::memcpy(bounce + at, static_cast<const char*>(folio_bytes) + at, n);
  });
  if (!valid()) return false;
  std::memcpy(to, bounce, size);
  return true;
#elif defined(QUIRE_TSAN)
  char bounce[kRegisterBytes];
  detail::atomic_load_bytes(bounce, folio_bytes, size);
  if (!valid()) return false;
  std::memcpy(to, bounce, size);
  return true;
#else
  asm volatile("" : "+r"(folio_bytes) : : "memory");
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(folio_bytes);
  if (size >= 128) return detail::copy_through_registers<detail::Bytes32, 4>(out, in, size, valid);
  if (size >= 64) return detail::copy_through_registers<detail::Bytes32, 2>(out, in, size, valid);
  if (size >= 32) return detail::copy_through_registers<detail::Bytes32, 1>(out, in, size, valid);
  if (size >= 16) return detail::copy_through_registers<__m128i, 1>(out, in, size, valid);
  if (size >= 8) return detail::copy_through_registers<std::uint64_t, 1>(out, in, size, valid);
  if (size >= 4) return detail::copy_through_registers<std::uint32_t, 1>(out, in, size, valid);
  if (size >= 2) return detail::copy_through_registers<std::uint16_t, 1>(out, in, size, valid);
  return detail::copy_through_registers<std::uint8_t, 1>(out, in, size, valid);
#endif
}

// Copies size bytes out of a folio that may be changing; `to` is private to the caller.
inline void racy_copy_from_folio(void* to, const void* folio_bytes, std::size_t size QUIRE_WHERE) noexcept {
#if defined(QUIRE_SIM)
  detail::copy_by_steps(folio_bytes, size, where, [&](std::size_t at, std::size_t n) {
    std::memcpy(static_cast<char*>(to) + at, static_cast<const char*>(folio_bytes) + at, n);
  });
#elif defined(QUIRE_TSAN)
  detail::atomic_load_bytes(to, folio_bytes, size);
#else
  asm volatile("" : "+r"(folio_bytes), "+r"(size) : : "memory");  // nothing is known of source or length any more
  detail::copy_in_pieces(to, folio_bytes, size);
  asm volatile("" : : "r"(to) : "memory");
#endif
}

// Its twin: copies into a folio that fast readers may be reading; the caller made its sequence odd.
inline void racy_copy_to_folio(void* folio_bytes, const void* from, std::size_t size QUIRE_WHERE) noexcept {
  std::atomic_thread_fence(memory_order_release);  // S6
#if defined(QUIRE_SIM)
  detail::copy_by_steps(folio_bytes, size, where, [&](std::size_t at, std::size_t n) {
    std::memcpy(static_cast<char*>(folio_bytes) + at, static_cast<const char*>(from) + at, n);
  });
#elif defined(QUIRE_TSAN)
  detail::atomic_store_bytes(folio_bytes, from, size);
#else
  asm volatile("" : "+r"(folio_bytes), "+r"(size) : : "memory");
  detail::copy_in_pieces(folio_bytes, from, size);
  asm volatile("" : : "r"(folio_bytes) : "memory");
#endif
}

inline void racy_zero_folio(void* folio_bytes, std::size_t size QUIRE_WHERE) noexcept {
  std::atomic_thread_fence(memory_order_release);  // S6
#if defined(QUIRE_SIM)
  detail::copy_by_steps(folio_bytes, size, where, [&](std::size_t at, std::size_t n) {
    std::memset(static_cast<char*>(folio_bytes) + at, 0, n);
  });
#elif defined(QUIRE_TSAN)
  detail::atomic_zero_bytes(folio_bytes, size);
#else
  asm volatile("" : "+r"(folio_bytes), "+r"(size) : : "memory");
  std::memset(folio_bytes, 0, size);
  asm volatile("" : : "r"(folio_bytes) : "memory");
#endif
}

}  // namespace quire
