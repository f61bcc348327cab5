// Opening: flags as open(2), what is refused and how, and how a cache itself is made.
#include <sys/socket.h>
#include <sys/un.h>

#include "api/peer_test_util.h"

namespace quire::api_testing {
namespace {

TEST(Open, CreatesWithModeAndUmask) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  const mode_t old = umask(027);
  FilePtr file = open_file(cache, dir / "new", O_RDWR | O_CREAT | O_EXCL, 0666);
  umask(old);
  EXPECT_EQ(host_stat(dir / "new").st_mode & 07777, 0640u);
  EXPECT_EQ(file_size(file), 0);
  write_all(file, "abc", 0);
  close_file(file);
  EXPECT_EQ(host_read(dir / "new"), "abc");
}

TEST(Open, ExclusiveCreationOfWhatExists) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  host_write(dir / "old", "kept");
  EXPECT_FAILS(EEXIST, quire_open(cache.get(), (dir / "old").c_str(), O_RDWR | O_CREAT | O_EXCL, 0644));
  EXPECT_MESSAGE_HAS("old");
  FilePtr file = open_file(cache, dir / "old", O_RDWR | O_CREAT);
  EXPECT_EQ(read_all(file, 10, 0), "kept");
}

TEST(Open, ModeOfANewFileDoesNotBindItsMaker) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  FilePtr file = open_file(cache, dir / "new", O_RDWR | O_CREAT, 0400);
  write_all(file, named_bytes(1, 0, 10000), 0);
  EXPECT_TRUE(same_bytes(read_all(file, 10000, 0), named_bytes(1, 0, 10000)));
  close_file(file);
  EXPECT_TRUE(same_bytes(host_read(dir / "new"), named_bytes(1, 0, 10000)));
}

TEST(Open, TruncateDropsWhatWasCached) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  host_write(dir / "file", named_bytes(1, 0, 20000));
  FilePtr reader = open_file(cache, dir / "file", O_RDONLY);
  EXPECT_TRUE(same_bytes(read_all(reader, 20000, 0), named_bytes(1, 0, 20000)));
  FilePtr writer = open_file(cache, dir / "file", O_RDWR | O_TRUNC);
  EXPECT_EQ(file_size(reader), 0);
  EXPECT_EQ(read_all(reader, 20000, 0), "");
  write_all(writer, "x", 8191);
  EXPECT_TRUE(same_bytes(read_all(reader, 20000, 0), std::string(8191, '\0') + "x"));
  close_file(writer);
  EXPECT_TRUE(same_bytes(host_read(dir / "file"), std::string(8191, '\0') + "x"));
}

TEST(Open, AppendGoesToTheEndWhateverTheOffset) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  host_write(dir / "file", std::string(4095, 'a'));
  FilePtr one = open_file(cache, dir / "file", O_WRONLY | O_APPEND);
  FilePtr two = open_file(cache, dir / "file", O_RDWR | O_APPEND);
  write_all(one, "bb", 0);
  write_all(two, "cc", 1'000'000);
  write_all(one, std::string(5000, 'd'), 17);
  const std::string wanted = std::string(4095, 'a') + "bbcc" + std::string(5000, 'd');
  EXPECT_TRUE(same_bytes(read_all(two, 20000, 0), wanted));
  close_file(one);
  close_file(two);
  EXPECT_TRUE(same_bytes(host_read(dir / "file"), wanted));
}

TEST(Open, AccessModes) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  host_write(dir / "file", "0123456789");
  char byte = 'x';
  FilePtr reader = open_file(cache, dir / "file", O_RDONLY);
  EXPECT_FAILS(EBADF, quire_pwrite(reader.get(), &byte, 1, 0));
  EXPECT_MESSAGE_HAS("file");
  EXPECT_FAILS(EBADF, quire_pwrite(reader.get(), &byte, 0, 0));
  EXPECT_FAILS(EINVAL, quire_ftruncate(reader.get(), 5));
  EXPECT_EQ(quire_fsync(reader.get()), 0);
  FilePtr writer = open_file(cache, dir / "file", O_WRONLY);
  EXPECT_FAILS(EBADF, quire_pread(writer.get(), &byte, 1, 0));
  EXPECT_FAILS(EBADF, quire_pwrite(reader.get(), &byte, 1, 0));  // the other handle's right is not this one's
  write_all(writer, "X", 3);                                     // inside a block: it has to be read first
  EXPECT_EQ(read_all(reader, 10, 0), "012X456789");
  EXPECT_FAILS(EINVAL, quire_open(cache.get(), (dir / "file").c_str(), O_ACCMODE, 0));
  close_file(writer);
  EXPECT_EQ(host_read(dir / "file"), "012X456789");
}

