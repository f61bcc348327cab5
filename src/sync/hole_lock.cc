// See hole_lock.h.
#include "sync/hole_lock.h"

#include "base/check.h"

namespace quire {

LockClass HoleLock::lock_class_("host holes"), HoleLock::mutex_class_("host holes' mutex");

namespace {

LockRange whole(const HoleLock& lock) { return {&lock, 0, UINT64_MAX}; }

}  // namespace

HoleLock::HoleLock() = default;

HoleLock::~HoleLock() {
  MutexLock guard(mutex_);
  CHECK(!filling_);
  CHECK(direct_ == 0);
  CHECK(waiting_fillers_ == 0);
  CHECK(stopped_ == 0);
}

bool HoleLock::begin_direct(DirectHold& hold, bool wait) {
  DCHECK(!hold.held);
  if (wait) lock_will_acquire(lock_class_, &hold, {}, whole(*this));
  bool admitted;
  std::uint64_t turn;
  {
    MutexLock guard(mutex_);
    admitted = !filling_ && waiting_fillers_ == 0;
    if (admitted) {
      ++direct_;
    } else if (wait) {
      ++stopped_;
    }
    turn = turn_;
  }
  if (!admitted && !wait) return false;
  while (!admitted) {
    const std::uint32_t ticket = changed_.prepare();
    {
      MutexLock guard(mutex_);
      admitted = turn_ != turn;  // and counted by who let us in
    }
    if (admitted) {
      changed_.cancel();
    } else {
      changed_.wait(ticket);
    }
  }
  hold.held = true;
  lock_acquired(lock_class_, &hold, {}, whole(*this));
  lock_detach(&hold);
  return true;
}

void HoleLock::end_direct(DirectHold& hold) {
  DCHECK(hold.held);
  hold.held = false;
  lock_released_async(&hold);
  bool last;
  {
    MutexLock guard(mutex_);
    last = --direct_ == 0;
  }
  if (last) changed_.wake_all();
}

void HoleLock::lock() {
  lock_will_acquire(lock_class_, this, {}, whole(*this));
  {
    MutexLock guard(mutex_);
    ++waiting_fillers_;
  }
  for (;;) {
    const std::uint32_t ticket = changed_.prepare();
    {
      MutexLock guard(mutex_);
      if (!filling_ && direct_ == 0) {
        filling_ = true;
        --waiting_fillers_;
        break;
      }
    }
    changed_.wait(ticket);
  }
  changed_.cancel();
  lock_acquired(lock_class_, this, {}, whole(*this));
}

void HoleLock::unlock() {
  lock_released(this);
  {
    MutexLock guard(mutex_);
    filling_ = false;
    if (stopped_ != 0) {
      direct_ += stopped_;
      stopped_ = 0;
      ++turn_;
    }
  }
  changed_.wake_all();
}

}  // namespace quire
