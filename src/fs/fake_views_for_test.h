// For tests: views that are nothing but addresses. The region is reserved and never accessible, so whoever touches a
// view, instead of asking for its bytes through the cache, dies of SIGSEGV. Every look for a view checks that the
// thread holds nothing, and that views which are held are there to the end of it. Thread safety: all calls any thread,
// but for the hook.  Locks: a leaf.
#pragma once

#include <sys/mman.h>

#include <csignal>
#include <cstdint>
#include <functional>
#include <map>

#include "base/check.h"
#include "cache/view_table.h"
#include "fs/bounce.h"
#include "sync/mutex.h"

namespace quire::testing_support {

inline LockClass fake_views_lock_class{"fake views"};

class FakeViews final : public ViewFinder {
 public:
  static constexpr std::size_t kRegion = std::size_t{1} << 32;
  static constexpr std::size_t kGuard = 4096;

  FakeViews() : base_(take_addresses()), before_(set_view_finder(this)) {}
  ~FakeViews() override {
    MutexLock lock(mutex_);
    CHECK(held_ == 0);
    set_view_finder(before_);
    give_view_addresses(base_, kRegion);
  }
  FakeViews(const FakeViews&) = delete;
  FakeViews& operator=(const FakeViews&) = delete;

  // A view of [offset, offset + length) of the file: whole pages, as the kernel maps them.
  char* map(OpenFile& file, std::uint64_t offset, std::uint64_t length, bool writable = true) {
    MutexLock lock(mutex_);
    char* const address = base_ + next_;
    views_[address] = View{&file, offset, length, writable};
    next_ = round_up(next_ + length, kPageSize) + kGuard;
    CHECK(next_ < kRegion);
    return address;
  }
  // One that begins where the other ends.
  void map_behind(char* view, OpenFile& file, std::uint64_t offset, std::uint64_t length) {
    MutexLock lock(mutex_);
    const View& first = views_.at(view);
    CHECK(length <= kGuard);
    views_[view + first.length] = View{&file, offset, length, true};
  }
  void unmap(char* view) {
    MutexLock lock(mutex_);
    CHECK(views_.erase(view) == 1);
  }

  std::function<void()> on_hold;  // called with nothing held; set while nobody looks

  bool hold(const void* address, ViewPlace* place) override {
    assert_may_touch_views("the tests' views");
    if (on_hold) on_hold();
    MutexLock lock(mutex_);
    const char* const at = static_cast<const char*>(address);
    auto next = views_.upper_bound(at);
    if (next == views_.begin()) return false;
    const auto& [start, view] = *--next;
    if (at >= start + view.length) return false;
    const std::uint64_t inside = static_cast<std::uint64_t>(at - start);
    *place = ViewPlace{view.file, view.offset + inside, view.length - inside, view.writable, nullptr};
    ++held_;
    ++holds_;
    return true;
  }
  void release(const ViewPlace&) override {
    MutexLock lock(mutex_);
    --held_;
  }
  std::uint64_t holds() const {
    MutexLock lock(mutex_);
    return holds_;
  }

 private:
  static char* take_addresses() {
    const auto taken = take_view_addresses(kRegion);
    CHECK(taken.ok());
    return taken.value();
  }

  struct View {
    OpenFile* file = nullptr;
    std::uint64_t offset = 0, length = 0;
    bool writable = false;
  };

  mutable Mutex mutex_{fake_views_lock_class};
  std::map<const char*, View> views_ GUARDED_BY(mutex_);
  char* const base_;
  ViewFinder* const before_;
  std::uint64_t next_ GUARDED_BY(mutex_) = kGuard;
  int held_ GUARDED_BY(mutex_) = 0;
  std::uint64_t holds_ GUARDED_BY(mutex_) = 0;
};

// With every signal blocked by which a fault could be served; a hanging test may still be ended.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    for (const int ends : {SIGTERM, SIGINT, SIGALRM}) sigdelset(&all, ends);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_;
};

}  // namespace quire::testing_support
