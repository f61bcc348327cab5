// The C++ API: the same calls as objects.
#include <linux/falloc.h>

#include <thread>
#include <vector>

#include "api/api_test_util.h"
#include "quire/quire.hpp"

namespace quire::api_testing {
namespace {

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

Cache make() {
  auto cache = Cache::create({.memory = 8 * kMiB});
  EXPECT_TRUE(cache.ok()) << last_error();
  return cache.take();
}

std::string read_text(File& file, std::size_t count, std::uint64_t offset) {
  std::string text(count, '?');
  const auto n = file.read(std::as_writable_bytes(std::span(text)), offset);
  EXPECT_TRUE(n.ok()) << last_error();
  text.resize(n.ok() ? n.value() : 0);
  return text;
}

TEST(CppApi, ReadWriteSizeTruncateSync) {
  const TempDir dir;
  Cache cache = make();
  auto opened = cache.open((dir / "file").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_TRUE(opened.ok()) << last_error();
  File file = opened.take();
  EXPECT_TRUE(file.is_open());
  EXPECT_EQ(host_stat(dir / "file").st_mode & 0777, 0600u);
  EXPECT_EQ(file.write(as_bytes("hello, folio"), 4090).value(), 12u);
  EXPECT_EQ(file.size().value(), 4102u);
  EXPECT_EQ(read_text(file, 100, 4090), "hello, folio");
  EXPECT_EQ(file.append(as_bytes("!")).value(), 1u);
  std::string a(5, '?'), b(20, '?');
  const iovec in[2] = {{a.data(), a.size()}, {b.data(), b.size()}};
  EXPECT_EQ(file.readv(in, 4090).value(), 13u);
  EXPECT_EQ(a + b.substr(0, 8), "hello, folio!");
  const iovec out[2] = {{const_cast<char*>("ab"), 2}, {const_cast<char*>("cd"), 2}};
  EXPECT_EQ(file.writev(out, 0, RWF_DSYNC).value(), 4u);
  EXPECT_EQ(host_pread(dir / "file", 4, 0), "abcd");
  EXPECT_TRUE(file.truncate(4096).ok());
  EXPECT_TRUE(file.data_sync().ok());
  EXPECT_EQ(host_read(dir / "file"), "abcd" + std::string(4086, '\0') + "hello,");
  EXPECT_TRUE(file.sync().ok());
  EXPECT_TRUE(file.close().ok());
  EXPECT_FALSE(file.is_open());
  EXPECT_TRUE(file.close().ok()) << "nothing left to do";
  EXPECT_TRUE(cache.destroy().ok());
  EXPECT_TRUE(cache.destroy().ok());
}

TEST(CppApi, Errors) {
  const TempDir dir;
  Cache cache = make();
  EXPECT_EQ(cache.open((dir / "missing").c_str(), O_RDONLY).errnum(), ENOENT);
  EXPECT_TRUE(contains(last_error(), "missing"));
  EXPECT_EQ(cache.open_fd(-1).errnum(), EBADF);
  EXPECT_EQ(Cache::create({.memory = 1}).errnum(), EINVAL);
  EXPECT_EQ(Cache::create({.memory = 8 * kMiB, .flags = 0x100}).errnum(), EINVAL);
  host_write(dir / "file", "bytes");
  File file = cache.open((dir / "file").c_str(), O_RDONLY).take();
  EXPECT_EQ(file.write(as_bytes("x"), 0).errnum(), EBADF);
  EXPECT_EQ(file.append(as_bytes("x")).errnum(), EBADF);
  EXPECT_EQ(file.truncate(0).errnum(), EINVAL);
  std::byte byte;
  EXPECT_EQ(file.read(std::span(&byte, 1), UINT64_MAX).errnum(), EINVAL);
  EXPECT_EQ(cache.destroy().errnum(), EBUSY);
  EXPECT_TRUE(file.close().ok());
}

TEST(CppApi, RangeOperations) {
  constexpr std::size_t kBlock = 4096;
  const TempDir dir;
  Cache cache = make();
  host_write(dir / "a", named_bytes(1, 0, 4 * kBlock));
  host_write(dir / "b", named_bytes(2, 0, 4 * kBlock));
  File a = cache.open((dir / "a").c_str(), O_RDWR).take();
  File b = cache.open((dir / "b").c_str(), O_RDWR).take();
  EXPECT_EQ(a.seek_data(3).value(), 3u);
  EXPECT_EQ(a.seek_hole(3).value(), 4 * kBlock);
  EXPECT_EQ(a.seek_data(4 * kBlock).errnum(), ENXIO);
  EXPECT_TRUE(a.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 20).ok()) << last_error();
  EXPECT_EQ(read_text(a, 40, 0), named_bytes(1, 0, 10) + std::string(20, '\0') + named_bytes(1, 30, 10));
  EXPECT_TRUE(a.allocate(0, 4 * kBlock, 5).ok()) << last_error();
  EXPECT_EQ(a.size().value(), 4 * kBlock + 5);
  EXPECT_EQ(a.allocate(FALLOC_FL_PUNCH_HOLE, 0, kBlock).errnum(), EOPNOTSUPP);
  EXPECT_EQ(a.allocate(0, UINT64_MAX, kBlock).errnum(), EINVAL);
  EXPECT_EQ(a.copy_range(kBlock, b, 2 * kBlock + 1, 3000).value(), 3000u) << last_error();
  EXPECT_TRUE(read_text(b, 3000, 2 * kBlock + 1) == named_bytes(1, kBlock, 3000));
  EXPECT_EQ(a.copy_range(0, a, 1, 10).errnum(), EINVAL);
  EXPECT_TRUE(contains(last_error(), "overlap"));
  // What this host has not is refused, and nothing changes.
  const Status cloned = a.clone_range(kBlock, b, 0, kBlock);
  EXPECT_TRUE(cloned.ok() || cloned.errnum() == EOPNOTSUPP) << last_error();
  EXPECT_TRUE(read_text(b, kBlock, 0) == (cloned.ok() ? named_bytes(1, kBlock, kBlock) : named_bytes(2, 0, kBlock)));
  const auto shared = a.dedupe_range(kBlock, b, 0, kBlock);
  EXPECT_EQ(shared.errnum(), cloned.errnum()) << last_error();
  if (cloned.ok()) {
    EXPECT_EQ(shared.value(), kBlock);
    EXPECT_EQ(a.dedupe_range(0, b, kBlock, kBlock).errnum(), EBADE);
  }
  const std::string first = read_text(a, kBlock, kBlock), second = read_text(b, kBlock, 3 * kBlock);
  const Status exchanged = a.exchange_range(kBlock, b, 3 * kBlock, kBlock);
  EXPECT_TRUE(exchanged.ok() || exchanged.errnum() == EOPNOTSUPP) << last_error();
  EXPECT_TRUE(read_text(a, kBlock, kBlock) == (exchanged.ok() ? second : first));
  EXPECT_TRUE(read_text(b, kBlock, 3 * kBlock) == (exchanged.ok() ? first : second));
}

TEST(CppApi, OwnersCloseAndMove) {
  const TempDir dir;
  const std::string path = dir / "file";
  Cache cache = make();
  Cache other = make();
  {
    File file = cache.open(path.c_str(), O_RDWR | O_CREAT).take();
    ASSERT_TRUE(file.write(as_bytes("scope"), 0).ok());
    EXPECT_EQ(other.open(path.c_str(), O_RDWR).errnum(), EBUSY);
  }
  EXPECT_EQ(host_read(path), "scope") << "closed by its end";
  File a = other.open(path.c_str(), O_RDWR).take();
  quire_file* const handle = a.c_handle();
  File b = std::move(a);
  EXPECT_FALSE(a.is_open());  // NOLINT: what a moved-from file is, is promised
  EXPECT_EQ(b.c_handle(), handle);
  File c = other.open((dir / "second").c_str(), O_RDWR | O_CREAT).take();
  ASSERT_TRUE(c.write(as_bytes("second"), 0).ok());
  c = std::move(b);  // closes the second file
  EXPECT_EQ(host_read(dir / "second"), "second");
  EXPECT_EQ(c.c_handle(), handle);
  File& self = c;
  c = std::move(self);
  EXPECT_TRUE(c.is_open());
  EXPECT_EQ(read_text(c, 10, 0), "scope");
  ASSERT_TRUE(c.close().ok());
  Cache moved = std::move(cache);
  EXPECT_EQ(cache.c_handle(), nullptr);  // NOLINT
  moved = std::move(other);
  File d = moved.open(path.c_str(), O_RDONLY).take();
  EXPECT_EQ(read_text(d, 10, 0), "scope");
  EXPECT_TRUE(nlohmann::json::parse(moved.stats_json()).contains("folios"));
}

TEST(CppApi, AppendsOfManyThreadsAreAllThereAndWhole) {
  constexpr int kThreads = 4, kEach = 400;
  const TempDir dir;
  Cache cache = make();
  File file = cache.open((dir / "log").c_str(), O_RDWR | O_CREAT).take();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const std::size_t length = 8 * (1 + static_cast<std::size_t>(t * 37 + i * 11) % 700);  // to over a page
        std::string record(length, static_cast<char>('a' + t));
        record.front() = '<';
        record.back() = '>';
        EXPECT_EQ(file.append(as_bytes(record)).value(), length);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(file.close().ok());
  const std::string log = host_read(dir / "log");
  std::size_t at = 0;
  int seen[kThreads] = {};
  while (at < log.size()) {
    ASSERT_EQ(log[at], '<') << at;
    const int t = log[at + 1] - 'a';
    ASSERT_TRUE(t >= 0 && t < kThreads) << at;
    const int i = seen[t]++;  // each thread's own in order
    const std::size_t length = 8 * (1 + static_cast<std::size_t>(t * 37 + i * 11) % 700);
    ASSERT_LE(at + length, log.size());
    ASSERT_EQ(log[at + length - 1], '>') << at;
    ASSERT_EQ(log.find_first_not_of(log[at + 1], at + 1), at + length - 1);
    at += length;
  }
  for (const int n : seen) EXPECT_EQ(n, kEach);
}

}  // namespace
}  // namespace quire::api_testing
