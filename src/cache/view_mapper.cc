// See view_mapper.h.
#include "cache/view_mapper.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <new>

#include "base/bytes.h"
#include "base/check.h"
#include "base/error.h"
#include "cache/folio_pool.h"
#include "device/fork_guard.h"
#include "sync/atomic.h"
#include "sync/futex.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)  // Linux 6.1
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24  // Linux 5.18: as MADV_DONTNEED, where the program locks its memory, too
#endif

namespace quire {
namespace {

constexpr std::uint64_t kFeatures = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM |
                                    UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
                                    UFFD_FEATURE_EVENT_REMAP;

// Every second page of them is a mapping, and so is what lies between.
constexpr std::uint64_t kSparePages = 15;

constexpr std::uint64_t kContinueProtected = 2;  // UFFDIO_CONTINUE_MODE_WP, Linux 6.4

// ThreadSanitizer takes a call of mmap for a store to all of the range by this thread, and the program's loads there
// for races with it. What a view shows is ordered by the kernel, who wakes the thread that waits for it.
void* map_memory(void* at, std::uint64_t bytes, int protection, int flags, int fd, off_t offset) {
#ifdef QUIRE_TSAN
  return reinterpret_cast<void*>(syscall(SYS_mmap, at, bytes, protection, flags, fd, offset));
#else
  return mmap(at, bytes, protection, flags, fd, offset);
#endif
}

int open_userfaultfd() {
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device >= 0) {
    const int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    close(device);
    if (fd >= 0) return fd;
  }
  const auto fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd >= 0 || errno != EPERM) return fd;
  // An ordinary user's: a system call on a page that is not there just then fails with EFAULT.
  return static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
}

class UserfaultMapper final : public ViewMapper {
 public:
  explicit UserfaultMapper(FolioPool& pool) : pool_(pool) {}
  ~UserfaultMapper() override;
  Status open();

  Status blank(char* at, std::uint64_t bytes, bool writable) override;
  Status place(char* at, const char* arena_bytes, std::uint64_t bytes, bool writable) override;
  Status track(char* at, std::uint64_t bytes, bool writable) override;
  bool begin_show(bool wait) override;
  void end_show() override { showing_.fetch_sub(1, memory_order_release); }
  bool show(char* at, std::uint64_t bytes) override;
  bool protect(char* at, std::uint64_t bytes, bool is_protected) override;
  void take(char* at, std::uint64_t bytes) override;
  Status trap(char* at, std::uint64_t bytes) override;
  Status reset(char* at, std::uint64_t bytes, bool writable) override;
  void keep_spare() override;
  void unmap(char* at, std::uint64_t bytes) override;
  void wake(char* at, std::uint64_t bytes) override;
  bool wait(ViewFault* fault, int timeout_ms) override;
  void interrupt() override;

 private:
  Status register_range(char* at, std::uint64_t bytes, std::uint64_t mode);
  Status move(char* from, std::uint64_t bytes, char* to);
  Status reset_once(char* at, std::uint64_t bytes, bool writable);
  bool use_spare();

  FolioPool& pool_;
  GuardedFd faults_;                        // the userfaultfd
  GuardedFd empty_;                         // a file without bytes
  GuardedFd event_;                         // of interrupt()
  Atomic<char*> spare_;                     // keep_spare()'s, or null
  Atomic<std::uint32_t> showing_, moving_;  // in begin_show() to end_show(); in mremap, or about to be
  // What one read gave, and how far it is served; of the one thread that waits. Several together, for the kernel gives
  // all faults before any event: one at a time, with enough threads faulting, mremap would never have its event read.
  std::array<uffd_msg, 64> messages_;
  std::size_t next_ = 0, count_ = 0;
};

int protection(bool writable) { return writable ? PROT_READ | PROT_WRITE : PROT_READ; }

Status UserfaultMapper::open() {
  ForkGuard guard;
  const int fd = open_userfaultfd();
  if (fd < 0)
    return fail_with(errno, "views need userfaultfd, which is not to be had (vm.unprivileged_userfaultfd): %m");
  guard.add(faults_, fd);
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kFeatures;
  if (ioctl(fd, UFFDIO_API, &api) != 0) {
    return fail_with(errno, "views need what Linux 5.19's userfaultfd can do with shared memory: %m");
  }
  const int empty = memfd_create("quire-view-end", MFD_CLOEXEC);
  if (empty < 0) return fail_with(errno, "cannot make the file of traps (memfd_create): %m");
  guard.add(empty_, empty);
  const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event < 0) return fail_with(errno, "cannot make an eventfd: %m");
  guard.add(event_, event);
  keep_spare();
  return {};
}

UserfaultMapper::~UserfaultMapper() {
  if (device_in_forked_child()) return;
  use_spare();
  for (GuardedFd* guarded : {&faults_, &empty_, &event_}) {
    if (guarded->fd() < 0) continue;
    ForkGuard guard;
    ::close(guard.remove(*guarded));
  }
}

