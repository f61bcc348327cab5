// The errno table of the range operations: each call is made through quire and as the host's own system call, on equal
// files of the same file system (ext4, XFS with and without exchange ranges, btrfs, tmpfs, and whatever TMPDIR is), for
// many arguments. Both must answer alike, and leave equal bytes. Where quire answers otherwise on purpose the table
// says so, and why.
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <string>
#include <vector>

#include "api/api_test_util.h"
#include "host/filesystem_test_util.h"

namespace quire::api_testing {
namespace {

constexpr off_t kBlock = 4096;
constexpr off_t kSizes[2] = {10 * kBlock + 1000, 8 * kBlock};
constexpr off_t kMaxOffset = INT64_MAX;
constexpr std::size_t kWhole = SIZE_MAX;

enum class Call { fallocate, data, hole, clone, dedupe, exchange, copy };
const char* const kCallNames[] = {"fallocate", "seek data", "seek hole", "clone", "dedupe", "exchange", "copy"};

struct Case {
  Call call;
  int mode = 0;                    // fallocate
  int from_file = 0, to_file = 1;  // fallocate and seek: from_file alone
  off_t from = 0, to = 0;          // fallocate and seek: from alone
  std::uint64_t length = 0;        // as off_t for fallocate
  int from_flags = O_RDWR, to_flags = O_RDWR;

  std::string text() const {
    return std::string(kCallNames[static_cast<int>(call)]) + " mode " + std::to_string(mode) + " of file " +
           std::to_string(from_file) + " (flags " + std::to_string(from_flags) + ") at " + std::to_string(from) +
           ", file " + std::to_string(to_file) + " (flags " + std::to_string(to_flags) + ") at " + std::to_string(to) +
           ", " + std::to_string(static_cast<std::int64_t>(length)) + " bytes";
  }
};

struct Answer {
  long result;
  int errnum;
};

Answer answer(long result) { return {result, result < 0 ? errno : 0}; }

struct ExchangeRange {  // XFS_IOC_EXCHANGE_RANGE of Linux 6.10
  std::int32_t other_fd;
  std::uint32_t pad;
  std::uint64_t other_offset, offset, length, flags;
};

Answer host_dedupe(const Case& c, int from, int to) {
  alignas(file_dedupe_range) unsigned char room[sizeof(file_dedupe_range) + sizeof(file_dedupe_range_info)] = {};
  auto* const range = new (room) file_dedupe_range{};
  range->src_offset = static_cast<std::uint64_t>(c.from);
  range->src_length = c.length;
  range->dest_count = 1;
  range->info[0].dest_fd = to;
  range->info[0].dest_offset = static_cast<std::uint64_t>(c.to);
  if (ioctl(from, FIDEDUPERANGE, range) != 0) return {-1, errno};
  if (range->info[0].status == FILE_DEDUPE_RANGE_DIFFERS) return {-1, EBADE};
  if (range->info[0].status < 0) return {-1, -range->info[0].status};
  return {static_cast<long>(range->info[0].bytes_deduped), 0};
}

Answer ask_host(const Case& c, int from, int to) {
  switch (c.call) {
    case Call::fallocate:
      return answer(::fallocate(from, c.mode, c.from, static_cast<off_t>(c.length)));
    case Call::data:
      return answer(lseek(from, c.from, SEEK_DATA));
    case Call::hole:
      return answer(lseek(from, c.from, SEEK_HOLE));
    case Call::clone: {
      file_clone_range range{from, static_cast<std::uint64_t>(c.from), c.length, static_cast<std::uint64_t>(c.to)};
      return answer(ioctl(to, FICLONERANGE, &range));
    }
    case Call::dedupe:
      return host_dedupe(c, from, to);
    case Call::exchange: {
      ExchangeRange range{from, 0, static_cast<std::uint64_t>(c.from), static_cast<std::uint64_t>(c.to), c.length, 0};
      return answer(ioctl(to, _IOW('X', 129, ExchangeRange), &range));
    }
    case Call::copy: {
      off_t in = c.from, out = c.to;
      return answer(copy_file_range(from, &in, to, &out, c.length, 0));
    }
  }
  return {-1, ENOSYS};
}

Answer ask_quire(const Case& c, quire_file* from, quire_file* to) {
  switch (c.call) {
    case Call::fallocate:
      return answer(quire_fallocate(from, c.mode, c.from, static_cast<off_t>(c.length)));
    case Call::data:
      return answer(quire_seek_data(from, c.from));
    case Call::hole:
      return answer(quire_seek_hole(from, c.from));
    case Call::clone:
      return answer(quire_clone_range(from, c.from, to, c.to, c.length));
    case Call::dedupe:
      return answer(quire_dedupe_range(from, c.from, to, c.to, c.length));
    case Call::exchange:
      return answer(quire_exchange_range(from, c.from, to, c.to, c.length));
    case Call::copy:
      return answer(quire_copy_range(from, c.from, to, c.to, c.length));
  }
  return {-1, ENOSYS};
}

bool missing(const Answer& host) { return host.errnum == EOPNOTSUPP || host.errnum == ENOTTY || host.errnum == ENOSYS; }

// Whether quire may answer this where the host answers that, and why.
bool agrees(const Case& c, const Answer& quire, const Answer& host) {
  if (quire.result == host.result && quire.errnum == host.errnum) return true;
  if (missing(host)) {
    if (quire.errnum == EOPNOTSUPP) return true;  // one name for all three
    if (c.call == Call::fallocate && (c.mode & FALLOC_FL_ZERO_RANGE) != 0) return quire.result == 0;  // always works
    // Arguments that are wrong whatever the file system has, and nothing to do, are answered before it is asked.
    if (quire.errnum == EINVAL || quire.errnum == EBADF || quire.errnum == EFBIG) return true;
    return c.call >= Call::clone && c.length == 0 && quire.result == 0;
  }
  // A handle that may not read or write says so, also where Linux says EINVAL, or asks for the caller's rights instead.
  if (c.call == Call::dedupe && quire.errnum == EBADF) {
    return (c.from_flags & O_ACCMODE) == O_WRONLY || (c.to_flags & O_ACCMODE) == O_RDONLY;
  }
  // Linux counts a last part of a block as shared, and less than a block without even comparing it. quire does neither.
  if (c.call == Call::dedupe && host.result > 0 && host.result % kBlock != 0) {
    const long whole = host.result / kBlock * kBlock;
    return whole == 0 ? quire.errnum == EINVAL : quire.result == whole;
  }
  // btrfs searches from the beginning if the offset is negative; the others and quire refuse it.
  if ((c.call == Call::data || c.call == Call::hole) && c.from < 0) return quire.errnum == ENXIO;
  return false;
}

class RangeTable : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    filesystem_ = &host_testing::TestFilesystem::get(GetParam());
    if (!filesystem_->why_not().empty()) GTEST_SKIP() << filesystem_->why_not();
    make_files();
  }
  void TearDown() override {
    for (const std::string& path : paths_) unlink(path.c_str());
  }

