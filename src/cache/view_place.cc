// Placing what is there. See view_faults.h.
#include <algorithm>
#include <cerrno>

#include "base/defect.h"
#include "base/error.h"
#include "cache/flusher.h"
#include "cache/split.h"
#include "cache/view_faults.h"
#include "sync/futex.h"
#include "sync/rcu.h"

namespace quire {
namespace {

constexpr unsigned kStreakOrder = 4;  // pages opened together where stores go on from page to page: 2^4

std::uint64_t pages_of_file(const Mapping& mapping) {
  return round_up(mapping.size.load(memory_order_acquire), kPageSize) >> kPageShift;
}

// Where a writable view is shown: no page of a view is moved meanwhile.
class Showing {
 public:
  Showing(ViewMapper& mapper, bool writable, bool wait)
      : mapper_(writable ? &mapper : nullptr), begun_(!writable || mapper.begin_show(wait)) {}
  ~Showing() {
    if (mapper_ != nullptr && begun_) mapper_->end_show();
  }
  Showing(const Showing&) = delete;
  Showing& operator=(const Showing&) = delete;
  bool begun() const { return begun_; }

 private:
  ViewMapper* const mapper_;
  const bool begun_;
};

}  // namespace

void Placing::unlock(Folio& folio) {
  unlock_folio(folio);
  mapping_.cache.put_folio(folio);
}

Placing::~Placing() {
  while (count_ != 0) unlock(*folios_[--count_]);
}

// The window, or the page alone where that is not to be had at once.
bool Placing::lock_range() {
  const std::uint64_t file_pages = pages_of_file(mapping_);
  if (page_ >= file_pages) return true;  // nothing to lock
  first_ = std::max(view_.first_page, round_down(page_, kWindow));
  last_ = std::min({view_.first_page + view_.pages, round_down(page_, kWindow) + kWindow, file_pages}) - 1;
  if (has_defect(Defect::fault_without_instantiate)) return true;
  if (instantiate_.try_acquire(first_, last_, kInstantiate)) return true;
  first_ = last_ = page_;
  if (instantiate_.try_acquire(page_, page_, kInstantiate)) return true;
  if (!wait_) return false;
  instantiate_.acquire(page_, page_, kInstantiate);
  return true;
}

// The folio of the page, locked, referenced and uptodate.
Folio* Placing::lock_own_folio() {
  Folio* folio = get_folio(mapping_, page_);
  if (folio == nullptr) return nullptr;
  if (wait_ && folio->has(kUptodate)) {
    lock_folio(*folio);
  } else if (!folio->has(kUptodate) || !try_lock_folio(*folio)) {
    mapping_.cache.put_folio(*folio);
    return nullptr;
  }
  if (folio_is(*folio, &mapping_, page_) && folio->has(kUptodate) && !folio->has(kReadahead)) return folio;
  unlock_folio(*folio);  // removed while we waited, or its first touch has more to do
  mapping_.cache.put_folio(*folio);
  return nullptr;
}

// For a store to a large clean folio: of the part around the page, so that little more becomes dirty.
Folio* Placing::lock_own_for_access() {
  const unsigned order = view_.store_next.load(memory_order_relaxed) == page_ ? kStreakOrder : 0;
  for (;;) {
    Folio* const own = lock_own_folio();
    if (own == nullptr || !access_.is_store || own->has(kDirty) || own->order.load(memory_order_relaxed) <= order) {
      return own;
    }
    if (!split_folio(mapping_, *own, page_, order).ok()) return own;  // in use, or no memory: then all of it
    unlock(*own);                                                     // the first part, which may not be ours
  }
}

// What is free and uptodate in [first, end), by trying: nobody is waited for who has the lock of a page after ours.
void Placing::lock_neighbours(std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t page = first; page < end && count_ < folios_.size();) {
    {
      RcuReadLock rcu;
      if (mapping_.pages.find(&page, end - 1).empty()) return;
    }
    Folio* folio = get_folio(mapping_, page);
    if (folio == nullptr) {
      ++page;
      continue;
    }
    bool locked = folio->has(kUptodate) && !folio->has(kReadahead) && try_lock_folio(*folio);
    if (locked && !(folio_is(*folio, &mapping_, page) && folio->has(kUptodate))) {
      unlock_folio(*folio);
      locked = false;
    }
    const std::uint64_t next = folio->index.load(memory_order_relaxed) + folio->pages();
    if (locked) {
      folios_[count_++] = folio;
    } else {
      mapping_.cache.put_folio(*folio);
    }
    page = std::max(next, page + 1);
  }
}

