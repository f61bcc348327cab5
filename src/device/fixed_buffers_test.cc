// Registered buffers: how much of an arena is pinned, what is refused and counted, and that memory which was taken from
// under the arena is never reached by an old registration.
#include "device/fixed_buffers.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>
#include <thread>

#include "device/device_test_util.h"
#include "device/file_device.h"

namespace quire {
namespace {

using testing_support::Buffer;
using testing_support::Completions;
using testing_support::fill_pattern;
using testing_support::Io;
using testing_support::pattern_byte;
using testing_support::run;
using testing_support::submit_and_wait;
using testing_support::TempFile;

constexpr std::size_t kMiB = 1 << 20;

// Shared memory of a file, as the cache's arena is: holes can be punched in it.
class Arena {
 public:
  explicit Arena(std::size_t size) : size_(size) {
    const int fd = memfd_create("quire-test-arena", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) != 0) return;
    void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED) data_ = static_cast<char*>(mapped);
  }
  ~Arena() {
    if (data_ != nullptr) munmap(data_, size_);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  char* at(std::size_t offset) { return data_ + offset; }
  std::span<char> all() { return {data_, size_}; }
  bool resident(std::size_t offset) {
    unsigned char there = 0;
    return mincore(data_ + offset, kPageSize, &there) == 0 && (there & 1) != 0;
  }
  void punch(std::size_t offset, std::size_t bytes) {
    ASSERT_EQ(madvise(data_ + offset, bytes, MADV_REMOVE), 0);
    ASSERT_FALSE(resident(offset));
  }

 private:
  char* data_ = nullptr;
  const std::size_t size_;
};

TransferStep read_step(void* address, std::size_t bytes) {
  return TransferStep{IoOp::read, -1, false, address, static_cast<unsigned>(bytes), 0};
}
TransferStep read_step(std::span<const iovec> vectors) {
  return TransferStep{IoOp::read, -1, true, vectors.data(), static_cast<unsigned>(vectors.size()), 0};
}

// A ring of this thread, without I/O: what is aimed where.
class FixedBuffersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (ring_.open(4) != 0) GTEST_SKIP() << "no io_uring here";
  }
  void make(std::span<char> arena, unsigned max_slots = FixedBuffers::kMaxSlots) {
    buffers_ = std::make_unique<FixedBuffers>(arena, stats_, max_slots);
    buffers_->open(ring_);
  }
  void TearDown() override {
    if (buffers_ != nullptr) buffers_->close(ring_);
    EXPECT_EQ(IoStats::get(stats_.registered_bytes), 0u);
    ring_.close();
  }
  FixedUse aim(TransferStep step, int* slot = nullptr) {
    const FixedUse use = buffers_->aim(ring_, step);
    EXPECT_EQ(step.buffer >= 0, use == FixedUse::fixed);
    if (slot != nullptr) *slot = step.buffer;
    return use;
  }
  std::uint64_t registered() { return IoStats::get(stats_.registered_bytes); }

  IoStats stats_;
  Ring ring_;
  std::unique_ptr<FixedBuffers> buffers_;
};

TEST_F(FixedBuffersTest, PinsWhatIsUsed) {
  Arena arena(7 * kMiB);
  make(arena.all());
  EXPECT_EQ(registered(), 0u);
  int slot = -1;
  EXPECT_EQ(aim(read_step(arena.at(8192), kPageSize), &slot), FixedUse::fixed);
  EXPECT_EQ(slot, 0);
  EXPECT_EQ(registered(), 2 * kMiB);
  EXPECT_TRUE(arena.resident(0));
  EXPECT_FALSE(arena.resident(2 * kMiB)) << "pinned ahead of use";
  EXPECT_EQ(aim(read_step(arena.at(7 * kMiB - kPageSize), kPageSize), &slot), FixedUse::fixed);
  EXPECT_EQ(slot, 3);
  EXPECT_EQ(registered(), 3 * kMiB) << "the last is half a chunk";
}

// Where the table is too small for chunks of a huge page each, they are larger, but not registered in one go.
TEST_F(FixedBuffersTest, LargerChunksGrowWithTheirUse) {
  Arena arena(8 * kMiB);
  make(arena.all(), 2);
  int slot = -1;
  EXPECT_EQ(aim(read_step(arena.at(0), kPageSize), &slot), FixedUse::fixed);
  EXPECT_EQ(registered(), 2 * kMiB);
  EXPECT_EQ(aim(read_step(arena.at(3 * kMiB), kPageSize), &slot), FixedUse::fixed);
  EXPECT_EQ(slot, 0);
  EXPECT_EQ(registered(), 4 * kMiB);
  EXPECT_EQ(aim(read_step(arena.at(kMiB), 2 * kMiB), &slot), FixedUse::fixed) << "inside one chunk";
  EXPECT_FALSE(arena.resident(4 * kMiB));
  EXPECT_EQ(aim(read_step(arena.at(6 * kMiB), kPageSize), &slot), FixedUse::fixed);
  EXPECT_EQ(slot, 1);
  EXPECT_EQ(registered(), 8 * kMiB);
}

