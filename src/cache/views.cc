// See views.h.
#include "cache/views.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <iterator>
#include <new>

#include "base/defect.h"
#include "base/error.h"
#include "cache/view_faults.h"
#include "sync/futex.h"
#include "sync/rcu.h"

namespace quire {

LockClass views_lock_class{"views"};

namespace {

constinit LockClass engine_lock_class{"views of a cache"};
constexpr std::int64_t kRunBytes = 96;  // of a view's note of one
constexpr std::uint32_t kResetsAtOnce = 8;
constinit Atomic<std::uint32_t> run_count;  // of all views
constinit Atomic<std::uint32_t> run_limit;  // 0: not known yet
constinit Atomic<ViewMapperMaker> mapper_maker{&make_view_mapper};

std::uint64_t pages_of_file(const Mapping& mapping) {
  return round_up(mapping.size.load(memory_order_acquire), kPageSize) >> kPageShift;
}

// each(view, first page, end) of the views that show any of [first, end).
template <typename Each>
void for_each_showing_locked(Mapping& mapping, std::uint64_t first, std::uint64_t end, Each each)
    REQUIRES(mapping.views.mutex) {
  for (View* view = mapping.views.first; view != nullptr; view = view->next) {
    const std::uint64_t from = std::max(first, view->first_page);
    const std::uint64_t to = std::min(end, view->first_page + view->pages);
    if (from < to) each(*view, from, to);
  }
}

char* address_of(const View& view, std::uint64_t page) { return view.base + ((page - view.first_page) << kPageShift); }

void take_range_locked(Mapping& mapping, std::uint64_t first, std::uint64_t end) REQUIRES(mapping.views.mutex) {
  for_each_showing_locked(mapping, first, end, [](View& view, std::uint64_t from, std::uint64_t to) {
    view.engine->mapper().take(address_of(view, from), (to - from) << kPageShift);
  });
}

// No view shows it any more. The folio is locked; so whoever has a reference of his own keeps it from being the last.
void clear_viewed_locked([[maybe_unused]] Mapping& mapping, Folio& folio) REQUIRES(mapping.views.mutex) {
  if ((folio.flags.fetch_and(~kViewed, memory_order_relaxed) & kViewed) == 0) return;
  folio.refs.fetch_sub(1, memory_order_release);
}

}  // namespace

bool take_folio_from_views(Mapping& mapping, Folio& folio, bool wait) {
  DCHECK(folio.has(kLocked));
  if (!folio.has(kViewed)) return true;
  if (wait) {
    mapping.views.mutex.lock();
  } else if (!mapping.views.mutex.try_lock()) {
    return false;
  }
  const std::uint64_t first = folio.index.load(memory_order_relaxed);
  if (!has_defect(Defect::reclaim_of_viewed)) take_range_locked(mapping, first, first + folio.pages());
  clear_viewed_locked(mapping, folio);
  mapping.views.mutex.unlock();
  return true;
}

void take_from_views(Mapping& mapping, std::uint64_t first_page, std::uint64_t last_page) {
  if (!mapping.views.any.load(memory_order_relaxed)) return;
  {
    MutexLock lock(mapping.views.mutex);
    take_range_locked(mapping, first_page, last_page == UINT64_MAX ? last_page : last_page + 1);
  }
  for (std::uint64_t page = first_page; page <= last_page;) {
    {
      RcuReadLock rcu;
      if (mapping.pages.find(&page, last_page).empty()) return;
    }
    Folio* folio = get_folio(mapping, page);
    std::uint64_t next = page + 1;
    if (folio != nullptr) {
      next = folio->index.load(memory_order_relaxed) + folio->pages();
      if (folio->has(kViewed)) {
        lock_folio(*folio);
        if (folio_is(*folio, &mapping, page)) {
          MutexLock lock(mapping.views.mutex);
          clear_viewed_locked(mapping, *folio);
        }
        unlock_folio(*folio);
      }
      mapping.cache.put_folio(*folio);
    }
    if (next <= page) return;
    page = next;
  }
}

namespace {

// What lies after the end of the file in its last page, if the folio (locked, uptodate) holds that.
void zero_tail(Mapping& mapping, Folio& folio) {
  const std::uint64_t size = mapping.size.load(memory_order_acquire);
  const std::uint64_t start = folio.index.load(memory_order_relaxed) << kPageShift;
  if (is_aligned(size, kPageSize) || size <= start || size - start >= folio.size_bytes()) return;
  begin_change(folio);
  racy_zero_folio(folio.bytes() + (size - start), round_up(size, kPageSize) - size);
  end_change(folio);
}

}  // namespace

void protect_in_views(Mapping& mapping, Folio& folio) {
  DCHECK(folio.has(kLocked));
  if (!folio.has(kWasViewed)) return;
  if (folio.has(kViewed)) {
    const std::uint64_t index = folio.index.load(memory_order_relaxed);
    const std::uint64_t frame = mapping.cache.pool.id(folio);
    MutexLock lock(mapping.views.mutex);
    for_each_showing_locked(
        mapping, index, index + folio.pages(), [&](View& view, std::uint64_t from, std::uint64_t to) {
          if (!view.writable) return;
          view.runs.for_each(from, to,
                             [&](std::uint64_t first, std::uint64_t end, const ViewRuns::Run& run, std::uint32_t at) {
                               if (run.kind != ViewRuns::Kind::frames || at != frame + (first - index))
                                 return;  // another's, since taken
                               char* const address = address_of(view, first);
                               while (!view.engine->mapper().protect(address, (end - first) << kPageShift, true))
                                 thread_yield();
                             });
        });
  }
  zero_tail(mapping, folio);
}

namespace {

// Blank again; where that fails, later.
void lift_trap_locked([[maybe_unused]] Mapping& mapping, View& view, std::uint64_t first, std::uint64_t pages)
    REQUIRES(mapping.views.mutex) {
  if (view.engine->mapper().reset(address_of(view, first), pages << kPageShift, view.writable).ok()) {
    RunsChange(view)->clear(first, first + pages);
  } else {
    RunsChange(view)->set(first, {pages, 0, ViewRuns::Kind::error});
    view.engine->note_error_trap(view);
    clear_cause();
  }
}

}  // namespace

void zero_past_end(Mapping& mapping) {
  if (!mapping.views.any.load(memory_order_relaxed)) return;
  const std::uint64_t page = mapping.size.load(memory_order_acquire) >> kPageShift;
  Folio* const folio = get_folio(mapping, page);
  if (folio == nullptr) return;
  lock_folio(*folio);
  if (folio_is(*folio, &mapping, page) && folio->has(kUptodate)) zero_tail(mapping, *folio);
  unlock_folio(*folio);
  mapping.cache.put_folio(*folio);
}

void lift_end_traps(Mapping& mapping) {
  MutexLock lock(mapping.views.mutex);
  const std::uint64_t file_pages = pages_of_file(mapping);
  for (View* view = mapping.views.first; view != nullptr; view = view->next) {
    if (view->end_traps >= file_pages) continue;
    // What was placed there since the file grew, and before we came, has left parts of the trap on both sides.
    const ViewRuns::Map& runs = view->runs.map();
    auto at = runs.lower_bound(view->end_traps);
    while (at != runs.end() && at->first < file_pages) {
      const auto [first, run] = *at++;
      if (run.kind != ViewRuns::Kind::past_end) continue;
      lift_trap_locked(mapping, *view, first, run.pages);
      at = runs.lower_bound(first + run.pages);
    }
    view->end_traps = at == runs.end() ? UINT64_MAX : at->first;
  }
}

bool trap_past_end(View& view, std::uint64_t page) {
  Mapping& mapping = *view.mapping;
  MutexLock lock(mapping.views.mutex);
  const std::uint64_t file_pages = pages_of_file(mapping);
  if (!view.placing || page < file_pages) return false;
  const std::uint64_t first = std::max(view.first_page, file_pages), end = view.first_page + view.pages;
  if (!view.engine->mapper().trap(address_of(view, first), (end - first) << kPageShift).ok()) return false;
  RunsChange(view)->set(first, {end - first, 0, ViewRuns::Kind::past_end});
  view.end_traps = std::min(view.end_traps, first);
  return true;
}

bool trap_error(View& view, std::uint64_t page) {
  MutexLock lock(view.mapping->views.mutex);
  if (!view.placing || !view.engine->mapper().trap(address_of(view, page), kPageSize).ok()) return false;
  RunsChange(view)->set(page, {1, 0, ViewRuns::Kind::error});
  view.engine->note_error_trap(view);
  return true;
}

void lift_error_traps(View& view) {
  MutexLock lock(view.mapping->views.mutex);
  if (!view.placing) return;
  for (auto at = view.runs.map().begin(); at != view.runs.map().end();) {
    const auto [first, run] = *at++;
    if (run.kind != ViewRuns::Kind::error) continue;
    lift_trap_locked(*view.mapping, view, first, run.pages);
    at = view.runs.map().lower_bound(first + run.pages);
  }
}

std::uint32_t view_run_limit() {
  const std::uint32_t known = run_limit.load(memory_order_relaxed);
  if (known != 0) return known;
  std::uint32_t mappings = 65530;
  if (FILE* const file = std::fopen("/proc/sys/vm/max_map_count", "re"); file != nullptr) {
    static_cast<void>(std::fscanf(file, "%u", &mappings));
    std::fclose(file);
  }
  // A run takes one, and what is blank before it another; a third is the program's.
  const std::uint32_t limit = std::clamp<std::uint32_t>(mappings / 3, 64, 30'000);
  run_limit.store(limit, memory_order_relaxed);
  return limit;
}

void set_view_run_limit(std::uint32_t runs) { run_limit.store(runs, memory_order_relaxed); }

void set_view_mapper_maker(ViewMapperMaker maker) {
  mapper_maker.store(maker != nullptr ? maker : &make_view_mapper, memory_order_relaxed);
}

RunsChange::~RunsChange() {
  const std::int64_t more = static_cast<std::int64_t>(view_.runs.size()) - static_cast<std::int64_t>(before_);
  if (more == 0) return;
  run_count.fetch_add(static_cast<std::uint32_t>(more), memory_order_relaxed);
  view_.engine->cache().charge_files(more * kRunBytes);
}

bool ViewEngine::has_room() { return run_count.load(memory_order_relaxed) + Placing::kMostRuns <= view_run_limit(); }

// Held, so that it stays; none: empty.
ViewHold ViewEngine::next_view() {
  MutexLock lock(mutex_);
  if (hand_ == nullptr) hand_ = views_;
  if (hand_ == nullptr) return {};
  View& view = *hand_;
  hand_ = view.next_of_engine;
  view.holds.fetch_add(1, memory_order_relaxed);  // in the list: the table still has its own
  return ViewHold(&view, view.base);
}

// Of the stretches of 4 MiB in the view, the one whose newest run is the oldest. False: it shows nothing.
bool ViewEngine::reset_oldest(View& view) {
  constexpr std::uint64_t kStretch = 1024;  // pages
  MutexLock lock(view.mapping->views.mutex);
  std::uint64_t oldest = UINT64_MAX, at = 0, newest = 0, stretch = UINT64_MAX;
  const auto close = [&] {
    if (stretch != UINT64_MAX && newest < oldest) {
      oldest = newest;
      at = stretch;
    }
    newest = 0;
  };
  for (const auto& [first, run] : view.runs.map()) {
    if (run.kind != ViewRuns::Kind::frames) continue;
    if (round_down(first, kStretch) != stretch) close();
    stretch = round_down(first, kStretch);
    newest = std::max(newest, run.stamp);
  }
  close();
  if (!view.placing || oldest == UINT64_MAX) return false;
  const std::uint64_t first = std::max(at, view.first_page);
  std::uint64_t end = std::min(at + kStretch, view.first_page + view.pages);
  const auto last = std::prev(view.runs.map().end());  // not a trap past the end of the file
  if (last->second.kind == ViewRuns::Kind::past_end) end = std::min(end, last->first);
  if (!mapper_->reset(address_of(view, first), (end - first) << kPageShift, view.writable).ok()) return false;
  RunsChange(view)->clear(first, end);
  cache_.stats.count(Counter::view_resets);
  return true;
}

void ViewEngine::make_room(bool at_once) {
  const std::uint32_t enough = view_run_limit() - view_run_limit() / 8;
  std::uint32_t wanted = at_once ? kResetsAtOnce : 0;
  for (std::uint32_t tries = 0;
       tries < 64 && (wanted != 0 || run_count.load(memory_order_relaxed) + Placing::kMostRuns > enough);) {
    const ViewHold hold = next_view();
    if (!hold) break;
    if (!reset_oldest(static_cast<View&>(hold.span()))) {
      ++tries;
    } else if (wanted != 0) {
      --wanted;
    }
  }
  clear_cause();
}

Result<std::unique_ptr<ViewEngine>> ViewEngine::create(PageCache& cache) {
  std::unique_ptr<ViewEngine> engine(new (std::nothrow) ViewEngine(cache));
  if (engine == nullptr) return fail(ENOMEM);
  auto mapper = mapper_maker.load(memory_order_relaxed)(cache.pool);
  QUIRE_TRY(mapper);
  engine->mapper_ = mapper.take();
  engine->faults_.reset(new (std::nothrow) FaultServer(*engine));
  if (engine->faults_ == nullptr) return fail(ENOMEM);
  QUIRE_TRY(engine->faults_->start());
  return engine;
}

ViewEngine::ViewEngine(PageCache& cache) : cache_(cache), mutex_(engine_lock_class) {}

ViewEngine::~ViewEngine() { faults_.reset(); }

Result<View*> ViewEngine::add(Mapping& mapping, std::uint64_t first_page, std::uint64_t pages, bool writable,
                              void* owner) {
  std::unique_ptr<View> view(new (std::nothrow) View);
  if (view == nullptr) return fail(ENOMEM);
  view->mapping = &mapping;
  view->owner = owner;
  view->first_page = first_page;
  view->pages = pages;
  view->writable = writable;
  view->engine = this;
  auto base = take_view_addresses(view->bytes());
  QUIRE_TRY(base);
  view->base = base.value();
  Status made = mapper_->blank(view->base, view->bytes(), writable);
  if (made.ok()) made = list_view(*view);
  if (!made.ok()) {
    mapper_->unmap(view->base, view->bytes());
    give_view_addresses(view->base, view->bytes());
    return fail(made.errnum());
  }
  {
    MutexLock lock(mapping.views.mutex);
    view->next = mapping.views.first;
    mapping.views.first = view.get();
    mapping.views.any.store(true, memory_order_release);
  }
  {
    MutexLock lock(mutex_);
    view->next_of_engine = views_;
    views_ = view.get();
  }
  cache_.charge_files(sizeof(View));
  rcu_synchronize();  // a fence in every thread: see the header
  return view.release();
}

void ViewEngine::remove(View& view) {
  {
    MutexLock lock(mutex_);
    View** link = &views_;
    while (*link != &view) link = &(*link)->next_of_engine;
    *link = view.next_of_engine;
    if (hand_ == &view) hand_ = view.next_of_engine;
  }
  Mapping& mapping = *view.mapping;
  {
    MutexLock lock(mapping.views.mutex);
    // Unmapped while it is still in the list: a page must not stay open once writeback no longer sees the view.
    mapper_->unmap(view.base, view.bytes());
    RunsChange(view)->clear(view.first_page, view.first_page + view.pages);
    View** link = &mapping.views.first;
    while (*link != &view) link = &(*link)->next;
    *link = view.next;
    view.placing = false;
  }
  mapper_->wake(view.base, view.bytes());
  unlist_view(view);
  give_view_addresses(view.base, view.bytes());
  delete &view;
  cache_.charge_files(-static_cast<std::int64_t>(sizeof(View)));
}

Status ViewEngine::prefault(View& view) { return faults_->prefault(view); }

void ViewEngine::note_error_trap(View& view) { faults_->note_error_trap(view); }

}  // namespace quire
