// File systems and devices that a test makes for itself, in a mount namespace of its own: the kernel takes them down
// with the process, however it ends. For root; others skip.
#pragma once

#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include "api/api_test_util.h"

namespace quire::api_testing {

// True once this process (its main thread) has mounts of its own.
inline bool private_mounts() {
  static const bool done =
      geteuid() == 0 && unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return done;
}

// A tmpfs of a few pages: what fills up. mounted() is false where that is not allowed.
class SmallTmpfs {
 public:
  explicit SmallTmpfs(std::size_t bytes) {
    const std::string size = "mode=0755,size=" + std::to_string(bytes);
    mounted_ = private_mounts() && mount("quire-test", dir_.path().c_str(), "tmpfs", 0, size.c_str()) == 0;
  }
  ~SmallTmpfs() {
    if (mounted_) umount2(dir_.path().c_str(), MNT_DETACH);
  }
  SmallTmpfs(const SmallTmpfs&) = delete;
  SmallTmpfs& operator=(const SmallTmpfs&) = delete;
  bool mounted() const { return mounted_; }
  std::string operator/(const std::string& name) const { return dir_ / name; }
  // Takes all the room that is left; free() gives it back.
  void fill() {
    Fd fd(dir_ / "ballast", O_WRONLY | O_CREAT | O_APPEND);
    const std::string page(4096, 'b');
    while (::write(fd, page.data(), page.size()) > 0) {
    }
  }
  void free() { EXPECT_EQ(unlink((dir_ / "ballast").c_str()), 0); }

 private:
  TempDir dir_;
  bool mounted_ = false;
};

// A block device over a file. The device clears itself when its last user is gone. path() is empty where there is none.
class LoopDevice {
 public:
  explicit LoopDevice(const std::string& file, unsigned sector = 512) {
    const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    const int backing = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
    for (int tries = 0; control >= 0 && backing >= 0 && tries < 50 && fd_ < 0; ++tries) {
      const int number = ioctl(control, LOOP_CTL_GET_FREE);
      if (number < 0) break;
      path_ = "/dev/loop" + std::to_string(number);
      fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
      loop_config config = {};
      config.fd = static_cast<unsigned>(backing);
      config.block_size = sector;
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (fd_ >= 0 && ioctl(fd_, LOOP_CONFIGURE, &config) == 0) break;
      if (fd_ >= 0) ::close(fd_);  // another test was quicker
      fd_ = -1;
      usleep(10'000);
    }
    if (fd_ < 0) path_.clear();
    if (backing >= 0) ::close(backing);
    if (control >= 0) ::close(control);
  }
  ~LoopDevice() {
    if (fd_ >= 0) ::close(fd_);
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  const std::string& path() const { return path_; }

 private:
  int fd_ = -1;
  std::string path_;
};

}  // namespace quire::api_testing
