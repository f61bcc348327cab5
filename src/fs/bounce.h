// Copies between callers' buffers that lie in mapped views and memory of quire's own. Guarantees: R4.
//
// A copy from or to a view can fault, and quire itself serves the fault: with locks, frames, and a thread of its own.
// So no view is touched while any of that is held, and reads and writes never touch one at all: what a view shows is
// read, and what is stored to it written, through the cache, as the bytes of its file that they are. Nothing faults
// then: it does not matter which signals the thread blocks, nor whether the system lets faults of system calls be
// served.
//
//   write   (one atomic piece after another)  view_load -> private memory -> the write as ever
//   read    (so too)                          the read as ever -> private memory -> view_store
//
// The source of a write is a snapshot, taken whole before the write's first lock: where it overlaps the target, it is
// as with memmove. Two files, or two caches, are two operations, one after the other.
//
// What a view shows: the file's bytes, zeros from its end to the end of its last page, nothing beyond; nothing either
// where the device has failed. What is stored between the end and the end of the page is dropped.
//
// Locks: bounce turn (where there is much to copy) > the locks of file_read and file_write, which are given up before
// anything else is taken.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>

#include "cache/page_cache.h"
#include "quire/result.h"

namespace quire {

struct OpenFile;

// A place in a view.
struct ViewPlace {
  OpenFile* file = nullptr;
  std::uint64_t offset = 0;  // in the file
  std::uint64_t length = 0;  // bytes from there to the end of the view
  bool writable = false;
  void* view = nullptr;  // the finder's own
};

// Who knows the views, in the place of cache/view_table.h: for tests. Thread safety: any thread; called with no lock
// held but a bounce turn.
class ViewFinder {
 public:
  virtual ~ViewFinder() = default;
  // Finds the view that the address lies in and keeps it, and its file, until release(). False: there is none.
  virtual bool hold(const void* address, ViewPlace* place) = 0;
  virtual void release(const ViewPlace& place) = 0;
};
// Before any address of the region is handed out; null: the table again. Returns the one before.
ViewFinder* set_view_finder(ViewFinder* finder);

// Bytes that lie in one view, or on from it in the next. How many, fewer than asked for where the view, its file or the
// device ends it; EFAULT (with its cause) where that is at once. Store: EFAULT for views that are not writable.
// The calling thread holds nothing but, perhaps, a bounce turn.
Result<std::size_t> view_load(const void* address, std::span<char> to);
Result<std::size_t> view_store(void* address, std::span<const char> from);

// The same for buffers any of which may lie in a view, past their first `skip` bytes.
Result<std::size_t> load_vectors(std::span<const iovec> vectors, std::size_t skip, std::span<char> to);
Result<std::size_t> store_vectors(std::span<const iovec> vectors, std::size_t skip, std::span<const char> from);

// Private memory for one atomic piece, charged to the cache. Up to kFreely whoever wants it has it, more under one of
// the cache's two bounce turns, which is kept to the end: whoever has it asks for claims and frames later.
class BounceMemory {
 public:
  static constexpr std::size_t kFreely = 64 * 1024;

  explicit BounceMemory(PageCache& cache) : cache_(cache), turn_(cache.bounce_turn) {}
  ~BounceMemory();
  BounceMemory(const BounceMemory&) = delete;
  BounceMemory& operator=(const BounceMemory&) = delete;

  // At least so much; what was there before is lost if it is more. ENOMEM, and EAGAIN instead of waiting.
  Status resize(std::size_t bytes, bool no_wait);
  std::span<char> first(std::size_t bytes) { return {bytes_.get(), bytes}; }

 private:
  PageCache& cache_;
  RangeGuard turn_;
  std::unique_ptr<char[]> bytes_;
  std::size_t size_ = 0;
};

// Debug builds: this thread holds nothing that serving a fault of a view may need.
void assert_may_touch_views(const char* where);

}  // namespace quire
