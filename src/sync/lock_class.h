// Lock classes and the run-time order validator (R5). In builds without QUIRE_LOCK_VALIDATOR every call below is empty.
//
// Each lock belongs to a class. The validator learns the order in which classes are taken: an edge A -> B means "B was
// taken while A was held", with the stack that did so first. Taking a lock whose edge would close a cycle is reported
// with every edge of the cycle and both stacks, and the process aborts (tests install a handler). Within one class
// locks must be taken in ascending key order (inode id, then offset or index); a class made `unordered` may be held
// only once per thread. Try-locks record what they hold but are not checked (they cannot wait). Taking what this
// thread already holds is reported as recursive; for a ranged lock any overlap counts, compatible modes too, since the
// second request may queue behind a stranger who waits for the first.
// Asynchronous holders: an owner whose lock passes to a completion is detached from its thread together with the stack
// that submitted it; whoever then waits for that lock while holding another is checked against it, and the report
// prints where it was submitted. A completion that takes further locks adopts what it was given, so that they are
// ordered behind it.
#pragma once

#include <cstdint>
#include <string>

#include "sync/atomic.h"

namespace quire {

struct LockKey {
  std::uint64_t major = 0;  // inode id
  std::uint64_t minor = 0;  // offset or folio index
};

// For ranged locks, where `lock` names one request: the lock it is made of, and the inclusive range.
struct LockRange {
  const void* domain = nullptr;
  std::uint64_t first = 0, last = 0;
};

class LockClass {
 public:
  enum class Nesting : std::uint8_t { unordered, ascending };
  constexpr explicit LockClass(const char* name, Nesting nesting = Nesting::unordered)
      : name_(name), nesting_(nesting) {}
  const char* name() const { return name_; }
  Nesting nesting() const { return nesting_; }

 private:
  friend class LockValidator;
  const char* name_;
  Nesting nesting_;
  Atomic<int> id_{-1};  // assigned by the validator at first use, under its own lock
};

#ifdef QUIRE_LOCK_VALIDATOR
void lock_will_acquire(LockClass& lock_class, const void* lock, LockKey key = {},
                       const LockRange& range = {});  // before waiting: checks
void lock_acquired(LockClass& lock_class, const void* lock, LockKey key = {},
                   const LockRange& range = {});  // records, with the stack
void lock_released(const void* lock);             // by the holding thread, any order; `lock` names one acquisition
void lock_detach(const void* lock);               // the holder becomes asynchronous, keeps the stack it was taken with
void lock_adopt(const void* lock);                // after lock_detach: this thread acts for the holder from here on
void lock_released_async(const void* lock);       // by any thread, after lock_detach (and lock_adopt, if by this one)
bool lock_held_by_me(const void* lock);           // for assertions
// Before waits that must come before any lock, but for those of one class.
void lock_assert_none_held(const char* where, LockClass* but = nullptr);
// Tests: the report goes to the handler instead of standard error and abort; null restores. Returns the old one.
using LockReportHandler = void (*)(const std::string& report);
LockReportHandler set_lock_report_handler(LockReportHandler handler);
#else
inline void lock_will_acquire(LockClass&, const void*, LockKey = {}, const LockRange& = {}) {}
inline void lock_acquired(LockClass&, const void*, LockKey = {}, const LockRange& = {}) {}
inline void lock_released(const void*) {}
inline void lock_detach(const void*) {}
inline void lock_adopt(const void*) {}
inline void lock_released_async(const void*) {}
inline bool lock_held_by_me(const void*) { return true; }
inline void lock_assert_none_held(const char*, LockClass* = nullptr) {}
#endif

}  // namespace quire
