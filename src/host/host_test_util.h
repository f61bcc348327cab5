// What the host tests share: a directory and files in it, by plain system calls.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

namespace quire::host_testing {

class HostTest : public ::testing::Test {
 protected:
  HostTest() {
    const char* base = std::getenv("TMPDIR");
    dir_ = std::string(base != nullptr && *base != '\0' ? base : "/tmp") + "/quire-host.XXXXXX";
    EXPECT_NE(mkdtemp(dir_.data()), nullptr) << dir_ << ": " << std::strerror(errno);
  }
  ~HostTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }
  std::string path(const char* name = "file") const { return dir_ + "/" + name; }
  void write(const std::string& path, std::string_view bytes, off_t offset = 0) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ASSERT_GE(fd, 0) << path << ": " << std::strerror(errno);
    EXPECT_EQ(::pwrite(fd, bytes.data(), bytes.size(), offset), static_cast<ssize_t>(bytes.size()));
    ::close(fd);
  }
  std::string read(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_GE(fd, 0) << path << ": " << std::strerror(errno);
    struct stat st = {};
    fstat(fd, &st);
    std::string bytes(static_cast<std::size_t>(st.st_size), '?');
    EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    ::close(fd);
    return bytes;
  }
  std::string dir_;
};

}  // namespace quire::host_testing
