// Readers beside a writer of the same bytes: each read is the file at one instant. The data name their writing, so a
// read that mixes two writings, or comes too early or too late, shows by itself.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/random.h"
#include "cache/buffered_read.h"
#include "fs/file_for_test.h"
#include "ram/ram_disk_for_test.h"

namespace quire {
namespace {

using namespace testing_support;

constexpr unsigned kFile = 5;
constexpr char kUntouched = '\xa5';

// How long each test lets its threads run against each other.
constexpr auto kRun = std::chrono::milliseconds(400);

// The writer counts what it begins and what it has ended; a read shows a writing between the two, and none older than
// what any read before it has shown.
struct Progress {
  std::atomic<unsigned> begun{1}, ended{1}, seen{1};
  std::atomic<bool> stop{false};

  unsigned oldest() const { return std::max(ended.load(), seen.load()); }
  void saw(const std::vector<char>& bytes, std::uint64_t offset, std::uint64_t low, std::uint64_t high) {
    for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
      if (offset + i < low || offset + i >= high) continue;
      const unsigned generation = word_generation(load_word(bytes.data() + i));
      unsigned before = seen;
      while (before < generation && !seen.compare_exchange_weak(before, generation)) {
      }
      return;
    }
  }
};

// However a test ends, its thread does.
struct StopAndJoin {
  std::atomic<bool>& stop;
  std::thread& thread;
  ~StopAndJoin() {
    stop = true;
    if (thread.joinable()) thread.join();
  }
};

struct Ground {
  explicit Ground(std::uint32_t frames = PageCache::kMinFrames, unsigned block_size = 4096)
      : disk(block_size), cache(frames), file(cache.cache, disk.make_file()) {}

  void lay(std::uint64_t size) {
    for (std::uint64_t at = 0; at < size; at += kPageSize) {
      const std::size_t n = std::min<std::uint64_t>(kPageSize, size - at);
      ASSERT_EQ(file.write(words(n, kFile, 1, at), at), static_cast<ssize_t>(n));
    }
  }

  RamDisk disk;
  TestCache cache;
  TestFile file;
};

// One generation in all words of [low, high) of the file as far as the read covers them; it lies in [from, to].
::testing::AssertionResult one_generation(const std::vector<char>& bytes, std::uint64_t offset, std::uint64_t low,
                                          std::uint64_t high, unsigned from, unsigned to) {
  unsigned seen = 0;
  for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    const std::uint64_t word = load_word(bytes.data() + i);
    if (!word_fits(word, kFile, offset + i)) {
      return ::testing::AssertionFailure() << "foreign word " << std::hex << word << " at " << offset + i;
    }
    if (offset + i < low || offset + i >= high) continue;
    const unsigned generation = word_generation(word);
    if (seen != 0 && generation != seen) {
      return ::testing::AssertionFailure() << "torn: " << seen << " and " << generation << " at " << offset + i;
    }
    seen = generation;
  }
  if (seen != 0 && (seen < from || seen > to)) {
    return ::testing::AssertionFailure() << "writing " << seen << " read between " << from << " and " << to;
  }
  return ::testing::AssertionSuccess();
}

// A writer overwrites [offset, offset + count) as long as readers read around and inside it.
void overwrite_beside_readers(Ground& ground, std::uint64_t offset, std::size_t count, std::uint64_t file_size) {
  ground.lay(file_size);
  Progress progress;
  std::thread writer([&] {
    for (unsigned generation = 2; !progress.stop; ++generation) {
      const std::vector<char> bytes = words(count, kFile, generation, offset);
      progress.begun = generation;
      EXPECT_EQ(ground.file.write(bytes, offset), static_cast<ssize_t>(count));
      progress.ended = generation;
    }
  });
  std::vector<std::thread> readers;
  for (unsigned thread = 0; thread < 2; ++thread) {
    readers.emplace_back([&, thread] {
      Random random(thread + 1);
      while (!progress.stop) {
        const bool around = random.one_in(3);
        std::uint64_t at = offset + 8 * random.below(count / 8);
        std::size_t want = random.one_in(2) ? 8 * (1 + random.below(128)) : count;
        if (around) {
          at = offset - std::min<std::uint64_t>(offset, 8 * random.below(8));
          want = count + 64;
        } else if (random.one_in(2)) {  // by turns the first and the last of what is written
          at = random.one_in(2) ? offset : offset + count - 8;
          want = 8;
        }
        const unsigned from = progress.oldest();
        const std::vector<char> bytes = ground.file.range(at, want);
        const unsigned to = progress.begun;
        EXPECT_FALSE(bytes.empty());
        progress.saw(bytes, at, offset, offset + count);
        const auto verdict = one_generation(bytes, at, offset, offset + count, from, to);
        if (!verdict) progress.stop = true;
        EXPECT_TRUE(verdict);
      }
    });
  }
  std::this_thread::sleep_for(kRun);
  progress.stop = true;
  writer.join();
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(progress.ended, 1U);
}