Status UserfaultMapper::register_range(char* at, std::uint64_t bytes, std::uint64_t mode) {
  uffdio_register wanted{};
  wanted.range.start = reinterpret_cast<std::uintptr_t>(at);
  wanted.range.len = bytes;
  wanted.mode = mode;
  if (ioctl(faults_.fd(), UFFDIO_REGISTER, &wanted) == 0) return {};
  return fail_with(errno, "cannot register %llu bytes of a view with userfaultfd: %m",
                   static_cast<unsigned long long>(bytes));
}

Status UserfaultMapper::blank(char* at, std::uint64_t bytes, bool writable) {
  void* const got = map_memory(at, bytes, protection(writable),
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at != nullptr ? MAP_FIXED : 0), -1, 0);
  if (got == MAP_FAILED)
    return fail_with(errno, "cannot map a view of %llu bytes: %m", static_cast<unsigned long long>(bytes));
  static_cast<void>(munlock(got, bytes));  // where the program locks all it maps: pages have come already
  QUIRE_TRY(register_range(static_cast<char*>(got), bytes, UFFDIO_REGISTER_MODE_MISSING));
  madvise(got, bytes, MADV_DONTNEED);  // those
  madvise(got, bytes, MADV_DONTFORK);
  return {};
}

Status UserfaultMapper::place(char* at, const char* arena_bytes, std::uint64_t bytes, bool writable) {
  const auto offset = static_cast<off_t>(arena_bytes - pool_.arena().data());
  // The pages come with the mapping: registered, each would be a fault of its own. For stores they have to come later.
  void* const got = map_memory(at, bytes, protection(writable), MAP_SHARED | MAP_FIXED | (writable ? 0 : MAP_POPULATE),
                               pool_.arena_fd(), offset);
  if (got == MAP_FAILED)
    return fail_with(errno, "cannot map %llu bytes into a view: %m", static_cast<unsigned long long>(bytes));
  return {};
}

Status UserfaultMapper::track(char* at, std::uint64_t bytes, bool writable) {
  madvise(at, bytes, MADV_DONTFORK);
  return register_range(at, bytes,
                        UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR |
                            (writable ? std::uint64_t{UFFDIO_REGISTER_MODE_WP} : 0));
}

bool UserfaultMapper::begin_show(bool wait) {
  for (;;) {
    showing_.fetch_add(1, memory_order_seq_cst);
    if (moving_.load(memory_order_seq_cst) == 0) return true;  // who comes after this sees us, and waits
    end_show();
    if (!wait) return false;
    while (moving_.load(memory_order_acquire) != 0) thread_yield();  // the reader of faults reads its event
  }
}

bool UserfaultMapper::show(char* at, std::uint64_t bytes) {
  bool untouched = true;
  for (char* const end = at + bytes; at != end;) {
    uffdio_continue wanted{};
    wanted.range.start = reinterpret_cast<std::uintptr_t>(at);
    wanted.range.len = static_cast<std::uint64_t>(end - at);
    wanted.mode = kContinueProtected | UFFDIO_CONTINUE_MODE_DONTWAKE;
    if (ioctl(faults_.fd(), UFFDIO_CONTINUE, &wanted) == 0) return untouched;
    if (wanted.mapped > 0) {
      at += wanted.mapped;  // as far as that; it tells the next page's error if it is asked again
    } else if (errno == EEXIST) {
      untouched = false;
      at += kPageSize;
    } else if (errno == EINVAL && (wanted.mode & kContinueProtected) != 0) {
      // A kernel before 6.4 brings them open only: all of it counts as stored to.
      wanted.mode = UFFDIO_CONTINUE_MODE_DONTWAKE;
      static_cast<void>(ioctl(faults_.fd(), UFFDIO_CONTINUE, &wanted));
      return false;
    } else {
      return false;
    }
  }
  return untouched;
}

bool UserfaultMapper::protect(char* at, std::uint64_t bytes, bool is_protected) {
  uffdio_writeprotect wanted{};
  wanted.range.start = reinterpret_cast<std::uintptr_t>(at);
  wanted.range.len = bytes;
  wanted.mode = is_protected ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
  if (ioctl(faults_.fd(), UFFDIO_WRITEPROTECT, &wanted) == 0) return true;
  CHECK(errno == EAGAIN || errno == ENOMEM);
  return false;
}

void UserfaultMapper::take(char* at, std::uint64_t bytes) {
  if (madvise(at, bytes, MADV_DONTNEED_LOCKED) == 0 || madvise(at, bytes, MADV_DONTNEED) == 0) return;
  CHECK(trap(at, bytes).ok());  // rather an error there than another file's bytes
}

