// What a published cache tells to who asks through its socket; quire/published.h has the protocol. One client at a
// time, each with a second of patience and half a minute in all; a slice of the answer is made, the file table given
// back, and only then is it sent. Nothing is allocated.  Locks: the file table, by try.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <string_view>

#include "api/cache_impl.h"
#include "api/publisher.h"
#include "api/residency_draw.h"
#include "base/check.h"
#include "sync/clock.h"

namespace quire {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000;
constexpr std::int64_t kPatience = 1000 * kMillisecond;
constexpr std::int64_t kLongest = 30'000 * kMillisecond;
constexpr std::int64_t kTableRetry = 5 * kMillisecond;
constexpr std::size_t kRuns = 128;         // of one slice
constexpr std::size_t kLongestLine = 128;  // of a request, and of a part of an answer

std::int64_t now_ns() { return clock_ns(CLOCK_MONOTONIC); }

// The cache's own user, and root, may ask.
bool may_ask(int fd) {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return false;
  return peer.uid == 0 || peer.uid == geteuid();
}

// Takes "NUMBER" and one blank, or the end, off the front.
bool take_number(std::string_view* text, std::uint64_t* number) {
  const auto [rest, error] = std::from_chars(text->data(), text->data() + text->size(), *number);
  if (error != std::errc{}) return false;
  text->remove_prefix(static_cast<std::size_t>(rest - text->data()));
  if (text->empty()) return true;
  if (text->front() != ' ') return false;
  text->remove_prefix(1);
  return !text->empty();
}

// A part of an answer: a slice's runs, and a line before and after them.
struct Reply {
  std::array<char, (kRuns + 2) * kLongestLine> text;
  std::size_t length = 0;
  [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    length += static_cast<std::size_t>(std::vsnprintf(&text[length], text.size() - length, format, arguments));
    va_end(arguments);
    DCHECK(length < text.size());
  }
};

}  // namespace

bool Publisher::send_all(const Client& client, const char* text, std::size_t size) {
  while (size != 0) {
    const ssize_t sent = send(client.fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      text += sent;
      size -= static_cast<std::size_t>(sent);
    } else if (sent < 0 && errno != EAGAIN) {
      return false;
    } else if (wait(client.fd, POLLOUT, std::min(now_ns() + kPatience, client.deadline_ns)) != Woken::ready) {
      return false;
    }
  }
  return true;
}

void Publisher::send_error(const Client& client, int errnum) {
  char line[kLongestLine];
  const int length = std::snprintf(line, sizeof line, "error %d\n", errnum);
  send_all(client, line, static_cast<std::size_t>(length));
}

// A line without its end; empty for one that is too long or does not come.
std::string_view Publisher::receive_line(const Client& client, std::span<char> line) {
  for (std::size_t got = 0; got < line.size();) {
    const ssize_t n = recv(client.fd, &line[got], 1, MSG_DONTWAIT);  // a request is short
    if (n == 1) {
      if (line[got] == '\n') return {line.data(), got};
      ++got;
    } else if (n == 0 || errno != EAGAIN ||
               wait(client.fd, POLLIN, std::min(now_ns() + kPatience, client.deadline_ns)) != Woken::ready) {
      return {};
    }
  }
  return {};
}

void Publisher::serve_one() {
  const Client client{client_fd_.fd(), now_ns() + kLongest};
  if (may_ask(client.fd)) {
    answer(client);
  } else {
    send_error(client, EPERM);
  }
}

void Publisher::answer(const Client& client) {
  constexpr std::string_view kResidency = "residency ";
  char line[kLongestLine];
  std::uint64_t device = 0, inode = 0;
  std::string_view request = receive_line(client, line);
  if (request.starts_with(kResidency)) {
    request.remove_prefix(kResidency.size());
    if (take_number(&request, &device) && take_number(&request, &inode) && request.empty()) {
      return answer_residency(client, device, inode);
    }
  }
  send_error(client, EINVAL);
}

void Publisher::answer_residency(const Client& client, std::uint64_t device, std::uint64_t inode) {
  std::array<quire_residency_run, kRuns> runs;
  CacheImpl::ResidencyFile file{};
  ResidencyCursor at;
  std::int64_t table_deadline = now_ns() + kPatience;
  for (bool first = true; !at.done;) {
    const auto found = cache_.try_residency({device, inode}, at, runs, &file);
    if (found.errnum() == EBUSY && now_ns() < table_deadline) {
      if (wait(-1, 0, now_ns() + kTableRetry) == Woken::stop) return;
      continue;
    }
    if (!found.ok()) return send_error(client, first || found.errnum() != ENOENT ? found.errnum() : ESTALE);
    table_deadline = now_ns() + kPatience;
    Reply reply;
    using Long = unsigned long long;
    if (first) reply.add("file %llu %zu %u\n", static_cast<Long>(file.size), kPageSize, file.handles);
    first = false;
    for (std::size_t i = 0; i < found.value(); ++i) {
      const quire_residency_run& run = runs[i];
      reply.add("run %llu %llu %s %u\n", static_cast<Long>(run.offset), static_cast<Long>(run.length),
                state_name(run.state), run.order);
    }
    if (at.done) reply.add("end\n");
    if (!send_all(client, reply.text.data(), reply.length)) return;
  }
}

}  // namespace quire
