// Keeps direct I/O of a file and the filling of its holes apart, on hosts that have no unwritten extents: there a
// hole's block is the file's before its data are on the device, so that a direct read of it finds what the disk held
// before, and a host page that is dirty beside a direct write of its neighbour may make the host report an error that
// is none. Thread safety: any thread; a direct hold may be given up by another than took it (the I/O thread), and
// giving up never waits. Locks: this is one, `host holes`; a leaf mutex inside.
//
// Fair in turns: a filler that waits stops newcomers; when it is done, those whom it stopped go before the next.
//   free/direct -> begin_direct -> direct        while nobody fills or waits to
//   free -> lock -> filling -> unlock -> direct  the stopped ones, else free
//   direct -> end_direct -> direct/free          the last one wakes the fillers
#pragma once

#include <cstdint>

#include "sync/lock_class.h"
#include "sync/mutex.h"
#include "sync/wait_queue.h"

namespace quire {

// One holder's, in place until end_direct.
struct DirectHold {
  bool held = false;
};

class CAPABILITY("hole_lock") HoleLock {
 public:
  HoleLock();
  ~HoleLock();  // nobody holds or waits
  HoleLock(const HoleLock&) = delete;
  HoleLock& operator=(const HoleLock&) = delete;

  // For direct I/O, from before it is sent to its completion. Not by who holds it already in this thread: a filler may
  // have come between. False: it would have to wait, and was not to. To the validator the holder is asynchronous.
  bool begin_direct(DirectHold& hold, bool wait);
  // The lock outlives the call.
  void end_direct(DirectHold& hold);

  // For a write that may fill holes, until its data are on the device.
  void lock() ACQUIRE();
  void unlock() RELEASE();

 private:
  static LockClass lock_class_, mutex_class_;
  WaitQueue changed_;  // first: this object and its mutex are two locks, at two addresses
  Mutex mutex_{mutex_class_};
  bool filling_ GUARDED_BY(mutex_) = false;
  unsigned direct_ GUARDED_BY(mutex_) = 0;  // holders
  unsigned waiting_fillers_ GUARDED_BY(mutex_) = 0;
  unsigned stopped_ GUARDED_BY(mutex_) = 0;    // direct ones that wait for a turn of theirs
  std::uint64_t turn_ GUARDED_BY(mutex_) = 0;  // of stopped ones let in
};

}  // namespace quire
