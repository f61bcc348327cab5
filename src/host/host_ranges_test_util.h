// What the tests of range operations share: files on each file system that this machine can mount, and the same
// operations by plain system calls, for comparison.
#pragma once

#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "host/filesystem_test_util.h"
#include "host/host_backing.h"

namespace quire::host_testing {

enum class Op { allocate, allocate_keep, punch, zero, zero_keep, unshare, collapse, insert };
inline constexpr Op kOps[] = {Op::allocate,  Op::allocate_keep, Op::punch,    Op::zero,
                              Op::zero_keep, Op::unshare,       Op::collapse, Op::insert};
inline const char* name_of(Op op) {
  static constexpr const char* kNames[] = {"allocate",  "allocate_keep", "punch",    "zero",
                                           "zero_keep", "unshare",       "collapse", "insert"};
  return kNames[static_cast<int>(op)];
}

inline Status apply(Backing& file, Op op, std::uint64_t offset, std::uint64_t length) {
  switch (op) {
    case Op::allocate:
    case Op::allocate_keep:
      return file.allocate(offset, length, op == Op::allocate_keep);
    case Op::punch:
      return file.punch(offset, length);
    case Op::zero:
    case Op::zero_keep:
      return file.zero(offset, length, op == Op::zero_keep);
    case Op::unshare:
      return file.unshare(offset, length);
    case Op::collapse:
      return file.collapse(offset, length);
    case Op::insert:
      break;
  }
  return file.insert(offset, length);
}

// --- the host's own answers: 0 or an errno ---

inline int host_fallocate(int fd, Op op, std::uint64_t offset, std::uint64_t length) {
  static constexpr int kModes[] = {0,
                                   FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_ZERO_RANGE,
                                   FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE,
                                   FALLOC_FL_COLLAPSE_RANGE,
                                   FALLOC_FL_INSERT_RANGE};
  const int mode = kModes[static_cast<int>(op)];
  return ::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) == 0 ? 0 : errno;
}
inline int host_clone(int source, std::uint64_t from, int fd, std::uint64_t offset, std::uint64_t length) {
  file_clone_range request = {};
  request.src_fd = source;
  request.src_offset = from;
  request.src_length = length;
  request.dest_offset = offset;
  if (ioctl(fd, FICLONERANGE, &request) == 0) return 0;
  return errno == ENOTTY ? EOPNOTSUPP : errno;
}
inline int host_dedupe(int source, std::uint64_t from, int fd, std::uint64_t offset, std::uint64_t length) {
  std::vector<std::uint64_t> room((sizeof(file_dedupe_range) + sizeof(file_dedupe_range_info)) / 8);
  auto* const request = reinterpret_cast<file_dedupe_range*>(room.data());
  request->src_offset = from;
  request->src_length = length;
  request->dest_count = 1;
  request->info[0].dest_fd = fd;
  request->info[0].dest_offset = offset;
  if (ioctl(source, FIDEDUPERANGE, request) != 0) return errno == ENOTTY ? EOPNOTSUPP : errno;
  const int status = request->info[0].status;
  return status == FILE_DEDUPE_RANGE_DIFFERS ? EBADE : -status;
}
// XFS_IOC_EXCHANGE_RANGE, word for word: the other file's descriptor and offset come first.
inline int host_exchange(int other, std::uint64_t at, int fd, std::uint64_t offset, std::uint64_t length) {
  std::uint64_t request[] = {static_cast<std::uint32_t>(other), at, offset, length, 0};
  if (ioctl(fd, _IOC(_IOC_WRITE, 'X', 129, sizeof request), request) == 0) return 0;
  return errno == ENOTTY ? EOPNOTSUPP : errno;
}

// --- files ---

// Bytes [0, count) of what `writer` writes at offset 0: each 8-byte word holds the writer and the word's place.
inline std::string named_bytes(std::uint64_t writer, std::size_t count) {
  std::string bytes(round_up(count, 8), '\0');
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t word = (writer << 40) | (i / 8 + 1);
    std::memcpy(bytes.data() + i, &word, 8);
  }
  bytes.resize(count);
  return bytes;
}

// Equal, or where the first difference is.
inline ::testing::AssertionResult same_bytes(std::string_view got, std::string_view wanted) {
  if (got == wanted) return ::testing::AssertionSuccess();
  if (got.size() != wanted.size()) {
    return ::testing::AssertionFailure() << got.size() << " bytes instead of " << wanted.size();
  }
  const auto at = std::mismatch(got.begin(), got.end(), wanted.begin()).first - got.begin();
  std::uint64_t word[2] = {};
  const auto start = static_cast<std::size_t>(at) & ~std::size_t{7};
  std::memcpy(&word[0], got.data() + start, std::min<std::size_t>(8, got.size() - start));
  std::memcpy(&word[1], wanted.data() + start, std::min<std::size_t>(8, got.size() - start));
  return ::testing::AssertionFailure() << "byte " << at << ": writer " << (word[0] >> 40) << " word "
                                       << (word[0] & 0xff'ffff'ffff) << " instead of writer " << (word[1] >> 40)
                                       << " word " << (word[1] & 0xff'ffff'ffff);
}

