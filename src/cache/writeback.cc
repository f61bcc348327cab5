// Batches of dirty folios to the backing, flush, and the error sequence told to handles. See writeback.h.
#include "cache/writeback.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <span>

#include "base/defect.h"
#include "base/error.h"
#include "cache/views.h"

namespace quire {
namespace {

constexpr std::size_t kBatchFolios = 256;        // 1 MiB with single-page folios
constexpr std::uint64_t kMaxRequest = 1u << 20;  // bytes
constexpr std::size_t kBatchRequests = 64;

struct BatchFolio {
  Folio* folio;
  std::uint64_t offset;  // bytes in the file
  std::uint64_t length;  // of its bytes that belong to the file when writeback began
  bool failed;
};

// One batch: collected under the invalidate lock, written, and ended. Lives on the stack of who writes back.
class Batch {
 public:
  Batch(Mapping& mapping, int* error) : mapping_(mapping), error_(error) {}

  bool full() const { return folios_.size() == count_ || pages_ >= kWritebackBatchPages; }
  bool empty() const { return count_ == 0; }

  // Moves the folio (referenced, not locked) into writeback if it is dirty, and takes over the reference. False: it is
  // being written by somebody else, and the reference stays the caller's.
  bool add(Folio& folio, std::uint64_t page);
  std::uint64_t pages() const { return pages_; }
  void write();  // submits, waits, commits, ends writeback, drops the references

 private:
  void plan(std::size_t first, std::size_t end);
  void submit();
  void failed(std::uint64_t offset, std::uint64_t length, int errnum);

