// Synchronous and asynchronous fills over FillBatch. See fill.h.
#include "cache/fill.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <new>
#include <utility>

#include "base/defect.h"
#include "base/error.h"
#include "cache/split.h"
#include "sync/grant.h"

namespace quire {

int FillBatch::insert(std::uint64_t first, std::uint64_t last, FrameReservation& frames, unsigned order,
                      std::uint64_t mark_page, std::uint32_t flags) {
  unsigned try_order = order;
  reached_ = first;
  for (std::uint64_t page = first; page <= last && count_ < kMaxFolios;) {
    try_order = order_within(page, last, std::min(try_order, frames.max_order()));
    Folio* frame = frames.take(try_order);
    if (frame == nullptr) return 0;
    const std::uint64_t pages = frame->pages();
    const bool marks = !marked_ && page >= mark_page;                    // not one that holds pages asked for now
    const bool prefetched = (flags & kAhead) != 0 || page >= mark_page;  // the mark is on the first not asked for
    const Status inserted = insert_new(mapping_, *frame, page, flags | (marks ? kReadahead : 0U), prefetched);
    if (inserted.ok()) {
      marked_ |= marks;
      if (has_defect(Defect::fill_uptodate_before_read)) make_uptodate(*frame);
      folios_[count_++] = frame;
    } else {
      frames.put(*frame);
      if (inserted.errnum() != EEXIST) return inserted.errnum();
      if (try_order != 0) {
        --try_order;  // some of its pages are there: not ours to fill
        continue;
      }
    }
    reached_ = page + pages;
    if (last - page < pages) break;
    page += pages;
    try_order = order;
  }
  return 0;
}

// Queues the part of a written extent that starts in folio *at, as far as contiguous folios go.
bool FillBatch::add_request(const Extent& extent, std::size_t* at) {
  if (request_count_ == kMaxRequests) return false;
  Request& request = *new (&requests_[request_count_]) Request;
  request.op = IoOp::read;
  request.offset = extent.address;
  const std::size_t vectors_first = vector_count_;
  std::uint64_t offset = extent.offset;
  const std::uint64_t end = extent.offset + extent.length;
  for (std::size_t i = *at; offset < end && vector_count_ < vectors_.size(); ++i) {
    const std::uint64_t start = folios_[i]->index.load(memory_order_relaxed) << kPageShift;
    const std::uint64_t inside = offset - start;
    const std::uint64_t n = std::min<std::uint64_t>(end - offset, folios_[i]->size_bytes() - inside);
    vectors_[vector_count_++] = iovec{folios_[i]->bytes() + inside, n};
    offset += n;
  }
  if (offset < end) return false;  // no room for its vectors
  request.buffers = std::span(&vectors_[vectors_first], vector_count_ - vectors_first);
  file_offsets_[request_count_] = extent.offset;
  request_list_[request_count_] = &request;
  ++request_count_;
  return true;
}

int FillBatch::plan() {
  backing_size_ = mapping_.backing->size();
  planned_to_ = UINT64_MAX;
  for (std::size_t i = 0; i < count_;) {
    const std::uint64_t start = folios_[i]->index.load(memory_order_relaxed) << kPageShift;
    std::size_t end_index = i;
    std::uint64_t end = start;
    while (end_index < count_ && folios_[end_index]->index.load(memory_order_relaxed) << kPageShift == end) {
      end += folios_[end_index++]->size_bytes();
    }
    std::size_t at = i;
    for (std::uint64_t offset = start; offset < end;) {
      const auto mapped = mapping_.backing->map(offset, std::min(end - offset, kRequestBytes));
      if (!mapped.ok()) plan_error_ = mapped.errnum();
      while (folios_[at]->index.load(memory_order_relaxed) * kPageSize + folios_[at]->size_bytes() <= offset) ++at;
      if (plan_error_ != 0 || (mapped.value().kind == ExtentKind::written && !add_request(mapped.value(), &at))) {
        planned_to_ = offset;
        return plan_error_;
      }
      const Extent& extent = mapped.value();
      std::size_t zero_at = at;
      for (std::uint64_t zero = offset; extent.kind != ExtentKind::written && zero < offset + extent.length;) {
        const std::uint64_t folio_start = folios_[zero_at]->index.load(memory_order_relaxed) << kPageShift;
        const std::uint64_t stop = std::min(offset + extent.length, folio_start + folios_[zero_at]->size_bytes());
        racy_zero_folio(folios_[zero_at]->bytes() + (zero - folio_start), stop - zero);
        zero = stop;
        ++zero_at;
      }
      offset += extent.length;
    }
    i = end_index;
  }
  return 0;
}

void FillBatch::settle(std::size_t index, bool ok) {
  Folio& folio = *folios_[index];
  if (!ok) return;
  const std::uint64_t start = folio.index.load(memory_order_relaxed) << kPageShift;
  if (start + folio.size_bytes() > backing_size_) {  // bytes past the end are zero, whatever the block holds
    const std::uint64_t valid = backing_size_ > start ? backing_size_ - start : 0;
    racy_zero_folio(folio.bytes() + valid, folio.size_bytes() - valid);
  }
  if (!has_defect(Defect::fill_uptodate_before_read)) make_uptodate(folio);
}

// A failed request fails the folios past what it brought in; the good neighbours are read again by who wants them.
void FillBatch::look_at_requests() {
  if (looked_) return;
  looked_ = true;
  for (std::size_t r = 0; r < request_count_; ++r) {
    const Request& request = requests_[r];
    const std::uint64_t offset = file_offsets_[r];
    const std::uint64_t length = request.length();
    int errnum = request.result < 0 ? static_cast<int>(-request.result) : 0;
    const std::uint64_t got = errnum == 0 ? static_cast<std::uint64_t>(request.result) : 0;
    if (errnum == 0 && got < length && offset + got < backing_size_) {
      errnum = EIO;
      (void)fail_with(EIO, "the file shrank underneath: its end was expected at byte %llu, and it ends at byte %llu",
                      static_cast<unsigned long long>(backing_size_), static_cast<unsigned long long>(offset + got));
    }
    if (errnum == 0) continue;
    if (read_error_ == 0) read_error_ = errnum;
    for (std::size_t i = 0; i < count_; ++i) {
      const std::uint64_t start = folios_[i]->index.load(memory_order_relaxed) << kPageShift;
      if (start < offset + length && offset + got < start + folios_[i]->size_bytes() &&
          offset < start + folios_[i]->size_bytes()) {
        failed_[i] = true;
      }
    }
  }
}

bool FillBatch::read_well(std::size_t i) {
  look_at_requests();
  const std::uint64_t start = folios_[i]->index.load(memory_order_relaxed) << kPageShift;
  return !failed_[i] && start + folios_[i]->size_bytes() <= planned_to_;
}

bool FillBatch::is_hole(std::uint64_t offset, std::uint64_t end) const {
  for (std::size_t r = 0; r < request_count_; ++r) {
    if (file_offsets_[r] < end && offset < file_offsets_[r] + requests_[r].length()) return false;
  }
  return true;
}

int FillBatch::finish(const FillCheck* check) {
  look_at_requests();
  std::uint64_t filled = 0;
  bool all_good = true;
  for (std::size_t i = 0; i < count_; ++i) {
    const bool good = check == nullptr || check->good(i);
    const bool ok = read_well(i) && good;
    settle(i, ok);
    filled += ok ? folios_[i]->pages() : 0;
    all_good &= good;
  }
  mapping_.cache.stats.count(Counter::fills, filled);
  mapping_.cache.stats.count(Counter::fill_requests, request_count_);
  if (plan_error_ != 0) return plan_error_;
  if (read_error_ != 0) return read_error_;
  return all_good ? 0 : check->errnum();
}

void FillBatch::detach_locks() {
  for (std::size_t i = 0; i < count_; ++i) lock_detach(folios_[i]);
}

void FillBatch::release(bool async) {
  PageCache& cache = mapping_.cache;
  for (std::size_t i = count_; i-- > 0;) {
    if (async) {
      unlock_folio_async(*folios_[i]);
    } else {
      unlock_folio(*folios_[i]);
    }
    cache.put_folio(*folios_[i]);
  }
}

namespace {

// Reads what the batch holds, and waits; what is good is uptodate when it returns. The first errno, or 0.
int read_batch(Mapping& mapping, FillBatch& batch) {
  batch.plan();
  std::unique_ptr<FillCheck> check;
  Grant hashes;
  bool sent = false;
  if (mapping.verifier != nullptr) {
    auto begun = mapping.verifier->begin(batch);
    if (!begun.ok()) return begun.errnum();
    check = begun.take();
    hashes.reset();
    sent = check->has_reads();
    if (sent) check->send([](void* grant) { static_cast<Grant*>(grant)->give(); }, &hashes);
  }
  if (!batch.requests().empty()) mapping.backing->device().execute(batch.requests());
  if (sent) hashes.wait();
  if (check != nullptr) check->verify(batch, true);
  return batch.finish(check.get());
}

}  // namespace

void widen_to_units(const Mapping& mapping, std::uint64_t* first, std::uint64_t* last) {
  const std::uint64_t pages = mapping.verifier != nullptr ? mapping.verifier->unit_pages() : 1;
  if (pages == 1) return;
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  const std::uint64_t file_last = size == 0 ? 0 : (size - 1) >> kPageShift;
  *first = round_down(*first, pages);
  *last = std::max(*last, std::min(round_up(*last + 1, pages) - 1, file_last));
}

Result<Filled> fill_range(Mapping& mapping, std::uint64_t first, std::uint64_t last, FrameReservation& frames,
                          const CacheContext& context, unsigned order, std::uint64_t mark_page) {
  DCHECK(frames.count() != 0);
  const std::uint64_t wanted = first;
  // Not where frames are so few that the first page wanted might not be reached, nor past what the caller has locked.
  std::uint64_t wide_first = first, wide_last = last;
  widen_to_units(mapping, &wide_first, &wide_last);
  const bool enough = frames.count() > wanted - wide_first;
  if (enough && (context.held == nullptr || context.covers(wide_first, wide_last))) {
    first = wide_first;
    last = wide_last;
  }
  RangeGuard instantiate(mapping.invalidate);
  const bool covered = context.covers(first, last) && !has_defect(Defect::nested_fill_locks_again);
  if (!covered && !has_defect(Defect::fill_without_instantiate)) instantiate.acquire(first, last, kInstantiate);
  FillBatch batch(mapping);
  const int inserted = batch.insert(first, last, frames, order, mark_page, context.owner);
  if (batch.count() == 0) {
    if (inserted != 0) return fail_with(inserted, "no memory for the index of the cache");
    return Filled{nullptr, wanted};
  }
  read_batch(mapping, batch);  // an error is told by who wants the folio
  Filled filled;
  const Folio& last_filled = batch.folio(batch.count() - 1);
  filled.end = last_filled.index.load(memory_order_relaxed) + last_filled.pages();
  for (std::size_t i = 0; i < batch.count() && filled.first == nullptr; ++i) {
    Folio& folio = batch.folio(i);
    const std::uint64_t index = folio.index.load(memory_order_relaxed);
    if (index > wanted) break;
    if (wanted - index < folio.pages()) filled.first = &folio;
  }
  if (filled.first != nullptr) {
    filled.first->refs.fetch_add(1, memory_order_relaxed);  // besides the batch's, which goes now
  }
  batch.release(false);
  return filled;
}

Status wait_uptodate(Mapping& mapping, Folio& folio, std::uint64_t page, const CacheContext& context) {
  if (folio.has(kUptodate)) return {};
  mapping.cache.stats.count(Counter::fills_joined);
  // Who verifies readahead is left alone for so long: a reader that helped at once would not be there to read on, and
  // to start the next window, when its folio is good. But verifiers give way to everybody, so they may get nowhere.
  constexpr std::int64_t kPatience = 2'000'000;  // ns
  if (mapping.verifier != nullptr && !wait_folio_unlocked(folio, kPatience)) mapping.verifier->help(folio);
  wait_folio_unlocked(folio);
  if (folio.has(kUptodate)) return {};
  // Its fill failed, or nobody has filled it yet: our turn.
  RangeGuard instantiate(mapping.invalidate);
  if (!context.covers(page, page)) instantiate.acquire(page, page, kInstantiate);
  lock_folio(folio);
  int errnum = 0;
  if (!folio_is(folio, &mapping, page)) {
    errnum = ESTALE;  // removed while we waited for the lock
  } else if (!folio.has(kUptodate) && folio.order.load(memory_order_relaxed) != 0) {
    remove_folio(mapping, folio);  // one bad block of many: its good neighbours are read by themselves
    errnum = ESTALE;
  } else if (!folio.has(kUptodate)) {
    FillBatch batch(mapping);
    batch.adopt(folio);
    errnum = read_batch(mapping, batch);
  }
  unlock_folio(folio);
  if (errnum != 0) return fail(errnum);
  return {};
}

void ahead_ended(Mapping& mapping) {
  PageCache& cache = mapping.cache;
  cache.ahead_leaving.fetch_add(1, memory_order_relaxed);
  // The release pairs with drain_ahead's acquire: all that the completion did comes before the mapping's end.
  if (mapping.ahead.fetch_sub(1, memory_order_release) == 1) cache.ahead_queue.wake_all();
  cache.ahead_leaving.fetch_sub(1, memory_order_release);  // pairs with the cache's end
}

namespace {

// A window or a piece that somebody waits for, in flight: owns its batch and its hold on the invalidate lock until the
// last request is done.
struct AheadFill final : PendingFill {
  explicit AheadFill(Mapping& m) : mapping(m), batch(m) { mapping.cache.charge_prefetch(kBytes); }
  ~AheadFill() { mapping.cache.charge_prefetch(-kBytes); }
  static const std::int64_t kBytes;
  Mapping& mapping;
  RangeRequest instantiate;
  FillBatch batch;
  std::unique_ptr<FillCheck> check;
  Atomic<std::uint32_t> left;      // of the batch's requests and, as one, the check's
  void (*ended)(void*) = nullptr;  // who waits, if anybody does
  void* argument = nullptr;

