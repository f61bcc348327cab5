// Serving the faults of views. Guarantees: R1, R2, R4.
//
// One thread for each cache reads the faults, and waits for nothing but the next: what it cannot get at once (the
// invalidate lock, the lock of the page's folio, the views mutex) or has not got (the page itself) it *parks*, and a
// worker, who may wait, does the same with waiting, and fills. Then the faulting thread is woken and tries again.
//
//   fault --all is there--> placed --> woken
//     \---- else --> parked (once for a page) --worker: fill, lock, place, or trap--> woken
//
// What is placed: the folio of the page, and around it, in an aligned window of 2 MiB, what is uptodate and free and
// not shown yet. A folio with the readahead mark is not placed beforehand: its first touch starts the next window. A
// store makes the folio of its page dirty (of a large clean one the part around the page, which is split off), and
// where the last store before it was to the page before, the next sixteen with it. Near the limit on dirty pages it has
// to claim, and may wait long: workers of another kind do that, so that pages are filled meanwhile. Who holds what:
// `instantiate` over all that is placed (the page's own waits for range operations, its window is only tried), then the
// folios' locks (the page's own waits, the others are tried), then the views mutex. Nothing is held while a page is
// filled, nor while anything is waited for but these. Races, and what closes them:
//   two faults on one page       the second finds it parked, and is woken with the first: the worker takes the page off
//                                the list before it wakes. A load does not wait with a store, which may have to claim
//   the view goes                its hold is taken before it is looked at and given up after the wake-up
//   the page goes between fill   the worker looks again; a page that comes and goes is placed in the end, for reclaim
//   and lock                     takes what is new last
// Locks: parked (a leaf), and those above.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/views.h"
#include "sync/thread.h"
#include "sync/workers.h"

namespace quire {

// Places what is there around one page of a view. On the stack; lets go of all it holds at its end.
class Placing {
 public:
  enum class Outcome : std::uint8_t {
    placed,    // and `status` says nothing
    not_now,   // the page is absent or not uptodate, has the mark, or, without waiting, something is in use
    past_end,  // of the file
    no_view,   // it is being unmapped
    crowded,   // views have to show less first
    failed     // `status` says why
  };
  static constexpr std::uint64_t kWindow = 512;  // pages
  static constexpr std::size_t kMostRuns = 64;   // mapped at once: each takes some microseconds

  struct Access {
    bool is_store = false;      // the page is to be open
    bool is_protected = false;  // it is placed, but not open
  };
  enum class Room : std::uint8_t {
    ordinary,
    crowded,  // place, though views show more than they should
    scarce    // the same, and no more than the page's own run: mappings are used up
  };
  Placing(View& view, std::uint64_t page, Access access, bool wait, Room room = Room::ordinary)
      : view_(view),
        mapping_(*view.mapping),
        page_(page),
        access_(access),
        wait_(wait),
        room_(room),
        instantiate_(mapping_.invalidate) {}
  ~Placing();
  Placing(const Placing&) = delete;
  Placing& operator=(const Placing&) = delete;

  Outcome run();
  Status status() const { return status_; }
  // What was placed around the page, when it was.
  std::uint64_t first() const { return placed_first_; }
  std::uint64_t end() const { return placed_end_; }
  std::uint64_t reach() const { return reach_; }  // from the page to there without a gap

 private:
  struct Piece {
    std::uint64_t page, end;
    std::uint32_t frame;
  };

  bool lock_range();
  Folio* lock_own_folio();
  Folio* lock_own_for_access();
  void unlock(Folio& folio);
  bool add_folio(Folio* folio);
  void lock_neighbours(std::uint64_t first, std::uint64_t end);
  Outcome place_locked() REQUIRES(mapping_.views.mutex);
  std::size_t find_pieces_locked(std::span<Piece> pieces, std::size_t* own) REQUIRES(mapping_.views.mutex);
  Status map_locked(std::span<const Piece> pieces) REQUIRES(mapping_.views.mutex);
  void count_as_stored(std::span<const Piece> pieces);
  void show_locked(std::span<const Piece> pieces) REQUIRES(mapping_.views.mutex);
  bool open_locked(const Folio& folio) REQUIRES(mapping_.views.mutex);
  bool open_for_store_locked(Folio& own) REQUIRES(mapping_.views.mutex);
  bool is_placed(const Folio& folio, std::span<const Piece> pieces) const;

  View& view_;
  Mapping& mapping_;
  const std::uint64_t page_;
  const Access access_;
  const bool wait_;
  const Room room_;
  RangeGuard instantiate_;
  std::uint64_t first_ = 0, last_ = 0;  // pages that are locked
  std::uint64_t placed_first_ = 0, placed_end_ = 0, reach_ = 0;
  Folio* own_ = nullptr;  // of folios_
  std::size_t count_ = 0;
  std::array<Folio*, kWindow> folios_;  // locked, referenced, ascending
  Status status_;
};

class FaultServer {
 public:
  explicit FaultServer(ViewEngine& engine);
  ~FaultServer();  // no view is left
  FaultServer(const FaultServer&) = delete;
  FaultServer& operator=(const FaultServer&) = delete;
  Status start();

  Status prefault(View& view);
  void note_error_trap(View& view);

 private:
  struct Parked;
  static constexpr std::int64_t kLifting = -1;
  static constexpr std::int64_t kTrapNs = 1'000'000'000;  // then an access to a page that could not be read tries again

  void run();
  void serve(const ViewFault& fault);
  bool try_serve(View& view, std::uint64_t page, Placing::Access access);
  void park(ViewHold hold, std::uint64_t page, Placing::Access access);
  static void serve_parked(Work& work);
  Status serve_claiming(View& view, std::uint64_t page, Placing::Access access, std::uint64_t* end);
  // Until the page is placed. ENXIO: it lies past the end; ECANCELED: the view is going.
  Status serve_waiting(View& view, std::uint64_t page, Placing::Access access, std::uint64_t* end);
  Placing::Outcome place(View& view, std::uint64_t page, Placing::Access access, Placing::Room room, std::uint64_t* end,
                         Status* status);
  Status make_present(View& view, std::uint64_t page, bool* small);
  Status fill(View& view, std::uint64_t page, bool small);
  static void lift_traps(Work& work);

  ViewEngine& engine_;
  PageCache& cache_;
  Thread thread_;
  Atomic<bool> stop_;
  Mutex mutex_;
  Parked* parked_ GUARDED_BY(mutex_) = nullptr;
  std::vector<char*> traps_ GUARDED_BY(mutex_);  // the bases of views with traps that are to be lifted
  Atomic<std::int64_t> lift_at_ns_;              // when; 0: there are none; kLifting: `lift_` is on its way
  struct LiftWork : Work {
    FaultServer* server;
  } lift_;
  Workers claimers_;  // for stores that have to claim: they may wait for the dirty limit
  Workers workers_;   // last: its end runs what is submitted, with all of the above
};

}  // namespace quire
