// Mapped views through the public API, over host files: what they show, who may have them, how they end.
#include "cache/views.h"

#include <linux/falloc.h>
#include <sys/wait.h>

#include <atomic>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

#include "api/view_test_util.h"

namespace quire::api_testing {
namespace {

constexpr std::size_t kPage = 4096;

// A host's file of so many named bytes, open in a cache of its own.
struct OpenedFile {
  OpenedFile(std::size_t size, int flags, std::size_t memory = 16 * kMiB)
      : bytes(named_bytes(1, 0, size)), cache(make_cache(memory)) {
    host_write(dir / "file", bytes);
    file = open_file(cache, dir / "file", flags);
  }
  TempDir dir;
  std::string bytes;
  CachePtr cache;
  FilePtr file;
};

TEST(Views, ShowsTheFile) {
  const auto& [dir, bytes, cache, file] = OpenedFile(3 * kMiB + 100, O_RDONLY);
  const TestView view(cache, file, 0, bytes.size());
  EXPECT_TRUE(same_bytes(view.bytes(0, bytes.size()), bytes));
  EXPECT_TRUE(same_bytes(view.bytes(bytes.size(), kPage - bytes.size() % kPage),
                         std::string(kPage - bytes.size() % kPage, '\0')));  // the rest of the last page
  const TestView part(cache, file, 5 * kPage, 3 * kPage);
  EXPECT_TRUE(same_bytes(part.bytes(0, 3 * kPage), bytes.substr(5 * kPage, 3 * kPage)));
  EXPECT_GT(stat_of(cache, "view_faults"), 0U);
}

TEST(Views, RandomTouches) {
  const auto& [dir, bytes, cache, file] = OpenedFile(8 * kMiB, O_RDONLY, 32 * kMiB);
  const TestView view(cache, file, 0, bytes.size());
  for (std::size_t i = 0; i < 2000; ++i) {
    const std::size_t at = i * 7919 * 8 % bytes.size();
    ASSERT_EQ(view.base()[at], bytes[at]) << at;
  }
}

TEST(Views, R3_WritesShow) {
  const auto& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDWR);
  const TestView view(cache, file, 0, kMiB);
  EXPECT_TRUE(same_bytes(view.bytes(0, kMiB), named_bytes(1, 0, kMiB)));
  write_all(file, named_bytes(2, 0, 100'000), 0);  // over pages that are shown
  EXPECT_TRUE(same_bytes(view.bytes(0, 100'000), named_bytes(2, 0, 100'000)));
  EXPECT_EQ(quire_fsync(file.get()), 0);
  write_all(file, named_bytes(3, 5000, 10), 5000);
  EXPECT_TRUE(same_bytes(view.bytes(5000, 10), named_bytes(3, 5000, 10)));
}

TEST(Views, R3_RangeOperationsShow) {
  const auto& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDWR);
  const TestView view(cache, file, 0, 2 * kMiB);
  EXPECT_TRUE(same_bytes(view.bytes(0, kMiB), bytes));
  ASSERT_EQ(quire_fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 200'000), 0);
  std::string wanted = bytes;
  std::fill_n(wanted.begin() + 5000, 200'000, '\0');
  EXPECT_TRUE(same_bytes(view.bytes(0, kMiB), wanted));
  if (quire_fallocate(file.get(), FALLOC_FL_COLLAPSE_RANGE, 16384, 65536) == 0) {
    wanted.erase(16384, 65536);
    EXPECT_TRUE(same_bytes(view.bytes(0, wanted.size()), wanted));
  }
  ASSERT_EQ(quire_ftruncate(file.get(), 300'001), 0);
  wanted.resize(300'001);
  EXPECT_TRUE(same_bytes(view.bytes(0, wanted.size()), wanted));
  ASSERT_EQ(quire_ftruncate(file.get(), 400'000), 0);
  wanted.resize(400'000);
  EXPECT_TRUE(same_bytes(view.bytes(0, wanted.size()), wanted));
}

TEST(Views, PastTheEndIsSIGBUS) {
  const CatchFaults faults;
  const auto& [dir, bytes, cache, file] = OpenedFile(5000, O_RDWR);
  const TestView view(cache, file, 0, 100 * kPage);
  EXPECT_EQ(load_or_signal(view.base() + 2 * kPage), -SIGBUS);
  EXPECT_EQ(load_or_signal(view.base() + 50 * kPage), -SIGBUS);
  EXPECT_EQ(load_or_signal(view.base() + 2 * kPage - 1), 0);
  EXPECT_GE(load_or_signal(view.base()), 0);
  // A system call: an error, no signal.
  Fd other(dir / "other", O_WRONLY | O_CREAT);
  EXPECT_EQ(::write(other, view.base() + 3 * kPage, 10), -1);
  EXPECT_EQ(errno, EFAULT);
  // Grows with the file, in every way that a file grows.
  write_all(file, named_bytes(2, 5000, kPage), 5000);
  EXPECT_EQ(view.bytes(5000, kPage), named_bytes(2, 5000, kPage));
  EXPECT_EQ(load_or_signal(view.base() + 3 * kPage), -SIGBUS);
  const std::string more = named_bytes(2, 5000 + kPage, 10 * kPage);
  write_all(file, more, 5000 + kPage);
  EXPECT_TRUE(same_bytes(view.bytes(5000 + kPage, more.size()), more));
  EXPECT_EQ(load_or_signal(view.base() + 20 * kPage), -SIGBUS);
  ASSERT_EQ(quire_ftruncate(file.get(), 21 * kPage), 0);
  EXPECT_EQ(load_or_signal(view.base() + 20 * kPage), 0);
  EXPECT_EQ(load_or_signal(view.base() + 22 * kPage), -SIGBUS);
  ASSERT_EQ(quire_fallocate(file.get(), 0, 0, 23 * kPage), 0);
  EXPECT_EQ(load_or_signal(view.base() + 22 * kPage), 0);
  // And shrinks with it.
  ASSERT_EQ(quire_ftruncate(file.get(), 10 * kPage), 0);
  EXPECT_EQ(load_or_signal(view.base() + 10 * kPage), -SIGBUS);
  EXPECT_GE(load_or_signal(view.base() + 10 * kPage - 1), 0);
}

TEST(Views, SIGBUSStaysInItsThread) {
  const CatchFaults faults;
  const auto& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDONLY);
  const TestView view(cache, file, 0, 2 * kMiB);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    sigset_t all;  // with its signals blocked, too
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    for (std::size_t i = 0; !stop; ++i) ASSERT_EQ(view.base()[i * 4099 % kMiB], bytes[i * 4099 % kMiB]);
  });
  for (std::size_t i = 0; i < 200; ++i) ASSERT_EQ(load_or_signal(view.base() + kMiB + i * kPage), -SIGBUS);
  stop = true;
  other.join();
}

TEST(Views, OutliveTheirHandle) {
  auto&& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDONLY);
  TestView view(cache, file, 0, kMiB);
  close_file(file);
  EXPECT_TRUE(same_bytes(view.bytes(0, kMiB), bytes));
  EXPECT_FAILS(EBUSY, quire_cache_destroy(cache.get(), 0));
  EXPECT_MESSAGE_HAS("views");
  {
    const FilePtr again = open_file(cache, dir / "file", O_RDONLY);
    EXPECT_EQ(read_all(again, 10, 0), bytes.substr(0, 10));
  }
  view.unmap();
  EXPECT_EQ(quire_cache_destroy(cache.release(), 0), 0) << quire_error_message();
}

TEST(Views, DiscardUnmaps) {
  const CatchFaults faults;
  auto&& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDONLY);
  const char* const base = static_cast<const char*>(quire_mmap(file.get(), 0, kMiB, PROT_READ));
  EXPECT_GE(load_or_signal(base), 0);
  close_file(file);
  EXPECT_EQ(quire_cache_destroy(cache.release(), QUIRE_DISCARD), 0) << quire_error_message();
  EXPECT_EQ(load_or_signal(base), -SIGSEGV);
}

TEST(Views, Arguments) {
  const auto& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDONLY);
  const FilePtr writer = open_file(cache, dir / "file", O_WRONLY);
  EXPECT_FAILS(EINVAL, quire_mmap(file.get(), -4096, kPage, PROT_READ));
  EXPECT_FAILS(EINVAL, quire_mmap(file.get(), 1, kPage, PROT_READ));
  EXPECT_FAILS(EINVAL, quire_mmap(file.get(), 0, 0, PROT_READ));
  EXPECT_FAILS(EINVAL, quire_mmap(file.get(), 0, kPage, PROT_EXEC));
  EXPECT_FAILS(EINVAL, quire_mmap2(file.get(), 0, kPage, PROT_READ, 2));
  EXPECT_FAILS(EACCES, quire_mmap(writer.get(), 0, kPage, PROT_READ));
  EXPECT_FAILS(EACCES, quire_mmap(file.get(), 0, kPage, PROT_READ | PROT_WRITE));
  EXPECT_FAILS(EOVERFLOW, quire_mmap(file.get(), INT64_MAX & ~4095LL, 2 * kPage, PROT_READ));
  char* const base = static_cast<char*>(quire_mmap(file.get(), 0, 4 * kPage, PROT_READ));
  ASSERT_NE(base, MAP_FAILED) << quire_error_message();
  EXPECT_FAILS(EINVAL, quire_munmap(cache.get(), base + 1, kPage));
  EXPECT_FAILS(EINVAL, quire_munmap(cache.get(), base, 0));
  EXPECT_FAILS(EINVAL, quire_munmap(cache.get(), base, kPage));
  EXPECT_EQ(quire_munmap(cache.get(), base + (64 << 20), kPage), 0);  // nothing there: nothing done
  EXPECT_FAILS(EINVAL, quire_msync(cache.get(), base + 1, kPage));
  EXPECT_FAILS(ENOMEM, quire_msync(cache.get(), base, 5 * kPage));
  EXPECT_EQ(quire_msync(cache.get(), base + kPage, 2 * kPage), 0) << quire_error_message();
  EXPECT_EQ(quire_munmap(cache.get(), base, 4 * kPage), 0) << quire_error_message();
  EXPECT_FAILS(ENOMEM, quire_msync(cache.get(), base, kPage));
}

TEST(Views, R3_StoresShow) {
  TempDir dir;
  std::string bytes = named_bytes(1, 0, kMiB);
  host_write(dir / "file", bytes);
  const CachePtr cache = make_cache();
  const FilePtr file = open_file(cache, dir / "file", O_RDWR), reader = open_file(cache, dir / "file", O_RDONLY);
  EXPECT_FAILS(EACCES, quire_mmap(reader.get(), 0, kPage, PROT_READ | PROT_WRITE));
  const TestView view(cache, file, 0, kMiB, PROT_READ | PROT_WRITE), loads(cache, reader, 0, kMiB);
  for (std::size_t at = 100; at < kMiB; at += 70'001) {
    const std::string more = named_bytes(2, at, 500);
    std::memcpy(view.base() + at, more.data(), std::min(more.size(), kMiB - at));
    bytes.replace(at, std::min(more.size(), kMiB - at), more, 0, std::min(more.size(), kMiB - at));
  }
  EXPECT_TRUE(same_bytes(read_all(reader, kMiB, 0), bytes));
  EXPECT_TRUE(same_bytes(loads.bytes(0, kMiB), bytes));
  ASSERT_EQ(quire_msync(cache.get(), view.base(), kMiB), 0) << quire_error_message();
  EXPECT_TRUE(same_bytes(host_read(dir / "file"), bytes));
  view.base()[5] = 'x';
  bytes[5] = 'x';
  ASSERT_EQ(quire_fsync(file.get()), 0);
  EXPECT_TRUE(same_bytes(host_read(dir / "file"), bytes));
  EXPECT_GT(stat_of(cache, "view_stores"), 0U);
  const CatchFaults faults;  // a store to what may only be read
  EXPECT_EQ(store_or_signal(loads.base() + 5, 'y'), -SIGSEGV);
  EXPECT_EQ(view.base()[5], 'x');
}

// A buffer may lie in a view, of the very range, too, and in parts of it that nobody has touched yet.
TEST(Views, R4_BuffersInViews) {
  auto&& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDWR);
  for (std::size_t i = 0; i < 60; ++i) {
    const TestView view(cache, file, 0, kMiB, PROT_READ | PROT_WRITE);  // blank
    const std::size_t count = i % 3 == 0 ? 100 : i % 3 == 1 ? 5000 : 150'000;
    const std::size_t from = i * 70'001 % (kMiB - count),
                      to = i % 4 == 0 ? from + 8 * (i % 3) : i * 90'007 % (kMiB - count);
    const std::size_t n = std::min(count, kMiB - to);
    if (i % 2 == 0) {
      ASSERT_EQ(quire_pwrite(file.get(), view.base() + from, n, static_cast<off_t>(to)), static_cast<ssize_t>(n));
    } else {
      ASSERT_EQ(quire_pread(file.get(), view.base() + to, n, static_cast<off_t>(from)), static_cast<ssize_t>(n));
    }
    bytes.replace(to, n, bytes.substr(from, n));
    ASSERT_TRUE(same_bytes(view.bytes(0, kMiB), bytes)) << i;
    ASSERT_TRUE(same_bytes(read_all(file, kMiB, 0), bytes)) << i;
  }
}

TEST(Views, D1_TheLastWriterMayBeAView) {
  auto&& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDWR);
  TestView view(cache, file, 0, kMiB, PROT_READ | PROT_WRITE);
  close_file(file);
  view.base()[100'000] = '!';
  bytes[100'000] = '!';
  view.unmap();  // writes back, as the last close does
  EXPECT_TRUE(same_bytes(host_read(dir / "file"), bytes));
}

TEST(Views, StoresGrowWithTheFile) {
  const CatchFaults faults;
  const auto& [dir, bytes, cache, file] = OpenedFile(5000, O_RDWR);
  const TestView view(cache, file, 0, 100 * kPage, PROT_READ | PROT_WRITE);
  EXPECT_EQ(store_or_signal(view.base() + 2 * kPage, 'x'), -SIGBUS);
  view.base()[2 * kPage - 1] = 'x';  // no part of the file
  ASSERT_EQ(quire_ftruncate(file.get(), 3 * kPage), 0);
  EXPECT_EQ(store_or_signal(view.base() + 2 * kPage, 'x'), 0);
  EXPECT_EQ(load_or_signal(view.base() + 2 * kPage - 1), 0);
  EXPECT_EQ(read_all(file, 2, 2 * kPage), std::string("x\0", 2));
  EXPECT_EQ(file_size(file), 3 * static_cast<off_t>(kPage));
}

TEST(Views, PrefaultsAndTellsErrors) {
  const auto& [dir, bytes, cache, file] = OpenedFile(2 * kMiB, O_RDONLY);
  const TestView view(cache, file, 0, 4 * kMiB, PROT_READ, QUIRE_MAP_PREFAULT);
  const std::uint64_t faults = stat_of(cache, "view_faults");
  EXPECT_TRUE(same_bytes(view.bytes(0, bytes.size()), bytes));
  EXPECT_EQ(stat_of(cache, "view_faults"), faults);
  // The host's file loses its end behind our back: those pages cannot be read.
  host_write(dir / "short", bytes);
  const FilePtr cut = open_file(cache, dir / "short", O_RDONLY);
  ASSERT_EQ(::truncate((dir / "short").c_str(), 10 * kPage), 0);
  EXPECT_FAILS(EIO, quire_mmap2(cut.get(), 0, kMiB, PROT_READ, QUIRE_MAP_PREFAULT));
  const CatchFaults catching;
  const TestView lazy(cache, cut, 0, kMiB);
  EXPECT_GE(load_or_signal(lazy.base()), 0);
  EXPECT_EQ(load_or_signal(lazy.base() + 100 * kPage), -SIGBUS);
  EXPECT_EQ(load_or_signal(lazy.base() + 100 * kPage), -SIGBUS);
  ASSERT_EQ(::truncate((dir / "short").c_str(), static_cast<off_t>(bytes.size())), 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(1600));
  EXPECT_EQ(load_or_signal(lazy.base() + 100 * kPage), 0);  // tried again
}

TEST(Views, MoreThanTheMemory) {
  const auto& [dir, bytes, cache, file] = OpenedFile(24 * kMiB, O_RDONLY, 4 * kMiB);
  const TestView view(cache, file, 0, bytes.size());
  for (int turn = 0; turn < 2; ++turn) EXPECT_TRUE(same_bytes(view.bytes(0, bytes.size()), bytes));
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < 1500; ++i) {
        const std::size_t at = (i * 7919 + t * 104729) * 64 % bytes.size();
        ASSERT_EQ(view.base()[at], bytes[at]) << at;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(stat_of(cache, "view_scrubbed"), 0U);
}

// The kernel keeps what it has pinned: bytes that are still to be read from a pipe are the file's, whatever became of
// the frame, or zeros, where the frame's memory was a part of a huge page when it was given back.
TEST(Views, R2_PinnedFramesAreNobodyElses) {
  TempDir dir;
  const std::string bytes = named_bytes(1, 0, 4 * kPage), others = named_bytes(2, 0, 16 * kMiB);
  host_write(dir / "file", bytes);
  host_write(dir / "others", others);
  const CachePtr cache = make_cache(4 * kMiB);
  const FilePtr file = open_file(cache, dir / "file", O_RDONLY), other = open_file(cache, dir / "others", O_RDONLY);
  const TestView view(cache, file, 0, bytes.size());
  EXPECT_TRUE(same_bytes(view.bytes(0, bytes.size()), bytes));
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const iovec v{view.base(), bytes.size()};
  ASSERT_EQ(vmsplice(ends[1], &v, 1, 0), static_cast<ssize_t>(bytes.size()));
  for (int turn = 0; turn < 4; ++turn) {
    EXPECT_EQ(read_all(other, kMiB, turn * static_cast<off_t>(4 * kMiB)), others.substr(turn * 4 * kMiB, kMiB));
    EXPECT_TRUE(same_bytes(read_all(other, 8 * kMiB, 0), others.substr(0, 8 * kMiB)));
  }
  std::string got(bytes.size(), '?');
  ASSERT_EQ(::read(ends[0], got.data(), got.size()), static_cast<ssize_t>(got.size()));
  for (std::size_t i = 0; i < got.size(); i += 8) {
    if (got.compare(i, 8, std::string(8, '\0')) == 0) continue;
    ASSERT_EQ(got.substr(i, 8), bytes.substr(i, 8)) << i;
  }
  ::close(ends[0]);
  ::close(ends[1]);
}

// The program's own handler is called; without one the program ends as it always did.
[[noreturn]] void touch_past_end(bool with_handler, unsigned flags) {
  std::optional<CatchFaults> faults;
  if (with_handler) faults.emplace();
  if (!with_handler) ::signal(SIGBUS, SIG_DFL);  // a sanitizer has its own
  TempDir dir;
  host_write(dir / "file", named_bytes(1, 0, kPage));
  const CachePtr cache = make_cache(16 * kMiB, flags);
  const FilePtr file = open_file(cache, dir / "file", O_RDONLY);
  const TestView view(cache, file, 0, 10 * kPage);
  std::filesystem::remove_all(dir.path());
  if (with_handler && load_or_signal(view.base() + 5 * kPage) != -SIGBUS) _exit(1);
  if (!with_handler) static_cast<void>(*static_cast<volatile char*>(view.base() + 5 * kPage));
  _exit(contains(quire_error_message(), "SIGBUS") == (flags == 0) ? 0 : 2);
}

TEST(Views, SIGBUSIsChained) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // in a process of its own, which may use quire
  for (const unsigned flags : {0U, QUIRE_NO_SIGNAL_HANDLER}) {
    EXPECT_EXIT(touch_past_end(true, flags), ::testing::ExitedWithCode(0), "");
    EXPECT_EXIT(touch_past_end(false, flags), ::testing::KilledBySignal(SIGBUS), "");
  }
}

TEST(Views, FewerMappings) {
  const auto& [dir, bytes, cache, file] = OpenedFile(8 * kMiB, O_RDONLY, 32 * kMiB);
  for (std::size_t i = 0; i < bytes.size() / kPage; i += 2) {  // small folios, in no order
    const std::size_t page = i * 1021 % (bytes.size() / kPage);
    ASSERT_EQ(read_all(file, 1, static_cast<off_t>(page * kPage)), bytes.substr(page * kPage, 1));
  }
  const TestView view(cache, file, 0, bytes.size());
  quire::set_view_run_limit(200);
  for (int turn = 0; turn < 2; ++turn) EXPECT_TRUE(same_bytes(view.bytes(0, bytes.size()), bytes));
  EXPECT_GT(stat_of(cache, "view_resets"), 0U);
  std::size_t mappings = 0;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) mappings += contains(line, "quire-arena");
  EXPECT_LE(mappings, 300U);
  quire::set_view_run_limit(0);
}

TEST(Views, ForkedChildHasNone) {
  const auto& [dir, bytes, cache, file] = OpenedFile(kMiB, O_RDONLY);
  const TestView view(cache, file, 0, 2 * kMiB);
  EXPECT_EQ(view.base()[5], bytes[5]);
  const CatchFaults faults;
  const pid_t child = fork();
  if (child == 0) {
    int bad = load_or_signal(view.base() + 5) == -SIGSEGV ? 0 : 1;              // was placed
    bad |= load_or_signal(view.base() + kMiB / 2) == -SIGSEGV ? 0 : 2;          // may have been
    bad |= load_or_signal(view.base() + kMiB + 5 * kPage) == -SIGSEGV ? 0 : 4;  // blank
    bad |= quire_mmap(file.get(), 0, kPage, PROT_READ) == MAP_FAILED && errno == ENOTRECOVERABLE ? 0 : 8;
    bad |= quire_munmap(cache.get(), view.base(), kPage) == -1 && errno == ENOTRECOVERABLE ? 0 : 16;
    _exit(bad);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(same_bytes(view.bytes(0, kMiB), bytes));
}

TEST(Views, UnmappedBesideTouches) {
  const CatchFaults faults;
  const auto& [dir, bytes, cache, file] = OpenedFile(4 * kMiB, O_RDONLY, 4 * kMiB);
  for (int round = 0; round < 30; ++round) {
    const char* const base = static_cast<const char*>(quire_mmap(file.get(), 0, bytes.size(), PROT_READ));
    ASSERT_NE(base, MAP_FAILED) << quire_error_message();
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (std::size_t i = t;; ++i) {
          const std::size_t at = i * 7919 * 64 % bytes.size();
          const int got = load_or_signal(base + at);
          if (got == -SIGSEGV) return;
          ASSERT_EQ(got, static_cast<unsigned char>(bytes[at]));
        }
      });
    }
    std::this_thread::sleep_for(std::chrono::microseconds(300 * round));
    EXPECT_EQ(quire_munmap(cache.get(), const_cast<char*>(base), bytes.size()), 0) << quire_error_message();
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace quire::api_testing