  // Files 0 and 1 of quire's, and the host's own: equal where a dedupe wants equal blocks (the third and the fourth),
  // with a hole in file 0 (the sixth and the seventh).
  void make_files() {
    TearDown();
    paths_.clear();
    for (const char* side : {"quire", "host"}) {
      for (int i = 0; i < 2; ++i) {
        paths_.push_back(filesystem_->path() + "/range-table-" + side + std::to_string(i));
        std::string bytes = named_bytes(static_cast<unsigned>(i) + 1, 0, static_cast<std::size_t>(kSizes[i]));
        bytes.replace(2 * kBlock, 2 * kBlock, named_bytes(7, 0, 2 * kBlock));
        const off_t hole = i == 0 ? 5 * kBlock : kSizes[i];
        host_write(paths_.back(), std::string_view(bytes).substr(0, static_cast<std::size_t>(hole)));
        if (i == 0) host_pwrite(paths_.back(), std::string_view(bytes).substr(7 * kBlock), 7 * kBlock);
        Fd fd(paths_.back(), O_RDONLY);
        ASSERT_EQ(fsync(fd), 0);
      }
    }
  }

  // Everything that is small enough to look at.
  static std::string content(const std::string& path) {
    return std::to_string(host_stat(path).st_size) + " bytes: " + host_pread(path, 64 * kBlock, 0);
  }