TEST(Open, WhatIsNoFile) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  const auto refuse = [&](const std::string& path, int flags, int errnum) {
    SCOPED_TRACE(path + " flags " + std::to_string(flags));
    EXPECT_FAILS(errnum, quire_open(cache.get(), path.c_str(), flags, 0644));
    EXPECT_MESSAGE_HAS(path);
  };
  refuse(dir.path(), O_RDONLY, EISDIR);
  refuse(dir.path(), O_RDWR, EISDIR);
  refuse(dir.path(), O_RDWR | O_CREAT, EISDIR);
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0644), 0);
  alarm(20);  // opening a FIFO blocks whoever does not look first
  refuse(dir / "fifo", O_RDONLY, EINVAL);
  refuse(dir / "fifo", O_WRONLY, EINVAL);
  refuse(dir / "fifo", O_RDWR | O_CREAT | O_TRUNC, EINVAL);
  alarm(0);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string name = dir / "socket";
  ASSERT_LT(name.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path, name.c_str(), name.size());
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  refuse(name, O_RDWR, EINVAL);
  close(listener);
  refuse("/dev/null", O_RDWR, EINVAL);
  refuse("/dev/zero", O_RDONLY, EINVAL);
}

TEST(Open, PathsThatLeadNowhere) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  host_write(dir / "file", "bytes");
  EXPECT_FAILS(ENOENT, quire_open(cache.get(), (dir / "missing").c_str(), O_RDWR, 0));
  EXPECT_MESSAGE_HAS("missing");
  EXPECT_MESSAGE_HAS("No such file");
  EXPECT_FAILS(ENOENT, quire_open(cache.get(), (dir / "no/where").c_str(), O_RDWR | O_CREAT, 0644));
  EXPECT_FAILS(ENOENT, quire_open(cache.get(), "", O_RDONLY, 0));
  EXPECT_FAILS(ENOTDIR, quire_open(cache.get(), (dir / "file/below").c_str(), O_RDONLY, 0));
  EXPECT_FAILS(ENAMETOOLONG, quire_open(cache.get(), (dir / std::string(300, 'n')).c_str(), O_RDWR | O_CREAT, 0644));
  EXPECT_FAILS(ENAMETOOLONG, quire_open(cache.get(), std::string(5000, '/').c_str(), O_RDONLY, 0));
  ASSERT_EQ(symlink("file", (dir / "link").c_str()), 0);
  ASSERT_EQ(symlink("nowhere", (dir / "dangling").c_str()), 0);
  FilePtr through = open_file(cache, dir / "link", O_RDONLY);
  EXPECT_EQ(read_all(through, 10, 0), "bytes");
  EXPECT_FAILS(ELOOP, quire_open(cache.get(), (dir / "link").c_str(), O_RDONLY | O_NOFOLLOW, 0));
  EXPECT_FAILS(ENOENT, quire_open(cache.get(), (dir / "dangling").c_str(), O_RDONLY, 0));
}

TEST(Open, FlagsThatAreNotTaken) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  host_write(dir / "file", "kept");
  EXPECT_FAILS(EINVAL, quire_open(cache.get(), (dir / "file").c_str(), O_PATH, 0));
  EXPECT_FAILS(EINVAL, quire_open(cache.get(), dir.path().c_str(), O_TMPFILE | O_RDWR, 0600));
  EXPECT_FAILS(EINVAL, quire_open(cache.get(), (dir / "file").c_str(), O_RDONLY | O_DIRECTORY, 0));
  EXPECT_EQ(host_read(dir / "file"), "kept");
}

TEST(Open, PermissionDenied) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become another user";
  const TempDir dir;
  host_write(dir / "secret", "roots");
  host_write(dir / "public", "all may read this");
  chmod((dir / "secret").c_str(), 0600);
  chmod((dir / "public").c_str(), 0644);
  Peer peer;
  ASSERT_EQ(peer.become_ordinary_user(), 0);
  EXPECT_EQ(peer.open(dir / "secret", O_RDONLY), EACCES);
  EXPECT_TRUE(contains(peer.message(), dir / "secret")) << peer.message();
  EXPECT_TRUE(contains(peer.message(), "ermission denied")) << peer.message();
  EXPECT_EQ(peer.open(dir / "public", O_RDWR), EACCES);
  EXPECT_EQ(peer.open(dir / "public", O_RDONLY | O_TRUNC), 0) << peer.message();
  EXPECT_EQ(peer.close(), 0);
  EXPECT_EQ(peer.open(dir / "new", O_RDWR | O_CREAT), EACCES);
  chmod((dir / "public").c_str(), 0622);  // may be written, not read: quire says why that is not enough
  EXPECT_EQ(peer.open(dir / "public", O_WRONLY), EACCES);
  EXPECT_TRUE(contains(peer.message(), "read")) << peer.message();
  EXPECT_EQ(host_read(dir / "public"), "all may read this");
}

TEST(Open, ManyHandlesOfOneFile) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  host_write(dir / "file", named_bytes(1, 0, 9000));
  ASSERT_EQ(link((dir / "file").c_str(), (dir / "second name").c_str()), 0);
  FilePtr first = open_file(cache, dir / "file", O_RDWR);
  FilePtr second = open_file(cache, dir / "second name", O_RDWR);
  write_all(first, named_bytes(2, 4096, 1000), 4096);
  EXPECT_TRUE(same_bytes(read_all(second, 1000, 4096), named_bytes(2, 4096, 1000)));
  close_file(first);
  write_all(second, named_bytes(3, 0, 10), 0);
  ASSERT_EQ(unlink((dir / "file").c_str()), 0);
  EXPECT_TRUE(same_bytes(read_all(second, 10, 0), named_bytes(3, 0, 10)));
  close_file(second);
  EXPECT_TRUE(same_bytes(host_pread(dir / "second name", 10, 0), named_bytes(3, 0, 10)));
}

