// The lock-order validator: what each thread holds, the graph of class orders, and the reports.
// Cheap where nothing new is seen: an acquisition that adds no edge takes no lock of the validator's own. That lock
// (state_mutex: graph, class ids, asynchronous holders) is a plain one that no hook sees, and reports are handed out
// after it has been released, so the validator never runs inside itself.
//
// Orders, named at their places:
//   O1  Class ids, edges and the handler are read without the lock: stored with release once what they lead to (an
//       entry of classes, an Edge, what the handler uses) is complete, and loaded with acquire.
//   O2  Under state_mutex, where alone ids and edges are stored, the mutex orders: relaxed.
#include "sync/lock_class.h"

#ifdef QUIRE_LOCK_VALIDATOR

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/check.h"
#include "sync/annotations.h"
#include "sync/call_stack.h"

namespace quire {

namespace {

constexpr int kMaxClasses = 128;
constexpr int kMaxHeld = 4608;  // by one thread: a write of 16 MiB locks 4,097 folios; and room

struct Held {
  const void* lock = nullptr;
  int class_id = 0;
  LockKey key;
  LockRange range;
  CallStack taken;
  CallStack submitted;  // empty unless it is or was asynchronous
};

struct HeldLocks {
  int count = 0;
  Held locks[kMaxHeld];