// A file under its own name, gone with this; open for plain calls.
class PlainFile {
 public:
  PlainFile(std::string path, std::string_view bytes, int flags = O_RDWR) : path_(std::move(path)) {
    const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    EXPECT_GE(fd, 0) << path_ << ": " << std::strerror(errno);
    EXPECT_EQ(::pwrite(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size())) << path_;
    ::close(fd);
    fd_ = ::open(path_.c_str(), flags | O_CLOEXEC);
  }
  ~PlainFile() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;
  int fd() const { return fd_; }
  const std::string& path() const { return path_; }
  struct stat attributes() const {
    struct stat st = {};
    EXPECT_EQ(fstat(fd_, &st), 0);
    return st;
  }
  std::uint64_t size() const { return static_cast<std::uint64_t>(attributes().st_size); }
  std::string bytes(std::size_t most = SIZE_MAX) const {
    std::string got(std::min<std::size_t>(size(), most), '?');
    EXPECT_EQ(::pread(fd_, got.data(), got.size(), 0), static_cast<ssize_t>(got.size()));
    return got;
  }

 private:
  std::string path_;
  int fd_ = -1;
};

// The same, under a backing that may write (or not), with a plain descriptor beside it for looking.
class BackedFile {
 public:
  BackedFile(const std::string& path, std::string_view bytes, int flags = O_RDWR, WrittenMap* written_map = nullptr)
      : plain_(path, bytes, O_RDONLY), backing_(HostOptions{.stats = &stats_, .written_map = written_map}) {
    auto files = open_host_path(path.c_str(), flags, 0);
    EXPECT_TRUE(files.ok()) << path << ": " << std::strerror(files.errnum());
    EXPECT_TRUE(backing_.attach(files.take(), flags == O_RDWR).ok());
  }
  HostBacking* operator->() { return &backing_; }
  HostBacking& operator*() { return backing_; }
  const PlainFile& plain() const { return plain_; }

  // As writeback does it: whole blocks, and a partial one at the end of the file by itself.
  void write(std::uint64_t offset, std::string_view bytes, std::uint64_t end_of_file) {
    const std::size_t whole = round_down(bytes.size(), kPageSize);
    EXPECT_TRUE(is_aligned(offset, kPageSize));
    transfer(IoOp::write, offset, const_cast<char*>(bytes.data()), whole);
    transfer(IoOp::write, offset + whole, const_cast<char*>(bytes.data()) + whole, bytes.size() - whole);
    EXPECT_TRUE(backing_.commit(offset, bytes.size(), end_of_file).ok());
  }
  // As fills do: the whole blocks that hold the file.
  std::string read() {
    std::string bytes(round_up(backing_.size(), kPageSize), '?');
    transfer(IoOp::read, 0, bytes.data(), bytes.size());
    bytes.resize(backing_.size());
    return bytes;
  }
  // One request, through memory that direct I/O takes; what it returned.
  std::int64_t move(IoOp op, IoPath path, std::uint64_t offset, char* bytes, std::size_t count) {
    const std::size_t room = round_up(count, kPageSize);
    const std::unique_ptr<char, decltype(&std::free)> memory(static_cast<char*>(std::aligned_alloc(kPageSize, room)),
                                                             &std::free);
    std::memcpy(memory.get(), bytes, count);
    const iovec vector{memory.get(), count};
    Request request;
    request.op = op;
    request.path = path;
    request.offset = offset;
    request.buffers = std::span(&vector, 1);
    Request* const list[] = {&request};
    backing_.device().execute(list);
    if (op == IoOp::read) std::memcpy(bytes, memory.get(), count);
    return request.result;
  }

 private:
  void transfer(IoOp op, std::uint64_t offset, char* bytes, std::size_t count) {
    if (count == 0) return;
    const std::int64_t result = move(op, IoPath::any, offset, bytes, count);
    if (op == IoOp::write) {
      EXPECT_EQ(result, static_cast<std::int64_t>(count)) << "written at " << offset;
    } else {
      EXPECT_GE(result, static_cast<std::int64_t>(backing_.size() - offset)) << "read at " << offset;
    }
  }

  PlainFile plain_;
  IoStats stats_;
  HostBacking backing_;
};

class Ranges : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    filesystem_ = &TestFilesystem::get(GetParam());
    if (!filesystem_->why_not().empty()) GTEST_SKIP() << filesystem_->why_not();
  }
  std::string path(const char* name) const { return filesystem_->path() + "/" + name; }
  // What it is, also where it is "here".
  bool is_of(unsigned long magic) const {
    struct statfs fs = {};
    EXPECT_EQ(statfs(filesystem_->path().c_str(), &fs), 0);
    return static_cast<unsigned long>(fs.f_type) == magic;
  }
  // Does the host do this at all, on this file system?
  bool host_has(Op op) const {
    const PlainFile file(path("probe"), named_bytes(1, 16384));
    return host_fallocate(file.fd(), op, 4096, 4096) == 0;
  }
  bool host_clones() const {
    const PlainFile a(path("probe-a"), named_bytes(1, 16384)), b(path("probe-b"), "");
    return host_clone(a.fd(), 0, b.fd(), 0, 8192) == 0;
  }
  bool host_exchanges() const {
    const PlainFile a(path("probe-a"), named_bytes(1, 16384)), b(path("probe-b"), named_bytes(2, 16384));
    return host_exchange(a.fd(), 0, b.fd(), 0, 8192) == 0;
  }
  const TestFilesystem* filesystem_ = nullptr;
};

inline constexpr const char* kFilesystems[] = {"here", "ext4", "ext4-mapped", "xfs", "xfs-exchange", "btrfs", "tmpfs"};
inline std::string filesystem_name(const ::testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

// A backing of what the path names, attached for writing.
struct AttachedBacking {
  explicit AttachedBacking(const std::string& path, bool use_direct = true)
      : backing(HostOptions{.use_direct = use_direct, .stats = &stats}) {
    auto files = open_host_path(path.c_str(), O_RDWR, 0);
    const bool attached = files.ok() && backing.attach(files.take(), true).ok();
    EXPECT_TRUE(attached) << path;
  }
  IoStats stats;
  HostBacking backing;
};

}  // namespace quire::host_testing