  void check(const Case& c) {
    SCOPED_TRACE(c.text());
    const bool pair = c.call >= Call::clone;
    Answer quire{}, host{};
    std::string message;
    {
      FilePtr from = open_file(cache_, paths_[static_cast<std::size_t>(c.from_file)], c.from_flags);
      const bool same = !pair || c.to_file == c.from_file;
      FilePtr to = same ? nullptr : open_file(cache_, paths_[static_cast<std::size_t>(c.to_file)], c.to_flags);
      quire = ask_quire(c, from.get(), same ? from.get() : to.get());
      message = quire_error_message();
      if (quire.result < 0) {
        EXPECT_TRUE(contains(message, paths_[static_cast<std::size_t>(c.from_file)])) << message;
      }
      if (to != nullptr) close_file(to);
      close_file(from);
      Fd host_from(paths_[2 + static_cast<std::size_t>(c.from_file)], c.from_flags);
      Fd host_to(paths_[2 + static_cast<std::size_t>(c.to_file)], c.to_flags);
      host = ask_host(c, host_from, same ? static_cast<int>(host_from) : static_cast<int>(host_to));
    }
    EXPECT_TRUE(agrees(c, quire, host)) << "quire: " << quire.result << ", errno " << quire.errnum << " (" << message
                                        << "); host: " << host.result << ", errno " << host.errnum << " ("
                                        << std::strerror(host.errnum) << ")";
    const bool both = quire.result >= 0 && host.result >= 0;
    if (both || (quire.result < 0 && host.result < 0)) {
      for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(same_bytes(content(paths_[i]), content(paths_[2 + i]))) << i;
    }
    if (quire.result >= 0 || host.result >= 0) {
      if (c.call != Call::data && c.call != Call::hole) make_files();
    }
  }

  host_testing::TestFilesystem* filesystem_ = nullptr;
  const CachePtr cache_ = make_cache();
  std::vector<std::string> paths_;  // quire's two, the host's two
};

TEST_P(RangeTable, Fallocate) {
  const int modes[] = {0,
                       FALLOC_FL_KEEP_SIZE,
                       FALLOC_FL_PUNCH_HOLE,
                       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                       FALLOC_FL_ZERO_RANGE,
                       FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                       FALLOC_FL_COLLAPSE_RANGE,
                       FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE,
                       FALLOC_FL_INSERT_RANGE,
                       FALLOC_FL_INSERT_RANGE | FALLOC_FL_KEEP_SIZE,
                       FALLOC_FL_UNSHARE_RANGE,
                       FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE,
                       FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE,
                       FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE,
                       0x04,
                       0x100,
                       -1};
  const std::pair<off_t, off_t> ranges[] = {{0, kBlock},
                                            {kBlock, 2 * kBlock},
                                            {100, 5000},
                                            {3 * kBlock + 1, 1},
                                            {-1, kBlock},
                                            {INT64_MIN, kBlock},
                                            {kBlock, 0},
                                            {0, -1},
                                            {0, 10 * kBlock},
                                            {kBlock, 9 * kBlock + 1000},
                                            {0, 11 * kBlock},
                                            {10 * kBlock, kBlock},
                                            {10 * kBlock, 500},
                                            {11 * kBlock, kBlock},
                                            {20 * kBlock, 3 * kBlock},
                                            {9 * kBlock + 5, 5000},
                                            {kMaxOffset, 1},
                                            {kMaxOffset - 10, kBlock},
                                            {kMaxOffset, kMaxOffset}};
  for (const int mode : modes) {
    for (const auto& [offset, length] : ranges) {
      check({.call = Call::fallocate, .mode = mode, .from = offset, .length = static_cast<std::uint64_t>(length)});
      if (HasFatalFailure()) return;
    }
    for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR | O_APPEND}) {
      check({.call = Call::fallocate, .mode = mode, .from = kBlock, .length = kBlock, .from_flags = flags});
    }
  }
}

TEST_P(RangeTable, Seek) {
  for (const Call call : {Call::data, Call::hole}) {
    for (const off_t offset :
         {off_t{INT64_MIN}, off_t{-1}, off_t{0}, off_t{1}, 5 * kBlock - 1, 5 * kBlock, 5 * kBlock + 9, 7 * kBlock - 1,
          7 * kBlock, kSizes[0] - 1, kSizes[0], kSizes[0] + 1, 20 * kBlock, kMaxOffset}) {
      for (const int flags : {O_RDWR, O_WRONLY}) check({.call = call, .from = offset, .from_flags = flags});
    }
  }
}

