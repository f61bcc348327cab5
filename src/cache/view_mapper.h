// The system calls behind mapped views. Stateless between calls but for its descriptors; views.cc decides what is
// mapped where, and under which locks.
//
// A page of a view is one of
//   blank    an anonymous placeholder, registered (missing): a touch is a fault that somebody serves
//   placed   frames of the arena, registered (missing and minor): present, or a touch is a fault. In a writable view
//            (registered for write-protection, too) what is present is open, or a store to it is a fault
//   trap     past the end of an empty file, not registered: a touch is SIGBUS in that thread, EFAULT in a system call
// by --blank--> blank --place, track, show--> placed --take--> placed, but not present; any --trap--> trap;
// any --reset--> blank; any --unmap--> nothing.
// How each closes its window:
//   blank    its address is handed out only afterwards
//   place    not registered until track(): what is loaded meanwhile is right, for the caller holds the folios' locks
//   show     of a writable view: the pages come protected, once they are registered. What somebody touched before may
//            have been stored to, and is open: show() tells, and the caller, who still holds the locks, takes it so.
//            From its mremap until its event is read a reset keeps the kernel from showing anything (EAGAIN), and what
//            was touched could not be told from the rest: so begin_show() to end_show() and an mremap exclude each
//            other. Each counts itself, and then looks at the other's count
//   take     the range stays registered: nothing between present and fault
//   trap     shows no byte of anything
//   reset    mremap moves a registered placeholder over the range in one step. It waits for the reader of faults, who
//            must read its event: never called by that thread, nor with anything that that thread waits for
// Read-only views are of the descriptor that can write, mapped PROT_READ: the kernel registers no other (EPERM).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "quire/result.h"

namespace quire {

class FolioPool;

// A thread touched this page, and waits.
struct ViewFault {
  char* page = nullptr;
  bool is_store = false;
  bool is_protected = false;  // the page is there, but not open
};

class ViewMapper {
 public:
  ViewMapper() = default;
  virtual ~ViewMapper() = default;
  ViewMapper(const ViewMapper&) = delete;
  ViewMapper& operator=(const ViewMapper&) = delete;

  // All ranges in whole pages of one view. On failure of place() or track() the caller traps or resets the range.
  virtual Status blank(char* at, std::uint64_t bytes, bool writable) = 0;
  virtual Status place(char* at, const char* arena_bytes, std::uint64_t bytes, bool writable) = 0;
  // A range all of which is placed.
  virtual Status track(char* at, std::uint64_t bytes, bool writable) = 0;
  // Around place(), track() and show() of a writable view. False: a reset is on its way, and `wait` is not set, as the
  // reader of faults never may.
  virtual bool begin_show(bool wait) = 0;
  virtual void end_show() = 0;
  // Of a writable view, a range that is placed and tracked: makes its pages present, protected, as far as it can; the
  // rest is absent. False: some were there, perhaps stored to, or may have been.
  virtual bool show(char* at, std::uint64_t bytes) = 0;
  // Stores to what is present there are faults, or not. A range all of which is placed. False: not just now (an mremap
  // waits for the reader of faults); nothing has changed, or a part.
  virtual bool protect(char* at, std::uint64_t bytes, bool is_protected) = 0;
  virtual void take(char* at, std::uint64_t bytes) = 0;
  virtual Status trap(char* at, std::uint64_t bytes) = 0;
  virtual Status reset(char* at, std::uint64_t bytes, bool writable) = 0;
  // A reset takes some mappings before it gives any back. Where the kernel has none left, it uses up a few that are
  // kept for that; this makes them anew, if it can.
  virtual void keep_spare() = 0;
  virtual void unmap(char* at, std::uint64_t bytes) = 0;  // no access, and addresses still reserved
  virtual void wake(char* at, std::uint64_t bytes) = 0;   // who waits there tries again

  // By the reader of faults alone: waits for one. False: interrupt() was called, or timeout_ms passed.
  virtual bool wait(ViewFault* fault, int timeout_ms) = 0;
  virtual void interrupt() = 0;  // wait() returns, now or the next time
};

// userfaultfd's. Errors: EPERM where the machine forbids it, ENOSYS, EINVAL where the kernel is too old (5.19), EMFILE.
Result<std::unique_ptr<ViewMapper>> make_view_mapper(FolioPool& pool);

}  // namespace quire
