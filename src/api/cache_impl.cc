// Opening, closing and keeping files. Guarantees: R3, D1.  Locks: the file table (before all others).
#include "api/cache_impl.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>

#include "base/error.h"
#include "cache/fill.h"
#include "cache/flusher.h"
#include "cache/invalidate.h"
#include "cache/writeback.h"
#include "device/fork_guard.h"

namespace quire {
namespace {

constexpr std::size_t kMaxIdleFiles = 256;
constexpr std::size_t kWrittenMapShare = 1024;  // the map of written blocks takes one part in so many, if it is used
constexpr std::size_t kGrowsTo = 64;  // times the memory it was made with; address space and a little more a time

void set_flags(FileImpl& file, int open_flags) {
  file.readable = (open_flags & O_ACCMODE) != O_WRONLY;
  file.writable = (open_flags & O_ACCMODE) != O_RDONLY;
  file.direct = (open_flags & O_DIRECT) != 0;
  file.append = (open_flags & O_APPEND) != 0;
  file.full_sync = (open_flags & O_SYNC) == O_SYNC;
  file.data_sync = (open_flags & O_DSYNC) != 0;
}

// All is written and flushed, and no flush is in flight (the flusher's, a reader's) that may yet fail and make folios
// dirty again.
bool is_settled(Mapping& mapping) {
  if (!mapping.flush_mutex.try_lock()) return false;
  const bool settled =
      mapping.unstable_count.load(memory_order_acquire) == 0 && !mapping.backing_changed.load(memory_order_acquire);
  mapping.flush_mutex.unlock();
  return settled;
}

constexpr unsigned kDefaultDepth = 128;
constexpr unsigned kRequestsPerDepth = 8;  // submitted and not yet reaped, for each that the device may have

// What takes all the processor time that it is given must not stand in the way of who reads what is hashed, nor of the
// I/O thread: with the priority of everybody else the disk is idle while it waits for its turn.
constexpr int kVerityNice = 19;

// Hashing is all that they do.
unsigned verity_threads() {
  const long processors = sysconf(_SC_NPROCESSORS_ONLN);
  return static_cast<unsigned>(std::clamp<long>(processors, 2, Workers::kMost));
}

unsigned depth_of(const CacheOptions& options) { return options.io_depth != 0 ? options.io_depth : kDefaultDepth; }

void describe_failure(const AsyncRequest& request, int errnum) {
  const FileImpl& file = *static_cast<FileImpl*>(request.file);
  report_error(errnum, "submitted %s of %zu bytes at offset %llu of %s", name_of(request.kind), request.count,
               static_cast<unsigned long long>(request.offset), file.path.c_str());
}

}  // namespace

const std::size_t HostInode::kBytes = sizeof(HostInode) + sizeof(HostBacking) + sizeof(FileDevice) + 64;

std::uint64_t CacheImpl::next_inode_id() {
  static Atomic<std::uint64_t> last;
  return last.fetch_add(1, memory_order_relaxed) + 1;
}

LockClass& CacheImpl::table_lock_class() {
  static LockClass lock_class{"file table", LockClass::Nesting::ascending};  // fork takes them all
  return lock_class;
}

CacheImpl::CacheImpl(const CacheOptions& options)
    : options_(options),
      async_(cache_, std::min(depth_of(options), UINT_MAX / kRequestsPerDepth) * kRequestsPerDepth,
             options.use_io_uring, &describe_failure),
      written_map_({.max_bytes = options.memory / kWrittenMapShare,
                    .charge =
                        [](void* cache, std::size_t bytes) {
                          static_cast<PageCache*>(cache)->charge_files(static_cast<std::int64_t>(bytes));
                        },
                    .owner = &cache_}),
      verity_workers_(verity_threads(), "quire-verity", kVerityNice) {}

Result<std::unique_ptr<CacheImpl>> CacheImpl::create(const CacheOptions& options) {
  if (device_in_forked_child()) {
    return fail_with(
        ENOTRECOVERABLE,
        "this process was forked from one that had used quire: exec a program, or fork before the first cache");
  }
  const std::size_t machine =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  CacheOptions known = options;
  if (known.memory == 0) known.memory = machine / 4;
  std::unique_ptr<CacheImpl> impl(new (std::nothrow) CacheImpl(known));
  if (impl == nullptr) return fail(ENOMEM);
  PageCacheOptions cache_options;
  cache_options.memory = known.memory;
  cache_options.max_memory = std::min(machine, cache_options.memory * kGrowsTo);
  cache_options.io_depth = depth_of(options);
  cache_options.use_io_uring = options.use_io_uring;
  QUIRE_TRY(impl->cache_.create(cache_options));
  register_cache(*impl);
  if (options.publish) {
    impl->publisher_ = std::make_unique<Publisher>(*impl);
    QUIRE_TRY(impl->publisher_->start());
  }
  return impl;
}

CacheImpl::~CacheImpl() { unregister_cache(*this); }

void CacheImpl::empty(HostInode& inode) {
  drain_ahead(inode.inode.mapping);
  // No handle is usable: nothing else reads, writes or fills, but for reclaim and the flusher, whom `remove` drains.
  RangeGuard remove(inode.inode.mapping.invalidate);
  remove.acquire(0, kRangeEnd, kRemove);
  remove_folios(inode.inode.mapping, 0, UINT64_MAX);
}

Status CacheImpl::attach_locked(HostInode& inode, HostDescriptors files, bool writable) {
  if (inode.handles != 0) {
    if (!writable) return {};
    return inode.host->allow_writing(std::move(files));
  }
  QUIRE_TRY(inode.host->attach(std::move(files), writable));
  // Under the lock nobody else changes it (nobody of quire's): is it what we knew?
  const auto locked = inode.host->identity();
  const bool same = locked.ok() && inode.identity.certain && locked.value().birth_ns == inode.identity.birth_ns &&
                    locked.value().modified_ns == inode.identity.modified_ns &&
                    locked.value().changed_ns == inode.identity.changed_ns &&
                    locked.value().size == inode.identity.size;
  if (!same) empty(inode);  // in doubt, too
  inode.inode.mapping.size.store(inode.host->size(), memory_order_release);
  return {};
}

// `file` says how it was opened; the rest of it is filled in here.
Result<FileImpl*> CacheImpl::open_files(HostDescriptors files, std::unique_ptr<FileImpl> file,
                                        const AcceptedVerity* accepted) {
  const auto identity = identify_host_file(files.buffered);
  QUIRE_TRY(identity);
  if (file->writable) QUIRE_TRY(check_no_sidecar(files.buffered));
  MutexLock lock(table_mutex_);
  QUIRE_TRY(check_not_forked(cache_));
  const FileKey key{identity.value().device, identity.value().inode};
  auto found = files_.find(key);
  if (found == files_.end()) {
    HostOptions host_options{options_.use_direct, options_.use_io_uring, &cache_.io_stats, cache_.io_thread.get(),
                             &written_map_};
    auto fresh = std::make_unique<HostInode>(cache_, std::make_unique<HostBacking>(host_options), next_inode_id());
    found = files_.emplace(key, std::move(fresh)).first;
  }
  HostInode& inode = *found->second;
  const bool wrote = inode.host->may_write();
  Status attached = attach_locked(inode, std::move(files), file->writable);
  if (attached.ok()) {
    try {
      attached = settle_verity_locked(inode, *file, accepted);
    } catch (const std::bad_alloc&) {
      attached = fail(ENOMEM);
    }
    if (!attached.ok() && !wrote) inode.host->stop_writing();
  }
  if (!attached.ok()) {
    if (inode.handles == 0) {
      if (inode.host->attached()) inode.host->detach();
      if (inode.inode.mapping.page_count.load(memory_order_relaxed) == 0) files_.erase(found);
    }
    return fail(attached.errnum());
  }
  ++inode.handles;
  ++handles_;
  if (file->writable) ++inode.writers;
  begin_handle(*file, inode.inode, inode.handles == 1);
  if (file->readable) file->short_hits = &inode.inode.mapping;
  if (file->may_be_new) note_changed(inode.inode.mapping);
  file->error_seen.store(sample_error(inode.inode.mapping), memory_order_relaxed);
  file->owner = this;
  file->host = &inode;
  return file.release();
}

Result<FileImpl*> CacheImpl::open(const char* path, int flags, mode_t mode, const AcceptedVerity* accepted) {
  QUIRE_TRY(check_not_forked(cache_));
  if ((flags & O_ACCMODE) == O_ACCMODE)
    return fail_with(EINVAL, "the access mode is none of O_RDONLY, O_WRONLY, O_RDWR");
  if ((flags & O_CREAT) != 0) QUIRE_TRY(check_no_orphan(path));
  auto files = open_host_path(path, flags, mode);
  QUIRE_TRY(files);
  auto wanted = std::make_unique<FileImpl>(cache_, path);
  set_flags(*wanted, flags);
  wanted->may_be_new = wanted->writable && (flags & O_CREAT) != 0;
  auto file = open_files(files.take(), std::move(wanted), accepted);
  QUIRE_TRY(file);
  if ((flags & O_TRUNC) != 0 && file.value()->writable && !file.value()->host->host->block_device()) {
    const Status truncated = file_truncate(*file.value(), 0);
    if (!truncated.ok()) {
      static_cast<void>(close(file.value()));
      return fail(truncated.errnum());
    }
  }
  return file;
}

Result<FileImpl*> CacheImpl::open_fd(int fd) {
  QUIRE_TRY(check_not_forked(cache_));
  auto wanted = std::make_unique<FileImpl>(cache_, "descriptor " + std::to_string(fd));
  int flags = 0;
  auto files = open_host_fd(fd, &flags);
  QUIRE_TRY(files);
  set_flags(*wanted, flags);
  return open_files(files.take(), std::move(wanted), nullptr);
}

Status CacheImpl::close(FileImpl* file) {
  QUIRE_TRY(check_not_forked(cache_));
  async_.finish(*file);
  HostInode& inode = *file->host;
  Mapping& mapping = inode.inode.mapping;
  if (inode.verity != nullptr) inode.verity->print_bad();  // our handle keeps it; not under the table's lock
  for (;;) {
    {
      MutexLock lock(table_mutex_);
      const bool last_writer = file->writable && inode.writers == 1;
      if (!last_writer || is_settled(mapping)) {
        --inode.handles;
        --handles_;
        forget_unclosed_locked(*file);
        if (file->writable && --inode.writers == 0) inode.host->stop_writing();
        if (inode.handles == 0) {
          make_idle_locked(inode);
          trim_idle_locked();
        }
        break;
      }
    }
    // The last writer writes back before it gives up the lock; outside the table's lock, which others need meanwhile.
    const Status synced = inode_sync(inode.inode);
    if (!synced.ok()) {
      static_cast<void>(check_error(mapping, file->error_seen));  // this handle is told just now
      MutexLock lock(table_mutex_);
      if (!file->close_failed) {
        file->close_failed = true;
        file->next_unclosed = unclosed_;
        unclosed_ = file;
        ++unclosed_count_;
      }
      return synced;
    }
  }
  delete file;
  return {};
}

void CacheImpl::forget_unclosed_locked(FileImpl& file) {
  if (!file.close_failed) return;
  FileImpl** link = &unclosed_;
  while (*link != &file) link = &(*link)->next_unclosed;
  *link = file.next_unclosed;
  --unclosed_count_;
}

void CacheImpl::make_idle_locked(HostInode& inode) {
  drain_ahead(inode.inode.mapping);
  end_verity_locked(inode);
  cache_.flusher().forget(inode.inode.mapping);  // it may be about to flush what a close has just settled
  const auto identity = inode.host->identity();
  inode.identity = identity.ok() ? identity.value() : HostIdentity{};
  inode.host->detach();
  inode.idle_since = ++idle_clock_;
}

void CacheImpl::trim_idle_locked() {
  std::size_t idle = 0;
  for (auto it = files_.begin(); it != files_.end();) {
    HostInode& inode = *it->second;
    const bool useless = inode.inode.mapping.page_count.load(memory_order_acquire) == 0 || !inode.identity.certain;
    if (inode.handles == 0 && useless) {
      empty(inode);
      it = files_.erase(it);
      continue;
    }
    idle += inode.handles == 0;
    ++it;
  }
  while (idle > kMaxIdleFiles) {
    auto oldest = files_.end();
    for (auto it = files_.begin(); it != files_.end(); ++it) {
      if (it->second->handles != 0) continue;
      if (oldest == files_.end() || it->second->idle_since < oldest->second->idle_since) oldest = it;
    }
    empty(*oldest->second);
    files_.erase(oldest);
    --idle;
  }
}

Status CacheImpl::resize(std::size_t memory) {
  QUIRE_TRY(check_not_forked(cache_));
  return cache_.resize(memory);
}

Status CacheImpl::check_shut_down_locked(bool discard) {
  const auto open = handles_ - static_cast<unsigned>(views_.size());  // each view has a handle of its own
  if (open != 0 && !discard) {
    return fail_with(EBUSY, "%u file handles are still open: close them first", open);
  }
  if (open != unclosed_count_) {
    return fail_with(EBUSY, "%u file handles are still open, and QUIRE_DISCARD drops only those whose close has failed",
                     open - unclosed_count_);
  }
  if (!views_.empty() && !discard) {
    return fail_with(EBUSY, "%zu views are still mapped: unmap them first", views_.size());
  }
  return {};
}

Status CacheImpl::shut_down(bool discard) {
  QUIRE_TRY(check_not_forked(cache_));
  {
    MutexLock lock(table_mutex_);
    QUIRE_TRY(check_shut_down_locked(discard));
  }
  if (discard) {
    async_.discard();  // outside the table's lock: workers wait for what its holders wait for
    static_cast<void>(unmap(nullptr, SIZE_MAX));  // a close that fails: its handle goes below
  } else if (const unsigned left = async_.outstanding(); left != 0) {
    return fail_with(EBUSY, "%u requests are not yet reaped: reap them first", left);
  }
  MutexLock lock(table_mutex_);
  QUIRE_TRY(check_shut_down_locked(discard));
  while (unclosed_ != nullptr) {
    FileImpl* file = unclosed_;
    unclosed_ = file->next_unclosed;
    --file->host->handles;
    delete file;
  }
  unclosed_count_ = 0;
  handles_ = 0;
  for (auto& [key, inode] : files_) {
    end_verity_locked(*inode);  // of handles that were discarded
    empty(*inode);
  }
  files_.clear();
  return {};
}

void CacheImpl::after_fork_child() {
  cache_.forked.store(true, memory_order_relaxed);
  for (auto& [key, inode] : files_) {
    inode->inode.mapping.gate.poison();
    inode->host->close_in_child();
    if (inode->sidecar != nullptr) inode->sidecar->close_in_child();
  }
  table_mutex_.unlock();
}

}  // namespace quire
