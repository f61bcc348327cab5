// File systems and a block device that a test of host files makes for itself: images in memory, mounted in a mount
// namespace of its own at first use and for the rest of the process. However it ends, the kernel takes them down. For
// root; others skip.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace quire::host_testing {

// A directory under TMPDIR, removed at the end.
class OwnDirectory {
 public:
  OwnDirectory() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/quire-host.XXXXXX";
    EXPECT_NE(mkdtemp(path_.data()), nullptr) << path_ << ": " << std::strerror(errno);
  }
  ~OwnDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  OwnDirectory(const OwnDirectory&) = delete;
  OwnDirectory& operator=(const OwnDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A loop device over memory, which clears itself when its last user (this, or a mount) is gone.
class MemoryDisk {
 public:
  explicit MemoryDisk(off_t bytes, unsigned sector = 512) {
    static unsigned made = 0;  // a name of its own: mkfs.btrfs takes loops over files of one name for one disk
    const std::string name = "quire-test-disk-" + std::to_string(getpid()) + "-" + std::to_string(made++);
    const int memory = memfd_create(name.c_str(), MFD_CLOEXEC);
    const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    const bool sized = memory >= 0 && ftruncate(memory, bytes) == 0;
    for (int tries = 0; control >= 0 && sized && tries < 50 && fd_ < 0; ++tries) {
      const int number = ioctl(control, LOOP_CTL_GET_FREE);
      if (number < 0) break;
      path_ = "/dev/loop" + std::to_string(number);
      fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
      loop_config config = {};
      config.fd = static_cast<unsigned>(memory);
      config.block_size = sector;
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (fd_ >= 0 && ioctl(fd_, LOOP_CONFIGURE, &config) == 0) break;
      if (fd_ >= 0) ::close(fd_);  // another test was quicker
      fd_ = -1;
      usleep(10'000);
    }
    if (memory >= 0) ::close(memory);
    if (control >= 0) ::close(control);
  }
  ~MemoryDisk() {
    if (fd_ >= 0) ::close(fd_);
  }
  MemoryDisk(const MemoryDisk&) = delete;
  MemoryDisk& operator=(const MemoryDisk&) = delete;
  bool ok() const { return fd_ >= 0; }
  const std::string& path() const { return path_; }

 private:
  int fd_ = -1;
  std::string path_;
};

// "here" is TMPDIR, whatever it lies on. The others: ext4, ext4-mapped (indirect blocks, of 1 KiB), ext4-mapped4k (of
// 4 KiB), ext4-sector4k (on a disk of such sectors), ext4-journal (data, too, goes through it), xfs, xfs-exchange (with
// the feature that exchanging ranges needs), btrfs, tmpfs.
class TestFilesystem {
 public:
  static TestFilesystem& get(const std::string& name) {
    static std::map<std::string, std::unique_ptr<TestFilesystem>> made;
    auto& filesystem = made[name];
    if (!filesystem) filesystem.reset(new TestFilesystem(name));
    return *filesystem;
  }
  ~TestFilesystem() {
    if (mounted_) umount2(directory_.path().c_str(), MNT_DETACH);
  }
  const std::string& why_not() const { return why_not_; }  // empty: it is there
  const std::string& path() const { return directory_.path(); }

 private:
  explicit TestFilesystem(const std::string& name) {
    if (name == "here") return;
    if (geteuid() != 0) {
      why_not_ = "only root can mount " + name;
    } else if (!private_mounts()) {
      why_not_ = "no mount namespaces here";
    } else if (name == "tmpfs") {
      finish(mount("quire-test", path().c_str(), "tmpfs", 0, "mode=0755,size=64m"), "tmpfs");
    } else {
      make_and_mount(name);
    }
  }
  // True once this process (its main thread) has mounts of its own.
  static bool private_mounts() {
    static const bool done =
        unshare(CLONE_NEWNS) == 0 && mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    return done;
  }
  void finish(int mount_result, const std::string& what) {
    mounted_ = mount_result == 0;
    if (!mounted_) why_not_ = "this machine does not mount " + what + ": " + std::strerror(errno);
  }
  void make_and_mount(const std::string& name) {
    const std::string type = name.substr(0, name.find('-'));
    const MemoryDisk disk(type == "ext4"  ? 64 << 20
                          : type == "xfs" ? 512 << 20
                                          : 256 << 20,
                          name == "ext4-sector4k" ? 4096 : 512);
    if (!disk.ok()) {
      why_not_ = "no loop device for " + name;
      return;
    }
    std::string make = "mkfs." + type + " -q ";
    if (type == "ext4") make += name == "ext4-mapped" ? "-F -b 1024 " : "-F -b 4096 ";
    if (name.starts_with("ext4-mapped")) make += "-O ^extents,^64bit ";
    if (type == "xfs" || type == "btrfs") make += "-f ";
    make += disk.path();
    // Older mkfs.xfs does not know the feature; its bit in the superblock is all there is to it.
    if (name == "xfs-exchange") {
      make += " && features=$(xfs_db -r -c 'sb 0' -c 'print features_incompat' " + disk.path() +
              ") && xfs_db -x -c 'sb 0' -c \"write -d features_incompat $((${features##*=} | 0x40))\" " + disk.path();
    }
    const std::string command = "PATH=$PATH:/usr/sbin:/sbin; (" + make + ") >/dev/null 2>&1";
    const int status = std::system(command.c_str());
    if (status != 0) {
      why_not_ = WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "no tools that make " : "no image made of ";
      why_not_ += name;
      return;
    }
    const char* const options = name == "ext4-journal" ? "data=journal" : nullptr;
    finish(mount(disk.path().c_str(), path().c_str(), type.c_str(), MS_NOATIME, options), name);
  }

  const OwnDirectory directory_;
  std::string why_not_;
  bool mounted_ = false;
};

}  // namespace quire::host_testing
