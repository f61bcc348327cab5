// The lists, the duel, and what a ghost says.
#include "cache/eviction.h"

#include <algorithm>
#include <cerrno>
#include <new>

#include "base/check.h"

namespace quire {

namespace {

constexpr std::uint32_t kMaxOrder = 9;
constexpr std::uint64_t kGhostSpan = 2;        // caches' worth of evictions that a ghost lives
constexpr std::uint64_t kUnseenSpan = 4;       // caches' worth of accesses after which a reuse rarely finds a ghost
constexpr std::uint64_t kStaleSpan = 32;       // caches' worth of accesses that hot waits for one of its pages
constexpr std::int64_t kMostPerSample = 32;    // reuses that one hot page stands for, at most
constexpr std::uint32_t kFillMost = 8;         // entries that go from cold to hot in one evict()
constexpr std::uint32_t kRefusalsPerList = 8;  // then the other list is asked
constexpr std::uint64_t kStepsOfShare = 16;    // from end to end

// A ghost: bit 0 set, bit 1 warm, 29 bits of evicted_, 29 bits of clock_.
constexpr std::uint64_t kWarm = 2;
constexpr unsigned kEvictedShift = 2;
constexpr unsigned kStampShift = 31;
constexpr std::uint64_t kGhostMask = (1u << 29) - 1;

std::uint64_t least_cold(std::uint64_t capacity) { return std::max<std::uint64_t>(1, capacity / 100); }
std::uint64_t least_hot(std::uint64_t capacity) { return std::max<std::uint64_t>(1, capacity / 128); }

std::uint64_t most_of_late(std::uint64_t most, std::uint64_t now) {
  constexpr std::uint64_t kMemory = 64;  // batches
  return now >= most ? now : most - (most - now + kMemory - 1) / kMemory;
}

}  // namespace

Status Eviction::create(std::uint32_t max_frames) {
  CHECK(max_frames > 0);
  CHECK(max_frames <= kMaxFrames);
  entries_.reset(static_cast<Entry*>(std::calloc(max_frames, sizeof(Entry))));
  if (entries_ == nullptr) return fail(ENOMEM);
  max_frames_ = max_frames;
  cold_share_ = max_frames / 2;
  resize(max_frames);
  balance_ = -patience_;  // LIRS, until LRU is seen to do better
  return {};
}

void Eviction::resize(std::uint32_t frames) {
  CHECK(frames > 0);
  CHECK(frames <= max_frames_);
  const std::uint64_t before = capacity_ == 0 ? frames : capacity_;
  capacity_ = frames;
  peak_ = frames;
  set_cold_share(cold_share_ * capacity_ / before);
  lru_.set_capacity(capacity_);
  lirs_.set_capacity(std::max<std::uint64_t>(1, capacity_ - least_cold(capacity_)));
  patience_ = std::max<std::int64_t>(8, static_cast<std::int64_t>(capacity_ / 8));
  balance_ = std::clamp(balance_, -patience_, patience_);
  lead_ = std::clamp(lead_, -patience_, patience_);
}

// --- lists
// ------------------------------------------------------------------------------------------------------------

void Eviction::push_front(std::uint32_t id, ListName name) {
  Entry& entry = entries_[id];
  List& list = lists_[name];
  entry.list = name;
  entry.next = list.head;
  entry.previous = kNone;
  if (list.head != kNone) {
    entries_[list.head].previous = id;
  } else {
    list.tail = id;
  }
  list.head = id;
  ++list.entries;
  list.frames += weight(entry);
}

void Eviction::push_back(std::uint32_t id, ListName name) {
  Entry& entry = entries_[id];
  List& list = lists_[name];
  entry.list = name;
  entry.next = kNone;
  entry.previous = list.tail;
  (list.tail != kNone ? entries_[list.tail].next : list.head) = id;
  list.tail = id;
  ++list.entries;
  list.frames += weight(entry);
}

void Eviction::unlink(std::uint32_t id) {
  Entry& entry = entries_[id];
  List& list = lists_[entry.list];
  (entry.previous != kNone ? entries_[entry.previous].next : list.head) = entry.next;
  (entry.next != kNone ? entries_[entry.next].previous : list.tail) = entry.previous;
  --list.entries;
  list.frames -= weight(entry);
  entry.list = kNowhere;
}

void Eviction::move_to_front(std::uint32_t id) {
  const ListName list = entries_[id].list;
  unlink(id);
  push_front(id, list);
}

// By frame number, so that each entry has its turn however the lists are stirred. kNone: nobody at the next few
// numbers.
std::uint32_t Eviction::next_of_hand() {
  for (std::uint32_t passed = 0; passed < kHandPasses; ++passed) {
    const std::uint32_t id = hand_;
    const Entry& entry = entries_[id];
    const bool here = entry.list != kNowhere;
    hand_ += here ? weight(entry) : 1;
    if (hand_ >= hand_end_) hand_ = 0;
    if (here) return id;
  }
  return kNone;
}

// --- what an access tells
// ----------------------------------------------------------------------------------------------

// LIRS's test: was the page reused sooner than the coldest hot page has been left alone?
bool Eviction::younger_than_hot(std::uint64_t stamp) const {
  const std::uint32_t coldest = lists_[kHot].tail;
  return coldest != kNone && stamp > entries_[coldest].stamp;
}

void Eviction::found(std::uint32_t id) {
  Entry& entry = entries_[id];
  ListName to = entry.list;
  clock_ += weight(entry);
  // What is used again goes before others to the share of hot that no page has earned (fill_hot): else a stream that
  // begins beside it drives it out before its bit can be set once more.
  if (!entry.untried && lists_[kHot].frames + weight(entry) <= hot_share()) to = kHot;
  if (entry.known) {
    judge(entry, !entry.untried);
    if (entry.untried && younger_than_hot(entry.stamp)) to = kHot;  // readahead came before the refault
  }
  entry.used = !entry.untried;
  record_access(entry);
  unlink(id);
  push_front(id, to);
}

// Whether LRU and LIRS would have had the page, from its last access before this one.
void Eviction::judge(const Entry& entry, bool was_resident) {
  const std::uint64_t age = clock_ - entry.stamp;
  const bool lru = lru_.reaches(entry.stamp);
  const bool lirs = (entry.warm && lirs_.reaches(entry.stamp)) || age <= least_cold(capacity_);
  std::int64_t evidence = weight(entry);
  if (lru != was_resident) lead_ = std::clamp(lead_ + (lru ? evidence : -evidence), -patience_, patience_);
  if (lru == lirs) return;
  if (lirs && entry.list == kHot && age > kUnseenSpan * capacity_) {
    const auto stands_for = static_cast<std::int64_t>(capacity_ / lists_[kHot].frames);
    evidence *= std::clamp<std::int64_t>(stands_for, 1, kMostPerSample);
  }
  balance_ += lru ? evidence : -evidence;
  const std::uint64_t step = std::max<std::uint64_t>(1, capacity_ / kStepsOfShare);
  if (balance_ > patience_) {
    balance_ = patience_;
    if (lead_ >= patience_ / 2) set_cold_share(cold_share_ + step);
  } else if (balance_ < -patience_) {
    balance_ = -patience_;
    set_cold_share(cold_share_ - std::min(step, cold_share_));
  }
}

void Eviction::set_cold_share(std::uint64_t share) {
  const std::uint64_t most = std::max<std::uint64_t>(1, capacity_ - least_hot(capacity_));
  cold_share_ = std::clamp(share, std::min(most, least_cold(capacity_)), most);
}

void Eviction::record_access(Entry& entry) {
  const std::uint32_t frames = weight(entry);
  if (entry.untried) untried_ -= frames;
  bool warm = !lirs_.full();  // LIRS makes the first pages hot
  if (entry.known) {
    warm = lirs_.reaches(entry.stamp);
    forget(entry);
  }
  entry.stamp = clock_;
  entry.known = 1;
  entry.untried = 0;
  entry.warm = warm;
  lru_.add(clock_, frames);
  if (warm) lirs_.add(clock_, frames);
}

void Eviction::forget(const Entry& entry) {
  lru_.remove(entry.stamp, weight(entry));
  if (entry.warm) lirs_.remove(entry.stamp, weight(entry));
}

// --- coming and going
// -------------------------------------------------------------------------------------------------

void Eviction::admit(std::uint32_t id, std::uint64_t ghost, Admission how) {
  CHECK(id < max_frames_);
  CHECK(how.order <= kMaxOrder);
  Entry& entry = entries_[id];
  CHECK(entry.list == kNowhere);
  note_admitting();
  hand_end_ = std::max(hand_end_, id + (1u << how.order));
  entry = Entry{};
  entry.order = how.order;
  entry.known = is_live(ghost);
  if (entry.known) {
    const std::uint64_t age = (clock_ - (ghost >> kStampShift)) & kGhostMask;
    entry.stamp = clock_ - std::min(age, clock_);
    entry.warm = (ghost & kWarm) != 0;
  } else {
    entry.stamp = clock_;
  }
  ListName to = kCold;
  if (how.prefetched) {
    entry.untried = 1;
    untried_ += weight(entry);
  } else {
    clock_ += weight(entry);
    if (entry.known) judge(entry, false);
    if (entry.known && younger_than_hot(entry.stamp)) to = kHot;
    record_access(entry);
  }
  push_front(id, to);
  fill_hot();
}

void Eviction::remove(std::uint32_t id) {
  CHECK(id < max_frames_);
  Entry& entry = entries_[id];
  if (entry.list == kNowhere) return;
  if (entry.known) forget(entry);
  if (entry.untried) untried_ -= weight(entry);
  unlink(id);
}

void Eviction::put_back(std::uint32_t id) {
  const Entry& entry = entries_[id];
  CHECK(entry.list == kNowhere);
  evicted_ -= weight(entry);
  owed_ = 0;
  if (entry.untried) untried_ += weight(entry);
  push_back(id, kCold);
}

std::uint64_t Eviction::take(std::uint32_t id) {
  CHECK(entries_[id].list != kNowhere);
  return take_off(id);
}

void Eviction::move(std::uint32_t id, std::uint32_t to) {
  CHECK(to < max_frames_);
  Entry& entry = entries_[id];
  CHECK(entry.list != kNowhere);
  CHECK(entries_[to].list == kNowhere);
  entries_[to] = entry;
  List& list = lists_[entry.list];
  (entry.previous != kNone ? entries_[entry.previous].next : list.head) = to;
  (entry.next != kNone ? entries_[entry.next].previous : list.tail) = to;
  entry.list = kNowhere;
}

// Frames are evicted in batches, and a reserve may be kept free: what is divided is what stands here at the peak. Cold
// has at least what a batch takes, or each would take from hot what no admission can replace, and what readahead has in
// flight, or that would be gone before it is used.
std::uint64_t Eviction::hot_share() const {
  const std::uint64_t cold = std::max({cold_share_, swing_, std::min(ahead_, capacity_ / 4)});
  return peak_ > cold + least_hot(capacity_) ? peak_ - cold : least_hot(capacity_);
}

void Eviction::note_evicting() {
  if (evicting_) return;
  evicting_ = true;
  began_ = frames();
  peak_ = most_of_late(peak_, began_);
  ahead_ = most_of_late(ahead_, untried_);
}

void Eviction::note_admitting() {
  if (!evicting_) return;
  evicting_ = false;
  swing_ = most_of_late(swing_, began_ - std::min(began_, frames()));
}

// The share of hot that no page has earned goes to cold's oldest: of a loop, any part is worth keeping.
void Eviction::fill_hot() {
  const List& cold = lists_[kCold];
  for (std::uint32_t moved = 0; moved < kFillMost; ++moved) {
    if (lists_[kHot].frames >= hot_share() || cold.frames <= cold_share_) return;
    const std::uint32_t id = cold.tail;
    unlink(id);
    push_front(id, kHot);
  }
}

// Without ghosts that old nothing refaults in time to drive out a hot page of a phase that is over: its age does.
std::uint32_t Eviction::next_victim(std::uint32_t refused) const {
  const List& hot = lists_[kHot];
  const bool stale = hot.tail != kNone && clock_ - entries_[hot.tail].stamp > kStaleSpan * capacity_;
  ListName from = stale || hot.frames > hot_share() ? kHot : kCold;
  if ((refused / kRefusalsPerList) % 2 == 1) from = from == kHot ? kCold : kHot;
  if (lists_[from].tail == kNone) from = from == kHot ? kCold : kHot;
  return lists_[from].tail;
}

std::uint64_t Eviction::take_off(std::uint32_t id) {
  const Entry& entry = entries_[id];
  unlink(id);
  evicted_ += weight(entry);
  constexpr std::uint32_t kPerFrame = 2;  // as kAtLeast of sweep()
  owed_ = kPerFrame * (weight(entry) - 1);
  if (entry.untried) untried_ -= weight(entry);
  if (!entry.known) return 0;                           // prefetched in vain: no access to remember
  if (clock_ - entry.stamp > kGhostMask / 2) return 0;  // so old that the ghost could not tell
  return 1 | (entry.warm ? kWarm : 0) | (evicted_ & kGhostMask) << kEvictedShift |
         (entry.stamp & kGhostMask) << kStampShift;
}

GhostAge Eviction::ghost_age() const { return {.evicted = evicted_, .span = kGhostSpan * capacity_}; }

bool GhostAge::is_live(std::uint64_t ghost, std::uint64_t within) const {
  if ((ghost & 1) == 0) return false;
  return ((evicted - (ghost >> kEvictedShift)) & kGhostMask) <= std::min(span, within);
}

void Eviction::split_off(std::uint32_t id, std::uint32_t part, std::uint32_t order) {
  CHECK(id < part && part < max_frames_);
  Entry& entry = entries_[id];
  Entry& other = entries_[part];
  CHECK(entry.list != kNowhere && other.list == kNowhere);
  CHECK(part + (1u << order) <= id + weight(entry));
  other = entry;  // what is counted by stamp is counted for as many frames as before
  other.order = order;
  other.previous = id;
  List& list = lists_[entry.list];
  (entry.next != kNone ? entries_[entry.next].previous : list.tail) = part;
  entry.next = part;
  ++list.entries;
}

void Eviction::shrink(std::uint32_t id, std::uint32_t order) {
  Entry& entry = entries_[id];
  CHECK(order < entry.order);
  entry.order = order;
}

void Eviction::check() const {
  std::uint64_t untried = 0;
  for (const ListName name : {kCold, kHot}) {
    const List& list = lists_[name];
    std::uint32_t entries = 0;
    std::uint64_t frames = 0;
    std::uint32_t previous = kNone;
    for (std::uint32_t id = list.head; id != kNone; previous = id, id = entries_[id].next) {
      const Entry& entry = entries_[id];
      CHECK(entry.list == name);
      CHECK(entry.previous == previous);
      CHECK(entry.stamp <= clock_);
      if (!entry.known) CHECK(entry.untried);
      CHECK(++entries <= list.entries);
      frames += weight(entry);
      if (entry.untried) untried += weight(entry);
    }
    CHECK(list.tail == previous);
    CHECK(list.entries == entries);
    CHECK(list.frames == frames);
  }
  CHECK(untried == untried_);
  CHECK(hand_ <= hand_end_ && hand_end_ <= max_frames_);
  CHECK(cold_share_ > 0);
  CHECK(cold_share_ <= capacity_);
  CHECK(balance_ <= patience_ && -balance_ <= patience_);
  CHECK(lead_ <= patience_ && -lead_ <= patience_);
}

}  // namespace quire
