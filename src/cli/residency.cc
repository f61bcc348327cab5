// `quire residency`: asks each published cache of the process through its socket (quire/published.h), and draws what
// the library makes of the answer.
#include "cli/residency.h"

#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "cli/support.h"
#include "cli/watch.h"

namespace quire {

namespace {

constexpr int kPatienceSeconds = 10;
constexpr const char* kStates[] = {"clean", "dirty", "writeback", "unflushed", "filling", "ghost"};

// What one cache answered.
struct Answer {
  int errnum = 0;  // the cache's own; ENOENT: it has no such file
  std::uint64_t size = 0;
  unsigned handles = 0;
  std::vector<quire_residency_run> runs;
  bool complete = false;
  std::uint64_t resident() const {
    std::uint64_t bytes = 0;
    for (const quire_residency_run& run : runs) bytes += run.state == QUIRE_RUN_GHOST ? 0 : run.length;
    return bytes;
  }
};

struct CloseStream {
  void operator()(std::FILE* stream) const { (void)std::fclose(stream); }
};
using Stream = std::unique_ptr<std::FILE, CloseStream>;

// Connected to the process itself; null: errno says why.
Stream connect_to(pid_t pid, const char* name) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return nullptr;
  const timeval patience{kPatienceSeconds, 0};
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);  // of connect, too
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::min(std::strlen(name), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name, length);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  Stream stream;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0) {
    ucred peer{};
    socklen_t peer_size = sizeof peer;
    // The name may have become another's since it was read. (0: a process that this namespace does not show.)
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &peer_size) == 0 && (peer.pid == pid || peer.pid == 0)) {
      stream.reset(fdopen(fd, "r"));
    } else {
      errno = ECONNREFUSED;
    }
  }
  if (!stream) {
    const int errnum = errno;
    close(fd);
    errno = errnum;
  }
  return stream;
}

// One line of the answer; false if it is none that the protocol knows.
bool take_line(const char* line, Answer& answer) {
  std::uint64_t page_size = 0;
  quire_residency_run run{};
  char state[16];
  if (std::strcmp(line, "end\n") == 0) return answer.complete = true;
  if (std::sscanf(line, "error %d", &answer.errnum) == 1) return answer.complete = answer.errnum > 0;
  if (std::sscanf(line, "file %" SCNu64 " %" SCNu64 " %u", &answer.size, &page_size, &answer.handles) == 3) return true;
  if (std::sscanf(line, "run %" SCNu64 " %" SCNu64 " %15s %u", &run.offset, &run.length, state, &run.order) != 4) {
    return false;
  }
  const auto known = std::ranges::find(kStates, std::string_view(state));
  run.state = static_cast<std::uint32_t>(known - std::begin(kStates));
  // The answer comes in slices, which end anywhere.
  auto& runs = answer.runs;
  if (!runs.empty() && runs.back().offset + runs.back().length == run.offset && runs.back().state == run.state &&
      runs.back().order == run.order) {
    runs.back().length += run.length;
  } else {
    runs.push_back(run);
  }
  return known != std::end(kStates);
}

// False, after a message: it did not answer, or not in the words that are known here.
bool ask(const WatchedProcess& process, const quire_published& cache, const struct stat& st, Answer& answer) {
  const Stream stream = connect_to(process.pid(), cache.socket);
  int errnum = errno;
  if (stream) {
    const std::string request = fmt::format("residency {} {}\n", st.st_dev, st.st_ino);
    bool sound = send(fileno(stream.get()), request.data(), request.size(), MSG_NOSIGNAL) ==
                 static_cast<ssize_t>(request.size());
    errnum = errno;
    char line[256];
    while (sound && !answer.complete) {
      errno = 0;
      if (std::fgets(line, sizeof line, stream.get()) == nullptr) {
        errnum = errno != 0 ? errno : ECONNRESET;
        break;
      }
      if (take_line(line, answer)) continue;
      report_error("process %d answers in the words of another version of quire", process.pid());
      return false;
    }
    if (answer.complete) return true;
  }
  if (process.ended()) {
    report_error("%s", process.end_message().c_str());
  } else if (errnum == EAGAIN) {
    report_error("process %d does not answer: it may be stopped", process.pid());
  } else if (errnum == ECONNREFUSED) {
    report_error("process %d cannot be asked: its cache has just gone, or it is in another network namespace",
                 process.pid());
  } else {
    report_error("process %d cannot be asked: %s", process.pid(), errno_text(errnum).c_str());
  }
  return false;
}

// Drawn by the library. Empty, after a message: it could not.
std::string draw(const std::string& name, const Answer& answer, int format) {
  std::string text(4096, '\0');
  for (;;) {
    const ssize_t length = quire_residency_draw(name.c_str(), answer.size, answer.runs.data(), answer.runs.size(),
                                                format, text.data(), text.size());
    if (length < 0) {
      report_quire_error();
      return {};
    }
    const bool fits = static_cast<std::size_t>(length) < text.size();
    text.resize(static_cast<std::size_t>(length) + (fits ? 0 : 1));
    if (fits) return text;
  }
}

int write_svg(const ResidencyOptions& options, const Answer& answer) {
  const std::string image = draw(options.file, answer, QUIRE_DRAW_SVG);
  if (image.empty()) return 1;
  const bool standard = options.svg == "-";
  std::FILE* out = standard ? stdout : std::fopen(options.svg.c_str(), "we");
  bool written = out != nullptr && std::fwrite(image.data(), 1, image.size(), out) == image.size();
  int errnum = errno;
  if (out != nullptr && (standard ? std::fflush(out) : std::fclose(out)) != 0) {
    if (written) errnum = errno;
    written = false;
  }
  return written ? 0 : report_error("cannot write %s: %s", options.svg.c_str(), errno_text(errnum).c_str());
}

int print_answer(const ResidencyOptions& options, const quire_published& cache, const Answer& answer) {
  const std::string text = draw(options.file, answer, options.json ? QUIRE_DRAW_JSON : QUIRE_DRAW_TEXT);
  if (text.empty()) return 1;
  if (options.json) {
    fmt::print("{}\n", text);
  } else {
    fmt::print("process {}, cache {}, {}\n{}", options.pid, cache.cache,
               answer.handles == 0 ? "closed, kept for its next opening" : fmt::format("handles: {}", answer.handles),
               text);
  }
  return 0;
}

}  // namespace

int show_residency(const ResidencyOptions& options) {
  struct stat st {};
  WatchedProcess process;
  std::vector<quire_published> caches;
  if (!process.open(options.pid) || !process.look_for_cache(&caches)) return 1;
  if (stat(options.file.c_str(), &st) != 0) {
    return report_error("%s: %s", options.file.c_str(), errno_text(errno).c_str());
  }
  int code = 0, refusal = 0;
  Answer fullest;
  bool found = false;
  for (const quire_published& cache : caches) {
    Answer answer;
    if (!ask(process, cache, st, answer)) return 1;
    if (answer.errnum != 0) {
      if (answer.errnum != ENOENT) refusal = answer.errnum;
      continue;
    }
    if (options.json || options.svg.empty()) code |= print_answer(options, cache, answer);
    if (!found || answer.resident() > fullest.resident()) fullest = std::move(answer);
    found = true;
  }
  if (!found && refusal != 0) {
    return report_error("process %d does not tell about %s: %s", options.pid, options.file.c_str(),
                        errno_text(refusal).c_str());
  }
  if (!found) return report_error("%s is not cached by process %d", options.file.c_str(), options.pid);
  return options.svg.empty() ? code : code | write_svg(options, fullest);
}

}  // namespace quire
