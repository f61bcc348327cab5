// Views' bytes through the cache, and the private memory between. See bounce.h.
#include "fs/bounce.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "base/check.h"
#include "base/error.h"
#include "cache/user_buffer.h"
#include "cache/view_table.h"
#include "fs/open_file.h"
#include "sync/rcu.h"

namespace quire {
namespace {

// Null but in tests.
Atomic<ViewFinder*> view_finder;

class HeldView {
 public:
  explicit HeldView(const void* address) : finder_(view_finder.load(memory_order_acquire)) {
    if (finder_ != nullptr) {
      found_ = finder_->hold(address, &place_);
      return;
    }
    held_ = hold_view(address);
    found_ = static_cast<bool>(held_);
    if (found_) place_ = {static_cast<OpenFile*>(held_.owner()), held_.offset(), held_.left(), held_.writable()};
  }
  ~HeldView() {
    if (found_ && finder_ != nullptr) finder_->release(place_);
  }
  HeldView(const HeldView&) = delete;
  HeldView& operator=(const HeldView&) = delete;
  bool found() const { return found_; }
  const ViewPlace& place() const { return place_; }

 private:
  ViewFinder* const finder_;
  ViewHold held_;
  ViewPlace place_;
  bool found_ = false;
};

// Moves up to `count` bytes of one view. before_end(done, at) moves what it can from there on, before the end of the
// file; past_end(done, n) what the last page shows behind it. *ended: no more can be moved; where none was, the cause
// is recorded.
template <typename BeforeEnd, typename PastEnd>
std::size_t move_in_view(const ViewPlace& place, std::size_t count, BeforeEnd before_end, PastEnd past_end,
                         bool* ended) {
  const Mapping& mapping = place.file->inode->mapping;
  std::size_t done = 0;
  while (done < count) {
    const std::uint64_t at = place.offset + done;
    const std::uint64_t size = mapping.size.load(memory_order_acquire);
    if (at < size) {
      const Result<std::size_t> moved = before_end(done, at);
      if (!moved.ok()) {
        const int errnum = moved.errnum();
        *ended = true;
        static_cast<void>(fail_with(EFAULT, "the buffer lies in a view whose file cannot be used there: errno %d (%s)",
                                    errnum, strerrordesc_np(errnum)));
        break;
      }
      done += moved.value();  // none: the file was cut off since, look again
      continue;
    }
    const std::uint64_t page_end = round_up(size, kPageSize);
    if (at >= page_end) {
      *ended = true;
      static_cast<void>(fail_with(EFAULT,
                                  "the buffer lies in a view past the last page of its file, which has %llu bytes",
                                  static_cast<unsigned long long>(size)));
      break;
    }
    const std::size_t n = std::min<std::uint64_t>(count - done, page_end - at);
    past_end(done, n);
    *ended = n < count - done;  // even if the file has grown since: it had its end there
    return done + n;
  }
  return done;
}

// Over as many views as the bytes lie in. move(place, done, n, &ended) is for one.
template <typename Move>
Result<std::size_t> move_in_views(const void* address, std::size_t count, Move move) {
  std::size_t done = 0;
  bool ended = false;
  while (done < count && !ended) {
    const char* const at = static_cast<const char*>(address) + done;
    HeldView view(at);
    if (!view.found()) {
      ended = true;
      static_cast<void>(
          fail_with(EFAULT, "the buffer lies where views are mapped, but none is at %p", static_cast<const void*>(at)));
    } else {
      done += move(view.place(), done, std::min<std::uint64_t>(count - done, view.place().length), &ended);
    }
  }
  if (done == 0 && ended) return fail(EFAULT);
  if (ended) clear_cause();  // what there is counts, not what ended it
  return done;
}

// Walks vectors from `skip` on: move(address, done, n) says how many bytes it moved.
template <typename Move>
Result<std::size_t> move_vectors(std::span<const iovec> vectors, std::size_t skip, std::size_t count, Move move) {
  std::size_t done = 0;
  for (const iovec& v : vectors) {
    if (skip >= v.iov_len) {
      skip -= v.iov_len;
      continue;
    }
    const std::size_t n = std::min(count - done, v.iov_len - skip);
    if (n == 0) break;
    const Result<std::size_t> moved = move(static_cast<char*>(v.iov_base) + skip, done, n);
    skip = 0;
    if (!moved.ok() && done == 0) return moved;
    if (moved.ok()) done += moved.value();
    if (!moved.ok() || moved.value() < n) break;
  }
  return done;
}

}  // namespace

ViewFinder* set_view_finder(ViewFinder* finder) { return view_finder.exchange(finder, memory_order_acq_rel); }

void assert_may_touch_views(const char* where) {
  DCHECK(!rcu_in_read_section());
  lock_assert_none_held(where, &bounce_lock_class);
}

Result<std::size_t> view_load(const void* address, std::span<char> to) {
  assert_may_touch_views("a load from a view");
  return move_in_views(address, to.size(), [&](const ViewPlace& place, std::size_t from, std::size_t n, bool* ended) {
    const std::span<char> part = to.subspan(from, n);
    return move_in_view(
        place, n,
        [&](std::size_t done, std::uint64_t at) {
          const iovec v{part.data() + done, n - done};
          return file_read(*place.file, std::span(&v, 1), at, kIoBuffered);
        },
        [&](std::size_t done, std::size_t zeros) { std::memset(part.data() + done, 0, zeros); }, ended);
  });
}

Result<std::size_t> view_store(void* address, std::span<const char> from) {
  assert_may_touch_views("a store to a view");
  return move_in_views(address, from.size(), [&](const ViewPlace& place, std::size_t to, std::size_t n, bool* ended) {
    if (!place.writable) {
      *ended = true;
      static_cast<void>(fail_with(EFAULT, "the buffer lies in a view that is mapped for reading only"));
      return std::size_t{0};
    }
    const std::span<const char> part = from.subspan(to, n);
    return move_in_view(
        place, n,
        [&](std::size_t done, std::uint64_t at) {
          const iovec v{const_cast<char*>(part.data()) + done, n - done};
          return file_write(*place.file, std::span(&v, 1), at, kIoAtOffset | kIoWithin | kIoStore | kIoBuffered);
        },
        [](std::size_t, std::size_t) {}, ended);
  });
}

Result<std::size_t> load_vectors(std::span<const iovec> vectors, std::size_t skip, std::span<char> to) {
  assert_may_touch_views("a copy from a caller's buffers");
  return move_vectors(vectors, skip, to.size(), [&](const char* from, std::size_t done, std::size_t n) {
    if (touches_views(from, n)) return view_load(from, to.subspan(done, n));
    std::memcpy(to.data() + done, from, n);
    return Result<std::size_t>(n);
  });
}

Result<std::size_t> store_vectors(std::span<const iovec> vectors, std::size_t skip, std::span<const char> from) {
  assert_may_touch_views("a copy to a caller's buffers");
  return move_vectors(vectors, skip, from.size(), [&](char* to, std::size_t done, std::size_t n) {
    if (touches_views(to, n)) return view_store(to, from.subspan(done, n));
    std::memcpy(to, from.data() + done, n);
    return Result<std::size_t>(n);
  });
}

BounceMemory::~BounceMemory() { cache_.charge_bounce(-static_cast<std::int64_t>(size_)); }

Status BounceMemory::resize(std::size_t bytes, bool no_wait) {
  if (bytes <= size_) return {};
  if (bytes > kFreely && !turn_.request().held()) {
    if (!turn_.try_acquire(0, 0, 0) && !turn_.try_acquire(1, 1, 0)) {
      if (no_wait) return fail(EAGAIN);
      const std::uint64_t place = cache_.bounce_turns.fetch_add(1, memory_order_relaxed) & 1;
      turn_.acquire(place, place, 0);
    }
  }
  bytes_.reset();
  bytes_.reset(new (std::nothrow) char[bytes]);
  cache_.charge_bounce((bytes_ == nullptr ? 0 : static_cast<std::int64_t>(bytes)) - static_cast<std::int64_t>(size_));
  size_ = bytes_ == nullptr ? 0 : bytes;
  if (bytes_ == nullptr) return fail_with(ENOMEM, "no memory to copy %zu bytes of a mapped view", bytes);
  return {};
}

}  // namespace quire
