// What is judged: a handful of files, numbered from 0, and the operations on them. Implementations: plain system
// calls and quire (make_kernel_system, make_quire_system), and whatever a test plugs in. All operations may be
// called from any thread at once. Results are counts (or 0), or -errno.
#pragma once

#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "testing/history.h"

namespace quire::judge {

class System {
 public:
  virtual ~System() = default;

  virtual std::string_view name() const = 0;

  // Makes `count` empty files. Before everything else, once.
  virtual int create(int count) = 0;

  virtual ssize_t read(int file, void* buffer, size_t count, uint64_t offset) = 0;
  virtual ssize_t write(int file, const void* buffer, size_t count, uint64_t offset) = 0;
  virtual ssize_t append(int file, const void* buffer, size_t count) = 0;
  virtual int truncate(int file, uint64_t size) = 0;

  // mode: FALLOC_FL_*.
  virtual int fallocate(int, int, uint64_t, uint64_t) { return -ENOSYS; }
  // From `source` at source_offset to `file` at offset; exchange: between them.
  virtual int clone(int, uint64_t, int, uint64_t, uint64_t) { return -ENOSYS; }
  virtual ssize_t dedupe(int, uint64_t, int, uint64_t, uint64_t) { return -ENOSYS; }
  virtual int exchange(int, uint64_t, int, uint64_t, uint64_t) { return -ENOSYS; }
  virtual ssize_t copy(int, uint64_t, int, uint64_t, uint64_t) { return -ENOSYS; }

  // Makes ready for operations of this kind (kDirect and what follows it), while nothing else runs. 0 or -errno;
  // ENOSYS, EOPNOTSUPP or EPERM: they cannot be had here.
  virtual int prepare(OpKind) { return -ENOSYS; }
  // Past the cache: any offset, count and memory.
  virtual ssize_t read_direct(int, void*, size_t, uint64_t) { return -ENOSYS; }
  virtual ssize_t write_direct(int, const void*, size_t, uint64_t) { return -ENOSYS; }
  // 0, and done(argument, count or -errno) runs inside reap() of some thread; or -errno, and it does not.
  using Done = void (*)(void* argument, ssize_t result);
  virtual int submit_read(int, void*, size_t, uint64_t, bool, Done, void*) { return -ENOSYS; }
  virtual int submit_write(int, const void*, size_t, uint64_t, bool, Done, void*) { return -ENOSYS; }
  // Waits until `min` callbacks ran or none is left to wait for. How many ran, or -errno.
  virtual int reap(unsigned, unsigned) { return -ENOSYS; }
  // One aligned word, before the end of the file throughout, in a mapped view. 0 or -errno (EFAULT: SIGBUS).
  virtual int view_load(int, uint64_t, uint64_t*) { return -ENOSYS; }
  virtual int view_store(int, uint64_t, uint64_t) { return -ENOSYS; }

  // Makes all files durable; quiescent. An error is a violation.
  virtual int sync() { return 0; }
  // Syncs and closes every file. Quiescent; nothing but reread() follows.
  virtual int finish() { return 0; }
  // The content that a program opening the file anew finds.
  virtual int reread(int file, std::vector<unsigned char>* content) = 0;

  // Whether reads of up to 1 KiB promise to leave the bytes past their count alone.
  virtual bool keeps_tail() const { return false; }
  // The last failure in words, or empty.
  virtual std::string last_error() const { return {}; }
};

// Files DIR/.quire-torture-PID-N, removed by the destructor.
std::unique_ptr<System> make_kernel_system(const std::string& directory);
// The same through a quire cache of `memory` bytes; flags: quire_options.flags.
std::unique_ptr<System> make_quire_system(const std::string& directory, size_t memory, unsigned flags = 0);

}  // namespace quire::judge
