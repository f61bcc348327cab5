// Every pointer of every call of the API in a mapped view (R4). The views are addresses that nobody can touch (and
// whose bytes those of a file are): a call that does not copy them through the cache ends the test.
#include <algorithm>
#include <vector>

#include "api/api_test_util.h"
#include "api/cache_impl.h"
#include "fs/fake_views_for_test.h"

namespace quire::api_testing {
namespace {

using testing_support::FakeViews;

class AnyBufferApi : public ::testing::Test {
 protected:
  static constexpr std::size_t kSpan = 512 * 1024;

  void SetUp() override {
    host_write(dir_ / "arguments", std::string(kSpan, '\0'));
    host_write(dir_ / "data", named_bytes(1, 0, 100'000));
    arguments_ = open_file(cache_, dir_ / "arguments", O_RDWR);
    data_ = open_file(cache_, dir_ / "data", O_RDWR);
    view_ = views_.map(open_file_of(arguments_), 0, kSpan);
    nowhere_ = views_.map(open_file_of(arguments_), 0, 4096);
    views_.unmap(nowhere_);
  }
  static OpenFile& open_file_of(const FilePtr& file) { return *reinterpret_cast<FileImpl*>(file.get()); }
  // Puts these bytes where the view shows them at `at`; returns that address.
  template <typename T>
  T* put(std::uint64_t at, const T* items, std::size_t count = 1) {
    write_all(arguments_, std::string_view(reinterpret_cast<const char*>(items), count * sizeof(T)),
              static_cast<off_t>(at));
    return reinterpret_cast<T*>(view_ + at);
  }
  const char* put_text(std::uint64_t at, const std::string& text) { return put(at, text.c_str(), text.size() + 1); }
  template <typename T>
  std::vector<T> get(std::uint64_t at, std::size_t count = 1) {
    std::vector<T> items(count);
    const std::string bytes = read_all(arguments_, count * sizeof(T), static_cast<off_t>(at));
    EXPECT_EQ(bytes.size(), count * sizeof(T));
    std::memcpy(items.data(), bytes.data(), bytes.size());
    return items;
  }
  std::string get_text(std::uint64_t at, std::size_t count) {
    return read_all(arguments_, count, static_cast<off_t>(at));
  }
  // The last bytes of the view, and of its file.
  std::uint64_t end(std::size_t room) const { return kSpan - room; }

  const TempDir dir_;
  const CachePtr cache_ = make_cache();
  FilePtr arguments_, data_;
  FakeViews views_;
  char* view_ = nullptr;
  char* nowhere_ = nullptr;
};

TEST_F(AnyBufferApi, R4_Pread) {
  // Up to 256 bytes a hit stores by itself, last and holding nothing: those are for views that can be touched. A read
  // that is none of these is not.
  for (const std::size_t size : {1u, 256u}) {
    close_file(data_);
    host_write(dir_ / "data", named_bytes(2, 0, 100'000));  // changed: nothing of it is cached
    data_ = open_file(cache_, dir_ / "data", O_RDWR);
    ASSERT_EQ(quire_pread(data_.get(), view_ + 1000, size, 5000), static_cast<ssize_t>(size)) << quire_error_message();
    EXPECT_TRUE(same_bytes(get_text(1000, size), named_bytes(2, 5000, size)));
  }
  for (const std::size_t size : {257u, 1024u, 1025u, 4096u, 90'000u}) {
    for (int time = 0; time < 2; ++time) {
      write_all(arguments_, std::string(size, '?'), 1000);
      ASSERT_EQ(quire_pread(data_.get(), view_ + 1000, size, 5000), static_cast<ssize_t>(size));
      EXPECT_TRUE(same_bytes(get_text(1000, size), named_bytes(2, 5000, size)));
    }
  }
  EXPECT_EQ(quire_pread(data_.get(), view_ + end(400), 1000, 0), 400);
  EXPECT_TRUE(same_bytes(get_text(end(400), 400), named_bytes(2, 0, 400)));
  EXPECT_FAILS(EFAULT, quire_pread(data_.get(), nowhere_, 1000, 0));
  EXPECT_MESSAGE_HAS("none is at");
  EXPECT_FAILS(EFAULT, quire_pread(data_.get(), view_ + kSpan, 1000, 0));
  EXPECT_FAILS(EINVAL, quire_pread(data_.get(), nowhere_, 1000, -1));
}

TEST_F(AnyBufferApi, R4_Pwrite) {
  for (const std::size_t size : {1u, 256u, 4096u, 70'000u}) {
    const std::string bytes = named_bytes(3, 0, size);
    ASSERT_EQ(quire_pwrite(data_.get(), put(77, bytes.data(), size), size, 9), static_cast<ssize_t>(size));
    EXPECT_TRUE(same_bytes(read_all(data_, size, 9), bytes));
  }
  EXPECT_EQ(quire_pwrite(data_.get(), view_ + end(400), 1000, 0), 400);
  EXPECT_FAILS(EFAULT, quire_pwrite(data_.get(), nowhere_, 10, 0));
  EXPECT_FAILS(EFAULT, quire_pwrite(data_.get(), view_ + kSpan, 10, 0));
  EXPECT_MESSAGE_HAS("data");
}

TEST_F(AnyBufferApi, R4_Vectors) {
  char plain[8];
  const iovec v[] = {{plain, 8}, {view_ + 20'000, 30'000}, {view_ + 100, 16}};
  const iovec* const in_view = put(1 << 16, v, 3);
  ASSERT_EQ(quire_preadv2(data_.get(), in_view, 3, 40, 0), 30'024) << quire_error_message();
  const std::string wanted = named_bytes(1, 40, 30'024);
  EXPECT_TRUE(same_bytes(std::string(plain, 8) + get_text(20'000, 30'000) + get_text(100, 16), wanted));
  ASSERT_EQ(quire_pwritev2(data_.get(), in_view, 3, 0, RWF_APPEND), 30'024) << quire_error_message();
  EXPECT_EQ(file_size(data_), 130'024);
  EXPECT_TRUE(same_bytes(read_all(data_, 30'024, 100'000), wanted));
  // Only the array; and the array into which the read goes, which was read before that.
  const iovec ordinary{plain, 8};
  EXPECT_EQ(quire_preadv2(data_.get(), put(1 << 16, &ordinary), 1, 0, 0), 8);
  EXPECT_TRUE(same_bytes(std::string(plain, 8), named_bytes(1, 0, 8)));
  const iovec itself{view_ + (1 << 16), 3000};
  EXPECT_EQ(quire_preadv2(data_.get(), put(1 << 16, &itself), 1, 0, 0), 3000);
  EXPECT_TRUE(same_bytes(get_text(1 << 16, 3000), named_bytes(1, 0, 3000)));
  EXPECT_FAILS(EFAULT, quire_preadv2(data_.get(), reinterpret_cast<iovec*>(nowhere_), 1, 0, 0));
  EXPECT_FAILS(EFAULT, quire_pwritev2(data_.get(), reinterpret_cast<iovec*>(view_ + end(8)), 1, 0, 0));
  EXPECT_FAILS(EINVAL, quire_pwritev2(data_.get(), reinterpret_cast<iovec*>(nowhere_), -1, 0, 0));
}

TEST_F(AnyBufferApi, R4_Options) {
  const quire_options options{sizeof options, 8 * kMiB, 0, 0};
  CachePtr cache(quire_cache_create(put(4090, &options)));
  ASSERT_NE(cache, nullptr) << quire_error_message();
  EXPECT_EQ(stat_of(cache, "memory"), 8 * kMiB);
  quire_options wrong = options;
  wrong.struct_size = 5;
  EXPECT_FAILS(EINVAL, quire_cache_create(put(0, &wrong)));
  EXPECT_MESSAGE_HAS("struct_size is 5");
  struct Newer {
    quire_options known;
    std::uint64_t more;
  } newer{{sizeof(Newer), 8 * kMiB, 0, 0}, 1};
  EXPECT_FAILS(EINVAL, quire_cache_create(&put(0, &newer)->known));
  EXPECT_FAILS(EFAULT, quire_cache_create(reinterpret_cast<quire_options*>(nowhere_)));
  const quire_options* const cut = reinterpret_cast<quire_options*>(view_ + end(16));
  write_all(arguments_, std::string_view(reinterpret_cast<const char*>(&options), 16), static_cast<off_t>(end(16)));
  EXPECT_FAILS(EFAULT, quire_cache_create(cut));
}

TEST_F(AnyBufferApi, R4_Path) {
  const std::string path = dir_ / "data";
  FilePtr file(quire_open(cache_.get(), put_text(300, path), O_RDONLY, 0));
  ASSERT_NE(file, nullptr) << quire_error_message();
  EXPECT_TRUE(same_bytes(read_all(file, 1000, 0), named_bytes(1, 0, 1000)));
  // Longer than what is looked at at once, and across a page.
  const std::string longer = dir_ / (std::string(300, '/') + "././data");
  EXPECT_NE(FilePtr(quire_open(cache_.get(), put_text(4000, longer), O_RDONLY, 0)), nullptr) << quire_error_message();
  EXPECT_NE(FilePtr(quire_open(cache_.get(), put_text(end(longer.size() + 1), longer), O_RDONLY, 0)), nullptr)
      << quire_error_message();
  EXPECT_FAILS(ENOENT, quire_open(cache_.get(), put_text(0, path + "-is-not-there"), O_RDONLY, 0));
  EXPECT_MESSAGE_HAS("data-is-not-there");
  EXPECT_FAILS(EFAULT, quire_open(cache_.get(), nowhere_, O_RDONLY, 0));
  write_all(arguments_, std::string(10, 'x'), static_cast<off_t>(end(10)));
  EXPECT_FAILS(EFAULT, quire_open(cache_.get(), view_ + end(10), O_RDONLY, 0));  // without its end
}

TEST_F(AnyBufferApi, R4_Stat) {
  struct stat plain = {};
  ASSERT_EQ(quire_fstat(data_.get(), &plain), 0);
  ASSERT_EQ(quire_fstat(data_.get(), reinterpret_cast<struct stat*>(view_ + 4000)), 0) << quire_error_message();
  const struct stat in_view = get<struct stat>(4000)[0];
  EXPECT_EQ(in_view.st_size, 100'000);
  EXPECT_EQ(in_view.st_ino, plain.st_ino);
  EXPECT_EQ(in_view.st_mtim.tv_nsec, plain.st_mtim.tv_nsec);
  EXPECT_FAILS(EFAULT, quire_fstat(data_.get(), reinterpret_cast<struct stat*>(nowhere_)));
  EXPECT_FAILS(EFAULT, quire_fstat(data_.get(), reinterpret_cast<struct stat*>(view_ + end(8))));
}

TEST_F(AnyBufferApi, R4_StatsJson) {
  const ssize_t length = quire_stats_json(cache_.get(), view_, 100'000);
  ASSERT_GT(length, 1000) << quire_error_message();
  const std::string text = get_text(0, static_cast<std::size_t>(length) + 1);
  EXPECT_EQ(text.back(), '\0');
  EXPECT_EQ(nlohmann::json::parse(text.substr(0, text.size() - 1)).at("memory"), 16 * kMiB);
  write_all(arguments_, std::string(100, '?'), 0);
  EXPECT_GT(quire_stats_json(cache_.get(), view_, 10), 1000);
  EXPECT_TRUE(same_bytes(get_text(0, 12), text.substr(0, 9) + std::string(1, '\0') + "??"));
  EXPECT_GT(quire_stats_json(cache_.get(), nowhere_, 0), 1000) << "nothing is written";
  EXPECT_FAILS(EFAULT, quire_stats_json(cache_.get(), nowhere_, 1));
  EXPECT_FAILS(EFAULT, quire_stats_json(cache_.get(), view_ + end(100), 10'000));
}

TEST_F(AnyBufferApi, R4_Residency) {
  // Every other page dirty: many runs.
  for (off_t page = 0; page < 60; page += 2) write_all(data_, named_bytes(4, 0, 4096), page * 4096);
  std::vector<quire_residency_run> plain(1000);
  const ssize_t count = quire_residency(data_.get(), 0, plain.data(), plain.size());
  ASSERT_GT(count, 20);
  plain.resize(static_cast<std::size_t>(count));
  const auto same = [](const quire_residency_run& a, const quire_residency_run& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
  };
  const auto expect_runs = [&](std::uint64_t at, std::size_t from, std::size_t n) {
    const auto runs = get<quire_residency_run>(at, n);
    EXPECT_TRUE(std::equal(runs.begin(), runs.end(), plain.begin() + static_cast<std::ptrdiff_t>(from), same));
  };
  auto* const at_0 = reinterpret_cast<quire_residency_run*>(view_);
  ASSERT_EQ(quire_residency(data_.get(), 0, at_0, 1000), count) << quire_error_message();
  expect_runs(0, 0, plain.size());
  ASSERT_EQ(quire_residency(data_.get(), 0, at_0, 7), 7);
  expect_runs(0, 0, 7);
  ASSERT_EQ(quire_residency(data_.get(), static_cast<off_t>(plain[5].offset), at_0, 3), 3);
  expect_runs(0, 5, 3);
  EXPECT_EQ(quire_residency(data_.get(), 1 << 30, at_0, 3), 0);
  EXPECT_EQ(quire_residency(data_.get(), 0, at_0, 0), 0);
  ASSERT_EQ(quire_residency(data_.get(), 0, reinterpret_cast<quire_residency_run*>(view_ + end(60)), 10), 2)
      << "whole ones that there was room for";
  expect_runs(end(60), 0, 2);
  EXPECT_FAILS(EFAULT, quire_residency(data_.get(), 0, reinterpret_cast<quire_residency_run*>(view_ + end(10)), 10));
  EXPECT_FAILS(EFAULT, quire_residency(data_.get(), 0, reinterpret_cast<quire_residency_run*>(nowhere_), 10));
  EXPECT_FAILS(EINVAL, quire_residency(data_.get(), -1, reinterpret_cast<quire_residency_run*>(nowhere_), 10));

  const ssize_t length = quire_residency_json(data_.get(), view_ + 9, 100'000);
  ASSERT_GT(length, 1000) << quire_error_message();
  EXPECT_EQ(nlohmann::json::parse(get_text(9, static_cast<std::size_t>(length))).at("runs").size(), plain.size());
  EXPECT_FAILS(EFAULT, quire_residency_json(data_.get(), nowhere_, 100));
}

TEST_F(AnyBufferApi, R4_Draw) {
  const quire_residency_run runs[] = {{0, 4096, QUIRE_RUN_CLEAN, 0}, {8192, 8192, QUIRE_RUN_DIRTY, 1}};
  const auto* const in_view = put(1 << 16, runs, 2);
  for (const int format : {QUIRE_DRAW_JSON, QUIRE_DRAW_TEXT, QUIRE_DRAW_SVG}) {
    char plain[20'000];
    const ssize_t length = quire_residency_draw("the name", 100'000, runs, 2, format, plain, sizeof plain);
    ASSERT_GT(length, 10);
    ASSERT_EQ(quire_residency_draw(put_text(5, "the name"), 100'000, in_view, 2, format, view_ + 4000, 20'000), length)
        << quire_error_message();
    EXPECT_TRUE(same_bytes(get_text(4000, static_cast<std::size_t>(length) + 1),
                           std::string(plain, static_cast<std::size_t>(length) + 1)));
  }
  char plain[100];
  const auto draw = [&](const char* name, const quire_residency_run* given, char* to) {
    return quire_residency_draw(name, 100'000, given, 2, QUIRE_DRAW_TEXT, to, sizeof plain);
  };
  EXPECT_FAILS(EFAULT, draw(nowhere_, runs, plain));
  EXPECT_FAILS(EFAULT, draw("name", reinterpret_cast<quire_residency_run*>(nowhere_), plain));
  EXPECT_FAILS(EFAULT, draw("name", reinterpret_cast<quire_residency_run*>(view_ + end(30)), plain));
  EXPECT_FAILS(EFAULT, draw("name", runs, nowhere_));
  const quire_residency_run backwards[] = {runs[1], runs[0]};
  EXPECT_FAILS(EINVAL, draw("name", put(1 << 16, backwards, 2), plain));
}

}  // namespace
}  // namespace quire::api_testing