  Mapping& mapping_;
  int* error_;
  std::size_t count_ = 0;
  std::uint64_t pages_ = 0;
  std::size_t requests_count_ = 0;
  std::size_t vectors_count_ = 0;
  std::uint64_t end_of_file_ = 0;
  std::array<BatchFolio, kBatchFolios> folios_;
  std::array<Request, kBatchRequests> requests_;
  std::array<iovec, kBatchFolios + kBatchRequests> vectors_;
};

bool Batch::add(Folio& folio, std::uint64_t page) {
  lock_folio(folio);
  if (folio.has(kWriteback)) {
    unlock_folio(folio);
    return false;
  }
  const bool ours = folio_is(folio, &mapping_, page);
  if (ours && folio.has(kDirty) && !has_defect(Defect::writeback_leaves_views_open)) protect_in_views(mapping_, folio);
  if (!ours || !begin_writeback(mapping_, folio)) {
    unlock_folio(folio);
    mapping_.cache.put_folio(folio);
    return true;
  }
  // Appends into this folio need its lock, truncates the invalidate lock: this is what its bytes belong to.
  const std::uint64_t size = mapping_.size.load(memory_order_acquire);
  const std::uint64_t offset = folio.index.load(memory_order_relaxed) << kPageShift;
  const std::uint64_t length = size > offset ? std::min<std::uint64_t>(size - offset, folio.size_bytes()) : 0;
  pages_ += folio.pages();
  unlock_folio(folio);
  end_of_file_ = std::max(end_of_file_, size);
  folios_[count_++] = BatchFolio{&folio, offset, length, false};
  return true;
}

void Batch::failed(std::uint64_t offset, std::uint64_t length, int errnum) {
  if (*error_ == 0) *error_ = errnum;
  record_error(mapping_, errnum);
  mapping_.cache.stats.count(Counter::writeback_errors);
  for (std::size_t i = 0; i < count_; ++i) {
    BatchFolio& f = folios_[i];
    if (f.offset < offset + length && offset < f.offset + f.folio->size_bytes()) f.failed = true;
  }
}

// Prepares and queues the contiguous folios [first, end) of the batch.
void Batch::plan(std::size_t first, std::size_t end) {
  const std::uint64_t align = mapping_.backing->write_alignment();
  std::uint64_t offset = folios_[first].offset;
  const std::uint64_t stop = round_up(folios_[end - 1].offset + folios_[end - 1].length, align);
  std::size_t at = first;
  while (offset < stop) {
    if (requests_count_ == requests_.size()) submit();
    std::uint64_t end_of_request = std::min(stop, offset + kMaxRequest);
    // A partial last block goes by itself: the host takes it through another descriptor.
    const std::uint64_t whole = round_down(end_of_request, kPageSize);
    if (whole > offset) end_of_request = whole;
    const auto prepared = mapping_.backing->prepare(offset, end_of_request - offset);
    if (!prepared.ok()) {
      failed(offset, stop - offset, prepared.errnum());
      return;
    }
    const Extent& extent = prepared.value();
    Request& request = requests_[requests_count_++];
    request = Request{};
    request.op = IoOp::write;
    request.offset = extent.address;
    request.context = reinterpret_cast<void*>(offset);  // where in the file, for commit
    const std::size_t vectors_first = vectors_count_;
    std::uint64_t left = extent.length;
    while (left != 0) {
      while (folios_[at].offset + folios_[at].folio->size_bytes() <= offset) ++at;
      const std::uint64_t inside = offset - folios_[at].offset;
      const std::uint64_t n = std::min<std::uint64_t>(left, folios_[at].folio->size_bytes() - inside);
      vectors_[vectors_count_++] = iovec{folios_[at].folio->bytes() + inside, n};
      offset += n;
      left -= n;
      if (vectors_count_ == vectors_.size() && left != 0) {  // shorter request; the rest is prepared again
        break;
      }
    }
    request.buffers = std::span(&vectors_[vectors_first], vectors_count_ - vectors_first);
    if (vectors_count_ == vectors_.size()) submit();
  }
}

void Batch::submit() {
  if (requests_count_ == 0) return;
  std::array<Request*, kBatchRequests> list;
  for (std::size_t i = 0; i < requests_count_; ++i) list[i] = &requests_[i];
  mapping_.backing->device().execute(std::span(list.data(), requests_count_));
  mapping_.cache.stats.count(Counter::writeback_requests, requests_count_);
  note_changed(mapping_);
  for (std::size_t i = 0; i < requests_count_; ++i) {
    Request& request = requests_[i];
    const std::uint64_t length = request.length();
    const std::uint64_t offset = reinterpret_cast<std::uint64_t>(request.context);
    if (request.result != static_cast<std::int64_t>(length)) {
      mapping_.backing->write_failed(offset, length);
      failed(offset, length, request.result < 0 ? static_cast<int>(-request.result) : EIO);
      continue;
    }
    const Status committed = mapping_.backing->commit(offset, length, end_of_file_);
    if (!committed.ok()) failed(offset, length, committed.errnum());
  }
  requests_count_ = 0;
  vectors_count_ = 0;
}

void Batch::write() {
  for (std::size_t i = 0; i < count_;) {
    std::size_t end = i + 1;
    while (end < count_ && folios_[end].offset == folios_[end - 1].offset + folios_[end - 1].length &&
           folios_[end - 1].length == folios_[end - 1].folio->size_bytes() && folios_[end].length != 0) {
      ++end;
    }
    if (folios_[i].length != 0) plan(i, end);
    i = end;
  }
  submit();
  std::uint64_t written = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    if (!folios_[i].failed) written += folios_[i].length;
    end_writeback(mapping_, *folios_[i].folio, !folios_[i].failed);
    mapping_.cache.put_folio(*folios_[i].folio);
  }
  mapping_.cache.stats.count(Counter::writeback_folios, count_);
  mapping_.cache.stats.count(Counter::writeback_bytes, written);
}

// The page after the folio's last.
std::uint64_t end_page(const Folio& folio) { return folio.index.load(memory_order_relaxed) + folio.pages(); }

void wait_for_writeback(Mapping& mapping, Folio& folio) {
  while (folio.has(kWriteback)) {
    const std::uint32_t ticket = mapping.writeback_queue.prepare();
    if (!folio.has(kWriteback)) {
      mapping.writeback_queue.cancel();
      return;
    }
    mapping.writeback_queue.wait(ticket);
  }
}

// The first page at or after *page in dirty state (or in writeback, if those count too).
bool next_candidate(Mapping& mapping, std::uint64_t* page, std::uint64_t last_page, bool in_writeback_too) {
  MutexLock lock(mapping.pages.mutex());  // both marks at one instant: a write that fails moves a page between them
  std::uint64_t dirty = *page;
  const bool found = !mapping.pages.find_marked(&dirty, last_page, kMarkDirty).empty();
  std::uint64_t writing = *page;
  if (in_writeback_too && !mapping.pages.find_marked(&writing, last_page, kMarkWriteback).empty()) {
    *page = found ? std::min(dirty, writing) : writing;
    return true;
  }
  if (found) *page = dirty;
  return found;
}

}  // namespace

