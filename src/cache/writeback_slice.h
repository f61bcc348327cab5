// A slice of a file's writeback, and a thread that helps with it. While one thread waits for the device, the other
// makes the next batch ready: alone, the flusher leaves a fast device idle for a sixth of the time.
//
// The flusher lends a slice to the helper, works on it itself, and takes it back before it goes on: the helper has it
// from begin() to end() at most, and the slice is the flusher's own before and after. Each of the two takes the next
// chunk of the file with something dirty in it; the cursor is all they share. The helper's thread is started when the
// first slice is worth it; without it (no thread to be had) the flusher does everything.
// Locks: the slice's (over the index's) and the helper's own; none is held while a chunk is written.
#pragma once

#include <cstdint>

#include "cache/mapping.h"
#include "cache/writeback.h"
#include "sync/mutex.h"
#include "sync/thread.h"
#include "sync/wait_queue.h"

namespace quire {

extern LockClass slice_lock_class;
extern LockClass helper_lock_class;

class WritebackSlice {
 public:
  // Up to about `pages` dirty pages of [first_page, last_page].
  WritebackSlice(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, std::uint64_t pages)
      : mapping_(mapping), last_page_(last_page), most_(pages) {
    at_.page = first_page;
  }
  void work(const Atomic<bool>& stop);  // until nothing is left to take

  // Once nobody works on it: where the next slice begins (false: nowhere), what was written, the first error.
  bool next_page(std::uint64_t* page);
  WritebackCursor result();

 private:
  bool take(std::uint64_t* first, std::uint64_t* last);

  Mapping& mapping_;
  const std::uint64_t last_page_, most_;
  Mutex mutex_{slice_lock_class};
  WritebackCursor at_ GUARDED_BY(mutex_);
  bool taken_all_ GUARDED_BY(mutex_) = false;
};

class WritebackHelper {
 public:
  WritebackHelper() = default;
  ~WritebackHelper();
  WritebackHelper(const WritebackHelper&) = delete;
  WritebackHelper& operator=(const WritebackHelper&) = delete;

  void begin(WritebackSlice& slice);
  void end();  // waits until the helper has left the slice

 private:
  void run();

  Thread thread_;
  bool tried_ = false;  // the flusher's own: the thread was started, or could not be
  Mutex mutex_{helper_lock_class};
  WritebackSlice* slice_ GUARDED_BY(mutex_) = nullptr;  // for the helper to take
  bool working_ GUARDED_BY(mutex_) = false;
  WaitQueue work_queue_;  // the helper sleeps here
  WaitQueue done_queue_;
  Atomic<bool> stop_;
};

}  // namespace quire
