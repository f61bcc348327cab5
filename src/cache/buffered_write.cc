// The three shapes of a buffered write. See buffered_write.h.
#include "cache/buffered_write.h"

#include <algorithm>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "cache/fill.h"
#include "cache/split.h"
#include "cache/views.h"
#include "sync/rcu.h"

namespace quire {
namespace {

// A write to less than this part of a clean folio splits it, so that little more is written back than was written.
constexpr std::size_t kDirtyShare = 2;

}  // namespace

void prefetch_for_write(const Mapping& mapping, std::uint64_t offset, std::size_t count) {
  constexpr std::size_t kMost = 2048;  // the processor sees the rest coming
  const Folio& folio = guess_folio(mapping, offset >> kPageShift);
  if (&folio == mapping.hits.descriptors) return;  // no guess
  __builtin_prefetch(&folio, 1);
  const std::size_t inside = offset & (kPageSize - 1);
  const char* to = frame_bytes(mapping, &folio) + inside;
  const std::size_t end = std::min({count, kMost, kPageSize - inside});
  for (std::size_t at = 0; at < end; at += 64) __builtin_prefetch(to + at, 1);
}

bool write_fast(Mapping& mapping, const char* from, std::size_t count, std::uint64_t offset, bool may_dirty) {
  const std::uint64_t page = offset >> kPageShift;
  Folio* folio;
  {
    RcuReadLock rcu;
    // A guess may be a frame that is free and just being prepared for its next life, whose lock is not there to be
    // taken. An even sequence says that it is in an index, where it stays until this section has ended or is removed
    // by somebody who has its lock.
    folio = const_cast<Folio*>(&guess_folio(mapping, page));
    if (Sequence::is_odd(folio->sequence.read_begin()) || !folio_is(*folio, &mapping, page)) {
      folio = folio_of(mapping.pages.load(page));
      if (folio == nullptr) return false;
      const bool being_made = Sequence::is_odd(folio->sequence.read_begin());
      if (being_made && !has_defect(Defect::split_shows_unmade_parts)) return false;
      note_place(mapping, page, *folio);
    }
    // No reference is needed: a folio that we have locked, and that still is this page's, is not removed or recycled.
    if (!try_lock_folio(*folio) && !has_defect(Defect::writer_without_folio_lock)) return false;
    const bool ours =
        folio_is(*folio, &mapping, page) && folio->has(kUptodate) && !folio->has(kDropBehind);  // lock_present decides
    if ((!ours && !has_defect(Defect::waiter_without_identity)) || !(may_dirty || folio->has(kUnstable))) {
      unlock_folio(*folio);  // recycled between lookup and lock, or its fill failed, or one folio too many
      return false;
    }
  }
  const std::uint64_t inside = offset - (folio->index.load(memory_order_relaxed) << kPageShift);
  // A large folio that would become dirty as a whole is split first (Write::lock_page).
  const bool too_little =
      folio->order.load(memory_order_relaxed) != 0 && !folio->has(kDirty) && count < folio->size_bytes() / kDirtyShare;
  if (inside + count > folio->size_bytes() || too_little) {
    unlock_folio(*folio);
    return false;
  }
  if (!folio->has(kUnstable | kReadahead))
    set_referenced(*folio);  // of what is dirty already, a write says nothing new
  set_dirty(mapping, *folio);
  if (has_defect(Defect::append_size_before_bytes)) {
    mapping.size.store(std::max(offset + count, mapping.size.load(memory_order_relaxed)), memory_order_release);
  }
  begin_change(*folio);
  racy_copy_to_folio(folio->bytes() + inside, from, count);
  const bool grows = offset + count > mapping.size.load(memory_order_relaxed);
  if (grows) mapping.size.store(offset + count, memory_order_release);
  end_change(*folio);
  unlock_folio(*folio);
  if (grows) note_grown(mapping);
  return true;
}

namespace {

// One write in its steps. Folios are found again by page in each pass: between lock_all and unlock_all all of them are
// in the mapping, locked and referenced, so a lookup cannot fail and no list of them is kept.
class Write {
 public:
  Write(Mapping& mapping, std::uint64_t offset, std::size_t count, std::uint32_t owner)
      : mapping_(mapping),
        offset_(offset),
        end_(offset + count),
        size_(mapping.size.load(memory_order_acquire)),
        owner_(owner) {}

  Status fill_edges(FrameReservation& frames, const CacheContext& context);
  Status lock_all(FrameReservation& frames);
  void change(UserBuffer& from);
  void unlock_all() { release(first_page(), last_page(), false); }
  void drop_edges();
  bool grows() const { return end_ > size_; }

