// Mapped views of files: the folios themselves, shown in the program's memory. Guarantees: R1 (by single loads and
// stores), R2, R3, R4.
//
// A view is a range of addresses (view_table.h) whose pages are blank, placed or traps (view_mapper.h). Pages are
// placed when they are touched (view_faults.h), and taken away again before anything happens to the folio behind them:
//
//   folio: uptodate --place--> viewed (kViewed, one reference, kWasViewed for the rest of its life) --take--> uptodate
//
// So a viewed folio is in use for all who know one by its references: migration, drop and split pass it over. kViewed
// says that the folio *may* be in a view: the views that showed it may be gone by now.
//
// Who may change what:
//   kViewed, its reference    set by who places: under the folio's lock, `instantiate` over its page and the mapping's
//                             views mutex; cleared by who takes it away, under the folio's lock and that mutex
//   a mapping's list, runs    under its views mutex, which is held over the system calls that change what is mapped
//   `any`                     set before the first view can be touched, never cleared
// Stores: a page is open (a store to it is no fault) in any view only while its folio is kDirty, and a clean folio
// becomes dirty under its lock alone:
//
//   protected --first store: folio lock, instantiate; dirty--> open --writeback: folio lock--> protected
//
// So what is not dirty has nothing in it that was not written back. Writeback protects before it takes kDirty off; a
// store in between faults, and waits for the folio's lock. The bytes after the end of the file in its last page can be
// stored to; writeback zeroes them once it has protected the page, and whoever makes the file grow before that: a store
// beside that counts as one after it, and makes the folio dirty anew.
// Who takes folios away, and when:
//   range operations          all in their range, once `remove` is held, before the backing changes. Nothing is placed
//                             until `remove` is given up: who places holds `instantiate`
//   reclaim                   one at a time, its lock held, views mutex by trying (page_cache.cc)
//   remove_folio              itself, whatever it is removed for
// Races, and what closes them:
//   a fault served beside a range operation      `instantiate` and `remove` exclude each other
//   placed, but the folio was removed meanwhile  it is placed under its lock, after a look whose page it is
//   the file grows beside a trap past its end    the trap is made under the views mutex, after a look at the size; who
//                                                grows the file stores the size, takes the mutex, and lifts what is
//                                                there: one of them comes second
//   `any` not seen by who grows the file         add() waits for a grace period after setting it, which is a fence in
//                                                every thread: either the flag is seen, or the size is
//   stores while a run is being mapped           what is there before it is protected counts as stored to
//                                                (view_mapper.h); all of it, where it cannot be tracked and goes again
//   a store after a range operation has written  the views are taken before it writes back, or it looks again under
//   back, lost with the folio                    `remove`: a store's fault holds `instantiate`
//   a page is shown while mremap moves another   neither begins beside the other (view_mapper.h); the fault thread, for
//                                                which mremap waits, parks
//   stores beside a clone or dedupe of what      it is written back once more under `remove`: that protects its pages,
//   they go to                                   and they are opened again after it (clone.cc)
//   a view unmapped beside a fault in it         off the list (nothing is placed any more), then unmapped, then the
//                                                table's: waits for those who serve faults there, then wakes all
//   frames that somebody has pinned through a    kWasViewed: their memory goes back to the host before they are
//   view (vmsplice, O_DIRECT of others)          another folio's (FolioPool::collect_retired)
//   the program uses up the kernel's mappings    so too, once for each page that cannot be placed for want of them
//   too many runs                                a worker makes parts of views blank, holding no folio: what was there
//                                                stays kViewed until it is next taken away
// Locks: view engine (to choose a view, then hold it) apart; folio > views (one for each mapping) > leaves. The fault
// thread takes it by trying, for mremap, which is called under it, waits for that thread.
#pragma once

#include <cstdint>
#include <memory>

#include "cache/mapping.h"
#include "cache/readahead.h"
#include "cache/view_mapper.h"
#include "cache/view_runs.h"
#include "cache/view_table.h"
#include "quire/result.h"