TEST(BufferedRead, R1_OverwriteOneFolio) {
  Ground ground;
  overwrite_beside_readers(ground, 4096 + 96, 3904, 16384);
  EXPECT_GT(ground.cache.sum(Counter::writes_fast), 0U);
  EXPECT_GT(ground.cache.cache.stats.hits(), 0U);
}

TEST(BufferedRead, R1_OverwriteFewFolios) {
  Ground ground(256);
  overwrite_beside_readers(ground, 4096 + 1000, 120'000, 200'000);
  EXPECT_GT(ground.cache.sum(Counter::writes_few), 0U);
  EXPECT_GT(ground.cache.cache.stats.hits(), 0U);
}

TEST(BufferedRead, R1_OverwriteUnderGate) {
  Ground ground(512);
  overwrite_beside_readers(ground, 4096 + 1000, 300'000, 400'000);
  EXPECT_GT(ground.cache.sum(Counter::writes_gate), 0U);
  EXPECT_GT(ground.cache.cache.stats.hits(), 0U);
}

// Nothing is resident for long: fills, slow reads and writeback beside the overwrites.
TEST(BufferedRead, R1_OverwriteUnderEviction) {
  Ground ground(PageCache::kMinFrames, 512);
  std::atomic<bool> stop{false};
  TestFile other(ground.cache.cache, ground.disk.make_file());
  ASSERT_EQ(other.truncate(1 << 20), 0);
  std::thread evictor([&] {
    for (std::uint64_t at = 0; !stop; at = (at + 4 * kPageSize) % (1 << 20)) {
      EXPECT_EQ(other.range(at, 4 * kPageSize).size(), 4 * kPageSize);
    }
  });
  overwrite_beside_readers(ground, 4096 + 1000, 60'000, 80'000);
  stop = true;
  evictor.join();
  EXPECT_GT(ground.cache.sum(Counter::evictions), 0U);
  EXPECT_GT(ground.cache.sum(Counter::slow_reads), 0U);
  EXPECT_GT(ground.cache.sum(Counter::writeback_folios), 0U);
}

TEST(BufferedRead, R1_SeveralBuffers) {
  Ground ground;
  ground.lay(16384);
  Progress progress;
  std::thread writer([&] {
    for (unsigned generation = 2; !progress.stop; ++generation) {
      progress.begun = generation;
      EXPECT_EQ(ground.file.write(words(8000, kFile, generation, 4000), 4000), 8000);
      progress.ended = generation;
    }
  });
  const StopAndJoin guard{progress.stop, writer};
  const auto end = std::chrono::steady_clock::now() + kRun;
  while (std::chrono::steady_clock::now() < end) {
    std::vector<char> bytes(8000);
    const iovec parts[] = {
        {bytes.data(), 104}, {bytes.data() + 104, 0}, {bytes.data() + 104, 5000}, {bytes.data() + 5104, 2896}};
    const unsigned from = progress.oldest();
    const auto got = file_read(ground.file.handle(), parts, 4000, 0);
    ASSERT_TRUE(got.ok());
    ASSERT_EQ(got.value(), 8000U);
    ASSERT_TRUE(one_generation(bytes, 4000, 4000, 12000, from, progress.begun));
  }
}

