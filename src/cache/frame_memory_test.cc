#include "cache/frame_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>

namespace quire {
namespace {

constexpr std::uint32_t kHuge = FrameMemory::kHugeFrames;
constexpr std::int64_t kNeverQuick = -1, kAlwaysQuick = INT64_MAX;

// Shared memory at an address where huge pages fit.
class Arena {
 public:
  explicit Arena(std::uint32_t frames) : bytes_(std::size_t{frames} * kPageSize) {
    const int fd = memfd_create("arena", MFD_CLOEXEC);
    EXPECT_EQ(ftruncate(fd, static_cast<off_t>(bytes_)), 0);
    const std::size_t room = bytes_ + FrameMemory::kHugePage;
    void* start = mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    std::size_t left = room;
    at = static_cast<char*>(std::align(FrameMemory::kHugePage, bytes_, start, left));
    mmap(at, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    close(fd);
  }
  ~Arena() { munmap(at, bytes_); }  // what is left of the reserved room goes with the process
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  char* at;

 private:
  const std::size_t bytes_;
};

bool has_huge_pages(FrameMemory& memory) {
  memory.prepare(memory.prepared(), UINT32_MAX);
  return memory.huge_frames() != 0;
}

TEST(FrameMemory, SmallPagesDoWhereHugeOnesAreSlowAndAreGatheredLater) {
  constexpr std::uint32_t kFrames = 8 * kHuge + 100;
  Arena arena(kFrames);
  FrameMemory memory;
  ASSERT_TRUE(memory.create(arena.at, kFrames, kNeverQuick).ok());
  if (!has_huge_pages(memory)) GTEST_SKIP() << "the kernel makes no huge pages here";
  EXPECT_EQ(memory.huge_frames(), kHuge) << "one was tried";
  EXPECT_EQ(memory.prepared(), kFrames) << "and small ones have to do";
  EXPECT_EQ(memory.first_small(), kHuge);
  for (std::uint32_t i = 0; i < kFrames; ++i)
    std::memset(arena.at + i * kPageSize, static_cast<int>(i % 251), kPageSize);
  MutexLock lock(memory.mutex);
  for (std::uint32_t area = 1; area < 8; ++area) {
    EXPECT_EQ(memory.first_small(), area * kHuge);
    if (area == 3) {
      memory.pass_first();
    } else {
      memory.gather_first();
    }
  }
  EXPECT_EQ(memory.first_small(), FrameMemory::kNone) << "the last frames do not make a huge page";
  EXPECT_EQ(memory.huge_frames(), 7 * kHuge);
  for (std::uint32_t i = 0; i < kFrames; ++i) {
    ASSERT_EQ(arena.at[i * kPageSize + 77], static_cast<char>(i % 251)) << "frame " << i;
  }
  memory.lost(2 * kHuge + 7);
  memory.lost(3 * kHuge + 7);
  EXPECT_EQ(memory.huge_frames(), 6 * kHuge);
}

// Frames whose memory was given back leave room for more than there are.
TEST(FrameMemory, NothingIsPreparedPastTheArena) {
  constexpr std::uint32_t kFrames = 8 * kHuge + 100;
  Arena arena(kFrames);
  FrameMemory memory;
  ASSERT_TRUE(memory.create(arena.at, kFrames, kAlwaysQuick).ok());
  for (int i = 0; i < 20; ++i) {
    memory.prepare(memory.prepared(), UINT32_MAX);
    ASSERT_LE(memory.prepared(), kFrames);
    ASSERT_LE(memory.huge_end(), kFrames);
  }
  EXPECT_EQ(memory.prepared(), kFrames);
}

}  // namespace
}  // namespace quire
