// Sync and stat. Guarantees: D1.  Locks: none here; writeback and flush take theirs.
#include <cerrno>
#include <ctime>

#include "base/error.h"
#include "cache/writeback.h"
#include "fs/open_file.h"

namespace quire {

LockClass range_lock_class{"range", LockClass::Nesting::ascending};

Status inode_sync(Inode& inode) {
  Mapping& mapping = inode.mapping;
  const Status written = write_back(mapping, 0, UINT64_MAX, CacheContext{});
  const Status flushed = flush(mapping, false);  // also after an error: what could be written becomes durable
  if (written.ok() && flushed.ok()) mapping.failing.store(0, memory_order_release);
  return written.ok() ? flushed : written;
}

Status file_sync(OpenFile& file, bool data_only) {
  Mapping& mapping = file.inode->mapping;
  QUIRE_TRY(check_not_forked(mapping.cache));
  const Status written = write_back(mapping, 0, UINT64_MAX, CacheContext{});
  const Status flushed = flush(mapping, data_only);
  if (written.ok() && flushed.ok()) mapping.failing.store(0, memory_order_release);
  // Failures above are in the error sequence, too: told here, once.
  const int told = check_error(mapping, file.error_seen);
  if (!written.ok()) return written;
  if (!flushed.ok()) return flushed;
  if (told == 0) return {};
  return fail_with(told, "an earlier writeback of this file failed (errno %d) and has been made good since: %s", told,
                   "this is told once to each handle");
}

Status file_stat(OpenFile& file, struct stat* out) {
  Mapping& mapping = file.inode->mapping;
  QUIRE_TRY(check_not_forked(mapping.cache));
  QUIRE_TRY(mapping.backing->stat(out));
  if (S_ISREG(out->st_mode)) out->st_size = static_cast<off_t>(mapping.size.load(memory_order_acquire));
  if (mapping.unstable_count.load(memory_order_acquire) != 0) {
    const std::int64_t ns = mapping.dirtied_ns.load(memory_order_relaxed);
    const timespec dirtied{ns / 1'000'000'000, ns % 1'000'000'000};
    if (dirtied.tv_sec > out->st_mtim.tv_sec ||
        (dirtied.tv_sec == out->st_mtim.tv_sec && dirtied.tv_nsec > out->st_mtim.tv_nsec)) {
      out->st_mtim = dirtied;  // the host learns of it with the writeback
    }
  }
  return {};
}

}  // namespace quire
