// The page of counters, and the thread that keeps it. See publisher.h.
#include "api/publisher.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "api/cache_impl.h"
#include "base/error.h"
#include "sync/clock.h"
#include "sync/sequence.h"

namespace quire {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kInterval = 250 * kMillisecond;  // between two updates
constexpr int kBacklog = 8;

using Word = Atomic<std::uint64_t>;
static_assert(sizeof(Word) == sizeof(std::uint64_t) && sizeof(Sequence) == sizeof(std::uint64_t));
constexpr std::size_t kSequenceAt = offsetof(quire_published, sequence);
constexpr std::size_t kChangingAt = offsetof(quire_published, updated_ns);
static_assert(kChangingAt == kSequenceAt + sizeof(Sequence) && sizeof(quire_published) <= kPageSize);

std::int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

// What lies in the page is of these types for as long as it is mapped.
Sequence& sequence_of(quire_published* page) {
  return *reinterpret_cast<Sequence*>(reinterpret_cast<char*>(page) + kSequenceAt);
}
Word* words_from(quire_published* page, std::size_t at) {
  return reinterpret_cast<Word*>(reinterpret_cast<char*>(page) + at);
}

// The descriptor is listed before any fork can copy it.
template <typename Open>
int open_guarded(GuardedFd& guarded, const Open& open) {
  ForkGuard guard;
  const int fd = open();
  if (fd < 0) return errno;
  guard.add(guarded, fd);
  return 0;
}

void close_guarded(GuardedFd& guarded) {
  if (guarded.fd() < 0) return;
  ForkGuard guard;
  ::close(guard.remove(guarded));
}

}  // namespace