TEST_F(FixedBuffersTest, ElsewhereAndAcross) {
  Arena arena(4 * kMiB);
  make(arena.all());
  Buffer other(kPageSize);
  EXPECT_EQ(aim(read_step(other.data(), kPageSize)), FixedUse::elsewhere);
  EXPECT_EQ(aim(read_step(arena.at(2 * kMiB - kPageSize), 2 * kPageSize)), FixedUse::refused) << "in two buffers";
  EXPECT_EQ(registered(), 0u);
  const iovec near[] = {{arena.at(0), kPageSize}, {nullptr, 0}, {arena.at(3 * kPageSize), kPageSize}};
  const iovec far[] = {{arena.at(0), kPageSize}, {arena.at(3 * kMiB), kPageSize}};
  const iovec mixed[] = {{arena.at(0), kPageSize}, {other.data(), kPageSize}};
  EXPECT_EQ(aim(read_step(near)), ring_.has_vectored_fixed() ? FixedUse::fixed : FixedUse::refused);
  EXPECT_EQ(aim(read_step(far)), FixedUse::refused);
  EXPECT_EQ(aim(read_step(mixed)), FixedUse::elsewhere);
}

TEST_F(FixedBuffersTest, WithdrawnPagesBarTheirChunk) {
  Arena arena(6 * kMiB);
  make(arena.all());
  for (std::size_t at = 0; at < 6 * kMiB; at += 2 * kMiB) {
    EXPECT_EQ(aim(read_step(arena.at(at), kPageSize)), FixedUse::fixed);
  }
  const std::size_t first = kMiB, bytes = 3 * kMiB;  // half of chunk 0, all of chunk 1
  buffers_->withdraw(arena.at(first), bytes);
  buffers_->drop(ring_, arena.at(first), bytes);
  buffers_->withdraw(arena.at(0), kPageSize);
  EXPECT_EQ(registered(), 2 * kMiB);
  EXPECT_EQ(aim(read_step(arena.at(4096), kPageSize)), FixedUse::refused);
  EXPECT_EQ(aim(read_step(arena.at(2 * kMiB), kPageSize)), FixedUse::refused);
  EXPECT_EQ(aim(read_step(arena.at(4 * kMiB), kPageSize)), FixedUse::fixed);
  buffers_->offer(arena.at(first), bytes);
  EXPECT_EQ(aim(read_step(arena.at(2 * kMiB), kPageSize)), FixedUse::fixed);
  EXPECT_EQ(aim(read_step(arena.at(4096), kPageSize)), FixedUse::refused) << "one page is still withdrawn";
  buffers_->offer(arena.at(0), kPageSize);
  EXPECT_EQ(aim(read_step(arena.at(4096), kPageSize)), FixedUse::fixed);
}

TEST_F(FixedBuffersTest, KernelThatGivesNoTable) {
  Arena arena(2 * kMiB);
  ASSERT_EQ(ring_.make_buffer_table(1), 0);
  make(arena.all());  // refused: a ring has one table
  EXPECT_EQ(aim(read_step(arena.at(0), kPageSize)), FixedUse::refused);
  buffers_->withdraw(arena.at(0), kPageSize);
  buffers_->drop(ring_, arena.at(0), kPageSize);
  EXPECT_EQ(registered(), 0u);
}

// Memory that cannot be pinned at first: after a while it is tried again.
TEST_F(FixedBuffersTest, TriesAgainAfterARefusal) {
  Arena arena(4 * kMiB);
  make(arena.all());
  ASSERT_EQ(mprotect(arena.at(kMiB), kPageSize, PROT_NONE), 0);
  EXPECT_EQ(aim(read_step(arena.at(0), kPageSize)), FixedUse::refused);
  ASSERT_EQ(mprotect(arena.at(kMiB), kPageSize, PROT_READ | PROT_WRITE), 0);
  for (unsigned i = 0; i < FixedBuffers::kRetryAfter; ++i) {
    ASSERT_EQ(aim(read_step(arena.at(0), kPageSize)), FixedUse::refused) << i;
  }
  EXPECT_EQ(aim(read_step(arena.at(0), kPageSize)), FixedUse::fixed);
}