// Records of one size are appended; a reader at the end sees whole records, and all that were there before it came.
void append_beside_reader(Ground& ground, std::size_t record, std::uint64_t cut_at) {
  Progress progress;
  std::atomic<std::uint64_t> begun{0}, ended{0};
  std::thread writer([&] {
    std::uint64_t size = 0;
    while (!progress.stop) {
      begun = size + record;
      EXPECT_EQ(ground.file.append(words(record, kFile, 1, size)), static_cast<ssize_t>(record));
      ended = size += record;
      if (size < cut_at) continue;
      while (!progress.stop && progress.begun != 2) std::this_thread::yield();  // readers stand aside
      EXPECT_EQ(ground.file.truncate(0), 0);
      begun = ended = size = 0;
      progress.begun = 1;
    }
  });
  const StopAndJoin guard{progress.stop, writer};
  Random random(3);
  const auto end = std::chrono::steady_clock::now() + kRun;
  while (std::chrono::steady_clock::now() < end) {
    const std::uint64_t from = ended;
    if (from >= cut_at) {
      progress.begun = 2;
      while (progress.begun == 2 && ended != 0) std::this_thread::yield();
      continue;
    }
    const std::uint64_t back = 8 * random.below(random.one_in(2) ? 16 : record / 4 + 1);
    const std::uint64_t offset = from - std::min(from, back);
    const std::size_t want = random.one_in(2) ? 512 : back + 2 * record;
    const std::vector<char> bytes = ground.file.range(offset, want);
    const std::uint64_t to = begun;
    const std::uint64_t reached = offset + bytes.size();
    ASSERT_TRUE(all_of_file(bytes, kFile, offset)) << "size before " << from << ", after " << to;
    ASSERT_GE(reached, std::min(from, offset + want));
    ASSERT_LE(reached, std::max(to, offset));
    if (bytes.size() < want && !bytes.empty()) {
      ASSERT_EQ(reached % record, 0U) << "part of an append";
    }
  }
}

