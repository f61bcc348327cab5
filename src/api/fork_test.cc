// fork: the child may use nothing of its parent's caches and keeps nothing of theirs; the parent notices nothing.
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <thread>
#include <vector>

#include "api/peer_test_util.h"

namespace quire::api_testing {
namespace {

// A child runs `body`; its exit status is the number of the first check that failed, 0 if none did.
class Child {
 public:
  explicit Child(const std::function<int()>& body) : pid_(fork()) {
    EXPECT_GE(pid_, 0);
    if (pid_ == 0) {
      alarm(60);
      _exit(body());
    }
  }
  ~Child() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  int wait() {
    int status = 0;
    EXPECT_EQ(waitpid(std::exchange(pid_, -1), &status, 0) > 0, true);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

 private:
  pid_t pid_;
};

bool refused(long result) { return result == -1 && errno == ENOTRECOVERABLE; }
bool refused(const void* result) { return result == nullptr && errno == ENOTRECOVERABLE; }

class Fork : public ::testing::Test {
 protected:
  const TempDir dir_;
  const std::string path_ = dir_ / "file";
  const CachePtr cache_ = make_cache();
};

TEST_F(Fork, EveryCallOfTheChildFails) {
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  write_all(file, named_bytes(1, 0, 10000), 0);
  const std::string other = dir_ / "other";
  host_write(other, "x");
  Fd fd(other, O_RDWR);
  Child child([&] {
    quire_file* f = file.get();
    quire_cache* c = cache_.get();
    char buffer[64] = {};
    const iovec v[2] = {{buffer, 8}, {buffer + 8, 8}};
    struct stat st;
    if (!refused(quire_pread(f, buffer, 8, 0))) return 1;  // resident: not even a hit
    if (buffer[0] != 0) return 2;
    if (!refused(quire_pread(f, buffer, 64, 4090))) return 3;
    if (!refused(quire_preadv2(f, v, 2, 0, 0))) return 4;
    if (!refused(quire_preadv2(f, v, 1, 0, RWF_NOWAIT))) return 5;
    if (!refused(quire_pwrite(f, buffer, 8, 0))) return 6;
    if (!refused(quire_pwritev2(f, v, 2, 0, RWF_APPEND))) return 7;
    if (!refused(quire_ftruncate(f, 0))) return 8;
    if (!refused(quire_fsync(f))) return 9;
    if (!refused(quire_fdatasync(f))) return 10;
    if (!refused(quire_fstat(f, &st))) return 11;
    if (!refused(quire_close(f))) return 12;
    if (!refused(quire_open(c, other.c_str(), O_RDWR, 0))) return 13;
    if (!refused(quire_fdopen(c, fd))) return 14;
    if (!refused(quire_stats_json(c, buffer, sizeof buffer))) return 15;
    if (!refused(quire_cache_destroy(c, 0))) return 16;
    if (!refused(quire_cache_destroy(c, QUIRE_DISCARD))) return 17;
    if (std::strstr(quire_error_message(), "fork") == nullptr) return 18;
    if (!refused(quire_pread(f, buffer, 8, 1'000'000))) return 19;  // past the end, too
    if (!refused(quire_fallocate(f, 0, 0, 4096))) return 20;
    if (!refused(quire_seek_data(f, 0))) return 21;
    if (!refused(quire_seek_hole(f, 0))) return 22;
    if (!refused(quire_clone_range(f, 0, f, 8192, 4096))) return 23;
    if (!refused(quire_dedupe_range(f, 0, f, 4096, 4096))) return 24;
    if (!refused(quire_exchange_range(f, 0, f, 4096, 4096))) return 25;
    if (!refused(quire_copy_range(f, 0, f, 4096, 4096))) return 26;
    quire_residency_run run;
    if (!refused(quire_residency(f, 0, &run, 1))) return 27;
    if (!refused(quire_residency_json(f, buffer, sizeof buffer))) return 28;
    return 0;
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_TRUE(same_bytes(read_all(file, 10000, 0), named_bytes(1, 0, 10000)));
  close_file(file);
  EXPECT_TRUE(same_bytes(host_read(path_), named_bytes(1, 0, 10000)));
}

TEST_F(Fork, ChildHoldsNoLockAndNoDescriptor) {
  Peer peer;
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  FilePtr reader = open_file(cache_, path_, O_RDONLY);
  write_all(file, "before", 0);
  const std::string path = path_;
  Child child([&path] {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code ignored;
      if (std::filesystem::read_symlink(entry.path(), ignored) == path) return 1;
    }
    pause();
    return 0;
  });
  close_file(reader);
  close_file(file);
  EXPECT_EQ(peer.open(path_, O_RDWR), 0) << "the child lives, and holds nothing: " << peer.message();
  EXPECT_EQ(peer.close(), 0);
  file = open_file(cache_, path_, O_RDWR);
}

TEST_F(Fork, FilesOpenedWhileAnotherThreadForksAreFreeOnceClosed) {
  const CachePtr other = make_cache(4 * kMiB);
  host_write(path_, "x");
  std::atomic<bool> stop{false};
  std::atomic<int> forks{0};
  std::thread forker([&] {
    std::vector<pid_t> children;
    while (!stop.load()) {
      const pid_t pid = fork();
      if (pid == 0) {
        alarm(30);
        pause();
        _exit(0);
      }
      children.push_back(pid);
      ++forks;
      if (children.size() >= 20) {
        ::kill(children.front(), SIGKILL);
        waitpid(children.front(), nullptr, 0);
        children.erase(children.begin());
      }
    }
    for (const pid_t pid : children) {
      ::kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  });
  for (int i = 0; i < 3000 && !HasFailure(); ++i) {  // children that were born inside an open live on
    SCOPED_TRACE(i);
    FilePtr file = open_file(i % 2 == 0 ? cache_ : other, path_, O_RDWR);
    if (file != nullptr) close_file(file);
    if (forks.load() > 400) break;
  }
  stop.store(true);
  forker.join();
}

TEST_F(Fork, ParentWorksOnWhileChildrenComeAndGo) {
  constexpr int kThreads = 3;
  std::atomic<bool> stop{false};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  const CachePtr small = make_cache(kMiB);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const std::string path = dir_ / std::to_string(t);
      std::uint64_t generation = 0;
      while (!stop.load()) {
        quire_file* file = quire_open(small.get(), path.c_str(), O_RDWR | O_CREAT, 0644);
        if (file == nullptr) {
          ++failures;
          return;
        }
        for (int i = 0; i < 4; ++i) {
          const std::string bytes = named_bytes(static_cast<unsigned>(t) * 1000 + ++generation % 1000, 0, 300000);
          std::string back(bytes.size(), '?');
          if (quire_pwrite(file, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()) ||
              quire_pread(file, back.data(), back.size(), 0) != static_cast<ssize_t>(back.size()) || back != bytes ||
              (i == 2 && quire_fsync(file) != 0)) {
            ++failures;
          }
        }
        if (quire_close(file) != 0) ++failures;
      }
    });
  }
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  write_all(file, "here", 0);
  for (int i = 0; i < 60; ++i) {
    Child child([&] {
      char byte;
      return refused(quire_pread(file.get(), &byte, 1, 0)) ? 0 : 1;
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(read_all(file, 4, 0), "here");
  }
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures.load(), 0);
}

// A process that was forked from one with a cache is told that it can make none; and if it could, it would have to
// work.
int use_own_cache(const std::string& path) {
  const quire_options options{sizeof(quire_options), 4 * kMiB, 0, 0};
  quire_cache* cache = quire_cache_create(&options);
  if (cache == nullptr) {
    return errno == ENOTRECOVERABLE && std::strstr(quire_error_message(), "fork") != nullptr ? 0 : 1;
  }
  quire_file* file = quire_open(cache, path.c_str(), O_RDWR, 0);
  if (file == nullptr) return 2;
  std::string bytes(300'000, '?');
  if (quire_pread(file, bytes.data(), bytes.size(), 0) != 300'000) return 3;
  if (bytes != named_bytes(1, 0, 300'000)) return 4;
  if (quire_pwrite(file, bytes.data(), bytes.size(), 0) != 300'000) return 5;
  if (quire_fsync(file) != 0) return 6;
  if (quire_close(file) != 0) return 7;
  return quire_cache_destroy(cache, 0) == 0 ? 0 : 8;
}

TEST_F(Fork, CacheOfTheChildsOwn) {
  host_write(path_, named_bytes(1, 0, 300'000));
  FilePtr kept = open_file(cache_, dir_ / "kept", O_RDWR | O_CREAT);
  write_all(kept, "parents", 0);
  const std::string path = path_;
  Child child([&path] { return use_own_cache(path); });
  EXPECT_EQ(child.wait(), 0);
  close_file(kept);
  EXPECT_EQ(host_read(dir_ / "kept"), "parents");
}

TEST(ForkAlone, ChildOfAProcessWhoseCachesAreGone) {
  const TempDir dir;
  host_write(dir / "file", named_bytes(1, 0, 300'000));
  make_cache().reset();
  const std::string path = dir / "file";
  Child child([&path] { return use_own_cache(path); });
  EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace quire::api_testing
