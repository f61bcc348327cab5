// Every shared atomic of quire: std::atomic with the order always spelled out, behind one type so that a deterministic
// scheduler can take a step at each access. Raw fences live in this folder only.
#pragma once

#include <atomic>

#include "sync/sim.h"

// GCC says which sanitizer it builds for by a macro, Clang by a feature.
#if defined(__SANITIZE_THREAD__)
#define QUIRE_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define QUIRE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QUIRE_TSAN 1
#elif __has_feature(address_sanitizer)
#define QUIRE_ASAN 1
#endif
#endif

namespace quire {

using std::memory_order;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

template <typename T>
class Atomic {
 public:
  constexpr Atomic() noexcept = default;
  constexpr explicit Atomic(T value) noexcept : value_(value) {}
  Atomic(const Atomic&) = delete;
  Atomic& operator=(const Atomic&) = delete;

  T load(memory_order order QUIRE_WHERE) const noexcept {
    QUIRE_STEP(load, &value_);
    return value_.load(order);
  }
  void store(T value, memory_order order QUIRE_WHERE) noexcept {
    QUIRE_STEP(store, &value_);
    value_.store(value, order);
  }
  T exchange(T value, memory_order order QUIRE_WHERE) noexcept {
    QUIRE_STEP(update, &value_);
    return value_.exchange(value, order);
  }
  T fetch_add(T value, memory_order order QUIRE_WHERE) noexcept {
    QUIRE_STEP(update, &value_);
    return value_.fetch_add(value, order);
  }
  T fetch_sub(T value, memory_order order QUIRE_WHERE) noexcept {
    QUIRE_STEP(update, &value_);
    return value_.fetch_sub(value, order);
  }
  T fetch_or(T value, memory_order order QUIRE_WHERE) noexcept {
    QUIRE_STEP(update, &value_);
    return value_.fetch_or(value, order);
  }
  T fetch_and(T value, memory_order order QUIRE_WHERE) noexcept {
    QUIRE_STEP(update, &value_);
    return value_.fetch_and(value, order);
  }
  bool compare_exchange(T& expected, T desired, memory_order success, memory_order failure QUIRE_WHERE) noexcept {
    QUIRE_STEP(update, &value_);
    return value_.compare_exchange_strong(expected, desired, success, failure);
  }

  // Adds 1 where one thread alone writes: one plain instruction; others may load. Relaxed: a single writer loses no
  // addition, and who loads gets a count and nothing that it orders (so the asm clobbers no memory).
  void increment_alone() noexcept {
    static_assert(sizeof(T) == 8);
#ifdef QUIRE_TSAN
    value_.store(value_.load(memory_order_relaxed) + 1, memory_order_relaxed);
#else
    asm("incq %0" : "+m"(value_));
#endif
  }

  // For futex.h only: the word the kernel compares.
  std::atomic<T>& raw() noexcept { return value_; }

 private:
  std::atomic<T> value_{};
};

// In a loop that waits for another thread: how often to look before sleeping, and what to do between two looks. The
// scheduler need not be shown the looks.
#ifdef QUIRE_SIM
inline constexpr int spins(int) { return 0; }
#else
inline constexpr int spins(int most) { return most; }
#endif
inline void cpu_relax() noexcept { __builtin_ia32_pause(); }

}  // namespace quire
