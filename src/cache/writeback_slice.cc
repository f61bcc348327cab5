// See writeback_slice.h.
#include "cache/writeback_slice.h"

#include <algorithm>

namespace quire {

LockClass slice_lock_class{"writeback slice"};
LockClass helper_lock_class{"writeback helper"};

// The next chunk with a dirty page: to the end of its aligned block, so that requests of neighbours do not meet inside.
bool WritebackSlice::take(std::uint64_t* first, std::uint64_t* last) {
  MutexLock lock(mutex_);
  if (taken_all_ || at_.pages >= most_) return false;
  std::uint64_t page = at_.page;
  if (page > last_page_ || !next_dirty(mapping_, &page, last_page_)) {
    taken_all_ = true;
    return false;
  }
  *first = page;
  *last = std::min(last_page_, page | (kWritebackBatchPages - 1));
  at_.page = *last + 1;
  taken_all_ = at_.page == 0;  // that was the last page there is
  return true;
}

void WritebackSlice::work(const Atomic<bool>& stop) {
  WritebackCursor mine;
  std::uint64_t last;
  while (!stop.load(memory_order_acquire) && take(&mine.page, &last)) {
    const std::uint64_t before = mine.pages;
    write_back_some(mapping_, &mine, last, UINT64_MAX, false, CacheContext{});
    MutexLock lock(mutex_);
    at_.pages += mine.pages - before;
    if (at_.error == 0) at_.error = mine.error;
  }
}

bool WritebackSlice::next_page(std::uint64_t* page) {
  MutexLock lock(mutex_);
  *page = at_.page;
  return !taken_all_;
}

WritebackCursor WritebackSlice::result() {
  MutexLock lock(mutex_);
  return at_;
}

WritebackHelper::~WritebackHelper() {
  stop_.store(true, memory_order_release);
  work_queue_.wake_all();
  thread_.join();
}

void WritebackHelper::begin(WritebackSlice& slice) {
  if (!tried_) {
    tried_ = true;
    static_cast<void>(thread_.start([this] { run(); }, "quire-write"));
  }
  if (!thread_.running()) return;
  {
    MutexLock lock(mutex_);
    slice_ = &slice;
  }
  work_queue_.wake_all();
}

void WritebackHelper::end() {
  for (;;) {
    const std::uint32_t ticket = done_queue_.prepare();
    {
      MutexLock lock(mutex_);
      slice_ = nullptr;  // not taken yet: never mind
      if (!working_) {
        done_queue_.cancel();
        return;
      }
    }
    done_queue_.wait(ticket);
  }
}

void WritebackHelper::run() {
  while (!stop_.load(memory_order_acquire)) {
    const std::uint32_t ticket = work_queue_.prepare();
    WritebackSlice* slice;
    {
      MutexLock lock(mutex_);
      slice = slice_;
      slice_ = nullptr;
      working_ = slice != nullptr;
    }
    if (slice == nullptr && !stop_.load(memory_order_acquire)) {
      work_queue_.wait(ticket);
      continue;
    }
    work_queue_.cancel();
    if (slice != nullptr) slice->work(stop_);
    {
      MutexLock lock(mutex_);
      working_ = false;
    }
    done_queue_.wake_all();
  }
}

}  // namespace quire