  // On quire's I/O thread: records and releases, waits for nothing.
  static void request_done(Request& request) {
    AheadFill* fill = static_cast<AheadFill*>(request.context);
    fill->one_done();
  }
  static void hashes_done(void* argument) { static_cast<AheadFill*>(argument)->one_done(); }
  void one_done() {
    if (left.fetch_sub(1, memory_order_acq_rel) != 1) return;
    if (check == nullptr) return end();
    std::size_t pages = 0;
    for (std::size_t i = 0; i < batch.count(); ++i) pages += batch.folio(i).pages();
    mapping.verifier->run_later(*this, pages);
  }
  bool try_to_end() override {
    if (!check->verify(batch, false)) return false;
    end();
    return true;
  }
  void end() {
    batch.finish(check.get());  // what failed stays unfilled; its reader tries again and gets the error
    batch.release(true);
    mapping.invalidate.unlock(instantiate);
    Mapping& filled = mapping;
    const auto tell = ended;
    void* const waiter = argument;
    delete this;
    if (tell != nullptr) tell(waiter);
    ahead_ended(filled);  // last: the mapping may be destroyed from here on
  }
};

const std::int64_t AheadFill::kBytes = sizeof(AheadFill);

}  // namespace

void drain_ahead(Mapping& mapping) {
  if (has_defect(Defect::readahead_not_drained)) return;
  PageCache& cache = mapping.cache;
  for (;;) {
    const std::uint32_t ticket = cache.ahead_queue.prepare();
    if (mapping.ahead.load(memory_order_acquire) == 0) {
      cache.ahead_queue.cancel();
      return;
    }
    cache.ahead_queue.wait(ticket);
  }
}

namespace {

// Submits what a batch has planned; end() deletes it.
void submit_ahead(std::unique_ptr<AheadFill> fill) {
  Mapping& mapping = fill->mapping;
  const auto requests = fill->batch.requests();
  FillCheck* const check = fill->check.get();
  fill->batch.detach_locks();
  mapping.invalidate.detach(fill->instantiate);
  for (Request* request : requests) {
    request->context = fill.get();
    request->done = &AheadFill::request_done;
  }
  ahead_begun(mapping);
  AheadFill* const sent = fill.release();
  if (check == nullptr) {
    sent->left.store(static_cast<std::uint32_t>(requests.size()), memory_order_relaxed);
    return mapping.backing->device().submit(requests);
  }
  check->detach_locks();
  // One is ours, until all is sent. The hashes go first: whoever waits for the data waits for them, too.
  sent->left.store(static_cast<std::uint32_t>(requests.size()) + 1, memory_order_relaxed);
  if (check->has_reads()) {
    sent->left.fetch_add(1, memory_order_relaxed);
    check->send(&AheadFill::hashes_done, sent);
  }
  if (!requests.empty()) mapping.backing->device().submit(requests);
  sent->one_done();
}

// Submits the absent pages of [first, last]. False: the lock was not to be had, and nothing was done.
bool start_piece(std::unique_ptr<AheadFill> fill, std::uint64_t first, std::uint64_t last, FrameReservation& frames,
                 unsigned order, std::uint64_t* mark_page, std::uint32_t flags, AheadFilled* filled) {
  Mapping& mapping = fill->mapping;
  if (!mapping.invalidate.try_lock(fill->instantiate, first, last, kInstantiate)) return false;
  FillBatch& batch = fill->batch;
  // What did not fit is read when it is wanted.
  static_cast<void>(batch.insert(first, last, frames, order, *mark_page, flags));
  if (batch.marked()) *mark_page = UINT64_MAX;
  filled->end = batch.reached();
  if (batch.count() != 0) {
    filled->inserted = true;
    batch.plan();
    if (mapping.verifier != nullptr) {
      auto begun = mapping.verifier->begin(batch);
      if (begun.ok()) fill->check = begun.take();
    }
  }
  if (mapping.verifier == nullptr ? !batch.requests().empty() : fill->check != nullptr) {
    filled->submitted = true;
    submit_ahead(std::move(fill));
    return true;
  }
  // All holes, or not to be mapped. What cannot be verified for want of memory is filled by who wants it.
  if (batch.count() != 0 && mapping.verifier == nullptr) batch.finish(nullptr);
  batch.release(false);
  mapping.invalidate.unlock(fill->instantiate);
  return true;
}

}  // namespace

AheadFilled fill_for(Mapping& mapping, const ReadRange& wanted, std::uint32_t owner, void (*ended)(void*),
                     void* argument) {
  std::uint64_t first = wanted.first, last = wanted.last;
  widen_to_units(mapping, &first, &last);
  AheadFilled filled{wanted.first};
  const std::uint64_t pages = std::min<std::uint64_t>(last - first + 1, FillBatch::kMaxPages);
  FrameReservation frames(mapping.cache.pool);
  mapping.cache.try_reserve(frames, static_cast<std::uint32_t>(pages), wanted.order);
  if (frames.count() <= wanted.first - first) return filled;  // what is wanted would not be reached
  std::unique_ptr<AheadFill> fill(new (std::nothrow) AheadFill(mapping));
  if (fill == nullptr) return filled;
  fill->ended = ended;
  fill->argument = argument;
  std::uint64_t mark_page = wanted.mark_page;
  start_piece(std::move(fill), first, first + pages - 1, frames, wanted.order, &mark_page, owner, &filled);
  filled.end = std::max(filled.end, wanted.first);
  return filled;
}

AheadFilled fill_ahead(Mapping& mapping, std::uint64_t first, std::uint64_t last, unsigned order,
                       std::uint64_t mark_page, std::uint32_t owner) {
  PageCache& cache = mapping.cache;
  const std::uint64_t asked = first;
  widen_to_units(mapping, &first, &last);
  AheadFilled filled{first};
  const std::uint64_t most = std::min<std::uint64_t>(last - first + 1, cache.ahead.limit());
  const std::uint32_t granted = cache.ahead.take(static_cast<std::uint32_t>(most));
  FrameReservation frames(cache.pool);
  if (granted != 0) cache.try_reserve(frames, granted, order);
  const std::uint32_t reserved = frames.count();
  if (reserved <= asked - first) filled.end = first = asked;  // what was asked for comes before what lies before it
  while (frames.count() != 0 && filled.end - first < granted && filled.end <= last) {
    const std::uint64_t piece = filled.end;
    const std::uint64_t piece_last = std::min({first + granted - 1, last, piece | (kAheadPages - 1)});
    std::unique_ptr<AheadFill> fill(new (std::nothrow) AheadFill(mapping));
    if (fill == nullptr) break;
    if (!start_piece(std::move(fill), piece, piece_last, frames, order, &mark_page, kAhead | owner, &filled)) break;
    if (filled.end <= piece_last) break;
  }
  cache.ahead.give_back(granted - (reserved - frames.count()));  // the rest of the charge is the folios' now
  filled.end = std::max(filled.end, asked);
  if (filled.submitted) cache.stats.count(Counter::readahead_windows);
  if (filled.end == asked) cache.stats.count(Counter::readahead_skipped);
  return filled;
}

}  // namespace quire