  Held* find(const void* lock) {
    for (int i = count - 1; i >= 0; --i) {
      if (locks[i].lock == lock) return &locks[i];
    }
    return nullptr;
  }
  Held& push() {
    CHECK(count < kMaxHeld);
    return locks[count++];
  }
  void erase(Held* held) {  // keeps the order of the others
    const Held* end = &locks[--count];
    for (; held != end; ++held) *held = held[1];
  }
};

// "`to` was taken while `from` was held", first seen so.
struct Edge {
  Held from;
  LockKey to_key;
  CallStack to_taken;
};

struct ClassInfo {
  const char* name = nullptr;
  LockClass::Nesting nesting = LockClass::Nesting::unordered;
};

using AsyncHolders = std::unordered_map<const void*, Held>;

constinit thread_local HeldLocks held_by_me;
constinit std::mutex state_mutex;
constinit int class_count = 0;                                  // under state_mutex
constinit ClassInfo classes[kMaxClasses];                       // written before the id is published, then constant
constinit Atomic<const Edge*> edges[kMaxClasses][kMaxClasses];  // written once, under state_mutex; never freed
constinit Atomic<LockReportHandler> report_handler;

AsyncHolders& async_holders() {  // under state_mutex; never destroyed, threads may outlive main
  static auto* holders = new AsyncHolders;
  return *holders;
}

void hand_out(const std::string& report) {
  if (LockReportHandler handler = report_handler.load(memory_order_acquire); handler != nullptr) {  // O1
    handler(report);
    return;
  }
  std::fputs(report.c_str(), stderr);
  std::abort();
}

std::string label(int class_id, LockKey key) {
  return std::string("\"") + classes[class_id].name + "\" (" + std::to_string(key.major) + ", " +
         std::to_string(key.minor) + ")";
}

std::string describe_held(const Held& held) {
  std::string text = "  " + label(held.class_id, held.key) + " is held, taken at:\n" + held.taken.to_string();
  if (held.submitted.depth > 0) {
    text += "  its asynchronous holder was submitted at:\n" + held.submitted.to_string();
  }
  return text;
}

bool overlap(const LockRange& a, const LockRange& b) {
  return a.domain != nullptr && a.domain == b.domain && a.first <= b.last && b.first <= a.last;
}

// What this thread is about to wait for.
struct Wanted {
  const void* lock;
  int class_id;
  LockKey key;
  LockRange range;
  CallStack taken;
};

std::string describe_wanted(const Wanted& wanted) {
  return "  " + label(wanted.class_id, wanted.key) + " is being taken at:\n" + wanted.taken.to_string();
}

// Who holds the wanted lock without a thread, if anybody does.
std::string describe_async_holders(const Wanted& wanted) {
  std::vector<Held> found;
  {
    const std::scoped_lock guard(state_mutex);
    for (const auto& [lock, held] : async_holders()) {
      if (lock == wanted.lock || overlap(held.range, wanted.range)) found.push_back(held);
    }
  }
  std::string text;
  for (const Held& held : found) text += " which waits for an asynchronous holder:\n" + describe_held(held);
  return text;
}

void report_pair(const char* what, const Held& held, const Wanted& wanted) {
  hand_out(std::string("quire: lock order: ") + what + "\n" + describe_held(held) + describe_wanted(wanted) +
           describe_async_holders(wanted));
}

// Path of classes from `from` to `to` along known edges, both included; empty if there is none. Under state_mutex.
std::vector<int> find_path(int from, int to) {
  std::vector<int> previous(static_cast<std::size_t>(class_count), -1);
  std::vector<int> reached{from};
  previous[static_cast<std::size_t>(from)] = from;
  for (std::size_t i = 0; i < reached.size(); ++i) {
    const int at = reached[i];
    if (at == to) {
      std::vector<int> path{to};
      while (path.back() != from) path.push_back(previous[static_cast<std::size_t>(path.back())]);
      return {path.rbegin(), path.rend()};
    }
    for (int next = 0; next < class_count; ++next) {
      if (previous[static_cast<std::size_t>(next)] >= 0) continue;
      if (edges[at][next].load(memory_order_relaxed) == nullptr) continue;  // O2
      previous[static_cast<std::size_t>(next)] = at;
      reached.push_back(next);
    }
  }
  return {};
}

void report_cycle(const std::vector<int>& path, const Held& held, const Wanted& wanted) {
  std::string text = "quire: lock order: cycle " + std::string(classes[held.class_id].name);
  for (const int id : path) text += std::string(" -> ") + classes[id].name;
  text += "\n new order, " + std::string(classes[held.class_id].name) + " -> " + classes[wanted.class_id].name + ":\n" +
          describe_held(held) + describe_wanted(wanted);
  for (std::size_t i = 0; i + 1 < path.size(); ++i) {
    const Edge& edge = *edges[path[i]][path[i + 1]].load(memory_order_acquire);  // O1
    text += std::string(" known order, ") + classes[path[i]].name + " -> " + classes[path[i + 1]].name + ":\n" +
            describe_held(edge.from) + "  " + label(path[i + 1], edge.to_key) + " was then taken at:\n" +
            edge.to_taken.to_string();
  }
  hand_out(text + describe_async_holders(wanted));
}

// False (after reporting) if the edge would close a cycle; such an edge is not added.
bool add_edge(const Held& held, const Wanted& wanted) {
  std::vector<int> path;
  {
    const std::scoped_lock guard(state_mutex);
    Atomic<const Edge*>& edge = edges[held.class_id][wanted.class_id];
    if (edge.load(memory_order_relaxed) != nullptr) return true;  // O2; another thread has just added it
    path = find_path(wanted.class_id, held.class_id);
    if (path.empty()) edge.store(new Edge{held, wanted.key, wanted.taken}, memory_order_release);  // O1
  }
  if (path.empty()) return true;
  report_cycle(path, held, wanted);
  return false;
}

bool key_less(LockKey a, LockKey b) { return a.major != b.major ? a.major < b.major : a.minor < b.minor; }

// What two locks alone tell. Null if the held one allows the wanted one.
const char* conflict_of(const Held& held, const void* lock, int class_id, LockKey key, const LockRange& range) {
  if (held.lock == lock) return "recursive: the same lock is taken twice by one thread";
  if (overlap(held.range, range)) return "recursive: overlapping ranges of one lock are taken by one thread";
  if (held.class_id != class_id) return nullptr;
  if (classes[class_id].nesting == LockClass::Nesting::unordered) {
    return "two locks of an unordered class are held by one thread";
  }
  return key_less(held.key, key) ? nullptr : "locks of one class are not taken in ascending key order";
}

void report_not_held(const char* what, const void* lock) {
  CallStack here;
  here.capture();
  char text[32];
  std::snprintf(text, sizeof text, "%p", lock);
  hand_out(std::string("quire: lock order: ") + what + ": " + text + "\n  at:\n" + here.to_string());
}

}  // namespace

class LockValidator {
 public:
  static int id_of(LockClass& lock_class) {
    const int known = lock_class.id_.load(memory_order_acquire);  // O1
    if (known >= 0) return known;
    const std::scoped_lock guard(state_mutex);
    int id = lock_class.id_.load(memory_order_relaxed);  // O2
    if (id < 0) {
      CHECK(class_count < kMaxClasses);
      id = class_count++;
      classes[id] = {lock_class.name_, lock_class.nesting_};
      lock_class.id_.store(id, memory_order_release);  // O1
    }
    return id;
  }
};

void lock_will_acquire(LockClass& lock_class, const void* lock, LockKey key, const LockRange& range) {
  HeldLocks& mine = held_by_me;
  if (mine.count == 0) return;  // nothing to be ordered behind
  const int id = LockValidator::id_of(lock_class);
  for (int i = 0; i < mine.count; ++i) {
    const Held& held = mine.locks[i];
    const char* conflict = conflict_of(held, lock, id, key, range);
    if (conflict == nullptr &&
        (held.class_id == id || edges[held.class_id][id].load(memory_order_acquire) != nullptr)) {  // O1
      continue;
    }
    Wanted wanted{lock, id, key, range, {}};
    wanted.taken.capture();
    if (conflict != nullptr) return report_pair(conflict, held, wanted);
    if (!add_edge(held, wanted)) return;
  }
}

void lock_acquired(LockClass& lock_class, const void* lock, LockKey key, const LockRange& range) {
  const int id = LockValidator::id_of(lock_class);
  Held& held = held_by_me.push();
  held.lock = lock;
  held.class_id = id;
  held.key = key;
  held.range = range;
  held.taken.capture();
  held.submitted.depth = 0;
}

void lock_released(const void* lock) {
  Held* held = held_by_me.find(lock);
  if (held == nullptr) return report_not_held("released by a thread that does not hold it", lock);
  held_by_me.erase(held);
}

void lock_detach(const void* lock) {
  Held* held = held_by_me.find(lock);
  if (held == nullptr) return report_not_held("detached by a thread that does not hold it", lock);
  if (held->submitted.depth == 0) held->submitted.capture();  // else it was adopted: the first submission tells more
  {
    const std::scoped_lock guard(state_mutex);
    async_holders()[lock] = *held;
  }
  held_by_me.erase(held);
}

void lock_adopt(const void* lock) {
  Held found;
  bool known = false;
  {
    const std::scoped_lock guard(state_mutex);
    AsyncHolders& holders = async_holders();
    if (const auto it = holders.find(lock); it != holders.end()) {
      found = it->second;
      known = true;
      holders.erase(it);
    }
  }
  if (!known) return report_not_held("adopted without an asynchronous holder", lock);
  held_by_me.push() = found;
}

void lock_released_async(const void* lock) {
  bool known = false;
  {
    const std::scoped_lock guard(state_mutex);
    known = async_holders().erase(lock) != 0;
  }
  if (known) return;
  Held* held = held_by_me.find(lock);  // adopted
  if (held == nullptr) return report_not_held("released for an asynchronous holder that does not exist", lock);
  held_by_me.erase(held);
}

bool lock_held_by_me(const void* lock) { return held_by_me.find(lock) != nullptr; }

void lock_assert_none_held(const char* where, LockClass* but) {
  HeldLocks& mine = held_by_me;
  const int allowed = but == nullptr ? -1 : LockValidator::id_of(*but);
  const auto counts = [&](const Held& held) { return held.class_id != allowed; };
  if (std::none_of(mine.locks, mine.locks + mine.count, counts)) return;
  CallStack here;
  here.capture();
  std::string text = std::string("quire: lock order: locks are held in ") + where + "\n";
  for (int i = 0; i < mine.count; ++i) text += describe_held(mine.locks[i]);
  hand_out(text + "  at:\n" + here.to_string());
}

LockReportHandler set_lock_report_handler(LockReportHandler handler) {
  return report_handler.exchange(handler, memory_order_acq_rel);  // O1; acquire: the old one is handed out too
}

}  // namespace quire

#endif  // QUIRE_LOCK_VALIDATOR
