// fs-verity turned on and measured through the API: digests against the fsverity program, what refuses, and what is
// left behind when it fails.
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "api/mount_test_util.h"
#include "api/new_sidecar.h"
#include "api/peer_test_util.h"
#include "quire/quire.hpp"
#include "verity/sidecar.h"
#include "verity/verity_test_util.h"

namespace quire::api_testing {
namespace {

class VerityCommands : public verity_testing::VerityTest {
 protected:
  int enable(const std::string& file, const quire_verity_options* options = nullptr) {
    return quire_verity_enable(cache_.get(), file.c_str(), options);
  }
  static std::string measure(const std::string& file) {
    char digest[QUIRE_DIGEST_MAX];
    EXPECT_EQ(quire_verity_measure(file.c_str(), digest, sizeof digest), 0) << quire_error_message();
    return digest;
  }
  static bool exists(const std::string& file) { return access(file.c_str(), F_OK) == 0; }
  // Files in the directory of a failed enabling: the data alone.
  void expect_nothing_left(const std::string& directory, std::size_t files = 1) {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      EXPECT_EQ(entry.path().string().find(".verity"), std::string::npos) << entry.path();
      ++count;
    }
    EXPECT_EQ(count, files);
  }
  std::string content(std::size_t size) {
    const auto bytes = verity_testing::random_bytes(size, size + 1);
    return {bytes.begin(), bytes.end()};
  }