Status UserfaultMapper::trap(char* at, std::uint64_t bytes) {
  // Writable in any case: a store past the end is SIGBUS as a load is.
  void* const got = map_memory(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty_.fd(), 0);
  if (got == MAP_FAILED)
    return fail_with(errno, "cannot map %llu bytes of a trap: %m", static_cast<unsigned long long>(bytes));
  madvise(at, bytes, MADV_DONTFORK);
  return {};
}

Status UserfaultMapper::reset(char* at, std::uint64_t bytes, bool writable) {
  const Status made = reset_once(at, bytes, writable);
  if (made.ok() || made.errnum() != ENOMEM || !use_spare()) return made;
  return reset_once(at, bytes, writable);
}

void UserfaultMapper::keep_spare() {
  if (spare_.load(memory_order_relaxed) != nullptr) return;
  void* const got = mmap(nullptr, kSparePages * kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) return;
  char* const pages = static_cast<char*>(got);
  for (std::uint64_t page = 0; page < kSparePages; page += 2) {
    static_cast<void>(mprotect(pages + page * kPageSize, kPageSize, PROT_READ));
  }
  char* none = nullptr;
  if (!spare_.compare_exchange(none, pages, memory_order_release, memory_order_relaxed)) {
    munmap(pages, kSparePages * kPageSize);
  }
}

bool UserfaultMapper::use_spare() {
  char* const pages = spare_.exchange(nullptr, memory_order_acquire);
  return pages != nullptr && munmap(pages, kSparePages * kPageSize) == 0;
}

Status UserfaultMapper::reset_once(char* at, std::uint64_t bytes, bool writable) {
  void* const got =
      map_memory(nullptr, bytes, protection(writable), MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) return fail_with(errno, "cannot map %llu bytes: %m", static_cast<unsigned long long>(bytes));
  Status made = blank(static_cast<char*>(got), bytes, writable);
  if (made.ok()) made = move(static_cast<char*>(got), bytes, at);
  if (!made.ok()) munmap(got, bytes);
  return made;
}

Status UserfaultMapper::move(char* from, std::uint64_t bytes, char* to) {
  moving_.fetch_add(1, memory_order_seq_cst);
  while (showing_.load(memory_order_seq_cst) != 0) thread_yield();  // system calls that wait for nobody
  const bool moved = mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED;
  const int errnum = errno;
  moving_.fetch_sub(1, memory_order_release);
  if (moved) return {};
  errno = errnum;
  return fail_with(errnum, "cannot move %llu bytes into a view: %m", static_cast<unsigned long long>(bytes));
}

void UserfaultMapper::unmap(char* at, std::uint64_t bytes) {
  void* const got = map_memory(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  CHECK(got != MAP_FAILED);  // fewer mappings than before
}

void UserfaultMapper::wake(char* at, std::uint64_t bytes) {
  uffdio_range range{reinterpret_cast<std::uintptr_t>(at), bytes};
  CHECK(ioctl(faults_.fd(), UFFDIO_WAKE, &range) == 0);
}

bool UserfaultMapper::wait(ViewFault* fault, int timeout_ms) {
  for (;;) {
    if (next_ == count_) {
      const ssize_t got = read(faults_.fd(), messages_.data(), sizeof messages_);
      next_ = 0;
      count_ = got > 0 ? static_cast<std::size_t>(got) / sizeof messages_[0] : 0;
    }
    if (next_ != count_) {
      const uffd_msg& message = messages_[next_++];
      if (message.event != UFFD_EVENT_PAGEFAULT) continue;  // who called mremap goes on now
      fault->page = reinterpret_cast<char*>(round_down(message.arg.pagefault.address, kPageSize));
      fault->is_protected = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0;
      fault->is_store = fault->is_protected || (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
      return true;
    }
    std::array<pollfd, 2> wanted{pollfd{faults_.fd(), POLLIN, 0}, pollfd{event_.fd(), POLLIN, 0}};
    const int ready = poll(wanted.data(), wanted.size(), timeout_ms);
    if (ready == 0) return false;
    std::uint64_t count;
    if (read(event_.fd(), &count, sizeof count) == static_cast<ssize_t>(sizeof count)) return false;
  }
}

void UserfaultMapper::interrupt() {
  const std::uint64_t one = 1;
  static_cast<void>(!write(event_.fd(), &one, sizeof one));  // full: it is interrupted already
}

}  // namespace

Result<std::unique_ptr<ViewMapper>> make_view_mapper(FolioPool& pool) {
  std::unique_ptr<UserfaultMapper> mapper(new (std::nothrow) UserfaultMapper(pool));
  if (mapper == nullptr) return fail(ENOMEM);
  QUIRE_TRY(mapper->open());
  return std::unique_ptr<ViewMapper>(std::move(mapper));
}

}  // namespace quire
