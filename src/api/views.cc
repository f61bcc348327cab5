// Mapped views as the APIs see them: each has a handle of its own, a copy of the one it was made by, which keeps the
// file open and locked until the view is gone. Guarantees: R3, D1. Locks: the file table, for the list of views and the
// handles' counts; nothing is unmapped, filled or written under it.
#include "cache/views.h"

#include <sys/mman.h>

#include <cerrno>
#include <new>
#include <vector>

#include "api/cache_impl.h"
#include "base/error.h"
#include "cache/view_signal.h"
#include "cache/writeback.h"

namespace quire {

Result<FileImpl*> CacheImpl::share_handle(FileImpl& file, bool writable) {
  auto handle = std::make_unique<FileImpl>(cache_, file.path);
  handle->readable = file.readable;
  handle->writable = writable;
  handle->owner = this;
  handle->host = file.host;
  MutexLock lock(table_mutex_);
  HostInode& inode = *file.host;
  ++inode.handles;
  ++handles_;
  if (handle->writable) ++inode.writers;
  begin_handle(*handle, inode.inode, false);
  handle->error_seen.store(file.error_seen.load(memory_order_acquire), memory_order_relaxed);
  return handle.release();
}

Result<void*> CacheImpl::map(FileImpl& file, std::uint64_t offset, std::size_t length, int prot, bool prefault) {
  QUIRE_TRY(check_not_forked(cache_));
  if (length == 0) return fail_with(EINVAL, "the length is zero");
  if (!is_aligned(offset, kPageSize)) return fail_with(EINVAL, "the offset is no multiple of the page size, 4096");
  if ((prot & ~(PROT_READ | PROT_WRITE)) != 0 || prot == 0) {
    return fail_with(EINVAL, "protection %#x: PROT_READ, alone or with PROT_WRITE, is what a view can have",
                     static_cast<unsigned>(prot));
  }
  if (!file.readable) return fail_with(EACCES, "the file was not opened for reading");
  const bool writable = (prot & PROT_WRITE) != 0;
  if (writable && !file.writable) return fail_with(EACCES, "the file was not opened for writing");
  if (length > kMaxFileSize || offset > kMaxFileSize - round_up(std::uint64_t{length}, kPageSize)) {
    return fail_with(EOVERFLOW, "offset plus length passes the largest file size");
  }
  if (options_.signal_handler) note_view_signals();
  const auto engine = cache_.view_engine();
  QUIRE_TRY(engine);
  const auto handle = share_handle(file, writable);
  QUIRE_TRY(handle);
  const std::uint64_t pages = round_up(std::uint64_t{length}, kPageSize) >> kPageShift;
  const auto added = engine.value()->add(file.inode->mapping, offset >> kPageShift, pages, writable,
                                         static_cast<OpenFile*>(handle.value()));
  if (!added.ok()) {
    static_cast<void>(close(handle.value()));
    return fail(added.errnum());
  }
  View& view = *added.value();
  char* const base = view.base;
  if (prefault) {
    // Nobody else knows the address yet, so nobody unmaps it.
    if (const Status filled = engine.value()->prefault(view); !filled.ok()) {
      engine.value()->remove(view);
      static_cast<void>(close(handle.value()));
      return fail(filled.errnum());
    }
  }
  MutexLock lock(table_mutex_);
  views_.emplace(base, &view);
  return static_cast<void*>(base);
}

Status CacheImpl::unmap(char* address, std::size_t length) {
  QUIRE_TRY(check_not_forked(cache_));
  if (length == 0) return fail_with(EINVAL, "the length is zero");
  if (!is_aligned(reinterpret_cast<std::uintptr_t>(address), kPageSize)) {
    return fail_with(EINVAL, "the address is no multiple of the page size, 4096");
  }
  std::vector<View*> going;
  {
    const auto start = reinterpret_cast<std::uintptr_t>(address);
    const std::uintptr_t most = UINTPTR_MAX - kPageSize;  // past every view
    const std::uintptr_t end = start > most || length > most - start ? most : round_up(start + length, kPageSize);
    MutexLock lock(table_mutex_);
    for (const auto& [base, view] : views_) {
      const auto first = reinterpret_cast<std::uintptr_t>(base);
      const std::uintptr_t last = first + view->bytes();
      if (last <= start || first >= end) continue;
      if (first < start || last > end) return fail_with(EINVAL, "a view is unmapped as a whole: this range cuts one");
      going.push_back(view);
    }
    for (const View* view : going) views_.erase(view->base);
  }
  Status first_error;
  for (View* view : going) {
    auto* const handle = static_cast<FileImpl*>(static_cast<OpenFile*>(view->owner));
    view->engine->remove(*view);
    const Status closed = close(handle);
    if (first_error.ok() && !closed.ok()) first_error = closed;
  }
  return first_error;
}

Status CacheImpl::sync_views(char* address, std::size_t length) {
  QUIRE_TRY(check_not_forked(cache_));
  if (!is_aligned(reinterpret_cast<std::uintptr_t>(address), kPageSize)) {
    return fail_with(EINVAL, "the address is no multiple of the page size, 4096");
  }
  const std::uint64_t bytes = round_up(std::uint64_t{length}, kPageSize);
  for (std::uint64_t done = 0; done < bytes;) {
    // Held, so that nobody unmaps it meanwhile: its handle stays, too.
    const ViewHold hold = hold_view(address + done);
    if (!hold || &hold.mapping().cache != &cache_)
      return fail_with(ENOMEM, "no view of this cache lies at %p", static_cast<void*>(address + done));
    const std::uint64_t first = hold.offset() >> kPageShift;
    const std::uint64_t part = std::min(bytes - done, hold.left());
    const Status synced = sync_range(hold.mapping(), first, first + (part >> kPageShift) - 1, true);
    if (!synced.ok()) {
      static_cast<void>(check_error(hold.mapping(), static_cast<OpenFile*>(hold.owner())->error_seen));
      return synced;
    }
    if (const int told = check_error(hold.mapping(), static_cast<OpenFile*>(hold.owner())->error_seen); told != 0) {
      return fail_with(told, "an earlier writeback of this file failed and has been made good since");
    }
    done += part;
  }
  return {};
}

}  // namespace quire
