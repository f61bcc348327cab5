// Requests, holders and waiters of a ranged lock, and who is granted when.
#include "sync/range_lock.h"

namespace quire {

namespace {

constinit LockClass list_class{"range_lock list"};

bool overlap(std::uint64_t first_a, std::uint64_t last_a, std::uint64_t first_b, std::uint64_t last_b) {
  return first_a <= last_b && first_b <= last_a;
}

}  // namespace

void RangeLock::List::push_back(RangeRequest& request) {
  request.next_ = nullptr;
  request.previous_ = last;
  (last != nullptr ? last->next_ : first) = &request;
  last = &request;
}

void RangeLock::List::remove(RangeRequest& request) {
  (request.previous_ != nullptr ? request.previous_->next_ : first) = request.next_;
  (request.next_ != nullptr ? request.next_->previous_ : last) = request.previous_;
}

RangeLock::RangeLock(LockClass& lock_class, const RangeModes& modes, std::uint64_t inode_id)
    : class_(lock_class), modes_(modes), inode_id_(inode_id), mutex_(list_class) {}

RangeLock::~RangeLock() {
  MutexLock guard(mutex_);
  CHECK(held_.first == nullptr);
  CHECK(waiting_.first == nullptr);
}

bool RangeLock::compatible(const RangeRequest& a, const RangeRequest& b) const {
  return !overlap(a.first_, a.last_, b.first_, b.last_) || ((modes_.compatible[a.mode_] >> b.mode_) & 1) != 0;
}

// Behind every holder and every earlier waiter (up to waiters_end, exclusive) that it conflicts with.
bool RangeLock::must_wait_locked(const RangeRequest& request, const RangeRequest* waiters_end) const {
  for (const RangeRequest* holder = held_.first; holder != nullptr; holder = holder->next_) {
    if (!compatible(request, *holder)) return true;
  }
  for (const RangeRequest* waiter = waiting_.first; waiter != waiters_end; waiter = waiter->next_) {
    if (!compatible(request, *waiter)) return true;
  }
  return false;
}

// Moves to the holders, in order of arrival, each waiter that no longer has to wait; returns them chained.
RangeRequest* RangeLock::grant_waiters_locked() {
  RangeRequest* granted = nullptr;
  RangeRequest** end = &granted;
  for (RangeRequest* waiter = waiting_.first; waiter != nullptr;) {
    RangeRequest* next = waiter->next_;
    if (!must_wait_locked(*waiter, waiter)) {
      waiting_.remove(*waiter);
      held_.push_back(*waiter);
      waiter->next_granted_ = nullptr;
      *end = waiter;
      end = &waiter->next_granted_;
    }
    waiter = next;
  }
  return granted;
}

// Outside the mutex: waking is a system call. A request may be gone as soon as it has been told, and so may the lock.
void RangeLock::tell(RangeRequest* granted) {
  while (granted != nullptr) {
    RangeRequest* next = granted->next_granted_;
    granted->grant_.give();
    granted = next;
  }
}

void RangeLock::begin(RangeRequest& request, std::uint64_t first, std::uint64_t last, std::uint8_t mode) {
  CHECK(!request.held());
  CHECK(first <= last);
  CHECK(mode < 4);
  request.first_ = first;
  request.last_ = last;
  request.mode_ = mode;
  request.detached_ = false;
}

void RangeLock::lock(RangeRequest& request, std::uint64_t first, std::uint64_t last, std::uint8_t mode) {
  begin(request, first, last, mode);
  const LockKey key{inode_id_, first};
  const LockRange range{this, first, last};
  lock_will_acquire(class_, &request, key, range);
  bool waits;
  {
    MutexLock guard(mutex_);
    waits = must_wait_locked(request, nullptr);
    if (waits) request.grant_.reset();
    (waits ? waiting_ : held_).push_back(request);
  }
  if (waits) request.grant_.wait();
  request.lock_ = this;
  lock_acquired(class_, &request, key, range);
}

bool RangeLock::try_lock(RangeRequest& request, std::uint64_t first, std::uint64_t last, std::uint8_t mode) {
  begin(request, first, last, mode);
  {
    MutexLock guard(mutex_);
    if (must_wait_locked(request, nullptr)) return false;
    held_.push_back(request);
  }
  request.lock_ = this;
  lock_acquired(class_, &request, LockKey{inode_id_, first}, LockRange{this, first, last});
  return true;
}

void RangeLock::unlock(RangeRequest& request) {
  CHECK(request.lock_ == this);
  if (request.detached_) {
    lock_released_async(&request);
  } else {
    lock_released(&request);
  }
  request.lock_ = nullptr;
  RangeRequest* granted = nullptr;
  {
    MutexLock guard(mutex_);
    held_.remove(request);
    if (waiting_.first != nullptr) granted = grant_waiters_locked();
  }
  tell(granted);
}

void RangeLock::detach(RangeRequest& request) {
  CHECK(request.lock_ == this);
  CHECK(!request.detached_);
  request.detached_ = true;
  lock_detach(&request);
}

}  // namespace quire