  CachePtr cache_ = make_cache(4 * kMiB);
};

TEST_F(VerityCommands, V1_DigestsAreThoseOfFsverity) {
  SKIP_WITHOUT_FSVERITY();
  std::vector<std::string> files;
  for (const std::size_t size : {0UL, 1UL, 4095UL, 4096UL, 4097UL, 3 * kMiB + 5}) {
    files.push_back(path(std::to_string(size)));
    host_write(files.back(), content(size));
  }
  for (const auto& parameters : verity_testing::all_parameters()) {
    const std::uint32_t size = parameters.block_size;
    if ((size != 1024 && size != 4096 && size != 65536) || parameters.salt.size == 1) continue;
    // The sizes are those around a block of 4096; of the others, one of more than a block and one of many.
    const std::span some = std::span(files).subspan(size == 4096 ? 0 : 4);
    auto words = fsverity_digest(parameters);
    words.insert(words.end(), some.begin(), some.end());
    std::istringstream lines(verity_testing::run_well(words));
    quire_verity_options options = {};
    options.struct_size = sizeof options;
    options.hash_alg = verity::algorithm_name(parameters.algorithm);
    options.block_size = parameters.block_size;
    options.salt = parameters.salt.bytes.data();
    options.salt_size = parameters.salt.size;
    for (const std::string& file : some) {
      SCOPED_TRACE(file + ", " + verity_testing::describe(parameters));
      std::string digest;
      std::getline(lines, digest);
      ASSERT_EQ(enable(file, &options), 0) << quire_error_message();
      EXPECT_EQ(measure(file), std::string(options.hash_alg) + ":" + digest);
      EXPECT_EQ(quire_verity_check(file.c_str(), nullptr, nullptr), 0) << quire_error_message();
      ASSERT_EQ(unlink((file + ".verity").c_str()), 0);
    }
  }
}

TEST_F(VerityCommands, StatusTellsWhatTheSidecarSays) {
  const std::string file = path("file");
  host_write(file, content(100'000));
  quire_verity_info info = {};
  info.struct_size = sizeof info;
  info.block_size = 7;
  ASSERT_EQ(quire_verity_status(file.c_str(), &info), 0) << quire_error_message();
  EXPECT_EQ(info.enabled, 0U);
  EXPECT_EQ(info.block_size, 0U);
  quire_verity_options options = {};
  options.struct_size = sizeof options;
  options.hash_alg = "SHA512";
  options.block_size = 1024;
  options.salt = "salt";
  options.salt_size = 4;
  ASSERT_EQ(enable(file, &options), 0) << quire_error_message();
  ASSERT_EQ(quire_verity_status(file.c_str(), &info), 0) << quire_error_message();
  EXPECT_EQ(info.enabled, 1U);
  EXPECT_EQ(info.block_size, 1024U);
  EXPECT_STREQ(info.hash_alg, "sha512");
  EXPECT_EQ(info.digest, measure(file));
  EXPECT_EQ(std::string_view(info.root_hash).size(), 7U + 128);
  EXPECT_EQ(std::string_view(reinterpret_cast<char*>(info.salt), info.salt_size), "salt");
  EXPECT_EQ(info.file_size, 100'000U);
  EXPECT_EQ(info.tree_size, (7U + 1) * 1024);  // 98 digests, 16 in a block
  EXPECT_EQ(info.signature_size, 0U);
  EXPECT_EQ(info.struct_size, sizeof info);
}

TEST_F(VerityCommands, SidecarHasTheFilesOwnerAndMayBeReadAsTheFile) {
  const std::string file = path("file");
  host_write(file, "bytes");
  ASSERT_EQ(chmod(file.c_str(), 0640), 0);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(file.c_str(), 65534, 65534), 0);
  }
  ASSERT_EQ(enable(file), 0) << quire_error_message();
  const struct stat data = host_stat(file), sidecar = host_stat(file + ".verity");
  EXPECT_EQ(sidecar.st_mode & 07777, 0440U);
  EXPECT_EQ(sidecar.st_uid, data.st_uid);
  EXPECT_EQ(sidecar.st_gid, data.st_gid);
}

TEST_F(VerityCommands, ALinkLeadsToTheFilesOwnSidecar) {
  const std::string file = path("file"), link = path("link");
  host_write(file, "bytes");
  ASSERT_EQ(symlink("file", link.c_str()), 0);
  ASSERT_EQ(enable(link), 0) << quire_error_message();
  EXPECT_TRUE(exists(file + ".verity"));
  EXPECT_FALSE(exists(link + ".verity"));
  EXPECT_EQ(measure(link), measure(file));
  EXPECT_FAILS(EEXIST, enable(file));
  EXPECT_MESSAGE_HAS(file + ".verity");
}

TEST_F(VerityCommands, EnabledOnceOnly) {
  const std::string file = path("file");
  host_write(file, "bytes");
  host_write(file + ".verity", "something else");
  EXPECT_FAILS(EEXIST, enable(file));
  EXPECT_EQ(host_read(file + ".verity"), "something else");
  EXPECT_FAILS(EBADMSG, quire_verity_measure(file.c_str(), std::string(200, ' ').data(), 200));
}

TEST_F(VerityCommands, OpenFilesAreRefused) {
  const std::string file = path("file");
  host_write(file, "bytes");
  const CachePtr other = make_cache(4 * kMiB);
  FilePtr handle = open_file(cache_, file, O_RDWR);
  EXPECT_FAILS(ETXTBSY, enable(file));
  close_file(handle);
  handle = open_file(cache_, file, O_RDONLY);
  EXPECT_FAILS(EBUSY, enable(file));
  EXPECT_MESSAGE_HAS("close it first");
  close_file(handle);
  handle = open_file(other, file, O_RDWR);
  EXPECT_FAILS(EBUSY, enable(file));
  EXPECT_MESSAGE_HAS("another cache");
  close_file(handle);
  expect_nothing_left(dir_);
  EXPECT_EQ(enable(file), 0) << quire_error_message();
}

TEST_F(VerityCommands, BytesOfAClosedFileCountAndNothingOfItStaysCached) {
  const std::string file = path("file"), same = path("same");
  const std::string bytes = content(300'001);
  FilePtr handle = open_file(cache_, file, O_RDWR | O_CREAT);
  write_all(handle, bytes, 0);
  close_file(handle);
  host_write(same, bytes);
  ASSERT_EQ(enable(file), 0) << quire_error_message();
  ASSERT_EQ(enable(same), 0) << quire_error_message();
  EXPECT_EQ(measure(file), measure(same));
  handle = open_file(cache_, file, O_RDONLY);
  quire_residency_run run;
  EXPECT_EQ(quire_residency(handle.get(), 0, &run, 1), 0) << "what was cached was not verified";
  EXPECT_TRUE(same_bytes(read_all(handle, bytes.size(), 0), bytes));
}

struct Meddler {
  VerityCommands* test = nullptr;
  std::function<void()> act;
  bool done = false;
  static void run(void* arg, std::uint64_t, std::uint64_t) {
    Meddler& meddler = *static_cast<Meddler*>(arg);
    if (!std::exchange(meddler.done, true)) meddler.act();
  }
};

TEST_F(VerityCommands, AFileThatChangesMeanwhileIsRefused) {
  const std::string file = path("file");
  host_write(file, content(2 * kMiB));
  Meddler meddler;
  quire_verity_options options = {};
  options.struct_size = sizeof options;
  options.progress = Meddler::run;
  options.arg = &meddler;
  meddler.act = [&] { host_pwrite(file, "x", 100); };
  EXPECT_FAILS(EBUSY, enable(file, &options));
  EXPECT_MESSAGE_HAS("changed");
  EXPECT_TRUE(meddler.done);
  FilePtr handle;
  meddler = {.test = this, .act = [&] { handle = open_file(cache_, file, O_RDONLY); }, .done = false};
  EXPECT_FAILS(EBUSY, enable(file, &options));
  EXPECT_MESSAGE_HAS("opened");
  close_file(handle);
  meddler = {.test = this, .act = [&] { close_file(handle = open_file(cache_, file, O_RDONLY)); }, .done = false};
  expect_nothing_left(dir_);
  meddler.act = [&] { host_write(file + ".verity", "another was quicker"); };
  EXPECT_FAILS(EEXIST, enable(file, &options));
  EXPECT_EQ(host_read(file + ".verity"), "another was quicker");
  ASSERT_EQ(unlink((file + ".verity").c_str()), 0);
  meddler = {.test = this, .act = [&] { open_file(cache_, file, O_RDONLY).reset(); }, .done = false};
  EXPECT_EQ(enable(file, &options), 0) << "whoever has gone again reads it verified from now on";
}

// Whoever opens it beside the enabling has it as it was, and keeps the enabling from its end; or is told to come again;
// or has it verified.
TEST_F(VerityCommands, OpenersBesideEnabling) {
  const std::string file = path("file"), bytes = content(200'000);
  host_write(file, bytes);
  for (int round = 0; round < 20; ++round) {
    std::atomic<bool> stop = false;
    std::thread opener([&] {
      while (!stop) {
        quire_file* const handle = quire_open(cache_.get(), file.c_str(), O_RDONLY, 0);
        if (handle == nullptr) {
          EXPECT_EQ(errno, EBUSY) << quire_error_message();
          continue;
        }
        std::string got(bytes.size(), '?');
        EXPECT_EQ(quire_pread(handle, got.data(), got.size(), 0), static_cast<ssize_t>(got.size()));
        EXPECT_TRUE(same_bytes(got, bytes));
        quire_close(handle);
        std::this_thread::yield();
      }
    });
    int result;
    while ((result = enable(file)) != 0 && errno == EBUSY) {
    }
    EXPECT_EQ(result, 0) << quire_error_message();
    EXPECT_FAILS(EPERM, quire_open(cache_.get(), file.c_str(), O_RDWR, 0));
    stop = true;
    opener.join();
    ASSERT_EQ(unlink((file + ".verity").c_str()), 0);
  }
}

TEST_F(VerityCommands, WithoutRoomNothingIsLeft) {
  SmallTmpfs room(2 * kMiB);
  if (!room.mounted()) GTEST_SKIP() << "no tmpfs may be mounted here";
  const std::string file = room / "file";
  host_write(file, content(kMiB));
  room.fill();
  EXPECT_FAILS(ENOSPC, enable(file));
  EXPECT_MESSAGE_HAS("room");
  expect_nothing_left(std::filesystem::path(file).parent_path().string(), 2);
  room.free();
  EXPECT_EQ(enable(file), 0) << quire_error_message();
}

TEST_F(VerityCommands, AFailedWriteOfTheSidecarLeavesNothing) {
  const std::string file = path("file");
  host_write(file, content(kMiB));
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  for (const std::size_t limit : {std::size_t{4096}, verity::kSidecarHeaderSize, verity::kSidecarHeaderSize + 8192}) {
    const rlimit small{limit, old.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    const int result = enable(file);
    const int errnum = errno;
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT_EQ(result, -1) << limit;
    EXPECT_EQ(errnum, EFBIG) << quire_error_message();
    EXPECT_MESSAGE_HAS("sidecar");
    expect_nothing_left(dir_);
  }
  std::signal(SIGXFSZ, before);
  EXPECT_EQ(enable(file), 0) << quire_error_message();
}

TEST_F(VerityCommands, SidecarsWithoutTmpfile) {
  const std::string target = path("file.verity");
  const struct stat of = host_stat(dir_);
  {
    NewSidecar given_up(target, false);
    ASSERT_TRUE(given_up.create(100));
    ASSERT_TRUE(given_up.write(0, std::string("bytes")));
  }
  expect_nothing_left(dir_, 0);
  NewSidecar sidecar(target, false);
  ASSERT_TRUE(sidecar.create(100));
  ASSERT_TRUE(sidecar.finish(std::string("bytes"), of));
  ASSERT_FALSE(exists(target));
  ASSERT_TRUE(sidecar.publish());
  ASSERT_TRUE(sidecar.settle());
  EXPECT_EQ(host_read(target).substr(0, 5), "bytes");
  {
    NewSidecar late(target, false);
    ASSERT_TRUE(late.create(100));
    ASSERT_TRUE(late.finish(std::string("later"), of));
    EXPECT_EQ(late.publish().errnum(), EEXIST);
  }
  EXPECT_EQ(host_read(target).substr(0, 5), "bytes");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir_), {}), 1);
}

TEST_F(VerityCommands, NoPermissionToWriteTheFile) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  const std::string file = path("file");
  host_write(file, "bytes");
  const uid_t me = geteuid();
  ASSERT_EQ(chmod(dir_.c_str(), 0777), 0);
  ASSERT_EQ(chmod(file.c_str(), 0644), 0);
  ASSERT_EQ(seteuid(65534), 0);
  const int result = enable(file);
  const int errnum = errno;
  ASSERT_EQ(seteuid(me), 0);
  EXPECT_EQ(result, -1);
  EXPECT_EQ(errnum, EACCES);
  expect_nothing_left(dir_);
}

TEST_F(VerityCommands, Arguments) {
  const std::string file = path("file");
  host_write(file, "bytes");
  char digest[QUIRE_DIGEST_MAX];
  EXPECT_FAILS(EINVAL, quire_verity_enable(nullptr, file.c_str(), nullptr));
  EXPECT_FAILS(EINVAL, quire_verity_enable(cache_.get(), nullptr, nullptr));
  EXPECT_FAILS(EINVAL, quire_verity_measure(nullptr, digest, sizeof digest));
  EXPECT_FAILS(EINVAL, quire_verity_status(nullptr, nullptr));
  EXPECT_FAILS(EINVAL, quire_verity_status(file.c_str(), nullptr));
  EXPECT_FAILS(EINVAL, quire_verity_check(nullptr, nullptr, nullptr));
  EXPECT_FAILS(EISDIR, enable(dir_));
  EXPECT_FAILS(EINVAL, enable("/dev/null"));
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0644), 0);
  EXPECT_FAILS(EINVAL, enable(path("fifo")));
  EXPECT_FAILS(ENOENT, enable(path("missing")));
  EXPECT_FAILS(ENODATA, quire_verity_measure(file.c_str(), digest, sizeof digest));
  EXPECT_FAILS(ENODATA, quire_verity_check(file.c_str(), nullptr, nullptr));
  ASSERT_EQ(unlink(path("fifo").c_str()), 0);

  const auto refuse = [&](int errnum, auto change) {
    quire_verity_options options = {};
    options.struct_size = sizeof options;
    change(options);
    EXPECT_FAILS(errnum, enable(file, &options));
  };
  const std::string many(20'000, 's');
  refuse(EINVAL, [](auto& o) { o.struct_size = 0; });
  refuse(EINVAL, [](auto& o) { o.struct_size = 100'000; });
  refuse(EINVAL, [](auto& o) { o.hash_alg = "md5"; });
  refuse(EINVAL, [](auto& o) { o.block_size = 3000; });
  refuse(EINVAL, [](auto& o) { o.block_size = 131072; });
  refuse(EINVAL, [](auto& o) { o.salt_size = 4; });
  refuse(EMSGSIZE, [&](auto& o) { o.salt = many.data(), o.salt_size = 33; });
  refuse(EINVAL, [](auto& o) { o.signature_size = 4; });
  refuse(EMSGSIZE, [&](auto& o) { o.signature = many.data(), o.signature_size = many.size(); });
  refuse(EBADMSG, [&](auto& o) { o.signature = many.data(), o.signature_size = 100; });
  expect_nothing_left(dir_);

  struct {
    quire_verity_options known = {};
    std::uint64_t newer = 0;
  } options;
  options.known.struct_size = sizeof options;
  options.newer = 1;
  EXPECT_FAILS(EINVAL, enable(file, &options.known));
  options.newer = 0;
  EXPECT_EQ(enable(file, &options.known), 0) << quire_error_message();
  EXPECT_FAILS(EINVAL, quire_verity_measure(file.c_str(), nullptr, sizeof digest));
  EXPECT_FAILS(ERANGE, quire_verity_measure(file.c_str(), digest, 71));
  EXPECT_EQ(quire_verity_measure(file.c_str(), digest, 72), 0) << quire_error_message();
  quire_verity_info info = {};
  EXPECT_FAILS(EINVAL, quire_verity_status(file.c_str(), &info));
}

TEST_F(VerityCommands, AFileWithoutANameHasNoPlaceForASidecar) {
  const std::string file = path("file");
  host_write(file, "bytes");
  Fd fd(file, O_RDWR);
  ASSERT_EQ(unlink(file.c_str()), 0);
  EXPECT_FAILS(ENOENT, enable("/proc/self/fd/" + std::to_string(static_cast<int>(fd))));
}

TEST_F(VerityCommands, InCpp) {
  const std::string file = path("file");
  host_write(file, content(1'000'000));
  auto cache = Cache::create({.memory = 4 * kMiB});
  ASSERT_TRUE(cache) << last_error();
  std::uint64_t done = 0, total = 0;
  ASSERT_TRUE(cache->enable_verity(file.c_str(), {.hash_alg = "sha512",
                                                  .block_size = 4096,
                                                  .salt = {},
                                                  .signature = {},
                                                  .progress =
                                                      [&](std::uint64_t now, std::uint64_t of) {
                                                        EXPECT_GT(now, done);
                                                        done = now, total = of;
                                                      }}))
      << last_error();
  EXPECT_EQ(done, 1'000'000U);
  EXPECT_EQ(total, done);
  const auto digest = verity_digest(file.c_str());
  ASSERT_TRUE(digest) << last_error();
  EXPECT_EQ(digest.value(), measure(file));
  EXPECT_EQ(verity_status(file.c_str())->enabled, 1U);
  const auto counts = check_verity(file.c_str(), {.digest = digest.value().c_str()});
  ASSERT_TRUE(counts) << last_error();
  EXPECT_EQ(counts.value().data_blocks, 245U);
  host_pwrite(file, "?", 5000);
  unsigned bad = 0;
  quire_verity_counts found;
  const auto again = check_verity(file.c_str(), {.bad_block = [&](const auto&) { ++bad; }}, &found);
  EXPECT_EQ(again.errnum(), EIO);
  EXPECT_EQ(bad, 1U);
  EXPECT_EQ(found.bad_data_blocks, 1U);
}

}  // namespace
}  // namespace quire::api_testing
