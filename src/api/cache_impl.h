// One cache as the APIs see it: the page cache, the table of its files, and what a fork must close.
// Thread safety: every call from any thread; destroy() alone with nothing else running.
//
// The table's lock comes before every other lock and is held over host opens, locks and closes, never over I/O of data.
// A file's states: absent -> (open) attached, with handles -> (last close) idle: folios kept, no descriptors -> (open,
// identity the same) attached, or (identity changed, in doubt) emptied first; idle -> (no folios, or too many) absent.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "api/publisher.h"
#include "api/verity_place.h"
#include "cache/page_cache.h"
#include "cache/residency.h"
#include "cache/views.h"
#include "fs/async.h"
#include "fs/open_file.h"
#include "fs/verity.h"
#include "host/host_backing.h"
#include "quire/result.h"

namespace quire {

// Counts against the cache's memory while it lives.
class MemoryCharge {
 public:
  MemoryCharge(PageCache& cache, std::size_t bytes) : cache_(cache), bytes_(static_cast<std::int64_t>(bytes)) {
    cache_.charge_files(bytes_);
  }
  ~MemoryCharge() { cache_.charge_files(-bytes_); }
  MemoryCharge(const MemoryCharge&) = delete;
  MemoryCharge& operator=(const MemoryCharge&) = delete;

 private:
  PageCache& cache_;
  const std::int64_t bytes_;
};

struct HostInode {
  HostInode(PageCache& cache, std::unique_ptr<HostBacking> backing, std::uint64_t id)
      : charge(cache, kBytes), host(backing.get()), inode(cache, std::move(backing), id) {}
  static const std::size_t kBytes;  // itself, its devices, its place in the table
  MemoryCharge charge;
  HostBacking* host;
  Inode inode;
  // While it is verified, from its first handle to its last (verity_open.cc); the mapping's verifier:
  std::unique_ptr<FileVerity> verity;
  HostBacking* sidecar = nullptr;  // the verity's
  verity::Digest verity_digest;
  std::vector<std::uint8_t> verity_signature;
  std::optional<MemoryCharge> verity_charge;  // of all that, but what the verity charges itself
  HostIdentity identity;                      // while idle: as it was when the last handle was closed
  unsigned handles = 0;
  unsigned writers = 0;
  std::uint64_t idle_since = 0;  // order of becoming idle
};

struct FileImpl : OpenFile {
  FileImpl(PageCache& cache, std::string file_path)
      : charge(cache, sizeof(FileImpl) + file_path.size()), path(std::move(file_path)) {}
  MemoryCharge charge;
  class CacheImpl* owner = nullptr;
  HostInode* host = nullptr;
  const std::string path;     // for messages
  bool may_be_new = false;    // opened with O_CREAT: its first sync is a real one
  bool close_failed = false;  // with next_unclosed: under the table's lock
  FileImpl* next_unclosed = nullptr;
};

struct CacheOptions {
  std::size_t memory = 0;  // bytes; 0: a quarter of the machine's
  unsigned io_depth = 0;   // 0: 128
  bool use_io_uring = true;
  bool use_direct = true;
  bool publish = false;
  bool signal_handler = true;
  bool verity_at_completion = false;  // for comparisons: hashes are read when the data has come
};

class CacheImpl {
 public:
  static Result<std::unique_ptr<CacheImpl>> create(const CacheOptions& options);
  ~CacheImpl();

  Result<FileImpl*> open(const char* path, int flags, mode_t mode) { return open(path, flags, mode, nullptr); }
  // To be verified against what the opener names.
  Result<FileImpl*> open_verified(const char* path, int flags, const AcceptedVerity& accepted) {
    return open(path, flags, 0, &accepted);
  }
  Result<FileImpl*> open_fd(int fd);
  Status close(FileImpl* file);  // frees it on success
  // Writes back and forgets every file. EBUSY while handles are open, or requests are not reaped. On success the object
  // may be deleted.
  Status shut_down(bool discard);

  Status resize(std::size_t memory);

  // Views: views.cc. The view has a handle of its own: it keeps the file, and the lock on it.
  Result<void*> map(FileImpl& file, std::uint64_t offset, std::size_t length, int prot, bool prefault);
  // All views in [address, address + length). EINVAL: one lies there in part. An error of closing a view's handle (the
  // last writer's writeback): the views are gone, the handle stays as after a close that failed.
  Status unmap(char* address, std::size_t length);
  Status sync_views(char* address, std::size_t length);

