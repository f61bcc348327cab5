// Sync and stat. Guarantees: D1.  Locks: none here; writeback and flush take theirs.
#include <fcntl.h>

#include <cerrno>
#include <ctime>

#include "base/error.h"
#include "cache/flusher.h"
#include "cache/writeback.h"
#include "fs/open_file.h"

namespace quire {

LockClass range_lock_class{"range", LockClass::Nesting::ascending};

Status inode_sync(Inode& inode) {
  Mapping& mapping = inode.mapping;
  const Status synced = sync_range(mapping, 0, UINT64_MAX, false);
  if (synced.ok()) mapping.failing.store(0, memory_order_release);
  return synced;
}

Status file_sync(OpenFile& file, bool data_only) {
  Mapping& mapping = file.inode->mapping;
  QUIRE_TRY(check_not_forked(mapping.cache));
  const Status synced = sync_range(mapping, 0, UINT64_MAX, data_only);
  if (synced.ok()) mapping.failing.store(0, memory_order_release);
  // A failure above is in the error sequence, too: told here, once.
  const int told = check_error(mapping, file.error_seen);
  if (!synced.ok() || told == 0) return synced;
  return fail_with(told,
                   "an earlier writeback of this file failed and has been made good since; each handle is told once");
}

Status sync_as_opened(OpenFile& file, ByteRange bytes, unsigned io_flags) {
  if ((io_flags & kIoStore) != 0) return {};
  const bool full = file.full_sync || (io_flags & kIoSync) != 0;
  if (!full && !file.data_sync && (io_flags & kIoDataSync) == 0) return {};
  Mapping& mapping = file.inode->mapping;
  const Status synced = sync_range(mapping, bytes.first_page(), bytes.last_page(), !full);
  if (!synced.ok()) static_cast<void>(check_error(mapping, file.error_seen));
  return synced;
}

Status file_sync_range(OpenFile& file, std::uint64_t offset, std::uint64_t length, unsigned flags) {
  constexpr unsigned kKnown = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  if ((flags & ~kKnown) != 0) {
    return fail_with(EINVAL, "sync_file_range flags %#x: WAIT_BEFORE (1), WRITE (2) and WAIT_AFTER (4) are known",
                     flags);
  }
  Mapping& mapping = file.inode->mapping;
  QUIRE_TRY(check_not_forked(mapping.cache));
  const std::uint64_t end = length == 0 || length > kMaxFileSize - offset ? kMaxFileSize : offset + length;
  if (offset >= end || mapping.unstable_count.load(memory_order_acquire) == 0) return {};
  const ByteRange bytes{offset, end};
  if ((flags & SYNC_FILE_RANGE_WAIT_BEFORE) != 0) wait_for_writeback(mapping, bytes.first_page(), bytes.last_page());
  if ((flags & SYNC_FILE_RANGE_WRITE) != 0 && (flags & SYNC_FILE_RANGE_WAIT_AFTER) != 0) {
    return write_back(mapping, bytes.first_page(), bytes.last_page(), CacheContext{});
  }
  if ((flags & SYNC_FILE_RANGE_WRITE) != 0) {
    mapping.cache.flusher().ask(mapping, bytes.first_page(), bytes.last_page(), false);
  }
  if ((flags & SYNC_FILE_RANGE_WAIT_AFTER) != 0) wait_for_writeback(mapping, bytes.first_page(), bytes.last_page());
  return {};
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
