// One request's way through a host file: which descriptor and which bytes the next system call or ring entry moves, and
// what its return value means. Both engines (ring.h, plain_run below) drive it. Locks: none.
//
//   begin -> step -> stepped -> (again: step | again_plain: step, by a system call | done)
//
// Progress lives in Request::private_, so nothing is allocated and a continued transfer needs no copy of the iovecs: a
// transfer that stops inside a buffer goes on with that buffer alone, then with the vector behind it.
#pragma once

#include <cstdint>

#include "device/device.h"
#include "device/io_stats.h"

namespace quire {

// Of the requests for one device: what the I/O thread has at the host, and those that wait for their turn. That
// thread's own; no other looks.
struct FileTurn {
  std::uint64_t bytes = 0;  // at the host
  Request* first = nullptr;
  Request* last = nullptr;
};

// What a request is for: part of the device, outlives its requests.
struct FileTarget {
  int direct_fd = -1;  // opened with O_DIRECT, or -1
  int buffered_fd = -1;
  unsigned direct_alignment = 512;
  bool use_io_uring = true;
  IoStats* stats = nullptr;
  alignas(64) mutable FileTurn turn = {};  // all threads read what is above
};

struct TransferStep {
  IoOp op;
  int fd;
  bool vectored;  // address is an iovec array and length its count; else a buffer and its bytes
  const void* address;
  unsigned length;
  std::uint64_t offset;  // in the file
  int buffer = -1;       // the ring's registered buffer that all of it lies in
};

// Whether a step goes through a registered buffer: its bytes are not in the arena; it does; they are, and it cannot.
enum class FixedUse : std::uint8_t { elsewhere, fixed, refused };

enum class TransferState : std::uint8_t { again, again_plain, done };

// Done at once where there is nothing to move or the offset is impossible; `result` is set whenever a call says done.
TransferState transfer_begin(Request& request, const FileTarget& target);
TransferStep transfer_step(const Request& request);
// rc: what the step returned, a count or -errno. Continues short transfers; an EINVAL under O_DIRECT goes on through
// the host's cache, and is counted, unless the request is direct_only; a refusal of a registered buffer goes on
// without.
TransferState transfer_stepped(Request& request, std::int64_t rc);

const FileTarget& transfer_target(const Request& request);
// For the engine with registered buffers: says so of the next step. The request is counted by it at its end.
void transfer_note_fixed(Request& request, FixedUse use);
bool transfer_fixed_refused(const Request& request);  // stays so to its end
bool transfer_is_done(const Request& request);
bool transfer_is_direct(const Request& request);  // the next step goes through direct_fd

// The plain engine: runs what is left of a begun request, if anything, by system calls of this thread.
void plain_run(Request& request);

// Ends a request without touching the file (after fork, for one).
void transfer_fail(Request& request, const FileTarget& target, int errnum);

}  // namespace quire
