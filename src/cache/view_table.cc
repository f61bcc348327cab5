// The region and the table of views. See view_table.h.
#include "cache/view_table.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <new>

#include "base/check.h"
#include "base/error.h"
#include "sync/mutex.h"
#include "sync/rcu.h"
#include "sync/wait_queue.h"

namespace quire {
namespace {

LockClass region_lock_class{"view region"};
LockClass table_lock_class{"view table"};

#ifdef QUIRE_TSAN
constexpr std::uint64_t kRegionBytes = std::uint64_t{64} << 30;  // ThreadSanitizer leaves a program few addresses
#else
constexpr std::uint64_t kRegionBytes = std::uint64_t{32} << 40;
#endif
constexpr std::uint64_t kLeastRegion = std::uint64_t{1} << 30;
constexpr std::uint64_t kAlign = std::uint64_t{2} << 20;  // of a view: where the arena's huge pages may fit

// Free addresses by where they begin. Handed out from `next` on and round again, so that an address that was just given
// back, and that somebody may still use by mistake, is not soon another view's.
struct Region {
  Mutex mutex{region_lock_class};
  std::map<std::uintptr_t, std::uint64_t> free GUARDED_BY(mutex);  // address, bytes; neighbours are merged
  std::uintptr_t next GUARDED_BY(mutex) = 0;
};

Region& region() {
  static Region* const living = new Region;  // never destroyed: views may outlive static destructors
  return *living;
}

Status reserve_locked(Region& r) REQUIRES(r.mutex) {
  if (view_region.size.load(memory_order_relaxed) != 0) return {};
  for (std::uint64_t bytes = kRegionBytes; bytes >= kLeastRegion; bytes /= 2) {
    void* const got = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) continue;
    const auto base = reinterpret_cast<std::uintptr_t>(got);
    const std::uintptr_t first = round_up(base + 1, kAlign);  // the region's own first and last page stay unused
    r.free.emplace(first, base + bytes - kPageSize - first);
    r.next = first;
    view_region.base.store(base, memory_order_relaxed);
    view_region.size.store(bytes, memory_order_release);
    return {};
  }
  return fail_with(ENOMEM, "no addresses to reserve for views (is there a limit on them: ulimit -v?)");
}

// Where `bytes` fit into a free range from `from` on; 0: they do not.
std::uintptr_t fit(std::uintptr_t start, std::uint64_t length, std::uintptr_t from, std::uint64_t bytes) {
  const std::uintptr_t at = round_up(std::max(start, from), kAlign);
  return at < start + length && start + length - at >= bytes ? at : 0;
}

}  // namespace

Result<char*> take_view_addresses(std::uint64_t bytes) {
  Region& r = region();
  MutexLock lock(r.mutex);
  QUIRE_TRY(reserve_locked(r));
  if (bytes > view_region.size.load(memory_order_relaxed)) {
    return fail_with(ENOMEM, "a view of %llu bytes is larger than the addresses reserved for all views",
                     static_cast<unsigned long long>(bytes));
  }
  const std::uint64_t with_guard = round_up(bytes + kPageSize, kAlign);
  for (const std::uintptr_t from : {r.next, std::uintptr_t{0}}) {
    for (const auto& [start, length] : r.free) {
      const std::uintptr_t at = fit(start, length, from, with_guard);
      if (at == 0) continue;
      const std::uintptr_t free_start = start;
      const std::uint64_t before = at - free_start, after = length - before - with_guard;
      r.free.erase(free_start);
      if (before != 0) r.free.emplace(free_start, before);
      if (after != 0) r.free.emplace(at + with_guard, after);
      r.next = at + with_guard;
      return reinterpret_cast<char*>(at);
    }
  }
  return fail_with(ENOMEM, "the addresses reserved for views are used up");
}

