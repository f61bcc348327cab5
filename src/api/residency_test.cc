// What of a file is in the cache, after reads, writes, syncs and truncates; and how it is drawn.
#include <vector>

#include "api/api_test_util.h"
#include "quire/quire.hpp"

namespace quire::api_testing {
namespace {

constexpr std::uint64_t kPage = 4096;

struct Part {
  std::uint64_t page, pages;
  std::uint32_t state;
  bool operator==(const Part&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Part& run) {
  return out << "{page " << run.page << ", pages " << run.pages << ", state " << run.state << "}";
}

std::vector<Part> runs_of(const FilePtr& file, off_t from = 0) {
  std::vector<quire_residency_run> runs(1000);
  const ssize_t count = quire_residency(file.get(), from, runs.data(), runs.size());
  EXPECT_GE(count, 0) << quire_error_message();
  std::vector<Part> all;
  for (ssize_t i = 0; i < count; ++i) {
    const quire_residency_run& run = runs[static_cast<std::size_t>(i)];
    EXPECT_EQ(run.offset % kPage + run.length % kPage, 0u);
    const Part part{run.offset / kPage, run.length / kPage, run.state};
    const bool joins = !all.empty() && all.back().state == part.state && all.back().page + all.back().pages == part.page;
    if (joins) {
      all.back().pages += part.pages;  // folios of another order begin a run of their own
    } else {
      all.push_back(part);
    }
  }
  return all;
}

nlohmann::json json_of(const FilePtr& file) {
  const ssize_t length = quire_residency_json(file.get(), nullptr, 0);
  std::string text(static_cast<std::size_t>(length) + 1, '~');
  EXPECT_EQ(quire_residency_json(file.get(), text.data(), text.size()), length) << "nothing has changed meanwhile";
  EXPECT_EQ(text.back(), '\0');
  text.pop_back();
  return nlohmann::json::parse(text);
}

std::string drawn(int format, const std::string& name, std::uint64_t size,
                  const std::vector<quire_residency_run>& runs) {
  const auto draw = [&](char* buffer, std::size_t room) {
    return quire_residency_draw(name.c_str(), size, runs.data(), runs.size(), format, buffer, room);
  };
  const ssize_t length = draw(nullptr, 0);
  EXPECT_GE(length, 0) << quire_error_message();
  std::string text(static_cast<std::size_t>(length) + 1, '~');
  EXPECT_EQ(draw(text.data(), text.size()), length);
  text.pop_back();
  return text;
}

class FileResidency : public ::testing::Test {
 protected:
  const TempDir dir_;
  const std::string path_ = dir_ / "file";
  const CachePtr cache_ = make_cache();
};

TEST_F(FileResidency, WriteSyncReadTruncate) {
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  EXPECT_EQ(runs_of(file), std::vector<Part>{});
  write_all(file, named_bytes(1, 0, 3 * kPage), 0);
  EXPECT_EQ(runs_of(file), (std::vector<Part>{{0, 3, QUIRE_RUN_DIRTY}}));
  ASSERT_EQ(quire_fsync(file.get()), 0);
  EXPECT_EQ(runs_of(file), (std::vector<Part>{{0, 3, QUIRE_RUN_CLEAN}}));
  write_all(file, "x", kPage + 5);
  EXPECT_EQ(runs_of(file),
            (std::vector<Part>{{0, 1, QUIRE_RUN_CLEAN}, {1, 1, QUIRE_RUN_DIRTY}, {2, 1, QUIRE_RUN_CLEAN}}));
  EXPECT_EQ(runs_of(file, kPage + 1), (std::vector<Part>{{1, 1, QUIRE_RUN_DIRTY}, {2, 1, QUIRE_RUN_CLEAN}}));
  EXPECT_EQ(runs_of(file, 3 * kPage), std::vector<Part>{});
  ASSERT_EQ(quire_ftruncate(file.get(), kPage + 1), 0);
  EXPECT_EQ(runs_of(file), (std::vector<Part>{{0, 1, QUIRE_RUN_CLEAN}, {1, 1, QUIRE_RUN_DIRTY}}));
  ASSERT_EQ(quire_ftruncate(file.get(), 0), 0);
  EXPECT_EQ(runs_of(file), std::vector<Part>{});
}

TEST_F(FileResidency, OneByteAndSparse) {
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  write_all(file, "1", 0);
  auto json = json_of(file);
  EXPECT_EQ(json.at("size"), 1);
  EXPECT_EQ(json.at("resident_bytes"), kPage) << "memory is in whole pages";
  EXPECT_EQ(json.at("dirty_bytes"), kPage);
  EXPECT_EQ(json.at("file"), path_);
  EXPECT_EQ(json.at("page_size"), kPage);
  write_all(file, "2", static_cast<off_t>(3 * kGiB));
  const std::uint64_t far = 3 * kGiB / kPage;
  EXPECT_EQ(runs_of(file), (std::vector<Part>{{0, 1, QUIRE_RUN_DIRTY}, {far, 1, QUIRE_RUN_DIRTY}}));
  ASSERT_EQ(quire_fsync(file.get()), 0);
  json = json_of(file);
  EXPECT_EQ(json.at("size"), 3 * kGiB + 1);
  EXPECT_EQ(json.at("dirty_bytes"), 0);
  ASSERT_EQ(json.at("runs").size(), 2u);
  EXPECT_EQ(json.at("runs")[1],
            nlohmann::json({{"offset", 3 * kGiB}, {"length", kPage}, {"state", "clean"}, {"order", 0}}));
}

TEST_F(FileResidency, OnlyWhatWasReadAndWhatAReaderMayAsk) {
  host_write(path_, named_bytes(1, 0, 4 * kMiB));
  FilePtr file = open_file(cache_, path_, O_RDONLY);
  read_all(file, 10, 2 * kMiB);
  const std::vector<Part> runs = runs_of(file);
  ASSERT_FALSE(runs.empty());
  EXPECT_EQ(runs[0].page, 2 * kMiB / kPage);
  for (const Part& run : runs) EXPECT_LT(run.page + run.pages, 4 * kMiB / kPage);
  quire_residency_run none;
  EXPECT_EQ(quire_residency(file.get(), 0, &none, 0), 0);
  EXPECT_FAILS(EINVAL, quire_residency(file.get(), -1, &none, 1));
  EXPECT_MESSAGE_HAS("negative");
  EXPECT_MESSAGE_HAS(path_);
}

TEST_F(FileResidency, LengthAsSnprintf) {
  FilePtr file = open_file(cache_, path_, O_RDWR | O_CREAT);
  write_all(file, "x", 0);
  const ssize_t length = quire_residency_json(file.get(), nullptr, 0);
  std::string small(10, '~');
  EXPECT_EQ(quire_residency_json(file.get(), small.data(), 5), length);
  EXPECT_EQ(small, "{\"fi" + std::string(1, '\0') + "~~~~~");
}

TEST_F(FileResidency, ManyRunsInCpp) {
  auto cache = Cache::create({.memory = 16 * kMiB});
  ASSERT_TRUE(cache.ok());
  auto file = cache->open(path_.c_str(), O_RDWR | O_CREAT);
  ASSERT_TRUE(file.ok());
  const std::byte one{1};
  for (std::uint64_t i = 0; i < 700; ++i) ASSERT_TRUE(file->write(std::span(&one, 1), i * 2 * kPage).ok());
  const auto runs = file->residency();
  ASSERT_TRUE(runs.ok());
  ASSERT_EQ(runs.value().size(), 700u);
  EXPECT_EQ(runs.value()[699].offset, 699 * 2 * kPage);
  for (std::uint64_t i = 0; i < 700; ++i) ASSERT_TRUE(file->write(std::span(&one, 1), (i * 2 + 1) * kPage).ok());
  ASSERT_TRUE(file->sync().ok());
  const auto merged = file->residency();
  ASSERT_EQ(merged.value().size(), 1u) << "what one call ends with, the next goes on with";
  EXPECT_EQ(merged.value()[0].length, 1400 * kPage);
  auto json = file->draw_residency("name", QUIRE_DRAW_JSON);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ(nlohmann::json::parse(json.value()).at("resident_bytes"), 1400 * kPage);
  EXPECT_EQ(file->draw_residency("name", 7).errnum(), EINVAL);
}

TEST(DrawResidency, Text) {
  const std::vector<quire_residency_run> runs{
      {0, 2 * kPage, QUIRE_RUN_CLEAN, 0},         {2 * kPage, kPage, QUIRE_RUN_DIRTY, 0},
      {3 * kPage, kPage, QUIRE_RUN_WRITEBACK, 0}, {5 * kPage, kPage, QUIRE_RUN_UNFLUSHED, 0},
      {6 * kPage, kPage, QUIRE_RUN_FILLING, 0},   {7 * kPage, 2 * kPage, QUIRE_RUN_GHOST, 0}};
  const std::string text = drawn(QUIRE_DRAW_TEXT, "a\x1b[31mb", 9 * kPage + 1, runs);
  EXPECT_TRUE(contains(text, "a?[31mb: 36865 bytes, 24.0 KiB in the cache (60.0 %), 12.0 KiB of it not durable yet"))
      << text;
  EXPECT_TRUE(contains(text, " ##DW.UFgg.\n")) << text;
  // 2,048 pages in 1,024 characters: half of the last is there.
  const std::string half = drawn(QUIRE_DRAW_TEXT, "half", 2048 * kPage, {{2047 * kPage, kPage, QUIRE_RUN_CLEAN, 0}});
  EXPECT_TRUE(contains(half, ".+\none character: 8.0 KiB\n")) << half;
  EXPECT_TRUE(contains(drawn(QUIRE_DRAW_TEXT, "empty", 0, {}), "empty: 0 bytes, 0 B in the cache (0.0 %)\n"));
}

TEST(DrawResidency, NamesThatAFormatCannotHold) {
  const std::string name = "<a & \"b\">\n\xff\xed\xa0\x80\xc3\xa4";
  const std::string svg = drawn(QUIRE_DRAW_SVG, name, kPage, {{0, kPage, QUIRE_RUN_CLEAN, 0}});
  EXPECT_TRUE(contains(
      svg,
      ">&lt;a &amp; &quot;b&quot;&gt;\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xc3\xa4: 4096 bytes"))
      << svg;
  EXPECT_TRUE(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
  EXPECT_TRUE(nlohmann::json::parse(drawn(QUIRE_DRAW_JSON, name, 0, {})).at("file").is_string());
}

TEST(DrawResidency, SvgShowsTheSmallestShare) {
  const std::string svg = drawn(QUIRE_DRAW_SVG, "large", 1 << 30, {{12 * kPage, kPage, QUIRE_RUN_DIRTY, 0}});
  EXPECT_TRUE(contains(svg, "height=\"2.00\" fill=\"#d1495b\"")) << svg;
  EXPECT_LT(svg.size(), 4000u) << "columns alike are one";
  std::vector<quire_residency_run> many;
  for (std::uint64_t i = 0; i < 100'000; ++i) many.push_back({i * 2 * kPage, kPage, QUIRE_RUN_CLEAN, 0});
  EXPECT_LT(drawn(QUIRE_DRAW_SVG, "many", 200'000 * kPage, many).size(), 200'000u);
  drawn(QUIRE_DRAW_SVG, "the largest", UINT64_MAX, {});
  drawn(QUIRE_DRAW_TEXT, "the largest", UINT64_MAX, {});
}

TEST(DrawResidency, RefusesWhatIsNoResidency) {
  const auto refused = [](quire_residency_run a, quire_residency_run b) {
    const quire_residency_run runs[2] = {a, b};
    EXPECT_FAILS(EINVAL, quire_residency_draw("name", 0, runs, 2, QUIRE_DRAW_TEXT, nullptr, 0));
  };
  const quire_residency_run sound{kPage, kPage, QUIRE_RUN_CLEAN, 0};
  refused(sound, sound);
  refused(sound, {2 * kPage, 0, QUIRE_RUN_CLEAN, 0});
  refused(sound, {2 * kPage, kPage, QUIRE_RUN_GHOST + 1, 0});
  refused(sound, {2 * kPage, UINT64_MAX - kPage, QUIRE_RUN_CLEAN, 0});
  EXPECT_FAILS(EINVAL, quire_residency_draw("name", 0, nullptr, 0, 3, nullptr, 0));
}

}  // namespace
}  // namespace quire::api_testing
