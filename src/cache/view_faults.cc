// The fault thread, what it parks, and the workers' side. See view_faults.h.
#include "cache/view_faults.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>

#include "base/error.h"
#include "cache/fill.h"
#include "cache/flusher.h"
#include "device/fork_guard.h"
#include "sync/clock.h"

namespace quire {
namespace {

constinit LockClass parked_lock_class{"parked faults"};
constexpr unsigned kWorkers = 4;       // of each kind
constexpr std::uint64_t kAround = 16;  // pages: read around a touch that follows no stream

char* address_of(const View& view, std::uint64_t page) { return view.base + ((page - view.first_page) << kPageShift); }

}  // namespace

struct FaultServer::Parked : Work {
  Parked(FaultServer& s, ViewHold h, std::uint64_t p, Placing::Access a)
      : server(s), hold(std::move(h)), page(p), access(a) {
    run = &serve_parked;
  }
  FaultServer& server;
  ViewHold hold;
  const std::uint64_t page;
  const Placing::Access access;
  bool claims = false;            // with the workers that may claim
  Parked* next_parked = nullptr;  // under the server's mutex
};

FaultServer::FaultServer(ViewEngine& engine)
    : engine_(engine),
      cache_(engine.cache()),
      mutex_(parked_lock_class),
      claimers_(kWorkers, "quire-claims"),
      workers_(kWorkers, "quire-view-work") {
  lift_.run = &lift_traps;
  lift_.server = this;
}

Status FaultServer::start() {
  QUIRE_TRY(claimers_.start());
  QUIRE_TRY(workers_.start());
  return thread_.start([this] { run(); }, "quire-views");
}

FaultServer::~FaultServer() {
  if (device_in_forked_child()) {
    thread_.forget();
    claimers_.forget();
    workers_.forget();
    return;
  }
  if (!thread_.running()) return;
  stop_.store(true, memory_order_release);
  engine_.mapper().interrupt();
  thread_.join();
}

void FaultServer::run() {
  constexpr int kPollMs = 250;
  while (!stop_.load(memory_order_acquire)) {
    std::int64_t lift_at = lift_at_ns_.load(memory_order_acquire);
    ViewFault fault;
    if (engine_.mapper().wait(&fault, lift_at > 0 ? kPollMs : -1)) serve(fault);
    if (lift_at > 0 && clock_ns(CLOCK_MONOTONIC) >= lift_at) {
      lift_at_ns_.store(kLifting, memory_order_relaxed);
      workers_.submit(lift_);
    }
  }
}

void FaultServer::serve(const ViewFault& fault) {
  ViewHold hold = hold_view(fault.page);
  if (!hold) {  // unmapped since
    engine_.mapper().wake(fault.page, kPageSize);
    return;
  }
  cache_.stats.count(Counter::view_faults);
  View& view = static_cast<View&>(hold.span());
  const std::uint64_t page = hold.offset() >> kPageShift;
  const Placing::Access access{fault.is_store && view.writable, fault.is_protected};
  if (!try_serve(view, page, access)) park(std::move(hold), page, access);
}

bool FaultServer::try_serve(View& view, std::uint64_t page, Placing::Access access) {
  if (access.is_store && cache_.dirty.near(*view.mapping)) return false;  // it has to claim
  Placing placing(view, page, access, false);
  switch (placing.run()) {
    case Placing::Outcome::placed:
      engine_.mapper().wake(address_of(view, placing.first()), (placing.end() - placing.first()) << kPageShift);
      return true;
    case Placing::Outcome::no_view:
      engine_.mapper().wake(address_of(view, page), kPageSize);
      return true;
    default:
      clear_cause();
      return false;
  }
}

void FaultServer::park(ViewHold hold, std::uint64_t page, Placing::Access access) {
  char* const at = address_of(static_cast<View&>(hold.span()), page);
  Parked* const parked = new (std::nothrow) Parked(*this, std::move(hold), page, access);
  if (parked == nullptr) {  // it comes again
    engine_.mapper().wake(at, kPageSize);
    return;
  }
  cache_.stats.count(Counter::view_parked);
  bool is_first;
  {
    MutexLock lock(mutex_);
    Parked* other = parked_;
    while (other != nullptr && (other->page != page || &other->hold.span() != &parked->hold.span() ||
                                other->access.is_store != access.is_store)) {
      other = other->next_parked;
    }
    is_first = other == nullptr;
    if (is_first) {
      parked->next_parked = parked_;
      parked_ = parked;
    }
  }
  if (is_first) {
    workers_.submit(*parked);
  } else {
    delete parked;  // woken with the other
  }
}

void FaultServer::serve_parked(Work& work) {
  auto& parked = static_cast<Parked&>(work);
  FaultServer& server = parked.server;
  View& view = static_cast<View&>(parked.hold.span());
  if (parked.access.is_store && !parked.claims && server.cache_.dirty.near(*view.mapping)) {
    parked.claims = true;
    return server.claimers_.submit(parked);
  }
  std::uint64_t end = parked.page + 1;
  const Status served = parked.claims ? server.serve_claiming(view, parked.page, parked.access, &end)
                                      : server.serve_waiting(view, parked.page, parked.access, &end);
  if (!served.ok() && served.errnum() != ECANCELED) trap_error(view, parked.page);
  clear_cause();
  {
    MutexLock lock(server.mutex_);
    Parked** link = &server.parked_;
    while (*link != &parked) link = &(*link)->next_parked;
    *link = parked.next_parked;
  }
  server.engine_.mapper().wake(address_of(view, parked.page), (std::max(end, parked.page + 1) - parked.page)
                                                                  << kPageShift);
  delete &parked;
}

Status FaultServer::fill(View& view, std::uint64_t page, bool small) {
  Mapping& mapping = *view.mapping;
  const auto file_pages = [&] { return round_up(mapping.size.load(memory_order_acquire), kPageSize) >> kPageShift; };
  const std::uint64_t before = file_pages();
  if (page >= before) return {};
  ReadaheadPlan plan = plan_miss(mapping, &view.ahead, page, page, before);
  std::uint64_t first = page;
  if (small) {
    plan.last = page;
    plan.mark = UINT64_MAX;
    plan.order = 0;
  } else if (plan.stream == nullptr) {
    first = round_down(page, kAround);
    plan.last = std::min(first + kAround, before) - 1;
    plan.order = std::min(cache_.max_order(), static_cast<unsigned>(std::bit_width(kAround)) - 1);
  }
  if (!small) widen_to_units(mapping, &first, &plan.last);  // here, since the fill does not pass what is locked
  FrameReservation frames(cache_.pool);
  cache_.reserve_for_read(frames, static_cast<std::uint32_t>(plan.last - first + 1), plan.order);
  if (frames.count() < plan.last - first + 1) first = page;  // what is wanted comes before what lies before it
  // The end of the file moves towards us under `remove` alone.
  RangeGuard instantiate(mapping.invalidate);
  instantiate.acquire(first, plan.last, kInstantiate);
  const std::uint64_t now = file_pages();
  if (page >= now) return {};
  const CacheContext context{.held = &instantiate.request()};
  const auto filled = fill_range(mapping, first, std::min(plan.last, now - 1), frames, context, plan.order, plan.mark);
  QUIRE_TRY(filled);
  note_filled(plan, filled.value().end);
  if (filled.value().first != nullptr) cache_.put_folio(*filled.value().first);
  return {};
}

// One step towards a page that is uptodate and has no mark. ESTALE: look again.
Status FaultServer::make_present(View& view, std::uint64_t page, bool* small) {
  Mapping& mapping = *view.mapping;
  Folio* const folio = get_folio(mapping, page);
  if (folio == nullptr) return fill(view, page, *small);
  if (folio->has(kReadahead) && (folio->flags.fetch_and(~kReadahead, memory_order_relaxed) & kReadahead) != 0) {
    const std::uint64_t size = mapping.size.load(memory_order_acquire);
    start_next_window(mapping, &view.ahead, *folio, round_up(size, kPageSize) >> kPageShift, 0);
  }
  const Status ready = wait_uptodate(mapping, *folio, page, CacheContext{});
  cache_.put_folio(*folio);  // before a lock is waited for: a range operation may wait for us to let go of it
  if (!ready.ok() && ready.errnum() == ESTALE) {
    *small = true;
    return {};
  }
  return ready;
}

// A store near the limit on dirty pages waits for its turn, as a write does; EIO where it would not come.
Status FaultServer::serve_claiming(View& view, std::uint64_t page, Placing::Access access, std::uint64_t* end) {
  cache_.flusher().kick_background();
  QUIRE_TRY(cache_.dirty.claim(*view.mapping, 1));
  const Status served = serve_waiting(view, page, access, end);
  cache_.dirty.unclaim(1);
  return served;
}

Placing::Outcome FaultServer::place(View& view, std::uint64_t page, Placing::Access access, Placing::Room room,
                                    std::uint64_t* end, Status* status) {
  Placing placing(view, page, access, true, room);
  const Placing::Outcome outcome = placing.run();
  if (outcome == Placing::Outcome::placed) *end = placing.reach();
  *status = placing.status();
  return outcome;
}

Status FaultServer::serve_waiting(View& view, std::uint64_t page, Placing::Access access, std::uint64_t* end) {
  bool small = false;
  for (Placing::Room room = Placing::Room::ordinary;;) {
    Status status;
    switch (place(view, page, access, room, end, &status)) {
      case Placing::Outcome::placed:
        if (room == Placing::Room::scarce) engine_.mapper().keep_spare();
        return {};
      case Placing::Outcome::no_view:
        return fail(ECANCELED);
      case Placing::Outcome::failed:
        if (status.errnum() != ENOMEM || room == Placing::Room::scarce) return status;
        // The program has used up the kernel's mappings: a few of ours for the page alone.
        engine_.make_room(true);
        room = Placing::Room::scarce;
        continue;
      case Placing::Outcome::crowded:
        // Where that does not help, other caches show so much: the kernel's limit lies higher.
        engine_.make_room(false);
        room = Placing::Room::crowded;
        continue;
      case Placing::Outcome::past_end:
      case Placing::Outcome::not_now:
        break;
    }
    if (page >= round_up(view.mapping->size.load(memory_order_acquire), kPageSize) >> kPageShift) {
      if (trap_past_end(view, page)) {
        *end = view.first_page + view.pages;
        return {};
      }
      MutexLock lock(view.mapping->views.mutex);
      if (!view.placing) return fail(ECANCELED);
      continue;  // it has grown meanwhile
    }
    QUIRE_TRY(make_present(view, page, &small));
  }
}

Status FaultServer::prefault(View& view) {
  for (std::uint64_t page = view.first_page; page < view.first_page + view.pages;) {
    if (page >= round_up(view.mapping->size.load(memory_order_acquire), kPageSize) >> kPageShift) return {};
    std::uint64_t end = page + 1;
    QUIRE_TRY(serve_waiting(view, page, {}, &end));
    page = std::max(end, page + 1);
  }
  return {};
}

void FaultServer::note_error_trap(View& view) {
  {
    MutexLock lock(mutex_);
    if (std::find(traps_.begin(), traps_.end(), view.base) == traps_.end()) traps_.push_back(view.base);
  }
  std::int64_t none = 0;
  const std::int64_t due = clock_ns(CLOCK_MONOTONIC) + kTrapNs;
  if (lift_at_ns_.compare_exchange(none, due, memory_order_release, memory_order_relaxed)) {
    engine_.mapper().interrupt();
  }
}

void FaultServer::lift_traps(Work& work) {
  FaultServer& server = *static_cast<LiftWork&>(work).server;
  std::vector<char*> traps;
  server.lift_at_ns_.store(0, memory_order_release);  // from here on it may be submitted again
  {
    MutexLock lock(server.mutex_);
    traps.swap(server.traps_);
  }
  for (char* base : traps) {
    const ViewHold hold = hold_view(base);
    if (hold) lift_error_traps(static_cast<View&>(hold.span()));
  }
}

}  // namespace quire