void give_view_addresses(char* base, std::uint64_t bytes) {
  Region& r = region();
  auto start = reinterpret_cast<std::uintptr_t>(base);
  std::uint64_t length = round_up(bytes + kPageSize, kAlign);
  MutexLock lock(r.mutex);
  auto after = r.free.lower_bound(start);
  if (after != r.free.end() && after->first == start + length) {
    length += after->second;
    after = r.free.erase(after);
  }
  if (after != r.free.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == start) {
      start = before->first;
      length += before->second;
      r.free.erase(before);
    }
  }
  r.free.emplace(start, length);
}

namespace {

// Ascending by address; never changed once it can be found.
struct Table : RcuHead {
  std::size_t count = 0;
  std::unique_ptr<ViewSpan*[]> spans;
};

constinit Mutex table_mutex{table_lock_class};
constinit Atomic<Table*> current_table;
constinit WaitQueue hold_queue;  // some view's last hold is gone

void free_table(RcuHead* head) { delete static_cast<Table*>(head); }

Table* make_table(std::size_t count) {
  Table* table = new (std::nothrow) Table;
  if (table == nullptr) return nullptr;
  table->spans.reset(new (std::nothrow) ViewSpan*[count + 1]);
  table->count = count;
  if (table->spans != nullptr) return table;
  delete table;
  return nullptr;
}

void publish_locked(Table* table) REQUIRES(table_mutex) {
  Table* const old = current_table.exchange(table, memory_order_acq_rel);
  if (old != nullptr) rcu_retire(old, &free_table);
}

void drop_hold(ViewSpan& span) {
  if (span.holds.fetch_sub(1, memory_order_acq_rel) == 1) hold_queue.wake_all();
}

}  // namespace

Status list_view(ViewSpan& span) {
  span.holds.store(1, memory_order_relaxed);
  MutexLock lock(table_mutex);
  const Table* const old = current_table.load(memory_order_relaxed);
  const std::size_t count = old == nullptr ? 0 : old->count;
  Table* const table = make_table(count + 1);
  if (table == nullptr) return fail_with(ENOMEM, "no memory for the table of views");
  std::size_t to = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (to == i && old->spans[i]->base > span.base) table->spans[to++] = &span;
    table->spans[to++] = old->spans[i];
  }
  if (to == count) table->spans[to] = &span;
  publish_locked(table);
  return {};
}

void unlist_view(ViewSpan& span) {
  {
    MutexLock lock(table_mutex);
    Table* const old = current_table.load(memory_order_relaxed);
    std::size_t to = 0;
    Table* const table = make_table(old->count - 1);
    CHECK(table != nullptr);  // a few pointers: without memory for these, nothing else goes on either
    for (std::size_t i = 0; i < old->count; ++i) {
      if (old->spans[i] != &span) table->spans[to++] = old->spans[i];
    }
    CHECK(to == table->count);
    publish_locked(table);
  }
  rcu_synchronize();  // a lookup in the old table has its hold by now
  drop_hold(span);
  for (;;) {
    const std::uint32_t ticket = hold_queue.prepare();
    if (span.holds.load(memory_order_acquire) == 0) {
      hold_queue.cancel();
      return;
    }
    hold_queue.wait(ticket);
  }
}

ViewHold hold_view(const void* address) {
  if (!in_views(address)) return {};
  RcuReadLock rcu;
  const Table* const table = current_table.load(memory_order_acquire);
  if (table == nullptr) return {};
  ViewSpan* const* const begin = table->spans.get();
  ViewSpan* const* const end = begin + table->count;
  ViewSpan* const* const after =
      std::upper_bound(begin, end, address, [](const void* at, const ViewSpan* span) { return at < span->base; });
  if (after == begin) return {};
  ViewSpan* const span = *(after - 1);
  if (!span->contains(address)) return {};
  span->holds.fetch_add(1, memory_order_relaxed);  // the table has one: not before the grace period of its removal
  return ViewHold(span, address);
}

void ViewHold::release() {
  if (span_ != nullptr) drop_hold(*span_);
  span_ = nullptr;
}

}  // namespace quire