TEST(Transfer, RefusedRegisteredBufferGoesOnWithout) {
  IoStats stats;
  const FileTarget target{.buffered_fd = 0, .stats = &stats};
  for (const int refusal : {EFAULT, EOPNOTSUPP}) {
    Buffer data(kPageSize);
    Io io(IoOp::read, 0, data.data(), kPageSize);
    ASSERT_EQ(transfer_begin(io.request, target), TransferState::again);
    transfer_note_fixed(io.request, FixedUse::fixed);
    EXPECT_EQ(transfer_stepped(io.request, -refusal), TransferState::again);
    EXPECT_TRUE(transfer_fixed_refused(io.request));
    EXPECT_EQ(transfer_stepped(io.request, -EFAULT), TransferState::done) << "this time it is the file's own error";
    EXPECT_EQ(io.request.result, -EFAULT);
  }
  EXPECT_EQ(IoStats::get(stats.buffer_fallbacks), 2u);
  EXPECT_EQ(IoStats::get(stats.fixed_requests), 0u);
}

class RegisteredArena : public ::testing::Test {
 protected:
  static constexpr std::size_t kBlocks = 256;

  void SetUp() override {
    Ring ring;
    if (ring.open(4) != 0) GTEST_SKIP() << "no io_uring here";
    ring.close();
    make();
    Buffer data(kBlocks * kPageSize);
    fill_pattern(data.data(), data.size(), 1, 0);
    ASSERT_EQ(run(*device_, IoOp::write, 0, data.data(), data.size()), static_cast<std::int64_t>(data.size()));
  }
  void make(std::size_t arena_bytes = 8 * kMiB) {
    io_thread_.reset();
    io_thread_ = IoThread::create({.depth = 16, .stats = &stats_, .arena = arena_.all().first(arena_bytes)}).take();
    device_ = std::make_unique<FileDevice>(
        FileDeviceOptions{file_.direct(), file_.buffered(), 512, true, &stats_, io_thread_.get()});
  }
  void transfer(Io& io) {
    Request* const batch[] = {&io.request};
    submit_and_wait(*device_, batch);
    ASSERT_EQ(io.request.result, static_cast<std::int64_t>(io.request.length()));
  }
  // Reads a block of the file to a place in the arena. The bytes there must be the block's.
  void check_read(std::size_t place, std::uint64_t block) {
    std::memset(arena_.at(place), 0x5a, kPageSize);
    Io io(IoOp::read, block * kPageSize, arena_.at(place), kPageSize);
    ASSERT_NO_FATAL_FAILURE(transfer(io));
    for (std::size_t i = 0; i < kPageSize; ++i) {
      const auto byte = static_cast<unsigned char>(arena_.at(place)[i]);
      ASSERT_EQ(byte, pattern_byte(1, block * kPageSize + i)) << "block " << block << " at " << place << ", byte " << i;
    }
  }
  std::uint64_t fixed() { return IoStats::get(stats_.fixed_requests); }
  std::uint64_t fallbacks() { return IoStats::get(stats_.buffer_fallbacks); }

  IoStats stats_;
  TempFile file_{"."};
  Arena arena_{8 * kMiB};
  std::unique_ptr<IoThread> io_thread_;
  std::unique_ptr<FileDevice> device_;
};

TEST_F(RegisteredArena, ReadsAndWrites) {
  for (std::uint64_t i = 0; i < 40; ++i) check_read(i * 200 * 1024 / kPageSize * kPageSize, i);
  fill_pattern(reinterpret_cast<unsigned char*>(arena_.at(0)), 3 * kPageSize, 1, 7 * kPageSize);
  Io write(IoOp::write, 7 * kPageSize, arena_.at(0), 3 * kPageSize);
  transfer(write);
  EXPECT_EQ(fixed(), 41u);
  EXPECT_EQ(fallbacks(), 0u);
  EXPECT_EQ(IoStats::get(stats_.registered_bytes), 8 * kMiB);
  for (std::uint64_t block = 6; block < 11; ++block) check_read(kMiB, block);
  Buffer outside(kPageSize);
  Io plain(IoOp::read, 0, outside.data(), kPageSize);
  transfer(plain);
  EXPECT_EQ(fixed() + fallbacks(), 46u) << "what does not lie in the arena is neither";
  io_thread_.reset();
  EXPECT_EQ(IoStats::get(stats_.registered_bytes), 0u);
}

