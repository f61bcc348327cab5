// Finding a process and its published pages; see watch.h. A page is mapped anew at each look: caches come and go, and a
// mapping costs microseconds.
#include "cli/watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "cli/support.h"

namespace quire {

namespace {

enum class Page { counters, other_version, none };

// The counters in the file that /proc/PID/fd/`name` leads to.
Page read_page(int directory, const char* name, quire_published* out) {
  char target[64];
  const ssize_t length = readlinkat(directory, name, target, sizeof target);
  // The kernel writes "/memfd:NAME (deleted)".
  constexpr std::string_view kLink = "/memfd:" QUIRE_PUBLISHED_NAME " ";
  if (length < 0 || !std::string_view(target, static_cast<std::size_t>(length)).starts_with(kLink)) return Page::none;
  const int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Page::none;
  // Anybody may call a memfd so: one that could shrink under our eyes is not quire's.
  struct stat st {};
  const int seals = fcntl(fd, F_GET_SEALS);
  void* memory = MAP_FAILED;
  if (seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(fd, &st) == 0 && st.st_size >= off_t{sizeof *out}) {
    memory = mmap(nullptr, sizeof *out, PROT_READ, MAP_SHARED, fd, 0);
  }
  close(fd);
  if (memory == MAP_FAILED) return Page::none;
  const auto* page = static_cast<const quire_published*>(memory);
  Page found = Page::none;
  if (quire_published_read(page, out) != 0) {
    found = out->ended == 0 ? Page::counters : Page::none;
  } else if (page->magic == QUIRE_PUBLISHED_MAGIC && page->version != QUIRE_PUBLISHED_VERSION) {
    found = Page::other_version;
  }
  munmap(memory, sizeof *out);
  return found;
}

std::string scaled(double value, double step, const char* const* units, std::size_t count) {
  std::size_t unit = 0;
  for (; value >= step && unit + 1 < count; ++unit) value /= step;
  const int digits = value == 0 || value >= 100 || (unit == 0 && value >= 10) ? 0 : 1;
  return fmt::format("{:.{}f}{}", value, digits, units[unit]);
}

}  // namespace

WatchedProcess::~WatchedProcess() {
  if (pidfd_ >= 0) close(pidfd_);
}

bool WatchedProcess::open(pid_t pid) {
  pid_ = pid;
  pidfd_ = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));  // glibc 2.36 declares it for C alone
  if (pidfd_ >= 0 && !ended()) return true;
  if (pidfd_ >= 0 || errno == ESRCH || errno == EINVAL || errno == ENOENT) {  // ended, none, or a thread of one
    report_error("there is no process %d", pid);
  } else {
    report_error("cannot watch process %d: %s", pid, errno_text(errno).c_str());
  }
  return false;
}

bool WatchedProcess::ended() const {
  pollfd process{pidfd_, POLLIN, 0};
  return poll(&process, 1, 0) == 1;
}

WatchedProcess::Look WatchedProcess::look() const {
  const std::string path = fmt::format("/proc/{}/fd", pid_);
  DIR* directory = opendir(path.c_str());
  bool other_version = false;
  Look found;
  int errnum = directory == nullptr ? errno : 0;
  while (directory != nullptr) {
    errno = 0;
    const dirent* entry = readdir(directory);
    if (entry == nullptr) {
      errnum = errno;
      break;
    }
    quire_published counters;
    const Page page = read_page(dirfd(directory), entry->d_name, &counters);
    if (page == Page::counters) found.caches.push_back(counters);
    other_version = other_version || page == Page::other_version;
  }
  if (directory != nullptr) closedir(directory);
  if (errnum != 0 && ended()) {  // with it goes /proc/PID, in several steps
    found.error = end_message();
  } else if (errnum == EACCES || errnum == EPERM) {
    found.error = fmt::format("no permission to look into process {}: only its own user and root may", pid_);
  } else if (errnum != 0) {
    found.error = fmt::format("cannot look into process {}: {}: {}", pid_, path, errno_text(errnum));
  } else if (other_version && found.caches.empty()) {
    found.error = fmt::format("process {} publishes its counters in the way of another version of quire", pid_);
  }
  const auto number = [](const quire_published& cache) { return cache.cache; };
  std::ranges::sort(found.caches, {}, number);  // a descriptor may have been duplicated
  found.caches.erase(std::ranges::unique(found.caches, {}, number).begin(), found.caches.end());
  return found;
}

bool WatchedProcess::look_for_cache(std::vector<quire_published>* caches) const {
  Look found = look();
  if (found.error.empty() && found.caches.empty()) {
    found.error = ended() ? end_message()
                          : fmt::format(
                                "process {} has no published cache: a program sets QUIRE_PUBLISH in its quire_options; "
                                "for those of the quire command, set the environment variable QUIRE_PUBLISH=1",
                                pid_);
  }
  if (!found.error.empty()) report_error("%s", found.error.c_str());
  *caches = std::move(found.caches);
  return found.error.empty();
}

std::string WatchedProcess::end_message() const { return fmt::format("process {} has ended", pid_); }

std::string human_bytes(double bytes) {
  constexpr const char* kUnits[] = {" B", " KiB", " MiB", " GiB", " TiB", " PiB"};
  return scaled(bytes, 1024, kUnits, std::size(kUnits));
}

std::string human_count(double count) {
  constexpr const char* kUnits[] = {"", " k", " M", " G", " T"};
  return scaled(count, 1000, kUnits, std::size(kUnits));
}

}  // namespace quire
