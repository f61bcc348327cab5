// What the host refuses is refused with its errno, and what it does is done: each case once through a backing, and once
// by the plain system call on a twin; errnos, sizes and bytes must be the same.
#include "base/error.h"
#include "host/host_ranges_test_util.h"

namespace quire::host_testing {
namespace {

class RangeTable : public Ranges {};
INSTANTIATE_TEST_SUITE_P(Filesystems, RangeTable, ::testing::ValuesIn(kFilesystems), filesystem_name);

std::string said(int errnum) { return errnum == 0 ? "done" : std::strerror(errnum); }

// The errno of what just happened; a failure has a sentence of its own.
template <typename T>
int errno_of(const Result<T>& result) {
  if (!result.ok()) {
    report_error(result.errnum(), "it");
    EXPECT_NE(error_message(), "it: " + said(result.errnum()));
  }
  return result.errnum();
}

// The same outcome on both; most: how many bytes to compare.
void compare(int got, int wanted, BackedFile& mine, const PlainFile& twin, std::size_t most = SIZE_MAX) {
  EXPECT_EQ(got, wanted) << said(got) << " instead of " << said(wanted);
  EXPECT_EQ(mine->size(), mine.plain().size()) << "the size that the backing knows";
  EXPECT_EQ(mine.plain().size(), twin.size());
  EXPECT_TRUE(same_bytes(mine.plain().bytes(most), twin.bytes(most)));
}

TEST_P(RangeTable, FallocateIsAnsweredAsTheHostDoes) {
  int refusals = 0, done = 0;
  for (const Op op : kOps) {
    for (const std::uint64_t size : {0, 5000, 32768, 32868}) {
      for (const std::uint64_t offset : {0, 1, 1024, 4096, 5000, 28672, 32768, 36864, 131072}) {
        for (const std::uint64_t length : {1, 1000, 1024, 4096, 8192, 28672, 32768}) {
          SCOPED_TRACE(::testing::Message() << name_of(op) << " of " << length << " at " << offset << " in " << size);
          const std::string bytes = named_bytes(1, size);
          BackedFile mine(path("mine"), bytes);
          const PlainFile twin(path("twin"), bytes);
          const int got = errno_of(apply(*mine, op, offset, length));
          compare(got, host_fallocate(twin.fd(), op, offset, length), mine, twin);
          ++(got == 0 ? done : refusals);
          if (HasFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(refusals, 0);
  EXPECT_GT(done, 0);
}

TEST_P(RangeTable, FallocateAtTheLargestOffsets) {
  for (const Op op : kOps) {
    const std::string bytes = named_bytes(1, 16384);
    const std::uint64_t most = BackedFile(path("probe"), bytes)->max_size();
    for (const std::uint64_t offset : {most - 8192, most - 4096, most - 4095, most, std::uint64_t{INT64_MAX} - 4096}) {
      for (const std::uint64_t length : {std::uint64_t{4096}, std::uint64_t{4097}, most}) {
        if (offset > INT64_MAX - length && length == most) continue;  // what the interface does not allow
        SCOPED_TRACE(::testing::Message() << name_of(op) << " of " << length << " at " << offset);
        if (op == Op::allocate || op == Op::allocate_keep) continue;  // see the test of full file systems
        BackedFile mine(path("mine"), bytes);
        const PlainFile twin(path("twin"), bytes);
        const int got = errno_of(apply(*mine, op, offset, length));
        compare(got, host_fallocate(twin.fd(), op, offset, length), mine, twin, 65536);
      }
    }
  }
}

TEST_P(RangeTable, WithoutPermissionToWriteTheHostsAnswerIsPassedOn) {
  const std::string bytes = named_bytes(1, 16384);
  BackedFile mine(path("mine"), bytes, O_RDONLY), source(path("source"), bytes, O_RDONLY);
  const PlainFile twin(path("twin"), bytes, O_RDONLY), other(path("other"), bytes, O_RDONLY);
  for (const Op op : kOps) {
    SCOPED_TRACE(name_of(op));
    compare(errno_of(apply(*mine, op, 4096, 4096)), host_fallocate(twin.fd(), op, 4096, 4096), mine, twin);
  }
  compare(errno_of(mine->clone(*source, 0, 4096, 4096)), host_clone(other.fd(), 0, twin.fd(), 4096, 4096), mine, twin);
  compare(errno_of(mine->exchange(*source, 0, 4096, 4096)), host_exchange(other.fd(), 0, twin.fd(), 4096, 4096), mine,
          twin);
  compare(errno_of(mine->dedupe(*source, 0, 0, 4096)), host_dedupe(other.fd(), 0, twin.fd(), 0, 4096), mine, twin);
}

enum class Two { clone, dedupe, exchange };
const char* name_of(Two op) { return op == Two::clone ? "clone" : op == Two::dedupe ? "dedupe" : "exchange"; }

// How many bytes the host compares: whole blocks, or to the end of both. (It says that it compared them all.)
std::uint64_t compared_by_dedupe(HostBacking& file, HostBacking& source, std::uint64_t from, std::uint64_t offset,
                                 std::uint64_t length) {
  struct stat st = {};
  EXPECT_TRUE(file.stat(&st).ok());
  const bool common_end = from + length == source.size() && offset + length == file.size();
  return common_end ? length : length - length % static_cast<std::uint64_t>(st.st_blksize);
}

int apply(HostBacking& file, Two op, HostBacking& source, std::uint64_t from, std::uint64_t offset,
          std::uint64_t length) {
  if (op == Two::clone) return errno_of(file.clone(source, from, offset, length));
  if (op == Two::exchange) return errno_of(file.exchange(source, from, offset, length));
  const std::uint64_t compared = compared_by_dedupe(file, source, from, offset, length);
  const auto shared = file.dedupe(source, from, offset, length);
  if (shared.ok()) {
    EXPECT_EQ(shared.value(), compared);
  }
  return errno_of(shared);
}
int host(Two op, int source, std::uint64_t from, int fd, std::uint64_t offset, std::uint64_t length,
         std::uint64_t compared) {
  if (op == Two::clone) return host_clone(source, from, fd, offset, length);
  if (op == Two::exchange) return host_exchange(source, from, fd, offset, length);
  const int errnum = host_dedupe(source, from, fd, offset, length);
  return errnum == 0 && compared == 0 ? EINVAL : errnum;  // the host's is a success that shares nothing
}

// Blocks of 4 KiB that are all the same but for the fourth, so that some ranges are equal and some are not.
std::string repeated_bytes(std::size_t count) {
  std::string bytes;
  for (int block = 0; bytes.size() < count; ++block) bytes += named_bytes(block == 3 ? 3 : 1, kPageSize);
  bytes.resize(count);
  return bytes;
}

TEST_P(RangeTable, TwoFilesAreAnsweredAsTheHostDoes) {
  for (const Two op : {Two::clone, Two::dedupe, Two::exchange}) {
    for (const std::uint64_t source_size : {0, 5000, 32768}) {
      for (const std::uint64_t size : {0, 5000, 32768}) {
        for (const std::uint64_t from : {0, 1024, 4096, 28672, 32768}) {
          for (const std::uint64_t offset : {0, 1, 4096, 28672, 65536}) {
            for (const std::uint64_t length : {1, 904, 4096, 5000, 8192, 32768}) {
              SCOPED_TRACE(::testing::Message() << name_of(op) << " of " << length << " from " << from << " in "
                                                << source_size << " to " << offset << " in " << size);
              const std::string from_bytes = repeated_bytes(source_size);
              const std::string bytes = op == Two::dedupe ? repeated_bytes(size) : named_bytes(2, size);
              BackedFile source(path("source"), from_bytes), mine(path("mine"), bytes);
              const PlainFile twin_source(path("twin-source"), from_bytes), twin(path("twin"), bytes);
              const int got = apply(*mine, op, *source, from, offset, length);
              const int wanted = host(op, twin_source.fd(), from, twin.fd(), offset, length,
                                      compared_by_dedupe(*mine, *source, from, offset, length));
              compare(got, wanted, mine, twin);
              compare(got, wanted, source, twin_source);
              if (HasFailure()) return;
            }
          }
        }
      }
    }
  }
}

TEST_P(RangeTable, OneFileIsAnsweredAsTheHostDoes) {
  for (const Two op : {Two::clone, Two::dedupe, Two::exchange}) {
    for (const std::uint64_t size : {5000, 32768}) {
      for (const std::uint64_t from : {0, 4096, 8192, 28672, 32768}) {
        for (const std::uint64_t offset : {0, 1, 4096, 8192, 28672, 36864}) {
          for (const std::uint64_t length : {1, 904, 4096, 4097, 8192, 28672}) {
            SCOPED_TRACE(::testing::Message() << name_of(op) << " of " << length << " from " << from << " to " << offset
                                              << " in one file of " << size);
            const std::string bytes = op == Two::dedupe ? repeated_bytes(size) : named_bytes(2, size);
            BackedFile mine(path("mine"), bytes);
            const PlainFile twin(path("twin"), bytes);
            const int got = apply(*mine, op, *mine, from, offset, length);
            const int wanted = host(op, twin.fd(), from, twin.fd(), offset, length,
                                    compared_by_dedupe(*mine, *mine, from, offset, length));
            compare(got, wanted, mine, twin);
            if (HasFailure()) return;
          }
        }
      }
    }
  }
}

TEST_P(RangeTable, AnotherFileSystemIsAnsweredAsTheHostDoes) {
  const std::string bytes = named_bytes(1, 16384);
  const int memory = memfd_create("quire-test-elsewhere", MFD_CLOEXEC);
  ASSERT_EQ(::pwrite(memory, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  int flags = 0;
  auto files = open_host_fd(memory, &flags);
  ASSERT_TRUE(files.ok());
  IoStats stats;
  HostBacking foreign(HostOptions{.stats = &stats});
  ASSERT_TRUE(foreign.attach(files.take(), true).ok());
  for (const Two op : {Two::clone, Two::dedupe, Two::exchange}) {
    SCOPED_TRACE(name_of(op));
    BackedFile mine(path("mine"), bytes);
    const PlainFile twin(path("twin"), bytes);
    const int got = apply(*mine, op, foreign, 0, 4096, 4096);
    compare(got, host(op, memory, 0, twin.fd(), 4096, 4096, 4096), mine, twin);
    EXPECT_TRUE(got == EXDEV || got == EOPNOTSUPP) << said(got);
    if (op == Two::clone) {
      EXPECT_EQ(got, EXDEV) << said(got);
    }
  }
  ::close(memory);
}

TEST_P(RangeTable, DataAndHolesAreWhereTheHostSaysTheyAre) {
  const std::string bytes = named_bytes(1, 65536 + 100);
  BackedFile mine(path("mine"), bytes);
  ASSERT_EQ(mine->punch(8192, 16384).errnum(), 0);
  (void)mine->allocate(131072, 65536, true);
  ASSERT_TRUE(mine->set_size(200'000).ok());
  for (int round = 0; round < 3; ++round) {
    if (round == 1) mine.write(98304, named_bytes(2, 8192), 200'000);
    if (round == 2) {
      ASSERT_TRUE(mine->sync(false).ok());
    }
    for (const std::uint64_t offset :
         {0,     1,     4096,    8191,    8192,    8193,    24575,   24576,   65535,   65536,    65636,
          69632, 98304, 100'000, 106'495, 106'496, 131'072, 199'999, 200'000, 200'001, 1'000'000}) {
      SCOPED_TRACE(offset);
      const auto data = mine->seek_data(offset), hole = mine->seek_hole(offset);
      const off_t host_data = lseek(mine.plain().fd(), static_cast<off_t>(offset), SEEK_DATA);
      EXPECT_EQ(data.errnum(), host_data < 0 ? errno : 0);
      if (data.ok() && host_data >= 0) {
        EXPECT_EQ(data.value(), static_cast<std::uint64_t>(host_data));
      }
      const off_t host_hole = lseek(mine.plain().fd(), static_cast<off_t>(offset), SEEK_HOLE);
      EXPECT_EQ(hole.errnum(), host_hole < 0 ? errno : 0);
      if (hole.ok() && host_hole >= 0) {
        EXPECT_EQ(hole.value(), static_cast<std::uint64_t>(host_hole));
      }
      EXPECT_EQ(hole.errnum(), offset >= 200'000 ? ENXIO : 0);
    }
    const auto written = mine->seek_data(98304);
    if (round > 0) {
      EXPECT_EQ(written.value(), 98304u) << "what was written through the backing's device is data at once";
    }
  }
}

}  // namespace
}  // namespace quire::host_testing