Status Publisher::make_page() {
  const int opened =
      open_guarded(page_fd_, [] { return memfd_create(QUIRE_PUBLISHED_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING); });
  if (opened != 0) return fail_with(opened, "cannot make the page of counters (memfd_create)");
  if (ftruncate(page_fd_.fd(), kPageSize) != 0) return fail_with(errno, "cannot size the page of counters: %m");
  void* memory = mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd_.fd(), 0);
  if (memory == MAP_FAILED) return fail_with(errno, "cannot map the page of counters: %m");
  madvise(memory, kPageSize, MADV_DONTFORK);
  // Readers may count on its size, and nobody else can write: not every kernel has the second seal, nor need it.
  fcntl(page_fd_.fd(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
  fcntl(page_fd_.fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
  static Atomic<std::uint64_t> last_number;
  page_ = new (memory) quire_published{};
  page_->version = QUIRE_PUBLISHED_VERSION;
  page_->size = sizeof(quire_published);
  page_->cache = last_number.fetch_add(1, memory_order_relaxed) + 1;
  page_->made_ns = static_cast<std::uint64_t>(now_ns());
  new (&sequence_of(page_)) Sequence;
  for (std::size_t at = kChangingAt; at < sizeof(quire_published); at += sizeof(Word)) new (words_from(page_, at)) Word;
  return {};
}

Status Publisher::make_socket() {
  int opened = open_guarded(stop_fd_, [] { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); });
  if (opened == 0) {
    opened = open_guarded(socket_fd_, [] { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); });
  }
  if (opened != 0) return fail_with(opened, "cannot make what other processes ask through (eventfd, socket)");
  // Bound to no name, the socket gets one in the abstract namespace that nobody else has.
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  socklen_t length = sizeof(sa_family_t);
  if (bind(socket_fd_.fd(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(socket_fd_.fd(), kBacklog) != 0) {
    return fail_with(errno, "cannot listen for who wants to watch: %m");
  }
  length = sizeof address;
  if (getsockname(socket_fd_.fd(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return fail_with(errno, "cannot tell the socket's name: %m");
  }
  const std::size_t name = length - offsetof(sockaddr_un, sun_path) - 1;
  if (name >= sizeof page_->socket) return fail_with(ENAMETOOLONG, "the socket's name has %zu characters", name);
  std::memcpy(page_->socket, address.sun_path + 1, name);
  return {};
}

Status Publisher::start() {
  QUIRE_TRY(make_page());
  QUIRE_TRY(make_socket());
  update(false);
  // Release: who sees it sees the rest.
  (new (words_from(page_, offsetof(quire_published, magic))) Word)->store(QUIRE_PUBLISHED_MAGIC, memory_order_release);
  next_update_ns_ = now_ns() + kInterval;
  return thread_.start([this] { run(); }, "quire-publish");
}

Publisher::~Publisher() {
  if (thread_.running()) {
    const std::uint64_t one = 1;
    static_cast<void>(!write(stop_fd_.fd(), &one, sizeof one));
    thread_.join();
    update(true);
  }
  for (GuardedFd* guarded : {&socket_fd_, &stop_fd_, &page_fd_}) close_guarded(*guarded);
  if (page_ != nullptr) munmap(page_, kPageSize);
}

void Publisher::update(bool ended) {
  const PageCache& c = cache_.cache();
  const auto sum = [&c](Counter counter) { return c.stats.sum(counter); };
  quire_published now{};
  now.updated_ns = static_cast<std::uint64_t>(now_ns());
  now.ended = ended;
  now.memory_bytes = c.memory();
  now.folio_bytes = c.resident_pages() * kPageSize;
  now.used_bytes = now.folio_bytes + static_cast<std::uint64_t>(std::max<std::int64_t>(c.metadata_bytes(), 0));
  now.dirty_bytes = c.dirty.unstable() * kPageSize;
  now.background_dirty_bytes = c.dirty.background() * kPageSize;
  now.dirty_limit_bytes = c.dirty.hard() * kPageSize;
  now.hits = c.stats.hits();
  now.slow_reads = sum(Counter::slow_reads);
  now.fills = sum(Counter::fills);
  now.zero_fills = sum(Counter::zero_fills);
  now.evictions = sum(Counter::evictions);
  now.refaults = sum(Counter::refaults);
  now.writeback_folios = sum(Counter::writeback_folios);
  now.writeback_bytes = sum(Counter::writeback_bytes);
  now.writeback_errors = sum(Counter::writeback_errors);
  now.throttled = sum(Counter::throttled);
  now.device_read_bytes = IoStats::get(c.io_stats.read_bytes);
  now.device_write_bytes = IoStats::get(c.io_stats.write_bytes);

  Sequence& sequence = sequence_of(page_);
  sequence.write_begin();
  for (std::size_t at = kChangingAt; at < sizeof now; at += sizeof(Word)) {
    std::uint64_t value;
    std::memcpy(&value, reinterpret_cast<const char*>(&now) + at, sizeof value);
    words_from(page_, at)->store(value, memory_order_relaxed);
  }
  sequence.write_end();
}

Publisher::Woken Publisher::wait(int fd, short events, std::int64_t deadline_ns) {
  for (;;) {
    const std::int64_t now = now_ns();
    if (now >= next_update_ns_) {
      update(false);
      next_update_ns_ = now + kInterval;
    }
    if (now >= deadline_ns) return Woken::late;
    const std::int64_t left = std::min(next_update_ns_, deadline_ns) - now;
    pollfd watched[2] = {{stop_fd_.fd(), POLLIN, 0}, {fd, events, 0}};
    const int ready = poll(watched, 2, static_cast<int>(std::max<std::int64_t>(left, 0) / kMillisecond) + 1);
    if (ready <= 0) continue;
    if (watched[0].revents != 0) return Woken::stop;
    if (watched[1].revents != 0) return Woken::ready;
  }
}

void Publisher::run() {
  for (;;) {
    if (wait(socket_fd_.fd(), POLLIN, INT64_MAX) == Woken::stop) return;
    const int accepted = open_guarded(
        client_fd_, [this] { return accept4(socket_fd_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK); });
    if (accepted == 0) {
      serve_one();
      close_guarded(client_fd_);
    } else if (accepted != EAGAIN) {  // no descriptor left, perhaps: the client still waits
      if (wait(-1, 0, now_ns() + kInterval) == Woken::stop) return;
    }
  }
}

}  // namespace quire