void wait_for_writeback(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page) {
  for (std::uint64_t page = first_page; page <= last_page;) {
    {
      MutexLock lock(mapping.pages.mutex());
      if (mapping.pages.find_marked(&page, last_page, kMarkWriteback).empty()) return;
    }
    Folio* folio = get_folio(mapping, page);
    std::uint64_t next = page + 1;
    if (folio != nullptr) {
      wait_for_writeback(mapping, *folio);
      next = end_page(*folio);
      mapping.cache.put_folio(*folio);
    }
    if (next <= page) return;  // the last page there is
    page = next;
  }
}

bool next_dirty(Mapping& mapping, std::uint64_t* page, std::uint64_t last_page) {
  return next_candidate(mapping, page, last_page, false);
}

bool write_back_some(Mapping& mapping, WritebackCursor* at, std::uint64_t last_page, std::uint64_t max_pages, bool wait,
                     const CacheContext& context) {
  const std::uint64_t before = at->pages;
  while (at->page <= last_page && next_candidate(mapping, &at->page, last_page, wait)) {
    if (at->pages - before >= max_pages) return false;
    const std::uint64_t batch_last = std::min(last_page, at->page + (kWritebackBatchPages - 1));
    Folio* busy = nullptr;
    {
      RangeGuard instantiate(mapping.invalidate);
      const bool covered = context.covers(at->page, batch_last) || has_defect(Defect::writeback_without_instantiate);
      if (!covered) instantiate.acquire(at->page, batch_last, kInstantiate);
      Batch batch(mapping, &at->error);
      while (at->page <= batch_last && !batch.full()) {
        if (!next_candidate(mapping, &at->page, batch_last, wait)) {
          at->page = batch_last + 1;
          break;
        }
        Folio* folio = get_folio(mapping, at->page);
        // A large one may begin before the page and end after batch_last. It is not split while we have a reference.
        const std::uint64_t next = folio == nullptr ? at->page + 1 : end_page(*folio);
        at->pages += next - at->page;
        if (folio != nullptr && !batch.add(*folio, at->page)) {
          if (wait) {
            busy = folio;  // nothing of ours may be unsubmitted while we wait for another's
            break;
          }
          mapping.cache.put_folio(*folio);
        }
        at->page = next;
        if (next == 0) break;
      }
      if (!batch.empty()) batch.write();
    }
    if (busy != nullptr) {
      wait_for_writeback(mapping, *busy);
      mapping.cache.put_folio(*busy);
      continue;  // the page is still its: the first page, perhaps, which is no wrap
    }
    if (at->page == 0) return true;  // wrapped: the last page there is
  }
  return true;
}

Status write_back(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, const CacheContext& context) {
  WritebackCursor at{.page = first_page};
  write_back_some(mapping, &at, std::min(last_page, last_page_now(mapping)), UINT64_MAX, true, context);
  if (at.error != 0) {
    set_failing(mapping, at.error);
    return fail(at.error);
  }
  return {};
}

