// The C API: argument checks, errno and messages around the operations of fs. See quire.h for the contract.
#include <fcntl.h>
#include <limits.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "api/api_checks.h"
#include "api/caller.h"
#include "api/handles.h"
#include "base/error.h"
#include "cache/read_hit.h"

// Compiled twice, for processors with AVX2 (half as many moves) and others; the loader picks one. Sanitizers are not
// yet up when it does.
#if defined(QUIRE_TSAN) || defined(QUIRE_ASAN)
#define QUIRE_CLONES
#else
#define QUIRE_CLONES __attribute__((target_clones("arch=x86-64-v3", "default")))
#endif

using quire::CacheImpl;
using quire::check_range;
using quire::FileImpl;
using quire::handle;
using quire::impl;
using quire::report_error;
using quire::Status;

struct quire_cache : CacheImpl {};
struct quire_file : FileImpl {};

namespace {

int failed(const FileImpl& file, const char* what, int errnum) {
  report_error(errnum, "%s of %s", what, file.path.c_str());
  return -1;
}

[[gnu::cold]] ssize_t failed_at(const FileImpl& file, const char* what, size_t count, off_t offset, int errnum) {
  report_error(errnum, "%s of %zu bytes at offset %lld of %s", what, count, static_cast<long long>(offset),
               file.path.c_str());
  return -1;
}

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80  // Linux 6.14
#endif
constexpr int kKnownRwf = RWF_NOWAIT | RWF_DSYNC | RWF_SYNC | RWF_APPEND | RWF_HIPRI | RWF_DONTCACHE;

using Vectors = quire::CallerArray<iovec>;

int check_vector(Vectors& vectors, const iovec* iov, int iovcnt, off_t offset, int rwf_flags) {
  if (iovcnt < 0 || iovcnt > IOV_MAX)
    return quire::fail_with(EINVAL, "%d buffers: 0 to %d are allowed", iovcnt, IOV_MAX), EINVAL;
  if ((rwf_flags & ~kKnownRwf) != 0) {
    return quire::fail_with(EOPNOTSUPP, "RWF flags %#x are not supported",
                            static_cast<unsigned>(rwf_flags & ~kKnownRwf)),
           EOPNOTSUPP;
  }
  try {
    const auto had = vectors.get(iov, static_cast<size_t>(iovcnt));
    if (!had.ok()) return had.errnum();
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  }
  const auto length = quire::vectors_length(vectors.items());
  if (!length.ok()) return length.errnum();
  return check_range(length.value(), offset);
}

unsigned io_flags(int rwf_flags) {
  unsigned flags = 0;
  if ((rwf_flags & RWF_NOWAIT) != 0) flags |= quire::kIoNoWait;
  if ((rwf_flags & RWF_APPEND) != 0) flags |= quire::kIoAppend;
  if ((rwf_flags & RWF_DSYNC) != 0) flags |= quire::kIoDataSync;
  if ((rwf_flags & RWF_SYNC) != 0) flags |= quire::kIoSync;
  if ((rwf_flags & RWF_DONTCACHE) != 0) flags |= quire::kIoDropBehind;
  return flags;
}

// What quire_pread does with all but the plainest hits.
[[gnu::noinline]] ssize_t read_any(FileImpl& f, void* buffer, size_t count, off_t offset) {
  int errnum = quire::check_not_forked(f.inode->mapping.cache).errnum();
  if (errnum == 0) errnum = check_range(count, offset);
  if (errnum == 0) {
    unsigned flags = 0;
    if (f.readable && count - 1 < quire::kFastBytes && !quire::touches_views(buffer, count)) {
      quire::Mapping& mapping = f.inode->mapping;
      const ssize_t n =
          quire::read_fast(mapping, static_cast<char*>(buffer), count, static_cast<std::uint64_t>(offset));
      if (__builtin_expect(n >= 0, 1)) {
        mapping.cache.stats.count_hit(count);
        return n;
      }
      flags = quire::kIoMissed;
    }
    const iovec v{buffer, count};
    const auto n = quire::file_read(f, std::span(&v, 1), static_cast<std::uint64_t>(offset), flags);
    if (n.ok()) return static_cast<ssize_t>(n.value());
    errnum = n.errnum();
  }
  return failed_at(f, "read", count, offset, errnum);
}

Status read_options(const quire_options* options, quire_options* given) {
  constexpr size_t kMost = 4096;
  if (options == nullptr) return {};
  static_assert(offsetof(quire_options, struct_size) == 0);
  size_t size = 0;
  QUIRE_TRY(quire::copy_in(&size, options, sizeof size));
  if (size < offsetof(quire_options, memory) + sizeof(size_t) || size > kMost) {
    return quire::fail_with(EINVAL, "struct_size is %zu: set it to sizeof(quire_options)", size);
  }
  unsigned char bytes[kMost];
  QUIRE_TRY(quire::copy_in(bytes, options, size));
  if (std::any_of(bytes + std::min(size, sizeof *given), bytes + size, [](unsigned char byte) { return byte != 0; })) {
    return quire::fail_with(EINVAL, "an option of a newer quire is set");
  }
  std::memcpy(given, bytes, std::min(size, sizeof *given));
  return {};
}

}  // namespace

