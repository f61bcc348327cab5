// I/O: the interface to what holds the bytes. Implementations: FileDevice (io_uring or preadv/pwritev over a host file
// or block device), MemoryDevice, FaultyDevice (wraps another). Locks: none of the upper layers' are touched here.
//
// A Request is the caller's, fixed in place until done. States: idle -> submitted -> done.
//   execute()  the calling thread submits the batch and reaps it itself; returns when all are done (no callback).
//   submit()   returns at once; each request's `done` runs once, on a thread of quire's own that reaps: it may only
//              record, make sequences even, release and wake, never wait for a lock.
// Short transfers: a read that ends at the end of the file reports the bytes it got; every other short transfer is
// continued inside until it is whole or fails, so `result` is a full count, a short count at the end of file, or
// -errno.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "quire/result.h"

namespace quire {

enum class IoOp : std::uint8_t { read, write };

// Whether the bytes go past the cache of the host, where there is one; devices in memory have none, and differ only in
// what they refuse.
enum class IoPath : std::uint8_t {
  any,          // past it if that can be, else through it
  direct_only,  // past it, or -EINVAL: not opened so, not aligned (Backing::direct_alignment), or the host refuses.
                // Then some of it may have been moved, but none of it through the cache: who asks may send it all
                // again. No error in the statistics. A read that stops inside a unit of alignment has met the end of
                // the file.
  through_host  // through it
};

struct Request {
  IoOp op = IoOp::read;
  IoPath path = IoPath::any;
  std::uint64_t offset = 0;          // bytes on the device
  std::span<const iovec> buffers;    // caller's, until done
  std::int64_t result = 0;           // bytes moved or -errno, valid once done
  void (*done)(Request&) = nullptr;  // submit() only
  void* context = nullptr;           // the caller's

  std::uint64_t length() const {
    std::uint64_t sum = 0;
    for (const iovec& v : buffers) sum += v.iov_len;
    return sum;
  }
  // The device's from execute() or submit() until done; a device that wraps another sends requests of its own.
  Request* next = nullptr;
  std::uint64_t private_[4];
};

class AioQueue;

class Device {
 public:
  virtual ~Device() = default;
  virtual void execute(std::span<Request* const> batch) = 0;
  virtual void submit(std::span<Request* const> batch) = 0;
  // As submit(), but `done` may also run on a thread that collects from the queue. Only what goes past the host's cache
  // gains from it.
  virtual void submit_to_collect(AioQueue& queue, std::span<Request* const> batch) {
    static_cast<void>(queue);
    submit(batch);
  }
  // Makes what completed before the call durable; waits. data_only as fdatasync. Returns 0 or an errno.
  virtual int flush(bool data_only) = 0;
};

}  // namespace quire