// The pieces to be mapped, ascending: of each folio, what lies in the range, in the view and before the end of the
// file; neighbours in adjacent frames are one. A neighbour that the view shows already is left as it is: at worst it
// was taken away, and is a fault of its own. *own: the piece that has our page.
std::size_t Placing::find_pieces_locked(std::span<Piece> pieces, std::size_t* own) {
  const FolioPool& pool = mapping_.cache.pool;
  const std::uint64_t end_of_file = pages_of_file(mapping_);
  std::size_t count = 0;
  for (std::size_t i = 0; i < count_; ++i) {
    const Folio& folio = *folios_[i];
    const std::uint64_t index = folio.index.load(memory_order_relaxed);
    const std::uint64_t from = std::max(index, first_);
    const std::uint64_t to = std::min({index + folio.pages(), last_ + 1, end_of_file});
    if (from >= to) continue;
    const auto frame = pool.id(folio) + static_cast<std::uint32_t>(from - index);
    const bool is_own = page_ >= from && page_ < to;
    if (!is_own && folio.has(kViewed) && view_.runs.shows(from, frame) &&
        view_.runs.shows(to - 1, frame + static_cast<std::uint32_t>(to - 1 - from))) {
      continue;
    }
    Piece* const before = count != 0 ? &pieces[count - 1] : nullptr;
    if (before != nullptr && before->end == from && before->frame + (from - before->page) == frame) {
      before->end = to;
    } else {
      pieces[count++] = {from, to, frame};
    }
    if (is_own) *own = count - 1;
  }
  return count;
}

// Maps the pieces and has faults there reported. On an error what has been mapped by then is as good as without.
Status Placing::map_locked(std::span<const Piece> pieces) {
  ViewMapper& mapper = view_.engine->mapper();
  RunsChange runs(view_);
  const std::uint64_t stamp = view_.engine->next_stamp();
  const auto address = [&](std::uint64_t page) { return view_.base + ((page - view_.first_page) << kPageShift); };
  Status status;
  for (std::size_t i = 0; status.ok() && i < pieces.size();) {
    std::size_t next = i;
    while (next < pieces.size() && (next == i || pieces[next].page == pieces[next - 1].end)) {
      const Piece& piece = pieces[next];
      status = mapper.place(address(piece.page), mapping_.cache.pool.folio(piece.frame).bytes(),
                            (piece.end - piece.page) << kPageShift, view_.writable);
      if (!status.ok()) break;
      runs->set(piece.page, {piece.end - piece.page, piece.frame, ViewRuns::Kind::frames, stamp});
      ++next;
    }
    if (next == i) break;
    const std::uint64_t first = pieces[i].page, end = pieces[next - 1].end;
    const Status tracked = mapper.track(address(first), (end - first) << kPageShift, view_.writable);
    if (!tracked.ok()) {
      // Mapped, and its faults not reported: it must not stay. (This takes no more mappings than there are.)
      CHECK(mapper.trap(address(first), (end - first) << kPageShift).ok());
      if (view_.writable) count_as_stored(pieces.subspan(i, next - i));
      runs->set(first, {end - first, 0, ViewRuns::Kind::error});
      view_.engine->note_error_trap(view_);
      status = tracked;
    } else if (view_.writable) {
      show_locked(pieces.subspan(i, next - i));
    }
    i = next;
  }
  return status;
}

// They were mapped for stores before a store there was a fault.
void Placing::count_as_stored(std::span<const Piece> pieces) {
  for (std::size_t i = 0; i < count_; ++i) {
    if (is_placed(*folios_[i], pieces)) set_dirty(mapping_, *folios_[i]);
  }
}

// Makes the pages of a writable view present: those of dirty folios open, the others protected.
void Placing::show_locked(std::span<const Piece> pieces) {
  for (const Piece& piece : pieces) {
    char* const at = view_.base + ((piece.page - view_.first_page) << kPageShift);
    const bool untouched = view_.engine->mapper().show(at, (piece.end - piece.page) << kPageShift);
    for (std::size_t i = 0; i < count_; ++i) {
      Folio& folio = *folios_[i];
      if (!is_placed(folio, std::span(&piece, 1))) continue;
      if (!untouched && !has_defect(Defect::window_store_taken_for_clean))
        set_dirty(mapping_, folio);  // stored to before it was protected, perhaps
      if (folio.has(kDirty)) static_cast<void>(open_locked(folio));
    }
  }
}

// Where the view shows the folio, which is dirty and locked, stores are no faults any more. False: not just now.
bool Placing::open_locked(const Folio& folio) {
  const std::uint64_t index = folio.index.load(memory_order_relaxed);
  const std::uint32_t frame = mapping_.cache.pool.id(folio);
  bool opened = true;
  const std::uint64_t from = std::max(index, view_.first_page);
  const std::uint64_t to = std::min(index + folio.pages(), view_.first_page + view_.pages);
  view_.runs.for_each(from, to,
                      [&](std::uint64_t first, std::uint64_t end, const ViewRuns::Run& run, std::uint32_t at) {
                        if (run.kind != ViewRuns::Kind::frames || at != frame + (first - index)) return;
                        char* const address = view_.base + ((first - view_.first_page) << kPageShift);
                        bool done = view_.engine->mapper().protect(address, (end - first) << kPageShift, false);
                        while (!done && wait_) {  // the fault thread reads what it waits for
                          thread_yield();
                          done = view_.engine->mapper().protect(address, (end - first) << kPageShift, false);
                        }
                        opened = opened && done;
                      });
  return opened;
}