// What clone, dedupe, exchange and copy are asked for: between two files, and inside one.
struct PairRange {
  off_t from, to;
  std::uint64_t length;
};
constexpr PairRange kTwoFiles[] = {{0, 0, 4096},
                                   {2 * kBlock, 2 * kBlock, 2 * kBlock},  // equal bytes
                                   {2 * kBlock, 2 * kBlock, 3 * kBlock},  // equal only at first
                                   {0, 0, 0},
                                   {kBlock, 2 * kBlock, 4096},
                                   {100, 0, 4096},
                                   {0, 100, 4096},
                                   {0, 0, 100},
                                   {7, 9, 5000},
                                   {0, 0, 10 * kBlock + 1000},
                                   {10 * kBlock, 0, 1000},
                                   {10 * kBlock, 8 * kBlock, 1000},
                                   {10 * kBlock, 7 * kBlock, 0},
                                   {10 * kBlock, 0, 4096},
                                   {11 * kBlock, 0, 4096},
                                   {11 * kBlock, 0, 0},
                                   {10 * kBlock + 1000, 0, 0},
                                   {0, 16 * kBlock, 4096},
                                   {0, 7 * kBlock, 2 * kBlock},
                                   {-1, 0, 0},
                                   {-1, 0, 4096},
                                   {0, -1, 4096},
                                   {-4096, 0, 4096},
                                   {0, -4096, 4096},
                                   {INT64_MIN, 0, 4096},
                                   {0, INT64_MIN, 4096},
                                   {0, kMaxOffset - 4095, 4096},
                                   {0, kMaxOffset - 4095, 8192},
                                   {0, kMaxOffset, 1},
                                   {kMaxOffset, 0, 1},
                                   {kMaxOffset - 4095, 0, 4096},
                                   {0, 0, kWhole},
                                   {kBlock, 0, kWhole},
                                   {0, kBlock, kWhole},
                                   {0, 0, kMaxOffset},
                                   {kBlock, 0, kMaxOffset}};
constexpr PairRange kOneFile[] = {
    {0, kBlock, 2 * kBlock},  {2 * kBlock, kBlock, 2 * kBlock},      {0, 0, kBlock},
    {0, 8 * kBlock, kBlock},  {0, 5 * kBlock, 5 * kBlock},           {10 * kBlock, 0, 1000},
    {0, 16 * kBlock, kBlock}, {8 * kBlock, 10 * kBlock, kBlock * 3}, {0, 20 * kBlock, kWhole}};

std::vector<Case> pair_cases(Call call) {
  std::vector<Case> cases;
  for (const PairRange& range : kTwoFiles) {
    cases.push_back({.call = call, .from = range.from, .to = range.to, .length = range.length});
  }
  if (call == Call::dedupe) {
    cases.push_back({.call = call, .from = 2 * kBlock, .to = 2 * kBlock, .length = kBlock + 100});
  }
  for (const PairRange& range : kOneFile) {
    cases.push_back({.call = call, .to_file = 0, .from = range.from, .to = range.to, .length = range.length});
  }
  for (const int from_flags : {O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_APPEND}) {
    for (const int to_flags : {O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_APPEND}) {
      cases.push_back({.call = call,
                       .from = 2 * kBlock,
                       .to = 2 * kBlock,
                       .length = kBlock,
                       .from_flags = from_flags,
                       .to_flags = to_flags});
    }
  }
  return cases;
}

TEST_P(RangeTable, Clone) {
  for (const Case& c : pair_cases(Call::clone)) check(c);
}
TEST_P(RangeTable, Dedupe) {
  for (const Case& c : pair_cases(Call::dedupe)) check(c);
}
TEST_P(RangeTable, Exchange) {
  for (const Case& c : pair_cases(Call::exchange)) check(c);
}
TEST_P(RangeTable, Copy) {
  for (const Case& c : pair_cases(Call::copy)) check(c);
}

INSTANTIATE_TEST_SUITE_P(Hosts, RangeTable, ::testing::Values("here", "ext4", "xfs", "xfs-exchange", "btrfs", "tmpfs"),
                         [](const auto& host) {
                           std::string name = host.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace quire::api_testing