 private:
  std::uint64_t first_page() const { return offset_ >> kPageShift; }
  std::uint64_t last_page() const { return (end_ - 1) >> kPageShift; }
  bool covers(std::uint64_t start, std::uint64_t length) const { return offset_ <= start && start + length <= end_; }
  bool is_partial(std::uint64_t page) const { return !covers(page << kPageShift, kPageSize); }
  Folio& locked_folio(std::uint64_t page);
  Status fill_edge(std::uint64_t page, Folio** edge, FrameReservation& frames, const CacheContext& context);
  Status lock_page(std::uint64_t page, FrameReservation& frames);
  Result<bool> lock_present(Folio& folio, std::uint64_t page);
  bool split_for_write(Folio& folio, std::uint64_t page);
  unsigned order_at(std::uint64_t page, unsigned most) const;
  void copy_into(Folio& folio, UserBuffer& from);
  void release(std::uint64_t first, std::uint64_t last, bool undo);
  template <typename Each>
  void for_each(std::uint64_t first, std::uint64_t last, Each each);

  Mapping& mapping_;
  const std::uint64_t offset_, end_, size_;
  const std::uint32_t owner_;             // flags of what it brings in
  Folio* edges_[2] = {nullptr, nullptr};  // referenced, so that reclaim leaves them alone until they are locked
};

Folio& Write::locked_folio(std::uint64_t page) {
  RcuReadLock rcu;
  Folio* folio = folio_of(mapping_.pages.load(page));
  CHECK(folio != nullptr);
  DCHECK(folio->has(kLocked));
  return *folio;
}

template <typename Each>
void Write::for_each(std::uint64_t first, std::uint64_t last, Each each) {
  for (std::uint64_t page = first; page <= last;) {
    Folio& folio = locked_folio(page);
    const std::uint64_t next = folio.index.load(memory_order_relaxed) + folio.pages();
    each(folio);
    page = next;
  }
}

Status Write::fill_edge(std::uint64_t page, Folio** edge, FrameReservation& frames, const CacheContext& context) {
  for (;;) {
    Folio* folio = get_folio(mapping_, page);
    if (folio == nullptr) {
      if ((page << kPageShift) >= size_) return {};  // all past the end: zeros, no read needed
      const auto filled = fill_range(mapping_, page, page, frames, context);
      QUIRE_TRY(filled);
      folio = filled.value().first;  // referenced: a page takes one frame of the reservation at most
      if (folio == nullptr) continue;
    }
    const Status ready = wait_uptodate(mapping_, *folio, page, context);
    if (ready.ok()) {
      *edge = folio;
      return {};
    }
    mapping_.cache.put_folio(*folio);
    if (ready.errnum() != ESTALE) return ready;
  }
}

Status Write::fill_edges(FrameReservation& frames, const CacheContext& context) {
  if (is_partial(first_page())) QUIRE_TRY(fill_edge(first_page(), &edges_[0], frames, context));
  if (last_page() != first_page() && is_partial(last_page())) {
    QUIRE_TRY(fill_edge(last_page(), &edges_[1], frames, context));
  }
  return {};
}

void Write::drop_edges() {
  for (Folio*& edge : edges_) {
    if (edge != nullptr) mapping_.cache.put_folio(*edge);
    edge = nullptr;
  }
}

// The order of the largest folio from `page` on that this write covers whole.
unsigned Write::order_at(std::uint64_t page, unsigned most) const {
  if (is_partial(page)) return 0;
  return order_within(page, is_partial(last_page()) ? last_page() - 1 : last_page(), most);
}

// A clean large folio of which this write changes little: parts of it stay clean. False: it stays as it is.
bool Write::split_for_write(Folio& folio, std::uint64_t page) {
  const std::uint64_t start = folio.index.load(memory_order_relaxed) << kPageShift;
  const std::uint64_t low = std::max(offset_, start);
  const std::uint64_t high = std::min<std::uint64_t>(end_, start + folio.size_bytes());
  const unsigned whole = folio.order.load(memory_order_relaxed);
  if (whole == 0 || folio.has(kDirty) || high - low >= folio.size_bytes() / kDirtyShare) return false;
  HeldPage held[2];
  std::size_t edges = 0;
  if (edges_[0] == &folio) held[edges++] = {first_page(), &edges_[0]};
  if (edges_[1] == &folio) held[edges++] = {last_page(), &edges_[1]};
  const unsigned order = std::min(whole - 1, order_at(page, whole));
  return split_folio(mapping_, folio, page, order, std::span(held, edges)).ok();
}

// The folio, referenced, as found for `page`. True: locked, and it may be written to. False: look again. The reference
// is the caller's no more unless true.
Result<bool> Write::lock_present(Folio& folio, std::uint64_t page) {
  lock_folio(folio);
  int errnum = 0;
  if (folio_is(folio, &mapping_, page)) {  // else removed or split while we waited for its lock
    if ((owner_ & kDropBehind) == 0 && folio.has(kDropBehind)) {
      folio.flags.fetch_and(~kDropBehind, memory_order_relaxed);  // wanted by others, too
    }
    if (folio.has(kUptodate)) {
      if (!split_for_write(folio, page)) return true;
    } else if (folio.order.load(memory_order_relaxed) != 0) {
      remove_folio(mapping_, folio);  // its fill failed, and this write may not cover all of it
    } else if (!is_partial(page)) {
      return true;
    } else if ((page << kPageShift) >= size_) {  // an earlier fill failed, but past the end all is zeros
      racy_zero_folio(folio.bytes(), folio.size_bytes());
      return true;
    } else {
      errnum = EIO;
    }
  }
  unlock_folio(folio);
  mapping_.cache.put_folio(folio);
  if (errnum != 0) return fail(errnum);
  return false;
}

Status Write::lock_page(std::uint64_t page, FrameReservation& frames) {
  unsigned order = order_at(page, frames.max_order());
  for (;;) {
    Folio* folio = get_folio(mapping_, page);
    if (folio != nullptr) {
      const auto locked = lock_present(*folio, page);
      if (!locked.ok() || locked.value()) return locked.ok() ? Status{} : fail(locked.errnum());
      continue;
    }
    Folio* frame = frames.take(order);
    CHECK(frame != nullptr);  // the reservation was for every page of the range
    const Status inserted = insert_new(mapping_, *frame, page, owner_);
    if (inserted.ok()) {
      mapping_.cache.stats.count(Counter::zero_fills);
      if (is_partial(page)) racy_zero_folio(frame->bytes(), frame->size_bytes());
      return {};
    }
    frames.put(*frame);
    if (inserted.errnum() != EEXIST) return inserted;
    if (order != 0) --order;  // some of the pages after this one are there
  }
}

Status Write::lock_all(FrameReservation& frames) {
  for (std::uint64_t page = first_page(); page <= last_page();) {
    const Status locked = lock_page(page, frames);
    if (!locked.ok()) {
      if (page != first_page()) release(first_page(), page - 1, true);
      return locked;
    }
    Folio& folio = locked_folio(page);
    page = folio.index.load(memory_order_relaxed) + folio.pages();
  }
  return {};
}

// Unlocks and drops the references; `undo` also takes out what was only just instantiated and holds nothing yet.
void Write::release(std::uint64_t first, std::uint64_t last, bool undo) {
  for_each(first, last, [&](Folio& folio) {
    if (undo && !folio.has(kUptodate)) remove_folio(mapping_, folio);
    unlock_folio(folio);
    mapping_.cache.put_folio(folio);
  });
}

void Write::copy_into(Folio& folio, UserBuffer& from) {
  const std::uint64_t start = folio.index.load(memory_order_relaxed) << kPageShift;
  const std::uint64_t low = std::max(offset_, start);
  const std::uint64_t high = std::min<std::uint64_t>(end_, start + folio.size_bytes());
  from.copy_to_folio(folio.bytes() + (low - start), high - low);
}

void Write::change(UserBuffer& from) {
  const std::uint64_t first = first_page(), last = last_page();
  for_each(first, last, [&](Folio& folio) { set_dirty(mapping_, folio); });
  const auto grow = [&] {
    if (end_ > size_)
      mapping_.size.store(end_, memory_order_release);  // the range lock reaches to infinity: still size_
  };
  const auto change_each = [&] {  // readers see the old and the new of two folios together, unless the gate is closed
    for_each(first, last, [&](Folio& folio) {
      begin_change(folio);
      copy_into(folio, from);
      end_change(folio);
    });
  };
  if (last - first < kFewFolios) {
    mapping_.cache.stats.count(Counter::writes_few);
    if (has_defect(Defect::append_size_before_bytes)) grow();
    if (has_defect(Defect::write_made_even_one_by_one)) {
      change_each();
      grow();
      return;
    }
    for_each(first, last, [&](Folio& folio) { begin_change(folio); });
    for_each(first, last, [&](Folio& folio) { copy_into(folio, from); });
    grow();
    for_each(first, last, [&](Folio& folio) { end_change(folio); });
    return;
  }
  mapping_.cache.stats.count(Counter::writes_gate);
  ClosedGate gate(mapping_.gate, std::min(offset_, size_), end_);
  change_each();
  grow();
}

}  // namespace

Status write_locked(Mapping& mapping, UserBuffer& from, std::uint64_t offset, std::size_t count,
                    FrameReservation& frames, const CacheContext& context) {
  Write write(mapping, offset, count, context.owner);
  Status status = write.fill_edges(frames, context);
  if (status.ok()) status = write.lock_all(frames);
  if (status.ok()) {
    write.change(from);
    write.unlock_all();
    if (write.grows()) note_grown(mapping);
  }
  write.drop_edges();
  return status;
}

}  // namespace quire