extern "C" {

const char* quire_error_message(void) { return quire::error_message(); }

quire_cache* quire_cache_create(const quire_options* options) {
  quire::CacheOptions wanted;
  quire_options given = {};
  if (const Status read = read_options(options, &given); !read.ok()) {
    report_error(read.errnum(), "quire_cache_create");
    return nullptr;
  }
  if ((given.flags & ~(QUIRE_NO_IO_URING | QUIRE_NO_DIRECT | QUIRE_PUBLISH | QUIRE_NO_SIGNAL_HANDLER |
                       QUIRE_HASHES_AT_COMPLETION)) != 0) {
    static_cast<void>(quire::fail_with(EINVAL, "flags %#x are not known", given.flags));
    report_error(EINVAL, "quire_cache_create");
    return nullptr;
  }
  wanted.memory = given.memory;
  wanted.io_depth = given.io_depth;
  wanted.use_io_uring = (given.flags & QUIRE_NO_IO_URING) == 0;
  wanted.use_direct = (given.flags & QUIRE_NO_DIRECT) == 0;
  wanted.publish = (given.flags & QUIRE_PUBLISH) != 0;
  wanted.signal_handler = (given.flags & QUIRE_NO_SIGNAL_HANDLER) == 0;
  wanted.verity_at_completion = (given.flags & QUIRE_HASHES_AT_COMPLETION) != 0;
  try {
    auto cache = CacheImpl::create(wanted);
    if (cache.ok()) return reinterpret_cast<quire_cache*>(cache.take().release());
    report_error(cache.errnum(), "quire_cache_create");
  } catch (const std::bad_alloc&) {
    report_error(ENOMEM, "quire_cache_create");
  }
  return nullptr;
}

int quire_cache_destroy(quire_cache* cache, unsigned flags) {
  if ((flags & ~QUIRE_DISCARD) != 0) {
    static_cast<void>(quire::fail_with(EINVAL, "flags %#x are not known", flags));
    report_error(EINVAL, "quire_cache_destroy");
    return -1;
  }
  const auto status = impl(cache).shut_down((flags & QUIRE_DISCARD) != 0);
  if (!status.ok()) {
    report_error(status.errnum(), "quire_cache_destroy");
    return -1;
  }
  delete &impl(cache);
  return 0;
}

int quire_cache_resize(quire_cache* cache, size_t memory) {
  const auto status = impl(cache).resize(memory);
  if (status.ok()) return 0;
  report_error(status.errnum(), "quire_cache_resize");
  return -1;
}

quire_file* quire_open(quire_cache* cache, const char* path, int flags, mode_t mode) {
  quire::CallerString name;
  try {
    const auto had = name.get(path);
    if (!had.ok()) {
      report_error(had.errnum(), "quire_open");
      return nullptr;
    }
    auto file = impl(cache).open(name.c_str(), flags, mode);
    if (file.ok()) return handle(file.value());
    report_error(file.errnum(), "open of %s", name.c_str());
  } catch (const std::bad_alloc&) {
    report_error(ENOMEM, "open of %s", name.c_str());
  }
  return nullptr;
}

quire_file* quire_open_verified(quire_cache* cache, const char* path, int flags, const char* digest_hex,
                                const char* cert_path) {
  quire::CallerString name, digest, certificates;
  try {
    const auto had = name.get(path);
    if (!had.ok()) {
      report_error(had.errnum(), "quire_open_verified");
      return nullptr;
    }
    const auto had_digest = digest_hex != nullptr ? digest.get(digest_hex) : quire::Status{};
    const auto had_path = cert_path != nullptr ? certificates.get(cert_path) : quire::Status{};
    int errnum = had_digest.ok() ? had_path.errnum() : had_digest.errnum();
    if (digest_hex == nullptr && cert_path == nullptr) {
      errnum = EINVAL;
      static_cast<void>(
          quire::fail_with(errnum, "neither a digest nor certificates are named: quire_open does without"));
    }
    if (errnum == 0) {
      const auto accepted = quire::accepted_verity(digest_hex != nullptr ? digest.c_str() : nullptr,
                                                   cert_path != nullptr ? certificates.c_str() : nullptr);
      errnum = accepted.errnum();
      if (accepted.ok()) {
        auto file = impl(cache).open_verified(name.c_str(), flags, accepted.value());
        if (file.ok()) return handle(file.value());
        errnum = file.errnum();
      }
    }
    report_error(errnum, "verified open of %s", name.c_str());
  } catch (const std::bad_alloc&) {
    report_error(ENOMEM, "verified open of %s", name.c_str());
  }
  return nullptr;
}

quire_file* quire_fdopen(quire_cache* cache, int fd) {
  try {
    auto file = impl(cache).open_fd(fd);
    if (file.ok()) return handle(file.value());
    report_error(file.errnum(), "open of descriptor %d", fd);
  } catch (const std::bad_alloc&) {
    report_error(ENOMEM, "open of descriptor %d", fd);
  }
  return nullptr;
}

int quire_close(quire_file* file) {
  FileImpl& f = impl(file);
  const auto status = f.owner->close(&f);
  return status.ok() ? 0 : failed(f, "close (the handle stays open)", status.errnum());
}

QUIRE_CLONES ssize_t quire_pread(quire_file* file, void* buffer, size_t count, off_t offset) {
  FileImpl& f = impl(file);
  if (__builtin_expect(count - 1 < quire::kRegisterBytes && f.short_hits != nullptr, 1)) {
    const ssize_t n =
        quire::read_hit(*f.short_hits, static_cast<char*>(buffer), count, static_cast<std::uint64_t>(offset));
    if (__builtin_expect(n >= 0, 1)) return n;
  }
  return read_any(f, buffer, count, offset);
}

ssize_t quire_pwrite(quire_file* file, const void* buffer, size_t count, off_t offset) {
  FileImpl& f = impl(file);
  int errnum = check_range(count, offset);
  if (errnum == 0) {
    const iovec v{const_cast<void*>(buffer), count};
    const auto n = quire::file_write(f, std::span(&v, 1), static_cast<std::uint64_t>(offset), 0);
    if (n.ok()) return static_cast<ssize_t>(n.value());
    errnum = n.errnum();
  }
  return failed_at(f, "write", count, offset, errnum);
}

ssize_t quire_preadv2(quire_file* file, const struct iovec* iov, int iovcnt, off_t offset, int rwf_flags) {
  FileImpl& f = impl(file);
  Vectors vectors;
  int errnum = check_vector(vectors, iov, iovcnt, offset, rwf_flags);
  if (errnum == 0 && (rwf_flags & RWF_APPEND) != 0) {
    errnum = (quire::fail_with(EOPNOTSUPP, "RWF_APPEND is for writes"), EOPNOTSUPP);
  }
  if (errnum == 0) {
    const auto n = quire::file_read(f, vectors.items(), static_cast<std::uint64_t>(offset), io_flags(rwf_flags));
    if (n.ok()) return static_cast<ssize_t>(n.value());
    errnum = n.errnum();
  }
  report_error(errnum, "read at offset %lld of %s", static_cast<long long>(offset), f.path.c_str());
  return -1;
}

ssize_t quire_pwritev2(quire_file* file, const struct iovec* iov, int iovcnt, off_t offset, int rwf_flags) {
  FileImpl& f = impl(file);
  Vectors vectors;
  int errnum = check_vector(vectors, iov, iovcnt, offset, rwf_flags);
  if (errnum == 0) {
    const auto n = quire::file_write(f, vectors.items(), static_cast<std::uint64_t>(offset), io_flags(rwf_flags));
    if (n.ok()) return static_cast<ssize_t>(n.value());
    errnum = n.errnum();
  }
  report_error(errnum, "write at offset %lld of %s", static_cast<long long>(offset), f.path.c_str());
  return -1;
}

int quire_ftruncate(quire_file* file, off_t size) {
  FileImpl& f = impl(file);
  int errnum = size < 0 ? (quire::fail_with(EINVAL, "the size is negative"), EINVAL) : 0;
  if (errnum == 0) {
    const auto status = quire::file_truncate(f, static_cast<std::uint64_t>(size));
    if (status.ok()) return 0;
    errnum = status.errnum();
  }
  report_error(errnum, "truncate to %lld bytes of %s", static_cast<long long>(size), f.path.c_str());
  return -1;
}

int quire_fsync(quire_file* file) {
  const auto status = quire::file_sync(impl(file), false);
  return status.ok() ? 0 : failed(impl(file), "sync", status.errnum());
}

int quire_fdatasync(quire_file* file) {
  const auto status = quire::file_sync(impl(file), true);
  return status.ok() ? 0 : failed(impl(file), "data sync", status.errnum());
}

int quire_sync_file_range(quire_file* file, off_t offset, off_t length, unsigned flags) {
  FileImpl& f = impl(file);
  int errnum = 0;
  if (offset < 0 || length < 0) {
    errnum = (quire::fail_with(EINVAL, "the offset or the length is negative"), EINVAL);
  } else {
    errnum = quire::file_sync_range(f, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length), flags)
                 .errnum();
  }
  return errnum == 0 ? 0 : failed(f, "sync of a range", errnum);
}

int quire_fstat(quire_file* file, struct stat* st) {
  struct stat found;
  auto status = quire::file_stat(impl(file), &found);
  if (status.ok()) status = quire::copy_out_whole(st, &found, sizeof found);
  return status.ok() ? 0 : failed(impl(file), "stat", status.errnum());
}

ssize_t quire_stats_json(quire_cache* cache, char* buffer, size_t size) {
  try {
    const auto status = quire::check_not_forked(impl(cache).cache());
    if (!status.ok()) {
      report_error(status.errnum(), "quire_stats_json");
      return -1;
    }
    const auto length = quire::copy_out_text(buffer, size, impl(cache).stats_json());
    if (length.ok()) return static_cast<ssize_t>(length.value());
    report_error(length.errnum(), "quire_stats_json");
    return -1;
  } catch (const std::bad_alloc&) {
    report_error(ENOMEM, "quire_stats_json");
    return -1;
  }
}

}  // extern "C"
