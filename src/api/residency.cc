// The calls of quire.h that say what of a file is in the cache. Locks: none, but for the file table where another
// process asks.
#include "cache/residency.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <vector>

#include "api/caller.h"
#include "api/handles.h"
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

// The first `most` runs from the cursor on.
std::vector<quire_residency_run> some_runs(const Mapping& mapping, ResidencyCursor at, std::size_t most) {
  std::vector<quire_residency_run> all;
  quire_residency_run some[256];
  while (!at.done) {
    const std::size_t count = find_residency(mapping, at, some);
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t last = all.size();
      if (append_run(some[i], all, &last)) continue;
      if (all.size() == most) return all;
      all.push_back(some[i]);
    }
  }
  return all;
}

std::vector<quire_residency_run> all_runs(const Mapping& mapping) {
  return some_runs(mapping, ResidencyCursor{}, SIZE_MAX);
}

// find_residency() holds RCU while it fills what it is given: a view must not be that.
Result<std::size_t> find_for_view(const Mapping& mapping, const ResidencyCursor& at, quire_residency_run* runs,
                                  std::size_t count) {
  const auto found = some_runs(mapping, at, count);
  const auto stored = copy_out(runs, found.data(), found.size() * sizeof *runs);
  QUIRE_TRY(stored);
  if (stored.value() < sizeof *runs && !found.empty()) {
    return fail_with(EFAULT, "the view that the runs go to ends within the first");
  }
  return stored.value() / sizeof *runs;
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

Result<std::size_t> draw(const char* name, std::uint64_t file_size, const quire_residency_run* runs, std::size_t count,
                         int format, char* buffer, std::size_t size) {
  CallerString title;
  CallerArray<quire_residency_run> given;
  QUIRE_TRY(title.get(name));
  QUIRE_TRY(given.get(runs, count));
  const ResidencyView view{title.c_str(), file_size, given.items()};
  QUIRE_TRY(check_runs(view.runs));
  switch (format) {
    case QUIRE_DRAW_JSON:
      return copy_out_text(buffer, size, residency_json(view));
    case QUIRE_DRAW_TEXT:
      return copy_out_text(buffer, size, residency_text(view));
    case QUIRE_DRAW_SVG:
      return copy_out_text(buffer, size, residency_svg(view));
    default:
      return fail_with(EINVAL, "there is no format %d", format);
  }
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
  if (__builtin_expect(!touches_views(runs, count * sizeof *runs), 1)) {
    return static_cast<ssize_t>(find_residency(mapping, at, std::span(runs, count)));
  }
  int errnum = ENOMEM;
  try {
    const auto found = find_for_view(mapping, at, runs, count);
    if (found.ok()) return static_cast<ssize_t>(found.value());
    errnum = found.errnum();
  } catch (const std::bad_alloc&) {
    // said above
  }
  report_error(errnum, "residency of %s", f.path.c_str());
  return -1;
}

ssize_t quire_residency_json(quire_file* file, char* buffer, size_t size) {
  const FileImpl& f = impl(file);
  const Mapping& mapping = f.inode->mapping;
  int errnum = check_not_forked(mapping.cache).errnum();
  if (errnum == 0) {
    try {
      const auto runs = all_runs(mapping);
      const std::string text = residency_json({f.path, mapping.size.load(memory_order_acquire), runs});
      const auto length = copy_out_text(buffer, size, text);
      if (length.ok()) return static_cast<ssize_t>(length.value());
      errnum = length.errnum();
    } catch (const std::bad_alloc&) {
      errnum = ENOMEM;
    }
  }
  report_error(errnum, "residency of %s", f.path.c_str());
  return -1;
}

ssize_t quire_residency_draw(const char* name, uint64_t file_size, const quire_residency_run* runs, size_t count,
                             int format, char* buffer, size_t size) {
  int errnum = 0;
  try {
    const auto length = draw(name, file_size, runs, count, format, buffer, size);
    if (length.ok()) return static_cast<ssize_t>(length.value());
    errnum = length.errnum();
  } catch (const std::bad_alloc&) {
    errnum = ENOMEM;
  }
  report_error(errnum, "quire_residency_draw");
  return -1;
}

}  // extern "C"