TEST(Open, UnlinkedFileStaysUsable) {
  const TempDir dir;
  const CachePtr cache = make_cache();
  FilePtr file = open_file(cache, dir / "file", O_RDWR | O_CREAT);
  ASSERT_EQ(unlink((dir / "file").c_str()), 0);
  write_all(file, named_bytes(1, 0, 100000), 0);
  EXPECT_EQ(quire_fsync(file.get()), 0) << quire_error_message();
  EXPECT_TRUE(same_bytes(read_all(file, 100000, 0), named_bytes(1, 0, 100000)));
  close_file(file);
}

TEST(CacheCreate, TooLittleMemorySaysHowMuchIsNeeded) {
  quire_options options{sizeof(quire_options), 1, 0, 0};
  EXPECT_FAILS(EINVAL, quire_cache_create(&options));
  const std::string message = quire_error_message();
  const std::size_t at = message.find("at least ");
  ASSERT_NE(at, std::string::npos) << message;
  options.memory = std::stoul(message.substr(at + 9));
  EXPECT_GT(options.memory, 4096u);
  --options.memory;
  EXPECT_FAILS(EINVAL, quire_cache_create(&options));
  ++options.memory;
  const CachePtr smallest(quire_cache_create(&options));
  ASSERT_NE(smallest, nullptr) << quire_error_message();
  const TempDir dir;  // and with that much it works
  FilePtr file = open_file(smallest, dir / "file", O_RDWR | O_CREAT);
  for (int i = 0; i < 64; ++i) write_all(file, named_bytes(1, i * 65536u, 65536), i * 65536);
  for (int i = 0; i < 64; ++i) {
    ASSERT_TRUE(same_bytes(read_all(file, 65536, i * 65536), named_bytes(1, i * 65536u, 65536))) << i;
  }
}

TEST(CacheCreate, StructSize) {
  struct Newer {
    quire_options known;
    std::uint64_t more[4];
  } options = {};
  options.known.memory = 4 * kMiB;
  EXPECT_FAILS(EINVAL, quire_cache_create(&options.known));  // struct_size 0
  EXPECT_MESSAGE_HAS("struct_size");
  options.known.struct_size = sizeof(std::size_t);  // no field at all
  EXPECT_FAILS(EINVAL, quire_cache_create(&options.known));
  options.known.struct_size = 1 << 20;
  EXPECT_FAILS(EINVAL, quire_cache_create(&options.known));
  options.known.struct_size = offsetof(quire_options, io_depth);  // an older program's: what it lacks is default
  options.known.flags = ~0u;
  CachePtr cache(quire_cache_create(&options.known));
  EXPECT_NE(cache, nullptr) << quire_error_message();
  options.known.flags = 0;
  options.known.struct_size = sizeof options;  // a newer program's, with nothing new set
  cache.reset(quire_cache_create(&options.known));
  EXPECT_NE(cache, nullptr) << quire_error_message();
  options.more[3] = 1;
  EXPECT_FAILS(EINVAL, quire_cache_create(&options.known));
}

TEST(CacheCreate, OptionsAndDestroyFlags) {
  quire_options options{sizeof(quire_options), 4 * kMiB, 0, 0x80000000u};
  EXPECT_FAILS(EINVAL, quire_cache_create(&options));
  EXPECT_MESSAGE_HAS("0x80000000");
  options.flags = 0;
  options.memory = ~std::size_t{0} >> 1;
  EXPECT_FAILS(EINVAL, quire_cache_create(&options));
  options.memory = 4 * kMiB;
  options.io_depth = 1;
  CachePtr cache(quire_cache_create(&options));
  ASSERT_NE(cache, nullptr);
  EXPECT_FAILS(EINVAL, quire_cache_destroy(cache.get(), 2));
  const CachePtr defaults(quire_cache_create(nullptr));
  ASSERT_NE(defaults, nullptr) << quire_error_message();
}

TEST(CacheDestroy, BusyWhileFilesAreOpen) {
  const TempDir dir;
  CachePtr cache = make_cache();
  FilePtr file = open_file(cache, dir / "file", O_RDWR | O_CREAT);
  write_all(file, "dirty", 0);
  EXPECT_FAILS(EBUSY, quire_cache_destroy(cache.get(), 0));
  EXPECT_FAILS(EBUSY, quire_cache_destroy(cache.get(), QUIRE_DISCARD));
  EXPECT_EQ(read_all(file, 5, 0), "dirty");
  close_file(file);
  EXPECT_EQ(quire_cache_destroy(cache.release(), 0), 0);
  EXPECT_EQ(host_read(dir / "file"), "dirty");
}

}  // namespace
}  // namespace quire::api_testing