// Pieces of one chunk go together where the kernel can; pieces of two never, and are counted.
TEST_F(RegisteredArena, SeveralPieces) {
  for (const std::size_t second : {std::size_t{4 * kPageSize}, 3 * kMiB}) {
    Io io;
    io.vectors = {{arena_.at(0), kPageSize}, {arena_.at(second), 2 * kPageSize}, {arena_.at(kPageSize), 512}};
    io.aim(IoOp::read, 5 * kPageSize);
    transfer(io);
    std::uint64_t at = 5 * kPageSize;
    for (const iovec& piece : io.vectors) {
      for (std::size_t i = 0; i < piece.iov_len; ++i, ++at) {
        ASSERT_EQ(static_cast<unsigned char*>(piece.iov_base)[i], pattern_byte(1, at));
      }
    }
  }
  EXPECT_EQ(fixed() + fallbacks(), 2u);
  EXPECT_GE(fallbacks(), 1u);
}

// The end of the file, in the middle of a registered buffer: the transfer goes on, short, through the other descriptor.
TEST_F(RegisteredArena, EndOfFile) {
  ASSERT_EQ(ftruncate(file_.buffered(), 5 * kPageSize + 100), 0);
  Io io(IoOp::read, 4 * kPageSize, arena_.at(kPageSize), 4 * kPageSize);
  Request* const batch[] = {&io.request};
  submit_and_wait(*device_, batch);
  EXPECT_EQ(io.request.result, std::int64_t{kPageSize + 100});
  EXPECT_EQ(static_cast<unsigned char>(arena_.at(2 * kPageSize)[99]), pattern_byte(1, 5 * kPageSize + 99));
  EXPECT_EQ(fixed(), 1u);
}

// A file whose reads go another way in the kernel than through pages.
TEST_F(RegisteredArena, FileOfAnotherKind) {
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  FileDevice device({-1, fd, 512, true, &stats_, io_thread_.get()});
  Io io(IoOp::read, 0, arena_.at(0), kPageSize);
  Request* const batch[] = {&io.request};
  submit_and_wait(device, batch);
  EXPECT_EQ(io.request.result, std::int64_t{kPageSize});
  EXPECT_EQ(fixed() + fallbacks(), 1u);
  close(fd);
}

// What the next owner of a punched frame reads must come to where the mapping now leads. Without the withdrawal the old
// registration leads to the page that was taken out.
TEST_F(RegisteredArena, PunchedMemoryIsReachedAnew) {
  for (std::uint64_t round = 0; round < 20; ++round) {
    const std::size_t place = (round * 37 % 100) * kPageSize;
    check_read(place, round);
    io_thread_->withdraw(arena_.at(place), 4 * kPageSize);
    arena_.punch(place, 4 * kPageSize);
    check_read(kMiB + kPageSize, round + 1);  // a neighbour, in between
    EXPECT_FALSE(arena_.resident(place)) << "a withdrawn page was pinned";
    io_thread_->offer(arena_.at(place), 4 * kPageSize);
    check_read(place + kPageSize, round + 2);
  }
  EXPECT_EQ(fixed(), 40u);
  EXPECT_EQ(fallbacks(), 20u) << "the neighbours";
}

// Neighbours of what is withdrawn are read all the time: none of their bytes goes astray, nor does the thread stall.
TEST_F(RegisteredArena, WithdrawnBesideRequestsInFlight) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (std::uint64_t t = 0; t < 3; ++t) {
    readers.emplace_back([&, t] {
      Random random(t);
      while (!stop) check_read((100 + t * 20 + random.below(20)) * kPageSize, random.below(kBlocks));
    });
  }
  for (std::uint64_t round = 0; round < 300; ++round) {
    const std::size_t place = round % 90 * kPageSize;
    io_thread_->withdraw(arena_.at(place), 8 * kPageSize);
    arena_.punch(place, 8 * kPageSize);
    if (round % 3 == 0) std::this_thread::yield();
    io_thread_->offer(arena_.at(place), 8 * kPageSize);
    check_read(place + round % 8 * kPageSize, round % kBlocks);
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(IoStats::get(stats_.errors), 0u);
  EXPECT_GT(fixed(), 0u);
}

TEST_F(RegisteredArena, WithdrawnWhileIdleAndNeverUsed) {
  for (int i = 0; i < 10; ++i) io_thread_->withdraw(arena_.at(static_cast<std::size_t>(i) * kMiB / 2), kMiB / 2);
  EXPECT_EQ(IoStats::get(stats_.registered_bytes), 0u);
}