TEST(BufferedRead, R1_AppendBesideReader) {
  for (const std::size_t record : {std::size_t{40}, std::size_t{1000}, std::size_t{5000}, std::size_t{60'000}}) {
    Ground ground(PageCache::kMinFrames, 512);
    append_beside_reader(ground, record, 16 << 20);
  }
}

TEST(BufferedRead, R1_AppendUnderGateBesideReader) {
  Ground ground(512);
  append_beside_reader(ground, 300'000, 16 << 20);
  EXPECT_GT(ground.cache.sum(Counter::writes_gate), 0U);
}

// The end goes from `high` to `low` and back, then [low, high) is written anew. A read over both shows data up to a
// whole writing, a short count at `low`, or zeros from there on; never a mixture.
void truncate_beside_reader(Ground& ground, std::uint64_t low, std::uint64_t high, std::uint64_t read_from,
                            std::size_t want) {
  ground.lay(high);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (unsigned generation = 2; !stop; ++generation) {
      EXPECT_EQ(ground.file.truncate(low), 0);
      EXPECT_EQ(ground.file.truncate(high), 0);
      const std::vector<char> bytes = words(high - low, kFile, generation, low);
      EXPECT_EQ(ground.file.write(bytes, low), static_cast<ssize_t>(bytes.size()));
    }
  });
  const std::size_t whole = std::min<std::uint64_t>(want, high - read_from);
  const auto end = std::chrono::steady_clock::now() + kRun / 2;
  while (std::chrono::steady_clock::now() < end && !::testing::Test::HasFailure()) {
    std::vector<char> bytes(want, kUntouched);
    const ssize_t n = ground.file.read(bytes.data(), want, read_from);
    const auto got = static_cast<std::size_t>(n);
    EXPECT_TRUE(got == whole || got == low - read_from) << n;
    if (want <= kBounceBytes) {
      for (std::size_t i = got; i < want; ++i)
        EXPECT_EQ(bytes[i], kUntouched) << "byte " << i << " past the count " << n;
    }
    bytes.resize(got);
    std::vector<char> tail(bytes.begin() + static_cast<std::ptrdiff_t>(low - read_from), bytes.end());
    if (!tail.empty() && load_word(tail.data()) == 0) {
      EXPECT_TRUE(all_zero(tail));
      bytes.resize(low - read_from);
    }
    EXPECT_TRUE(one_generation(bytes, read_from, low, high, 1, 0xffffff));
  }
  stop = true;
  writer.join();
}

TEST(BufferedRead, R1_TruncateBesideReader) {
  {
    Ground ground(PageCache::kMinFrames, 512);
    truncate_beside_reader(ground, 4096 + 200, 8192 - 304, 4096 + 8, 1000);  // inside a page, through the stack
  }
  {
    Ground ground(PageCache::kMinFrames, 1024);
    truncate_beside_reader(ground, 4096 + 200, 8192 - 304, 8, 12'000);  // straight out
  }
  {
    Ground ground(256);
    truncate_beside_reader(ground, 5000, 5000 + 120'000, 8, 150'000);  // over many folios
  }
  {
    Ground ground(PageCache::kMinFrames, 512);
    truncate_beside_reader(ground, 5000, 5000 + 40'000, 4096, 60'000);
  }
}

TEST(BufferedRead, R2_BytesPastShortCountUntouched) {
  Ground ground;
  constexpr std::uint64_t kSize = 3 * kPageSize + 520;
  ground.lay(kSize);
  Random random(9);
  for (int round = 0; round < 2000; ++round) {
    if (random.one_in(4)) ground.file.drop_cached();  // the slow path, too
    if (ground.file.size() != kSize || random.one_in(100)) {
      ASSERT_EQ(ground.file.truncate(0), 0);
      ground.lay(kSize);
      ASSERT_EQ(ground.file.sync(), 0);
    }
    const std::size_t want = 1 + random.below(kBounceBytes);
    const std::uint64_t offset = kSize - 600 + random.below(700);
    const std::size_t due = offset < kSize ? std::min<std::uint64_t>(want, kSize - offset) : 0;
    std::vector<char> bytes(want, kUntouched);
    ASSERT_EQ(ground.file.read(bytes.data(), want, offset), static_cast<ssize_t>(due));
    for (std::size_t i = due; i < want; ++i) ASSERT_EQ(bytes[i], kUntouched) << i << " of " << due;
  }
}

// Blocks and frames wander between files that grow, shrink and are evicted; poison or another's words would show.
TEST(BufferedRead, R2_NothingForeign) {
  Watchdog watchdog("files that grow and shrink");
  for (const unsigned block_size : {512U, 1024U, 4096U}) {
    RamDisk disk(block_size, 4096);
    TestCache cache;
    constexpr unsigned kFiles = 3;
    std::vector<std::unique_ptr<TestFile>> files;
    for (unsigned i = 0; i < kFiles; ++i) files.push_back(std::make_unique<TestFile>(cache.cache, disk.make_file()));
    std::atomic<bool> stop{false};
    run_threads(2 * kFiles + 1, [&](int thread) {
      Random random(static_cast<std::uint64_t>(thread) + block_size);
      const unsigned number = static_cast<unsigned>(thread) % kFiles;
      TestFile& file = *files[number];
      if (thread == 2 * kFiles) {
        std::this_thread::sleep_for(kRun);
        stop = true;
        return;
      }
      for (unsigned generation = 1; !stop && !::testing::Test::HasFailure(); ++generation) {
        if (thread < static_cast<int>(kFiles)) {
          const std::uint64_t size = file.size();
          if (size > 256 * 1024 || random.one_in(10)) {
            ASSERT_EQ(file.truncate(8 * random.below(size / 8 + 1)), 0);
          } else {
            const std::size_t count = 8 * (1 + random.below(random.one_in(3) ? 4000 : 200));
            ASSERT_EQ(file.write(words(count, number, generation, size), size), static_cast<ssize_t>(count));
          }
          if (random.one_in(50)) {
            ASSERT_EQ(file.sync(), 0);
          }
        } else {
          const std::uint64_t offset = 8 * random.below(256 * 1024 / 8);
          ASSERT_TRUE(all_of_file(file.range(offset, 8 * (1 + random.below(2000))), number, offset));
        }
      }
    });
    EXPECT_GT(cache.sum(Counter::evictions), 0U);
  }
}

// Each writer owns some words of every folio: none may undo another's, and each always finds its own last ones.
TEST(BufferedWrite, R1_WritersOfOneFolio) {
  Ground ground(PageCache::kMinFrames, 512);
  constexpr std::uint64_t kPages = 100;  // more than there are frames
  constexpr std::size_t kSlice = 512;
  ground.lay(kPages * kPageSize);
  std::vector<std::vector<unsigned>> last(4, std::vector<unsigned>(kPages, 1));
  run_threads(4, [&](int thread) {
    auto& mine = last[static_cast<std::size_t>(thread)];
    Random random(static_cast<std::uint64_t>(thread) + 21);
    const auto end = std::chrono::steady_clock::now() + kRun;
    for (unsigned generation = 2; std::chrono::steady_clock::now() < end; ++generation) {
      const std::uint64_t page = random.one_in(2) ? random.below(4) : random.below(kPages);
      const std::uint64_t offset = page * kPageSize + static_cast<std::uint64_t>(thread) * 2 * kSlice + 200;
      if (random.one_in(3)) {
        const unsigned due = mine[page];
        ASSERT_TRUE(one_generation(ground.file.range(offset, kSlice), offset, offset, offset + kSlice, due, due));
      } else {
        ASSERT_EQ(ground.file.write(words(kSlice, kFile, generation, offset), offset), static_cast<ssize_t>(kSlice));
        mine[page] = generation;
      }
    }
  });
  ASSERT_EQ(ground.file.sync(), 0);
  ground.file.drop_cached();
  for (std::uint64_t page = 0; page < kPages; ++page) {
    for (std::uint64_t thread = 0; thread < 4; ++thread) {
      const std::uint64_t offset = page * kPageSize + thread * 2 * kSlice + 200;
      const unsigned due = last[thread][page];
      ASSERT_TRUE(one_generation(ground.file.range(offset, kSlice), offset, offset, offset + kSlice, due, due));
    }
  }
}

// Appends by many: none is lost, none is torn, each begins where another ended.
TEST(BufferedWrite, R1_AppendsByMany) {
  Ground ground(PageCache::kMinFrames, 512);
  std::atomic<unsigned> done{0};
  run_threads(4, [&](int thread) {
    Random random(static_cast<std::uint64_t>(thread));
    for (unsigned i = 0; i < 300; ++i) {
      const std::size_t count = 8 * (2 + random.below(random.one_in(5) ? 1500 : 100));
      std::vector<char> record(count);  // its length, then its writer's number all over
      const std::uint64_t name = word_of(static_cast<unsigned>(thread), i, 0);
      std::memcpy(record.data(), &count, 8);
      for (std::size_t at = 8; at < count; at += 8) std::memcpy(record.data() + at, &name, 8);
      ASSERT_EQ(ground.file.append(record), static_cast<ssize_t>(count));
      ++done;
    }
  });
  const std::vector<char> all = [&] {
    std::vector<char> bytes;
    for (std::uint64_t at = 0; at < ground.file.size(); at += 32768) {
      const std::vector<char> part = ground.file.range(at, 32768);
      bytes.insert(bytes.end(), part.begin(), part.end());
    }
    return bytes;
  }();
  std::vector<unsigned> next(4, 0);
  unsigned records = 0;
  for (std::size_t at = 0; at < all.size(); ++records) {
    const std::uint64_t count = load_word(&all[at]);
    ASSERT_LE(at + count, all.size());
    const std::uint64_t name = load_word(&all[at + 8]);
    ASSERT_LT(word_file(name), 4U);
    ASSERT_EQ(word_generation(name), next[word_file(name)]++) << "appends of one thread in another order";
    for (std::size_t i = 8; i < count; i += 8) ASSERT_EQ(load_word(&all[at + i]), name);
    at += count;
  }
  EXPECT_EQ(records, done);
}

}  // namespace
}  // namespace quire
