// The C API's range operations: argument checks, errno and messages around those of fs. What depends on the file (its
// size, its access mode, the alignment of its blocks) is checked below, under the locks that keep it so; what is wrong
// with the numbers alone, here, and answered as the system call of the same name answers it. See quire.h.
#include <algorithm>
#include <cerrno>

#include "api/handles.h"
#include "base/bytes.h"
#include "base/error.h"

using quire::FileImpl;
using quire::impl;
using quire::OpenFile;
using quire::report_error;
using quire::Result;
using quire::Status;

namespace {

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

  Status check_caches() const {
    if (source.owner == target.owner) return {};
    return quire::fail_with(EXDEV, "the files are open in two different caches: open both in one");
  }

  // What Linux's remap_file_range answers: EINVAL for all of it.
  Status check_remap() const {
    QUIRE_TRY(check_caches());
    if (from < 0 || offset < 0) return quire::fail_with(EINVAL, "an offset is negative");
    if (length > static_cast<size_t>(INT64_MAX - std::max(from, offset))) {
      return quire::fail_with(EINVAL, "offset plus length passes the largest off_t");
    }
    return {};
  }

  // copy_file_range's: a range is too large only where its end cannot be said in 64 bits; it copies to the source's
  // end.
  Status check_copy() const {
    QUIRE_TRY(check_caches());
    if (length > UINT64_MAX - unsigned_of(from) || length > UINT64_MAX - unsigned_of(offset)) {
      return quire::fail_with(EOVERFLOW, "offset plus length cannot be said in 64 bits");
    }
    if (from < 0 || offset < 0) return quire::fail_with(EINVAL, "an offset is negative");
    return {};
  }
};

// clone, dedupe and exchange: `work` is fs's.
template <typename Outcome>
Outcome remap(const TwoRanges& r, Outcome (*work)(OpenFile&, std::uint64_t, OpenFile&, std::uint64_t, std::uint64_t)) {
  QUIRE_TRY(r.check_remap());
  return work(r.source, unsigned_of(r.from), r.target, unsigned_of(r.offset), r.length);
}

Result<std::uint64_t> copy(const TwoRanges& r) {
  QUIRE_TRY(r.check_copy());
  // No source reaches farther: what is asked for past it is not there.
  const std::uint64_t count = std::min<std::uint64_t>(r.length, quire::kMaxFileSize - unsigned_of(r.from));
  return quire::file_copy(r.source, unsigned_of(r.from), r.target, unsigned_of(r.offset), count);
}

// As a system call answers.
int answer(const TwoRanges& ranges, const Status& done) { return done.ok() ? 0 : ranges.failed(done.errnum()); }
ssize_t answer(const TwoRanges& ranges, const Result<std::uint64_t>& count) {
  return count.ok() ? static_cast<ssize_t>(count.value()) : ranges.failed(count.errnum());
}

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

int quire_fadvise(quire_file* file, off_t offset, off_t length, int advice) {
  FileImpl& f = impl(file);
  int errnum = EINVAL;
  if (offset < 0) {
    static_cast<void>(quire::fail_with(EINVAL, "the offset is negative"));
  } else if (length < 0) {
    static_cast<void>(quire::fail_with(EINVAL, "the length is negative"));
  } else {
    const auto status = quire::file_advise(f, unsigned_of(offset), unsigned_of(length), advice);
    if (status.ok()) return 0;
    errnum = status.errnum();
  }
  report_error(errnum, "advice %d on %lld bytes at offset %lld of %s", advice, static_cast<long long>(length),
               static_cast<long long>(offset), f.path.c_str());
  return -1;
}

off_t quire_seek_data(quire_file* file, off_t offset) { return seek(impl(file), offset, true); }
off_t quire_seek_hole(quire_file* file, off_t offset) { return seek(impl(file), offset, false); }

int quire_clone_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset, size_t length) {
  const TwoRanges ranges{"clone", "to", impl(src), src_offset, impl(dst), dst_offset, length};
  return answer(ranges, remap(ranges, quire::file_clone));
}

ssize_t quire_dedupe_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset, size_t length) {
  const TwoRanges ranges{"dedupe", "and", impl(src), src_offset, impl(dst), dst_offset, length};
  return answer(ranges, remap(ranges, quire::file_dedupe));
}

int quire_exchange_range(quire_file* a, off_t a_offset, quire_file* b, off_t b_offset, size_t length) {
  const TwoRanges ranges{"exchange", "and", impl(a), a_offset, impl(b), b_offset, length};
  return answer(ranges, remap(ranges, quire::file_exchange));
}

ssize_t quire_copy_range(quire_file* src, off_t src_offset, quire_file* dst, off_t dst_offset, size_t length) {
  const TwoRanges ranges{"copy", "to", impl(src), src_offset, impl(dst), dst_offset, length};
  return answer(ranges, copy(ranges));
}

}  // extern "C"