Status write_back_size(Mapping& mapping, std::uint64_t end) {
  const std::uint64_t stored = mapping.backing->size();
  if (stored >= std::min(end, mapping.size.load(memory_order_acquire))) return {};
  return write_back(mapping, stored >> kPageShift, UINT64_MAX, CacheContext{});
}

Status flush(Mapping& mapping, bool data_only) {
  MutexLock lock(mapping.flush_mutex);
  bool unflushed;
  {
    MutexLock pages(mapping.pages.mutex());
    unflushed = mapping.pages.marked(kMarkUnflushed);
  }
  const bool changed = mapping.backing_changed.load(memory_order_acquire);
  if (!unflushed && !changed && (data_only || !mapping.metadata_changed.load(memory_order_acquire))) return {};
  // Before the sync: what changes while it runs sets them again.
  mapping.backing_changed.store(false, memory_order_release);
  if (!data_only) mapping.metadata_changed.store(false, memory_order_release);
  const std::uint32_t epoch = begin_flush_epoch(mapping);
  const Status synced = mapping.backing->sync(data_only);
  mapping.cache.stats.count(Counter::flushes);
  if (!synced.ok()) {
    note_changed(mapping);
    mapping.cache.stats.count(Counter::flush_errors);
    set_failing(mapping, synced.errnum());
    record_error(mapping, synced.errnum());
  }
  end_flush(mapping, epoch, synced.ok());
  // Last: who has seen the new count finds the folios dirty (sync_range).
  if (!synced.ok()) mapping.flush_failures.fetch_add(1, memory_order_release);
  return synced;
}

Status sync_range(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page, bool data_only,
                  const CacheContext& context) {
  constexpr int kAttempts = 3;
  for (int i = 0; i < kAttempts; ++i) {
    const std::uint64_t failures = mapping.flush_failures.load(memory_order_acquire);
    const Status written = write_back(mapping, first_page, last_page, context);
    const Status flushed = flush(mapping, data_only);  // also after an error: what could be written becomes durable
    if (!written.ok()) return written;
    if (!flushed.ok()) return flushed;
    // Somebody else's flush may have failed after our write and made our folios dirty again; the host reports such a
    // failure once, and our own flush then succeeded without them.
    if (mapping.flush_failures.load(memory_order_acquire) == failures) return {};
  }
  return fail_with(EIO, "flushes of this file keep failing beside this one");
}

// An error sequence is (count << 17) | seen << 16 | errno.
namespace {
constexpr std::uint64_t kSeen = 1u << 16;
constexpr std::uint64_t kCountStep = 1u << 17;
}  // namespace

std::uint64_t sample_error(const Mapping& mapping) {
  const std::uint64_t now = mapping.error_sequence.load(memory_order_acquire);
  return now == 0 || (now & kSeen) != 0 ? now : 0;
}

void record_error(Mapping& mapping, int errnum) {
  std::uint64_t old = mapping.error_sequence.load(memory_order_relaxed);
  std::uint64_t next;
  do {
    next = ((old & ~(kCountStep - 1)) + kCountStep) | static_cast<std::uint64_t>(errnum & 0xffff);
  } while (!mapping.error_sequence.compare_exchange(old, next, memory_order_acq_rel, memory_order_relaxed));
}

int check_error(Mapping& mapping, Atomic<std::uint64_t>& seen) {
  std::uint64_t now = mapping.error_sequence.load(memory_order_acquire);
  if (has_defect(Defect::error_told_to_one_handle) && (now & kSeen) != 0) return 0;
  while ((now & kSeen) == 0 && now != 0) {
    if (mapping.error_sequence.compare_exchange(now, now | kSeen, memory_order_acq_rel, memory_order_acquire)) {
      now |= kSeen;
    }
  }
  std::uint64_t before = seen.load(memory_order_acquire);
  do {
    if (before / kCountStep >= now / kCountStep) return 0;  // told, perhaps to another thread with this handle
  } while (!seen.compare_exchange(before, now, memory_order_acq_rel, memory_order_acquire));
  return static_cast<int>(now & 0xffff);
}

}  // namespace quire
