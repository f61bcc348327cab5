// Scratch files and the kernel's cache; see bench_files.h.
#include "cli/bench_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "cli/bench.h"
#include "cli/progress.h"
#include "cli/support.h"
#include "sync/atomic.h"

namespace quire {

// Made once and never freed: a signal handler may be walking the list.
struct ScratchEntry {
  explicit ScratchEntry(const std::string& name) : path(strdup(name.c_str())) {}
  char* const path;
  Atomic<bool> live{true};
  ScratchEntry* next = nullptr;
};

namespace {

constinit Atomic<ScratchEntry*> scratch_entries{nullptr};  // written by the main thread, read by the handler

// Async-signal-safe: reads lock-free atomics, unlinks, and dies of the signal.
void remove_scratch_files(int signal) {
  // Acquire: pairs with the constructor's release, so that the entry's path is there.
  for (ScratchEntry* entry = scratch_entries.load(memory_order_acquire); entry != nullptr; entry = entry->next) {
    if (entry->live.load(memory_order_acquire)) (void)unlink(entry->path);
  }
  (void)std::signal(signal, SIG_DFL);
  (void)raise(signal);
}

void watch_signals() {
  static bool watched = false;
  if (std::exchange(watched, true)) return;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    if (signal == SIGHUP && sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN)
      continue;  // nohup
    action = {};
    action.sa_handler = &remove_scratch_files;
    (void)sigaction(signal, &action, nullptr);
  }
}

constexpr std::uint64_t kChunk = std::uint64_t{1} << 20;

std::string mebibytes(std::uint64_t bytes) { return std::to_string((bytes + kChunk - 1) / kChunk) + " MiB"; }

void require_space(const std::string& directory, std::uint64_t size) {
  struct statvfs fs {};
  if (statvfs(directory.c_str(), &fs) != 0) throw BenchError(directory + ": " + errno_text(errno));
  const std::uint64_t available = static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize;
  if (size > available) {
    throw BenchError(directory + ": a file of " + mebibytes(size) + " is needed, but only " + mebibytes(available) +
                     " are free; choose another --path or a smaller --file-size");
  }
}

// Real blocks, no two alike: neither holes nor anything that compresses.
void write_random(int fd, const std::string& path, std::uint64_t size) {
  std::vector<std::uint64_t> words(kChunk / sizeof(std::uint64_t));
  Random random(size ^ (static_cast<std::uint64_t>(getpid()) << 32) ^ static_cast<std::uint64_t>(fd));
  Progress progress("writing the bench file", size);
  for (std::uint64_t done = 0; done < size;) {
    for (std::uint64_t& word : words) word = random.next();
    const std::size_t want = static_cast<std::size_t>(std::min(kChunk, size - done));
    const ssize_t written = pwrite(fd, words.data(), want, static_cast<off_t>(done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      throw BenchError("cannot write " + path + " at offset " + std::to_string(done) + ": " + errno_text(errno) +
                       "; choose another --path or a smaller --file-size");
    }
    done += static_cast<std::uint64_t>(written);
    progress.update(done);
  }
  if (fsync(fd) != 0) throw BenchError("cannot sync " + path + ": " + errno_text(errno));
  (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) (void)close(fd_);
}

ScratchFile::ScratchFile(const std::string& path) : path_(path) {
  watch_signals();
  entry_ = new ScratchEntry(path_);
  entry_->next = scratch_entries.load(memory_order_relaxed);  // the main thread alone adds entries
  scratch_entries.store(entry_, memory_order_release);
}

namespace {

std::string next_name(const std::string& directory, std::uint64_t size) {
  static unsigned next_number = 0;
  require_space(directory, size);
  return directory + "/.quire-bench-" + std::to_string(getpid()) + "-" + std::to_string(next_number++);
}

}  // namespace

ScratchFile::ScratchFile(const std::string& directory, std::uint64_t size) : ScratchFile(next_name(directory, size)) {
  const Descriptor fd(open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd.get() < 0) {
    const int errnum = errno;
    entry_->live.store(false, memory_order_release);  // not ours to remove
    entry_ = nullptr;
    throw BenchError("cannot make " + path_ + ": " + errno_text(errnum) + "; choose another --path");
  }
  write_random(fd.get(), path_, size);  // where it throws the destructor runs: another constructor has ended
}

ScratchFile::ScratchFile(ScratchFile&& other) noexcept : path_(std::move(other.path_)), entry_(other.entry_) {
  other.entry_ = nullptr;
}

ScratchFile::~ScratchFile() {
  if (entry_ == nullptr) return;
  (void)unlink(path_.c_str());
  entry_->live.store(false, memory_order_release);
}

Descriptor open_or_throw(const std::string& path, int flags) {
  Descriptor fd(open(path.c_str(), flags | O_CLOEXEC));
  if (fd.get() < 0) throw BenchError("cannot open " + path + ": " + errno_text(errno));
  return fd;
}

std::uint64_t kernel_cached_bytes(int fd, std::uint64_t size) {
  if (size == 0) return 0;
  void* view = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (view == MAP_FAILED) return 0;
  std::vector<unsigned char> resident(round_up(size, kPageSize) / kPageSize);
  std::uint64_t pages = 0;
  if (mincore(view, size, resident.data()) == 0) {
    pages = static_cast<std::uint64_t>(std::count_if(resident.begin(), resident.end(), [](auto p) { return p & 1; }));
  }
  (void)munmap(view, size);
  return pages * kPageSize;
}

void drop_from_kernel_cache(int fd, const std::string& path) {
  struct stat st {};
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return;
  const std::uint64_t size = static_cast<std::uint64_t>(st.st_size);
  const std::uint64_t tolerated = size / 64;
  (void)fdatasync(fd);
  (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  if (kernel_cached_bytes(fd, size) <= tolerated) return;
  if (const Descriptor drop(open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC)); drop.get() >= 0) {
    (void)!write(drop.get(), "1", 1);
  }
  static bool said = false;
  if (kernel_cached_bytes(fd, size) > tolerated && !said) {
    said = true;
    print_note("%s stays in the kernel's cache (tmpfs, or in use): the kernel's cold rows are not cold", path.c_str());
  }
}

}  // namespace quire
