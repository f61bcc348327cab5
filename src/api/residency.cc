// The calls of quire.h that say what of a file is in the cache. Locks: none, but for the file table where another
// process asks.
#include "cache/residency.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <vector>

#include "api/cache_impl.h"
#include "api/residency_draw.h"
#include "base/error.h"

namespace quire {

Result<std::uint64_t> CacheImpl::try_residency(FileKey key, ResidencyCursor& at, std::span<quire_residency_run> runs,
                                               ResidencyFile* file) {
  constexpr std::uint64_t kEntries = 16'384;  // for as long the table is held: 1 ms
  // Opens and closes hold it over what the host takes its time for: who asks comes again.
  if (!table_mutex_.try_lock()) return fail(EBUSY);
  std::size_t count = 0;
  const auto found = files_.find(key);
  const bool known = found != files_.end();
  if (known) {
    const HostInode& inode = *found->second;
    *file = ResidencyFile{inode.inode.mapping.size.load(memory_order_acquire), inode.handles};
    count = find_residency(inode.inode.mapping, at, runs, kEntries);
  }
  table_mutex_.unlock();
  if (!known) return fail(ENOENT);
  return std::uint64_t{count};
}

namespace {

FileImpl& impl(quire_file* file) { return *reinterpret_cast<FileImpl*>(file); }

ssize_t give(const std::string& text, char* buffer, std::size_t size) {
  if (size != 0) {
    const std::size_t n = std::min(size - 1, text.size());
    std::memcpy(buffer, text.data(), n);
    buffer[n] = '\0';
  }
  return static_cast<ssize_t>(text.size());
}

std::vector<quire_residency_run> all_runs(const Mapping& mapping) {
  std::vector<quire_residency_run> all;
  quire_residency_run some[256];
  ResidencyCursor at;
  while (!at.done) {
    const std::size_t count = find_residency(mapping, at, some);
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t last = all.size();
      if (!append_run(some[i], all, &last)) all.push_back(some[i]);
    }
  }
  return all;
}

// Can they be drawn?
Status check_runs(std::span<const quire_residency_run> runs) {
  std::uint64_t end = 0;
  for (const quire_residency_run& run : runs) {
    const bool misplaced = run.offset < end || run.length > INT64_MAX || run.offset > INT64_MAX;
    if (run.length == 0 || misplaced || run.state >= kRunStates) {
      return fail_with(EINVAL, "run %zu has no length, no known state or does not follow the one before",
                       static_cast<std::size_t>(&run - runs.data()));
    }
    end = run.offset + run.length;
  }
  return {};
}

}  // namespace
}  // namespace quire

using namespace quire;

extern "C" {

ssize_t quire_residency(quire_file* file, off_t offset, quire_residency_run* runs, size_t count) {
  const FileImpl& f = impl(file);
  const Mapping& mapping = f.inode->mapping;
  Status status = check_not_forked(mapping.cache);
  if (status.ok() && offset < 0) status = fail_with(EINVAL, "the offset is negative");
  if (!status.ok()) {
    report_error(status.errnum(), "residency of %s", f.path.c_str());
    return -1;
  }
  ResidencyCursor at{static_cast<std::uint64_t>(offset) >> kPageShift, false};
  return static_cast<ssize_t>(find_residency(mapping, at, std::span(runs, count)));
}

ssize_t quire_residency_json(quire_file* file, char* buffer, size_t size) {
  const FileImpl& f = impl(file);
  const Mapping& mapping = f.inode->mapping;
  int errnum = check_not_forked(mapping.cache).errnum();
  if (errnum == 0) {
    try {
      const auto runs = all_runs(mapping);
      return give(residency_json({f.path, mapping.size.load(memory_order_acquire), runs}), buffer, size);
    } catch (const std::bad_alloc&) {
      errnum = ENOMEM;
    }
  }
  report_error(errnum, "residency of %s", f.path.c_str());
  return -1;
}

ssize_t quire_residency_draw(const char* name, uint64_t file_size, const quire_residency_run* runs, size_t count,
                             int format, char* buffer, size_t size) {
  const ResidencyView view{name, file_size, std::span(runs, count)};
  int errnum = check_runs(view.runs).errnum();
  try {
    if (errnum != 0) {
      // said above
    } else if (format == QUIRE_DRAW_JSON) {
      return give(residency_json(view), buffer, size);
    } else if (format == QUIRE_DRAW_TEXT) {
      return give(residency_text(view), buffer, size);
    } else if (format == QUIRE_DRAW_SVG) {
      return give(residency_svg(view), buffer, size);
    } else {
      errnum = (fail_with(EINVAL, "there is no format %d", format), EINVAL);
    }
  } catch (const std::bad_alloc&) {
    errnum = ENOMEM;
  }
  report_error(errnum, "quire_residency_draw");
  return -1;
}

}  // extern "C"