  // Turning fs-verity on: verity_enable.cc.
  // ETXTBSY, EBUSY: others of this cache have the file open, for writing or at all.
  Status check_only_handle(FileImpl& file);
  // Does `publish` and, if that succeeds, closes the handle and drops all that is cached of the file, in one step for
  // whoever opens it. EBUSY: others of this cache have it open by now; the errnos of publish. Then it is as before.
  Status close_unverified(FileImpl* file, const std::function<Status()>& publish);

  PageCache& cache() { return cache_; }
  AsyncEngine& async() { return async_; }
  std::string stats_json();

  using FileKey = std::pair<std::uint64_t, std::uint64_t>;  // device, inode
  struct ResidencyFile {
    std::uint64_t size;  // bytes
    unsigned handles;    // 0: it is closed, and its folios are kept for the next open
  };
  // The runs from the cursor on of a file by its identity, a slice of the walk; waits for nobody. Residency.cc. Errors:
  // EBUSY (the table is in use just now), ENOENT (no such file here).
  Result<std::uint64_t> try_residency(FileKey key, ResidencyCursor& at, std::span<quire_residency_run> runs,
                                      ResidencyFile* file);

  // Around fork(), by the handlers of fork.cc.
  void before_fork() ACQUIRE(table_mutex_) { table_mutex_.lock(); }
  void after_fork_parent() RELEASE(table_mutex_) { table_mutex_.unlock(); }
  void after_fork_child() RELEASE(table_mutex_);

 private:
  explicit CacheImpl(const CacheOptions& options);  // with a memory
  Result<FileImpl*> open(const char* path, int flags, mode_t mode, const AcceptedVerity* accepted);
  Result<FileImpl*> open_files(HostDescriptors files, std::unique_ptr<FileImpl> file, const AcceptedVerity* accepted);
  Status attach_locked(HostInode& inode, HostDescriptors files, bool writable) REQUIRES(table_mutex_);
  // verity_open.cc
  static Status check_no_sidecar(int fd);
  static Status check_no_orphan(const char* path);
  Status settle_verity_locked(HostInode& inode, const FileImpl& file, const AcceptedVerity* accepted)
      REQUIRES(table_mutex_);
  Status start_verity_locked(HostInode& inode, ReadSidecar found, std::string path) REQUIRES(table_mutex_);
  void end_verity_locked(HostInode& inode) REQUIRES(table_mutex_);
  void forget_unclosed_locked(FileImpl& file) REQUIRES(table_mutex_);
  void make_idle_locked(HostInode& inode) REQUIRES(table_mutex_);
  void trim_idle_locked() REQUIRES(table_mutex_);
  Result<FileImpl*> share_handle(FileImpl& file, bool writable);
  void empty(HostInode& inode);
  Status check_shut_down_locked(bool discard) REQUIRES(table_mutex_);

  const CacheOptions options_;
  PageCache cache_;
  AsyncEngine async_;
  WrittenMap written_map_;  // before the files, which forget what they had in it
  Workers verity_workers_;  // before the files, which wait for theirs
  Mutex table_mutex_{table_lock_class(), LockKey{reinterpret_cast<std::uintptr_t>(this), 0}};
  std::map<FileKey, std::unique_ptr<HostInode>> files_ GUARDED_BY(table_mutex_);
  unsigned handles_ GUARDED_BY(table_mutex_) = 0;
  FileImpl* unclosed_ GUARDED_BY(table_mutex_) = nullptr;  // whose close failed: still open, but may be discarded
  unsigned unclosed_count_ GUARDED_BY(table_mutex_) = 0;
  std::uint64_t idle_clock_ GUARDED_BY(table_mutex_) = 0;
  std::map<char*, View*> views_ GUARDED_BY(table_mutex_);  // by address
  static LockClass& table_lock_class();
  static std::uint64_t next_inode_id();
  std::unique_ptr<Publisher> publisher_;  // last: its thread looks at all of the above
};

// fork.cc: living caches, so that a child closes what it must not keep.
void register_cache(CacheImpl& cache);
void unregister_cache(CacheImpl& cache);

}  // namespace quire