// The folio of the page becomes dirty, and after a store to the page before it some after it, as far as they are shown.
bool Placing::open_for_store_locked(Folio& own) {
  const bool streak = view_.store_next.load(memory_order_relaxed) == page_ && !mapping_.cache.dirty.near(mapping_);
  const std::uint64_t to = page_ + (streak ? std::uint64_t{1} << kStreakOrder : 1);
  view_.store_next.store(to, memory_order_relaxed);
  bool opened = true;
  for (std::size_t i = 0; i < count_; ++i) {
    Folio& folio = *folios_[i];
    const std::uint64_t index = folio.index.load(memory_order_relaxed);
    const bool next = index > page_ && index + folio.pages() <= to && folio.has(kViewed);
    if (&folio != &own && !next) continue;
    set_dirty(mapping_, folio);
    const bool done = open_locked(folio);
    if (&folio == &own) opened = done;
  }
  if (mapping_.cache.dirty.past_background()) mapping_.cache.flusher().kick_background();
  mapping_.cache.stats.count(Counter::view_stores);
  return opened;
}

bool Placing::is_placed(const Folio& folio, std::span<const Piece> pieces) const {
  const std::uint64_t first = folio.index.load(memory_order_relaxed), end = first + folio.pages();
  return std::any_of(pieces.begin(), pieces.end(),
                     [&](const Piece& piece) { return piece.page < end && first < piece.end; });
}

Placing::Outcome Placing::place_locked() {
  if (!view_.placing) return Outcome::no_view;
  const auto inside = static_cast<std::uint32_t>(page_ - own_->index.load(memory_order_relaxed));
  if (access_.is_protected && view_.runs.shows(page_, mapping_.cache.pool.id(*own_) + inside) && own_->has(kViewed)) {
    placed_first_ = page_;
    placed_end_ = page_ + 1;
    return open_for_store_locked(*own_) ? Outcome::placed : Outcome::not_now;
  }
  std::array<Piece, kWindow> pieces;
  std::size_t own = SIZE_MAX;
  const std::size_t count = find_pieces_locked(pieces, &own);
  if (own == SIZE_MAX) return Outcome::past_end;  // cannot be: `instantiate` keeps the end where it is, or beyond
  // Ours and those after it, then those before.
  const std::size_t most = room_ == Room::scarce ? 1 : kMostRuns;
  const std::size_t end = std::min(count, own + most);
  const std::size_t begin = own - std::min(own, most - (end - own));
  const std::span<const Piece> wanted(&pieces[begin], end - begin);
  const Showing showing(view_.engine->mapper(), view_.writable, wait_);
  if (!showing.begun()) return Outcome::not_now;
  if (access_.is_store) set_dirty(mapping_, *own_);  // before it can be stored to
  // Before they can be seen: whoever takes a folio away finds that it is to be.
  for (std::size_t i = 0; i < count_; ++i) {
    Folio& folio = *folios_[i];
    if (!is_placed(folio, wanted)) continue;
    if ((folio.flags.fetch_or(kViewed | kWasViewed, memory_order_relaxed) & kViewed) == 0) {
      folio.refs.fetch_add(1, memory_order_relaxed);
    }
    mapping_.cache.ahead.settle(folio);
  }
  status_ = map_locked(wanted);
  if (!status_.ok()) return Outcome::failed;
  if (access_.is_store) static_cast<void>(open_for_store_locked(*own_));  // else it is a fault once more
  placed_first_ = wanted.front().page;
  placed_end_ = wanted.back().end;
  reach_ = pieces[own].end;
  for (std::size_t i = own + 1; i < end && pieces[i].page == reach_; ++i) reach_ = pieces[i].end;
  mapping_.cache.stats.count(Counter::view_runs, wanted.size());
  return Outcome::placed;
}

Placing::Outcome Placing::run() {
  if (room_ == Room::ordinary && !ViewEngine::has_room()) return Outcome::crowded;
  if (!lock_range()) return Outcome::not_now;
  const bool held = instantiate_.request().held() || has_defect(Defect::fault_without_instantiate);
  if (!held || page_ >= pages_of_file(mapping_)) return Outcome::past_end;
  Folio* const own = lock_own_for_access();
  if (own == nullptr) return Outcome::not_now;
  own_ = own;
  set_referenced(*own);
  const std::uint64_t own_first = own->index.load(memory_order_relaxed), own_end = own_first + own->pages();
  if (own_first > first_) lock_neighbours(first_, own_first);
  if (count_ == folios_.size()) {  // no room for our own: it is the last
    unlock(*folios_[--count_]);
  }
  folios_[count_++] = own;
  if (own_end <= last_) lock_neighbours(own_end, last_ + 1);
  if (wait_) {
    MutexLock lock(mapping_.views.mutex);
    return place_locked();
  }
  if (!mapping_.views.mutex.try_lock()) return Outcome::not_now;
  const Outcome outcome = place_locked();
  mapping_.views.mutex.unlock();
  return outcome;
}

}  // namespace quire
