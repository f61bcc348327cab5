// What a cache made with QUIRE_PUBLISH shows to others: its page, and its answers, whoever asks however.
#include <dirent.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <sstream>
#include <thread>
#include <vector>

#include "api/api_test_util.h"
#include "quire/published.h"
#include "sync/sequence.h"

namespace quire::api_testing {
namespace {

using namespace std::chrono_literals;

// The pages that this process publishes: paths under /proc/self/fd.
std::vector<std::string> page_paths() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code ignored;
    const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
    if (target == "/memfd:" QUIRE_PUBLISHED_NAME " (deleted)") paths.push_back(entry.path());
  }
  return paths;
}

class Page {
 public:
  explicit Page(const std::string& path) {
    const Fd fd(path, O_RDONLY);
    EXPECT_GE(fd, 0) << std::strerror(errno);
    memory_ = mmap(nullptr, sizeof(quire_published), PROT_READ, MAP_SHARED, fd, 0);
    EXPECT_NE(memory_, MAP_FAILED) << std::strerror(errno);
  }
  ~Page() { munmap(memory_, sizeof(quire_published)); }
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;
  quire_published read() const {
    quire_published snapshot{};
    EXPECT_EQ(quire_published_read(static_cast<const quire_published*>(memory_), &snapshot), 1);
    return snapshot;
  }

 private:
  void* memory_;
};

template <typename Condition>
bool soon(const Condition& condition) {
  for (const auto end = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < end;) {
    if (condition()) return true;
    std::this_thread::sleep_for(20ms);
  }
  return false;
}

class Publish : public ::testing::Test {
 protected:
  // A connection to the cache's socket, or -1.
  int connect_to() const {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = page_->read().socket;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), length), 0) << std::strerror(errno);
    return fd;
  }
  static std::string rest_of(int fd) {
    std::string text;
    char part[4096];
    for (ssize_t n; (n = recv(fd, part, sizeof part, 0)) > 0;) text.append(part, static_cast<std::size_t>(n));
    close(fd);
    return text;
  }
  std::string ask(const std::string& request) const {
    const int fd = connect_to();
    (void)send(fd, request.data(), request.size(), MSG_NOSIGNAL);  // who may not ask may be told before
    return rest_of(fd);
  }
  std::string request_for(const std::string& path) const {
    const struct stat st = host_stat(path);
    return "residency " + std::to_string(st.st_dev) + " " + std::to_string(st.st_ino) + "\n";
  }

  const TempDir dir_;
  const std::string path_ = dir_ / "file";
  CachePtr cache_ = make_cache(16 * kMiB, QUIRE_PUBLISH);
  std::unique_ptr<Page> page_ = std::make_unique<Page>(page_paths().at(0));
};

