// The C API's range operations: argument checks, errno and messages around those of fs. What depends on the file (its
// size, its access mode, the alignment of its blocks) is checked below, under the locks that keep it so; what is wrong
// with the numbers alone, here, and answered as the system call of the same name answers it. See quire.h.
#include <limits.h>

#include <algorithm>
#include <cerrno>

#include "api/cache_impl.h"
#include "base/bytes.h"
#include "base/error.h"
#include "quire/quire.h"

using quire::FileImpl;
using quire::report_error;

namespace {

FileImpl& impl(quire_file* file) { return *reinterpret_cast<FileImpl*>(file); }

std::uint64_t unsigned_of(off_t offset) { return static_cast<std::uint64_t>(offset); }

// A call on two ranges, for its checks and its message.
struct TwoRanges {
  const char* what;
  const char* relation;  // what stands between the two files' names
  FileImpl& source;
  off_t from;
  FileImpl& target;
  off_t offset;
  size_t length;

  int failed(int errnum) const {
    report_error(errnum, "%s of %zu bytes at offset %lld of %s %s offset %lld of %s", what, length,
                 static_cast<long long>(from), source.path.c_str(), relation, static_cast<long long>(offset),
                 target.path.c_str());
    return -1;
  }

  // 0 or an errno.
  int check_caches() const {
    if (source.owner == target.owner) return 0;
    return quire::fail_with(EXDEV, "the files are open in two different caches: open both in one"), EXDEV;
  }

  // What Linux's remap_file_range answers: EINVAL for all of it.
  int check_remap() const {
    if (const int errnum = check_caches(); errnum != 0) return errnum;
    if (from < 0 || offset < 0) return quire::fail_with(EINVAL, "an offset is negative"), EINVAL;
    if (length > static_cast<size_t>(INT64_MAX - std::max(from, offset))) {
      return quire::fail_with(EINVAL, "offset plus length passes the largest off_t"), EINVAL;
    }
    return 0;
  }

  // copy_file_range's: a range is too large only where its end cannot be said in 64 bits; it copies to the source's
  // end.
  int check_copy() const {
    if (const int errnum = check_caches(); errnum != 0) return errnum;
    if (length > UINT64_MAX - unsigned_of(from) || length > UINT64_MAX - unsigned_of(offset)) {
      return quire::fail_with(EOVERFLOW, "offset plus length cannot be said in 64 bits"), EOVERFLOW;
    }
    if (from < 0 || offset < 0) return quire::fail_with(EINVAL, "an offset is negative"), EINVAL;
    return 0;
  }
};

off_t seek(FileImpl& file, off_t offset, bool data) {
  int errnum = ENXIO;
  if (offset < 0) {
    static_cast<void>(quire::fail_with(ENXIO, "the offset is negative"));
  } else {
    const auto found = quire::file_seek(file, unsigned_of(offset), data);
    if (found.ok()) return static_cast<off_t>(found.value());
    errnum = found.errnum();
  }
  report_error(errnum, "search for %s from offset %lld of %s", data ? "data" : "a hole", static_cast<long long>(offset),
               file.path.c_str());
  return -1;
}

}  // namespace

extern "C" {

int quire_fallocate(quire_file* file, int mode, off_t offset, off_t length) {
  FileImpl& f = impl(file);
  int errnum = EINVAL;
  if (offset < 0) {
    static_cast<void>(quire::fail_with(EINVAL, "the offset is negative"));
  } else if (length <= 0) {
    static_cast<void>(quire::fail_with(EINVAL, "the length is not above zero"));
  } else {
    const auto status = quire::file_allocate(f, mode, unsigned_of(offset), unsigned_of(length));
    if (status.ok()) return 0;
    errnum = status.errnum();
  }
  report_error(errnum, "fallocate with mode %#x of %lld bytes at offset %lld of %s", static_cast<unsigned>(mode),
               static_cast<long long>(length), static_cast<long long>(offset), f.path.c_str());
  return -1;
}

off_t quire_seek_data(quire_file* file, off_t offset) { return seek(impl(file), offset, true); }
off_t quire_seek_hole(quire_file* file, off_t offset) { return seek(impl(file), offset, false); }

int quire_clone_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset, size_t length) {
  const TwoRanges ranges{"clone", "to", impl(src), src_offset, impl(dst), dst_offset, length};
  if (const int errnum = ranges.check_remap(); errnum != 0) return ranges.failed(errnum);
  const auto status =
      quire::file_clone(ranges.source, unsigned_of(src_offset), ranges.target, unsigned_of(dst_offset), length);
  return status.ok() ? 0 : ranges.failed(status.errnum());
}

ssize_t quire_dedupe_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset, size_t length) {
  const TwoRanges ranges{"dedupe", "and", impl(src), src_offset, impl(dst), dst_offset, length};
  if (const int errnum = ranges.check_remap(); errnum != 0) return ranges.failed(errnum);
  const auto shared =
      quire::file_dedupe(ranges.source, unsigned_of(src_offset), ranges.target, unsigned_of(dst_offset), length);
  return shared.ok() ? static_cast<ssize_t>(shared.value()) : ranges.failed(shared.errnum());
}

int quire_exchange_range(quire_file* a, off_t a_offset, quire_file* b, off_t b_offset, size_t length) {
  const TwoRanges ranges{"exchange", "and", impl(a), a_offset, impl(b), b_offset, length};
  if (const int errnum = ranges.check_remap(); errnum != 0) return ranges.failed(errnum);
  const auto status =
      quire::file_exchange(ranges.source, unsigned_of(a_offset), ranges.target, unsigned_of(b_offset), length);
  return status.ok() ? 0 : ranges.failed(status.errnum());
}

ssize_t quire_copy_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset, size_t length) {
  const TwoRanges ranges{"copy", "to", impl(src), src_offset, impl(dst), dst_offset, length};
  if (const int errnum = ranges.check_copy(); errnum != 0) return ranges.failed(errnum);
  // No source reaches farther: what is asked for past it is not there.
  const size_t count = std::min<std::uint64_t>(length, quire::kMaxFileSize - unsigned_of(src_offset));
  const auto copied =
      quire::file_copy(ranges.source, unsigned_of(src_offset), ranges.target, unsigned_of(dst_offset), count);
  return copied.ok() ? static_cast<ssize_t>(copied.value()) : ranges.failed(copied.errnum());
}

}  // extern "C"