namespace quire {

class ViewEngine;
class FaultServer;

// Runs that all views of the process show: each takes a mapping or two of the kernel's, which allows some 65,000. Past
// the limit parts of views are made blank, those that were placed longest ago first among a few.
std::uint32_t view_run_limit();
void set_view_run_limit(std::uint32_t runs);  // for tests; 0: what the kernel's limit allows

// For tests: what makes the mapper of each cache that has its first view from now on; null: make_view_mapper.
using ViewMapperMaker = Result<std::unique_ptr<ViewMapper>> (*)(FolioPool& pool);
void set_view_mapper_maker(ViewMapperMaker maker);

struct View : ViewSpan {
  ViewEngine* engine = nullptr;
  ReadaheadState ahead;
  Atomic<std::uint64_t> store_next;  // the page after the last that was opened for a store
  // Under the mapping's views mutex:
  View* next = nullptr;  // in the mapping's list
  bool placing = true;   // it is in the list
  ViewRuns runs;
  std::uint64_t end_traps = UINT64_MAX;  // no run before this page is a trap past the end
  // Under the engine's mutex:
  View* next_of_engine = nullptr;
};

// While it lives the view's runs may be changed; at its end they are counted. Under the views mutex.
class RunsChange {
 public:
  explicit RunsChange(View& view) : view_(view), before_(view.runs.size()) {}
  ~RunsChange();
  RunsChange(const RunsChange&) = delete;
  RunsChange& operator=(const RunsChange&) = delete;
  ViewRuns* operator->() { return &view_.runs; }

 private:
  View& view_;
  const std::size_t before_;
};

// The views of one cache. Thread safety: every call from any thread; destroyed when no view is left.
class ViewEngine {
 public:
  static Result<std::unique_ptr<ViewEngine>> create(PageCache& cache);
  ~ViewEngine();
  ViewEngine(const ViewEngine&) = delete;
  ViewEngine& operator=(const ViewEngine&) = delete;

  // A view of the pages [first_page, first_page + pages), blank. owner: for hold_view. Errors: ENOMEM and mmap's.
  Result<View*> add(Mapping& mapping, std::uint64_t first_page, std::uint64_t pages, bool writable, void* owner);
  // Unmaps and frees it. A thread that still waits in it gets SIGSEGV. No lock held.
  void remove(View& view);
  // Fills and places all pages before the end of the file; the error of the first that cannot be. No lock held.
  Status prefault(View& view);

  PageCache& cache() { return cache_; }
  ViewMapper& mapper() { return *mapper_; }
  // Whether all views together show few enough runs for some more.
  static bool has_room();
  // Makes parts of views blank until they do, as far as this cache's go. At once: a few of them in any case, for the
  // kernel has no mappings left. May wait; no lock held.
  void make_room(bool at_once);
  std::uint64_t next_stamp() { return stamp_.fetch_add(1, memory_order_relaxed) + 1; }
  void note_error_trap(View& view);  // one was made: it goes after a while

 private:
  explicit ViewEngine(PageCache& cache);

  ViewHold next_view();
  bool reset_oldest(View& view);

  PageCache& cache_;
  Atomic<std::uint64_t> stamp_;
  Mutex mutex_;
  View* views_ GUARDED_BY(mutex_) = nullptr;
  View* hand_ GUARDED_BY(mutex_) = nullptr;  // where make_room goes on
  std::unique_ptr<ViewMapper> mapper_;
  std::unique_ptr<FaultServer> faults_;
};

// The caller holds `remove` over the pages: from here to its end no view shows any of them.
void take_from_views(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page);

// The folio is locked. False: another thread has the views mutex, and wait is false; nothing was done.
bool take_folio_from_views(Mapping& mapping, Folio& folio, bool wait);

// Before writeback of the folio, which is locked: from here on a store to it is a fault.
void protect_in_views(Mapping& mapping, Folio& folio);

// Before the file grows, whose range lock to infinity is held: what was stored after its end goes.
void zero_past_end(Mapping& mapping);

// Traps past the old end go, where the file has grown. After the size was stored; before who made it grow returns.
void lift_end_traps(Mapping& mapping);
inline void note_grown(Mapping& mapping) {
  if (__builtin_expect(mapping.views.any.load(memory_order_relaxed), 0)) lift_end_traps(mapping);
}

// Of the fault server. An access to `page` has to fail from now on: past the end of the file (then all that lies
// there), or because it cannot be read. False: the view is going, or the file has grown.
bool trap_past_end(View& view, std::uint64_t page);
bool trap_error(View& view, std::uint64_t page);
// Traps of pages that could not be read: the next access tries again.
void lift_error_traps(View& view);

}  // namespace quire
