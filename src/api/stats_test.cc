// The statistics: a valid object whose counters say what happened, and the memory that the cache takes.
#include <thread>
#include <vector>

#include "api/api_test_util.h"

namespace quire::api_testing {
namespace {

TEST(StatsJson, LengthAsSnprintf) {
  const CachePtr cache = make_cache(4 * kMiB);
  const ssize_t length = quire_stats_json(cache.get(), nullptr, 0);
  ASSERT_GT(length, 100);
  std::string text(static_cast<std::size_t>(length) + 1, '~');
  ASSERT_EQ(quire_stats_json(cache.get(), text.data(), text.size()), length);
  EXPECT_EQ(text.back(), '\0');
  text.pop_back();
  EXPECT_TRUE(nlohmann::json::parse(text).is_object());
  std::string small(10, '~');
  EXPECT_EQ(quire_stats_json(cache.get(), small.data(), 5), length);
  EXPECT_EQ(small, text.substr(0, 4) + std::string(1, '\0') + "~~~~~");
  EXPECT_EQ(quire_stats_json(cache.get(), small.data(), 1), length);
  EXPECT_EQ(small[0], '\0');
  std::string exact(static_cast<std::size_t>(length), '~');  // no room for the NUL: the last byte goes
  EXPECT_EQ(quire_stats_json(cache.get(), exact.data(), exact.size()), length);
  EXPECT_EQ(exact.back(), '\0');
}

TEST(StatsJson, CountersSayWhatHappened) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  host_write(dir / "file", named_bytes(1, 0, 400'000));
  FilePtr file = open_file(cache, dir / "file", O_RDWR);
  EXPECT_EQ(stat_of(cache, "hits"), 0u);
  read_all(file, 256, 100'000);
  auto stats = stats_of(cache.get());
  EXPECT_EQ(stats.at("hits"), 0);
  EXPECT_GE(stats.at("fills"), 1);
  EXPECT_GE(stats.at("folios"), 1);
  EXPECT_GE(stats.at("device_reads"), 1);
  EXPECT_GE(stats.at("slow_reads"), 1);
  for (int i = 0; i < 1000; ++i) read_all(file, 256, 100'000);
  EXPECT_EQ(stat_of(cache, "hits"), 1000u);
  EXPECT_EQ(stats_of(cache.get()).at("read_sizes").at("256"), 1001);
  write_all(file, "dirty", 100'000);
  EXPECT_EQ(stat_of(cache, "unstable_folios"), 1u);
  EXPECT_EQ(stat_of(cache, "device_writes"), 0u);
  ASSERT_EQ(quire_fsync(file.get()), 0);
  stats = stats_of(cache.get());
  EXPECT_EQ(stats.at("unstable_folios"), 0);
  EXPECT_GE(stats.at("device_writes"), 1);
  EXPECT_GE(stats.at("writeback_folios"), 1);
  EXPECT_GE(stats.at("flushes"), 1);
  EXPECT_EQ(stats.at("memory"), 16 * kMiB);
}

TEST(StatsJson, MetadataPerFolio) {
  const TempDir dir;
  const CachePtr cache = make_cache(96 * kMiB);
  {
    Fd fd(dir / "file", O_WRONLY | O_CREAT);
    const std::string chunk = named_bytes(1, 0, kMiB);
    for (int i = 0; i < 64; ++i) ASSERT_EQ(::write(fd, chunk.data(), chunk.size()), static_cast<ssize_t>(kMiB));
  }
  FilePtr file = open_file(cache, dir / "file", O_RDONLY);
  std::string buffer(kMiB, '?');
  for (int i = 0; i < 64; ++i) {
    ASSERT_EQ(quire_pread(file.get(), buffer.data(), kMiB, i * static_cast<off_t>(kMiB)), static_cast<ssize_t>(kMiB));
  }
  const auto stats = stats_of(cache.get());
  EXPECT_EQ(stats.at("folios"), 64 * kMiB / 4096);
  const double per_folio = stats.at("metadata_bytes").get<double>() / stats.at("folios").get<double>();
  EXPECT_LE(per_folio, 96.0);
  RecordProperty("metadata_bytes_per_folio", std::to_string(per_folio));
  std::cout << "metadata bytes per 4 KiB folio: " << per_folio << '\n';
}

TEST(StatsJson, MemoryStaysWithinWhatWasGiven) {
  const TempDir dir;
  const CachePtr cache = make_cache(4 * kMiB);
  for (int f = 0; f < 50; ++f) {
    FilePtr file = open_file(cache, dir / std::to_string(f), O_RDWR | O_CREAT);
    for (int i = 0; i < 8; ++i)
      write_all(file, named_bytes(1, 0, 65536), i * 65536 + (f % 2 == 0 ? 0 : i * 10'000'000ll));
    close_file(file);
    const auto stats = stats_of(cache.get());
    EXPECT_LE(stats.at("folio_bytes").get<std::uint64_t>() + stats.at("metadata_bytes").get<std::uint64_t>(), 4 * kMiB);
  }
}

TEST(Options, EnginesAreCounted) {
  const TempDir dir;
  host_write(dir / "file", named_bytes(1, 0, 3 * kMiB));
  const auto counts_with = [&](unsigned flags) {
    const CachePtr cache = make_cache(16 * kMiB, flags);
    FilePtr file = open_file(cache, dir / "file", O_RDONLY);
    for (std::size_t at = 0; at < 3 * kMiB; at += 65536) {
      EXPECT_TRUE(same_bytes(read_all(file, 65536, static_cast<off_t>(at)), named_bytes(1, at, 65536)));
    }
    return stats_of(cache.get());
  };
  const auto ring = counts_with(0);
  EXPECT_GE(ring.at("ring_setups").get<int>() + ring.at("engine_fallbacks").get<int>(), 1)
      << "used, or refused and counted";
  const auto plain = counts_with(QUIRE_NO_IO_URING);
  EXPECT_EQ(plain.at("ring_setups"), 0);
  const auto registered_or_not = [](const auto& stats) {
    return stats.at("fixed_requests").template get<int>() + stats.at("buffer_fallbacks").template get<int>();
  };
  if (ring.at("engine_fallbacks") == 0) {
    EXPECT_GE(registered_or_not(ring), 1);
  }
  EXPECT_EQ(registered_or_not(plain), 0);
  const auto buffered = counts_with(QUIRE_NO_DIRECT);
  EXPECT_GE(buffered.at("direct_fallbacks"), 1);
  Fd direct(dir / "file", O_RDONLY | O_DIRECT);
  if (direct >= 0) {
    // Some hosts take the flag and are not used that way (see HostProperties::direct_allowed).
    EXPECT_LE(ring.at("direct_fallbacks").get<int>(), buffered.at("direct_fallbacks").get<int>());
  } else {
    EXPECT_GE(ring.at("direct_fallbacks"), 1);
  }
}

// However large the cache: pinned is what was read into, in steps of a huge page.
TEST(StatsJson, M1_PinsNoMoreThanIsUsed) {
  const TempDir dir;
  host_write(dir / "file", named_bytes(1, 0, 3 * kMiB));
  const CachePtr cache = make_cache(512 * kMiB);
  FilePtr file = open_file(cache, dir / "file", O_RDONLY);
  EXPECT_EQ(stats_of(cache.get()).at("registered_bytes"), 0);
  for (std::size_t at = 0; at < 3 * kMiB; at += 65536) {
    ASSERT_TRUE(same_bytes(read_all(file, 65536, static_cast<off_t>(at)), named_bytes(1, at, 65536)));
  }
  EXPECT_LE(stats_of(cache.get()).at("registered_bytes").get<std::uint64_t>(), 6 * kMiB);
}

}  // namespace
}  // namespace quire::api_testing
