// FileDevice by every engine, on the current directory and on tmpfs: the fixture of its tests.
#pragma once

#include <ostream>
#include <span>

#include "device/device_test_util.h"
#include "device/file_device.h"

namespace quire::testing_support {

struct Engine {
  const char* name;
  const char* directory;
  bool use_io_uring;
  bool direct;
  bool submit;  // else execute
};

inline std::ostream& operator<<(std::ostream& out, const Engine& engine) { return out << engine.name; }

class FileDeviceEngines : public ::testing::TestWithParam<Engine> {
 protected:
  FileDeviceEngines() : file_(GetParam().directory) {}
  void SetUp() override {
    ASSERT_GE(file_.buffered(), 0);
    auto made = IoThread::create({.depth = 8, .use_io_uring = GetParam().use_io_uring, .stats = &stats_});
    ASSERT_TRUE(made.ok());
    io_thread_ = made.take();
    device_ = std::make_unique<FileDevice>(options());
  }
  FileDeviceOptions options() {
    return {.direct_fd = GetParam().direct ? file_.direct() : -1,
            .buffered_fd = file_.buffered(),
            .direct_alignment = 512,
            .use_io_uring = GetParam().use_io_uring,
            .stats = &stats_,
            .io_thread = io_thread_.get()};
  }
  void run_batch(std::span<Request* const> batch) {
    if (GetParam().submit) {
      submit_and_wait(*device_, batch);
    } else {
      device_->execute(batch);
    }
  }
  // With a second one that moves nothing: a request alone takes a system call, whatever the engine.
  std::int64_t run_one(Io& io) {
    Io nothing(IoOp::read, 0, nullptr, 0);
    Request* const batch[] = {&io.request, &nothing.request};
    run_batch(batch);
    EXPECT_EQ(nothing.request.result, 0);
    return io.request.result;
  }

  IoStats stats_;
  TempFile file_;
  std::unique_ptr<IoThread> io_thread_;
  std::unique_ptr<FileDevice> device_;
};

inline auto engines() {
  return ::testing::Values(
      Engine{"RingDirect", ".", true, true, false}, Engine{"RingBuffered", ".", true, false, false},
      Engine{"PlainDirect", ".", false, true, false}, Engine{"PlainBuffered", ".", false, false, false},
      Engine{"ThreadRingDirect", ".", true, true, true}, Engine{"ThreadRingBuffered", ".", true, false, true},
      Engine{"ThreadPlainDirect", ".", false, true, true}, Engine{"TmpfsRing", "/dev/shm", true, true, false},
      Engine{"TmpfsThread", "/dev/shm", true, true, true});
}

inline std::string engine_name(const ::testing::TestParamInfo<Engine>& tested) { return tested.param.name; }

}  // namespace quire::testing_support
