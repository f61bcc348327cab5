// Hand-over between readers and writers in order of arrival. O1 to O4: rw_lock.h.
#include "sync/rw_lock.h"

#include "base/check.h"
#include "sync/grant.h"

namespace quire {

namespace {
constinit LockClass rw_queue_class{"rw_lock queue"};
}

struct RwLock::Waiter {
  bool exclusive = false;
  Waiter* next = nullptr;
  Grant grant;
};

RwLock::RwLock(LockClass& lock_class, LockKey key) : mutex_(rw_queue_class), class_(lock_class), key_(key) {}

// Relaxed: whoever destroys comes after every user, else the destruction itself would be a race.
RwLock::~RwLock() { CHECK(state_.load(memory_order_relaxed) == 0); }

void RwLock::lock_slow(bool exclusive) {
  Waiter waiter;
  waiter.exclusive = exclusive;
  {
    MutexLock guard(mutex_);
    std::uint32_t state = state_.load(memory_order_relaxed);  // O3, O4
    for (;;) {
      const std::uint32_t obstacle = exclusive ? ~0u : (kWriter | kQueued);
      if ((state & obstacle) == 0) {  // it became free after the fast path had failed
        const std::uint32_t taken = exclusive ? kWriter : state + 1;
        if (state_.compare_exchange(state, taken, memory_order_acquire, memory_order_relaxed)) return;  // O1, O4
        continue;
      }
      // Set while there still is a holder (or one that already is on its way into hand_over): it will find us.
      if (state & kQueued) break;
      if (state_.compare_exchange(state, state | kQueued, memory_order_relaxed, memory_order_relaxed)) break;  // O3, O4
    }
    (last_ ? last_->next : first_) = &waiter;
    last_ = &waiter;
  }
  waiter.grant.wait();
}

// Called by the last holder: the writer bit or zero readers, and `queued`. Nobody else changes the state meanwhile:
// `queued` keeps the fast paths out, and lock_slow only appends while it is set.
void RwLock::hand_over() {
  Waiter* granted;
  {
    MutexLock guard(mutex_);
    granted = first_;
    CHECK(granted != nullptr);
    std::uint32_t state = granted->exclusive ? kWriter : 1;
    Waiter* end = granted;
    while (!granted->exclusive && end->next != nullptr && !end->next->exclusive) {
      end = end->next;
      ++state;
    }
    first_ = end->next;
    end->next = nullptr;
    if (first_ == nullptr) {
      last_ = nullptr;
    } else {
      state |= kQueued;
    }
    state_.store(state, memory_order_release);  // O2
  }
  while (granted != nullptr) {
    Waiter* next = granted->next;  // granted may be gone once it has been told
    granted->grant.give();
    granted = next;
  }
}

}  // namespace quire