TEST(PlainArena, WithdrawsToo) {
  IoStats stats;
  Arena arena(2 * kMiB);
  TempFile file(".");
  auto io_thread = IoThread::create({.depth = 4, .use_io_uring = false, .stats = &stats, .arena = arena.all()}).take();
  FileDevice device({file.direct(), file.buffered(), 512, true, &stats, io_thread.get()});
  Io io(IoOp::write, 0, arena.at(0), kPageSize);
  Request* const batch[] = {&io.request};
  submit_and_wait(device, batch);
  EXPECT_EQ(io.request.result, std::int64_t{kPageSize});
  io_thread->withdraw(arena.at(0), 2 * kMiB);
  arena.punch(0, 2 * kMiB);
  io_thread->offer(arena.at(0), 2 * kMiB);
  EXPECT_EQ(IoStats::get(stats.fixed_requests), 0u);
}

// This thread and those that it makes from here on may lock no more memory than the limit says, though they are root's.
class LimitedMemlock {
 public:
  explicit LimitedMemlock(rlim_t bytes) {
    header_.version = _LINUX_CAPABILITY_VERSION_3;
    syscall(SYS_capget, &header_, capabilities_);
    auto limited = std::to_array(capabilities_);
    limited[0].effective &= ~(1u << CAP_IPC_LOCK);
    syscall(SYS_capset, &header_, limited.data());
    getrlimit(RLIMIT_MEMLOCK, &old_);
    const struct rlimit limit { bytes, std::max(bytes, old_.rlim_max) };
    holds_ = setrlimit(RLIMIT_MEMLOCK, &limit) == 0;
  }
  ~LimitedMemlock() {
    setrlimit(RLIMIT_MEMLOCK, &old_);
    syscall(SYS_capset, &header_, capabilities_);
  }

  bool holds() const { return holds_; }  // an ordinary user's goes no higher than it is allowed to

 private:
  bool holds_ = false;
  __user_cap_header_struct header_{};
  __user_cap_data_struct capabilities_[2]{};
  struct rlimit old_ {};
};

// A limit that the arena would use up is left alone.
TEST_F(RegisteredArena, MemlockLimit) {
  for (const bool enough : {false, true}) {
    const LimitedMemlock limited(enough ? 8 * kMiB : 7 * kMiB);
    if (!limited.holds()) GTEST_SKIP() << "may not set this limit";
    make(4 * kMiB);
    const std::uint64_t fixed_before = fixed(), fallbacks_before = fallbacks();
    for (std::uint64_t i = 0; i < 32; ++i) check_read(i * 4 * kMiB / 32, i);
    EXPECT_EQ(fixed() - fixed_before, enough ? 32u : 0u);
    EXPECT_EQ(fallbacks() - fallbacks_before, enough ? 0u : 32u);
    EXPECT_EQ(IoStats::get(stats_.registered_bytes), enough ? 4 * kMiB : 0u);
  }
}

// The limit allows it, but another ring of this user has most of that already: the kernel refuses from some chunk on.
TEST_F(RegisteredArena, MemlockUsedUpByOthers) {
  const LimitedMemlock limited(8 * kMiB);
  if (!limited.holds()) GTEST_SKIP() << "may not set this limit";
  Arena others(5 * kMiB);
  Ring other;
  if (other.open(4) != 0 || other.make_buffer_table(1) != 0 || other.set_buffer(0, others.at(0), 5 * kMiB) != 0) {
    GTEST_SKIP() << "others of this user do so now";
  }
  make(4 * kMiB);
  for (std::uint64_t i = 0; i < 32; ++i) check_read(i * 4 * kMiB / 32, i);
  EXPECT_EQ(fixed(), 16u);
  EXPECT_EQ(fallbacks(), 16u);
  EXPECT_EQ(IoStats::get(stats_.registered_bytes), 2 * kMiB);
  other.drop_buffer_table();
}

// In a forked child nothing waits for the thread that is not there; the parent's registrations are its own.
TEST_F(RegisteredArena, Fork) {
  check_read(0, 3);
  device_before_fork();
  const pid_t child = fork();
  if (child == 0) {
    device_after_fork_child();
    io_thread_->withdraw(arena_.at(0), kPageSize);
    device_.reset();
    io_thread_.reset();
    _exit(0);
  }
  device_after_fork_parent();
  ASSERT_GT(child, 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  check_read(0, 4);
  EXPECT_EQ(fixed(), 2u);
}

}  // namespace
}  // namespace quire