TEST_F(Publish, CountersAreFreshAndTheEndIsTold) {
  EXPECT_EQ(page_->read().memory_bytes, 16 * kMiB);
  EXPECT_EQ(page_->read().ended, 0u);
  host_write(path_, named_bytes(1, 0, 100'000));
  FilePtr file = open_file(cache_, path_, O_RDWR);
  for (int i = 0; i < 1001; ++i) read_all(file, 256, 40'960);
  write_all(file, "dirty", 0);
  EXPECT_TRUE(soon([&] { return page_->read().hits == 1000; }));
  EXPECT_TRUE(soon([&] { return page_->read().dirty_bytes == 4096; }));
  const quire_published now = page_->read();
  EXPECT_EQ(now.version, QUIRE_PUBLISHED_VERSION);
  EXPECT_EQ(now.size, sizeof now);
  EXPECT_GE(now.fills, 1u);
  EXPECT_GE(now.slow_reads, 1u);
  EXPECT_GE(now.used_bytes, now.folio_bytes);
  EXPECT_LT(now.dirty_bytes, now.dirty_limit_bytes);
  ASSERT_EQ(quire_fsync(file.get()), 0);
  EXPECT_TRUE(soon([&] { return page_->read().writeback_bytes == 4096 && page_->read().dirty_bytes == 0; }));
  close_file(file);
  cache_.reset();
  EXPECT_EQ(page_->read().ended, 1u);
  EXPECT_EQ(page_->read().hits, 1000u);
  EXPECT_TRUE(page_paths().empty());
}

TEST_F(Publish, APageForEachCacheThatAsksForIt) {
  const CachePtr second = make_cache(8 * kMiB, QUIRE_PUBLISH), hidden = make_cache(8 * kMiB);
  const auto paths = page_paths();
  ASSERT_EQ(paths.size(), 2u);
  EXPECT_NE(Page(paths[0]).read().cache, Page(paths[1]).read().cache);
  EXPECT_STRNE(Page(paths[0]).read().socket, Page(paths[1]).read().socket);
}

TEST_F(Publish, NobodyElseCanWriteOrResizeIt) {
  const Fd fd(page_paths().at(0), O_RDWR);
  if (fd < 0) GTEST_SKIP() << std::strerror(errno);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_EQ(::pwrite(fd, "x", 1, 0), -1);
  EXPECT_EQ(ftruncate(fd, 0), -1);
  EXPECT_EQ(page_->read().memory_bytes, 16 * kMiB);
}

// A writer as the cache's, but at full speed.
TEST(PublishedRead, NeverAHalfWrittenSnapshot) {
  constexpr std::size_t kWords = sizeof(quire_published) / 8;
  constexpr std::size_t kSequence = offsetof(quire_published, sequence) / 8;
  static std::array<Atomic<std::uint64_t>, kWords> words;
  auto* page = reinterpret_cast<quire_published*>(words.data());
  quire_published snapshot{};
  EXPECT_EQ(quire_published_read(page, &snapshot), 0) << "no page yet";
  words[0].store(QUIRE_PUBLISHED_MAGIC, memory_order_relaxed);
  words[1].store(2, memory_order_relaxed);
  EXPECT_EQ(quire_published_read(page, &snapshot), 0) << "another version";
  // As an older maker would have it: it knows nothing of what follows updated_ns.
  const std::uint64_t size = offsetof(quire_published, ended);
  words[1].store(size << 32 | QUIRE_PUBLISHED_VERSION, memory_order_relaxed);
  words[kSequence + 2].store(1, memory_order_relaxed);
  EXPECT_EQ(quire_published_read(page, &snapshot), 1);
  EXPECT_EQ(snapshot.ended, 0u);
  words[kSequence + 2].store(0, memory_order_relaxed);
  words[1].store(sizeof(quire_published) << 32 | QUIRE_PUBLISHED_VERSION, memory_order_relaxed);

  const std::jthread writer([](const std::stop_token& stop) {
    auto& sequence = *reinterpret_cast<Sequence*>(&words[kSequence]);
    for (std::uint64_t n = 1; !stop.stop_requested(); ++n) {
      sequence.write_begin();
      for (std::size_t i = kSequence + 1; i < kWords; ++i) words[i].store(n, memory_order_relaxed);
      sequence.write_end();
    }
  });
  std::uint64_t last = 0;
  for (int i = 0; i < 20'000; ++i) {
    if (quire_published_read(page, &snapshot) == 0) continue;
    std::array<std::uint64_t, kWords> taken;
    std::memcpy(taken.data(), &snapshot, sizeof snapshot);
    for (std::size_t w = kSequence + 1; w < kWords; ++w) ASSERT_EQ(taken[w], snapshot.updated_ns) << "word " << w;
    EXPECT_GE(snapshot.updated_ns, last);
    last = snapshot.updated_ns;
  }
}

TEST_F(Publish, TellsWhatIsCachedOfAFile) {
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  write_all(file, "x", 0);
  write_all(file, "y", 40'960);
  EXPECT_EQ(ask(request_for(path_)), "file 40961 4096 1\nrun 0 4096 dirty 0\nrun 40960 4096 dirty 0\nend\n");
  ASSERT_EQ(quire_fsync(file.get()), 0);
  let_times_settle();  // a file that has just changed is not kept
  close_file(file);
  EXPECT_EQ(ask(request_for(path_)), "file 40961 4096 0\nrun 0 4096 clean 0\nrun 40960 4096 clean 0\nend\n");
  host_write(dir_ / "other", "x");
  EXPECT_EQ(ask(request_for(dir_ / "other")), "error 2\n");
}

TEST_F(Publish, ManySlices) {
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  for (off_t i = 0; i < 1000; ++i) write_all(file, "x", i * 8192);
  ASSERT_EQ(quire_fsync(file.get()), 0);
  std::istringstream answer(ask(request_for(path_)));
  std::string line;
  ASSERT_TRUE(std::getline(answer, line));
  EXPECT_EQ(line, "file 8183809 4096 1");
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(std::getline(answer, line));
    EXPECT_EQ(line, "run " + std::to_string(i * 8192) + " 4096 clean 0");
  }
  ASSERT_TRUE(std::getline(answer, line));
  EXPECT_EQ(line, "end");
}

TEST_F(Publish, RefusesWhatIsNoRequest) {
  for (const char* request : {"\n", "residency\n", "residency 1\n", "residency 1 2 3\n", "residency 1 2 \n",
                              "residency -1 2\n", "residency 1 99999999999999999999\n", "residency  1 2\n",
                              "stop 1 2\n", "RESIDENCY 1 2\n", "residency 1 2\r\n"}) {
    EXPECT_EQ(ask(request), "error 22\n") << request;
  }
  EXPECT_EQ(ask(std::string("residency 1 2\0\n", 15)), "error 22\n");
  std::string noise = named_bytes(7, 0, 4000);
  EXPECT_EQ(ask(noise).substr(0, 5), "error");
  const int silent = connect_to();
  EXPECT_EQ(rest_of(silent), "error 22\n") << "after its second of patience";
  close(connect_to());  // gone before it is heard
  EXPECT_EQ(ask("residency 1 2\n"), "error 2\n") << "and goes on";
}

// A client that does not read its answer: cut off, while the counters stay fresh and the cache can end.
TEST_F(Publish, AStuckClientHoldsUpNothing) {
  cache_ = make_cache(64 * kMiB, QUIRE_PUBLISH);
  page_ = std::make_unique<Page>(page_paths().at(0));
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  for (off_t i = 0; i < 12'000; ++i) write_all(file, "x", i * 8192);
  ASSERT_EQ(quire_fsync(file.get()), 0);
  const std::string request = request_for(path_);
  ASSERT_GT(ask(request).size(), 300'000u) << "more than a socket takes in";
  const int stuck = connect_to();
  ASSERT_EQ(send(stuck, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  const std::uint64_t before = page_->read().updated_ns;
  EXPECT_TRUE(soon([&] { return page_->read().updated_ns > before + 500'000'000; }));
  EXPECT_TRUE(ask(request).ends_with("end\n"));
  const std::string part = rest_of(stuck);
  EXPECT_FALSE(part.empty() || part.ends_with("end\n")) << "cut off";
  const int last = connect_to();
  ASSERT_EQ(send(last, request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
  close_file(file);
  const auto begin = std::chrono::steady_clock::now();
  cache_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s) << "with a client connected";
  close(last);
}

TEST_F(Publish, AnotherUserGetsNothing) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  host_write(path_, "x");
  const std::string request = request_for(path_);
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const std::string path = page_paths().at(0);
  const pid_t pid = getpid();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // (The system call itself: the C library would tell threads that are not there.)
    if (syscall(SYS_setuid, 65'534) != 0) _exit(1);
    const std::string other = "/proc/" + std::to_string(pid) + path.substr(std::strlen("/proc/self"));
    if (::open(other.c_str(), O_RDONLY) >= 0) _exit(2);
    const std::string answer = ask(request);
    _exit(write(pipe_fds[1], answer.data(), answer.size()) == static_cast<ssize_t>(answer.size()) ? 0 : 3);
  }
  close(pipe_fds[1]);
  char answer[64] = {};
  EXPECT_GT(::read(pipe_fds[0], answer, sizeof answer - 1), 0);
  EXPECT_STREQ(answer, "error 1\n");
  close(pipe_fds[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(Publish, AForkedChildKeepsNothingOfIt) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (!page_paths().empty()) _exit(1);
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code ignored;
      const std::string target = std::filesystem::read_symlink(entry.path(), ignored).string();
      if (target.starts_with("socket:") || target.find("eventfd") != std::string::npos) _exit(2);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(ask("residency 1 2\n"), "error 2\n");
}

// Files come and go while they are asked for; the cache ends while somebody asks.
TEST_F(Publish, AskedThroughoutAFilesLife) {
  host_write(path_, "x");
  const std::string request = request_for(path_);
  std::atomic<bool> stop = false;
  std::thread asking([&] {
    while (!stop) {
      const std::string answer = ask(request);
      EXPECT_TRUE(answer.ends_with("end\n") || answer.find("error") != std::string::npos) << answer;
    }
  });
  for (int i = 0; i < 200; ++i) {
    FilePtr file = open_file(cache_, path_, O_RDWR);
    write_all(file, named_bytes(1, 0, 50'000), i % 7 * 100'000);
    ASSERT_EQ(quire_ftruncate(file.get(), i % 3 * 100), 0);
    close_file(file);
  }
  stop = true;
  asking.join();
}

}  // namespace
}  // namespace quire::api_testing
